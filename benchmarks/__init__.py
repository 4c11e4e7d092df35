"""Figures; each module is a command. TensorFlow is loaded as the `goodseed` command loads it."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
