"""PhotoExampleGen: from a folder of photos to raw examples."""

from components.photo_example_gen.component import Executor, PhotoExampleGen
from components.photo_example_gen.labels import fingerprint

__all__ = ["Executor", "PhotoExampleGen", "fingerprint"]
