# What people and CI run. Everything works from a fresh clone: each target sees to .venv first.

.DEFAULT_GOAL := help
.PHONY: help bootstrap demo test lint lock protos

# TensorFlow's C++ side: warnings and errors only.
export TF_CPP_MIN_LOG_LEVEL ?= 2

bin      := .venv/bin
packages := pipeline components schemas serving
demo     := runs/demo

help:  ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

bootstrap:  ## .venv as requirements.lock says; under a second when nothing changed
	@./bootstrap.sh

demo: bootstrap  ## Draw photos, train on them, push the model: the whole graph into runs/demo
	$(bin)/goodseed sample-photos $(demo)-photos
	$(bin)/goodseed run --photos $(demo)-photos --run-dir $(demo) --profile demo

test: bootstrap  ## The tests, benchmarks aside; ARGS="-k name" for some of them
	$(bin)/python -m pytest tests $(ARGS)

lint: bootstrap  ## ruff and mypy, as CI runs them
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy $(packages) tests

lock: bootstrap  ## requirements.lock from setup.py; ARGS=--upgrade for newer versions
	$(bin)/uv pip compile setup.py --extra pipeline --extra dev $(ARGS) \
	  --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command 'make lock' --quiet --output-file requirements.lock

# The oldest protobuf that setup.py allows reads what this protoc writes.
protos: bootstrap  ## serving/client/predict_pb2.py from its .proto
	$(bin)/uv run --no-project --isolated --with grpcio-tools==1.74.0 \
	  python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. serving/client/predict.proto
