"""What asks the model, and what serves it; a point of sale starts at `AgeClient`."""

from serving.client import Advice, AgeClient, AsyncAgeClient, Kind, Policy, Reason

__all__ = ["Advice", "AgeClient", "AsyncAgeClient", "Kind", "Policy", "Reason"]
