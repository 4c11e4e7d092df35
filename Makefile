# What people and CI run. Everything works from a fresh clone: a target that needs .venv makes it first.

.DEFAULT_GOAL := help
.PHONY: help bootstrap demo test test-all test-containers test-flink lint dist lock protos image \
        beam-image wheelhouse

# TensorFlow's C++ side: warnings and errors only.
export TF_CPP_MIN_LOG_LEVEL ?= 2
# The same as in the `goodseed` command.
export TF_ENABLE_ONEDNN_OPTS ?= 1

bin      := .venv/bin
packages := pipeline components schemas serving
demo     := runs/demo

# The image: its engine, name and base, and a tag that changes with the code.
DOCKER   ?= docker
IMAGE    ?= goodseed
BASE     ?= debian:trixie-slim
GPU      ?=
revision  = $(shell git rev-parse --short=12 HEAD)$(shell git diff --quiet HEAD || \
              { printf -; git diff HEAD | sha256sum | cut -c -8; })
tag       = $(revision)$(if $(GPU),-gpu)
# The certificates that this machine trusts, also those of a company's proxy.
ca       := $(wildcard /etc/ssl/certs/ca-certificates.crt)

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

bootstrap:  ## .venv as requirements.lock says; fast when nothing changed
	@./bootstrap.sh

demo: bootstrap  ## Draw photos, train on them, push the model: the whole graph, in runs/demo
	$(bin)/goodseed sample-photos $(demo)-photos
	$(bin)/goodseed run --photos $(demo)-photos --run-dir $(demo) --profile demo

# Two workers, because much of a run uses only one thread. The tests of a file stay in one worker, so
# their fixtures are made once. The files keep their order: pytest-xdist would put the longest ones last.
pytest := $(bin)/python -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder

test: bootstrap  ## The fast tests, the whole graph once; ARGS="-k name" for some, -n0 for a debugger
	$(pytest) -m 'not slow and not e2e' $(ARGS)

test-all: bootstrap  ## Every test except those of the image, with coverage
	$(pytest) --cov --cov-report=term $(ARGS)

test-containers: bootstrap  ## The tests of the image, in an engine that is started if none runs
	tests/containers/engine.sh start
	$(MAKE) --no-print-directory wheelhouse image
	GOODSEED_IMAGE=$(IMAGE):$(tag) $(bin)/python -m pytest tests/containers $(ARGS)

test-flink: bootstrap  ## The whole graph on Flink, as k8s/beam deploys it, in the same engine; needs Maven
	tests/containers/engine.sh start
	$(MAKE) --no-print-directory wheelhouse image beam-image
	GOODSEED_IMAGE=$(IMAGE):$(tag) GOODSEED_BEAM_IMAGE=$(IMAGE)-beam:$(revision) \
	  $(bin)/python -m pytest tests/flink $(ARGS)

docker_build = $(DOCKER) build $(if $(wildcard wheelhouse/Packages),--network none) \
                 --build-arg BASE=$(BASE)

image:  ## Build IMAGE:<git revision>, from wheelhouse/ if it exists; GPU=1 adds CUDA's libraries
	$(docker_build) --build-arg GPU=$(GPU) --build-arg REVISION=$(tag) --tag $(IMAGE):$(tag) .

beam-image: k8s/beam/lib  ## Build IMAGE-beam:<git revision>, Flink and Beam's job server, from pinned jars
	$(docker_build) --file k8s/beam/Dockerfile --build-arg REVISION=$(revision) \
	  --tag $(IMAGE)-beam:$(revision) .

# Exactly the jars of SHA256SUMS. The folder is renamed last: it holds all of them or is missing.
k8s/beam/lib: k8s/beam/pom.xml k8s/beam/SHA256SUMS
	@command -v mvn >/dev/null || \
	  { echo 'make: $@ needs Maven (Debian, Ubuntu: apt-get install maven)' >&2; exit 1; }
	rm -rf $@ $@.new
	mvn --batch-mode --quiet -f $< package -DoutputDirectory=$(CURDIR)/$@.new
	cd $@.new && sha256sum --quiet --strict -c ../SHA256SUMS
	@[ "$$(ls $@.new | wc -l)" -eq "$$(wc -l <k8s/beam/SHA256SUMS)" ] || \
	  { echo 'make: $@.new has a jar that k8s/beam/SHA256SUMS does not name' >&2; exit 1; }
	mv $@.new $@

wheelhouse: wheelhouse/Packages  ## Fetch what the image needs, to build it without a network
wheelhouse/Packages: setup.py requirements.lock requirements-gpu.lock wheelhouse.sh
	rm -rf wheelhouse && mkdir wheelhouse
	$(DOCKER) run --rm --network host -v $(CURDIR):/src:ro -v $(CURDIR)/wheelhouse:/wheelhouse \
	  $(if $(ca),-v $(ca):/ca.crt:ro -e PIP_CERT=/ca.crt -e SSL_CERT_FILE=/ca.crt) -e GPU=$(GPU) \
	  -e http_proxy -e https_proxy -e no_proxy -e PIP_INDEX_URL -e UV_DEFAULT_INDEX \
	  $(BASE) /src/wheelhouse.sh

lint: bootstrap  ## ruff and mypy, as CI runs them
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy $(packages) benchmarks tests

# An old build/ is deleted first: setuptools would put its files into the wheels, also deleted ones.
dist: bootstrap  ## Build the wheels of the pipeline and of the client into dist/
	rm -rf build dist serving/client/build
	$(build) .
	$(build) serving/client
build     = $(bin)/uv build --wheel --no-build-isolation --python $(bin)/python --out-dir dist --quiet

# CUDA's libraries are large. They have a second lock file, so that .venv does not get them. It takes
# TensorFlow's version from the first one.
lock: bootstrap  ## Write the lock files from setup.py; ARGS=--upgrade for newer versions
	$(compile) setup.py --extra dev --output-file requirements.lock
	echo 'tensorflow[and-cuda]' | \
	  $(compile) - --constraints requirements.lock --output-file requirements-gpu.lock
compile   = $(bin)/uv pip compile $(ARGS) --universal --python-version 3.11 \
              --generate-hashes --no-emit-index-url --no-emit-find-links \
              --custom-compile-command 'make lock' --quiet

# Code from a newer protoc would not run with the oldest protobuf that the client allows.
protos: bootstrap  ## Write serving/client/goodseed_client/predict_pb2.py from its .proto
	$(bin)/uv run --no-project --isolated --with grpcio-tools==1.74.0 \
	  python -m grpc_tools.protoc -Iserving/client --python_out=serving/client --pyi_out=serving/client \
	  goodseed_client/predict.proto
