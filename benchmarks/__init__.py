"""Commands that measure; each appends to a file in results/."""

import os

# As the `goodseed` command sets them, before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
