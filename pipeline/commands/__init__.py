"""What each `goodseed` command does; `pipeline/cli.py` parses and calls."""
