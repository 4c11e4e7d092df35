"""The client for points of sale: a photo in, an advice out.

photo.py   makes a small upright JPEG of any photo, or says why it can't
wire.py    writes requests, reads answers, opens the channel
ages.py    the oldest age that counts, and the age groups
policy.py  turns an answer into an advice, by policy.json
client.py  one call from photo to advice within its timeout; for threads and for asyncio
audit.py   one line per advice in a file
batch.py   many photos to a table of ages and age groups
"""

from goodseed_client.advice import Advice, Failure, Kind, Reason
from goodseed_client.client import AgeClient, AsyncAgeClient
from goodseed_client.policy import Policy

__version__ = "0.1.0"

__all__ = ["Advice", "AgeClient", "AsyncAgeClient", "Failure", "Kind", "Policy", "Reason"]
