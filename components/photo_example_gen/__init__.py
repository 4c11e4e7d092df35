"""From a folder of photos to raw examples: the pipeline's first step."""

from components.photo_example_gen.component import Executor, PhotoExampleGen
from components.photo_example_gen.labels import fingerprint

__all__ = ["Executor", "PhotoExampleGen", "fingerprint"]
