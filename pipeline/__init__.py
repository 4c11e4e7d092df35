"""The pipeline: which steps there are, where they run, and the `goodseed` command."""

DISTRIBUTION = "goodseed-age-check"  # the name in setup.py
REVISION = "GOODSEED_REVISION"  # environment variable of the image: the revision of this code
