"""The client of a point of sale: a photo in, an advice out.

photo.py   any photo → a small upright JPEG, or why not
wire.py    JPEGs → bytes of a request; bytes of an answer → ages; the channel
policy.py  ages → an advice, by policy.json
client.py  one call from photo to advice, inside its deadline; sync and asyncio
audit.py   a line per advice
batch.py   many photos → a table of ages and age groups
"""

from goodseed_client.advice import Advice, Failure, Kind, Reason
from goodseed_client.client import AgeClient, AsyncAgeClient
from goodseed_client.policy import Policy

__all__ = ["Advice", "AgeClient", "AsyncAgeClient", "Failure", "Kind", "Policy", "Reason"]
