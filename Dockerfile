# The pipeline's image: every step on Kubeflow runs in it, and Beam's workers.
#
#   make image            with the versions of requirements.lock; its tag is the git revision
#   make image GPU=1      also with CUDA's libraries, in the versions of requirements-gpu.lock
#
# If wheelhouse/ exists (`make wheelhouse`), everything comes from there, without a network. Folders
# are copied and not mounted, so that builders other than BuildKit work too.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS base
ENV DEBIAN_FRONTEND=noninteractive
# wheelhouse may be missing; COPY fails only if none of its sources exists.
COPY requirements.lock requirements-gpu.lock wheelhouse* /wheelhouse/
RUN if [ -e /wheelhouse/Packages ]; then \
      echo 'deb [trusted=yes] file:/wheelhouse ./' >/wheelhouse/sources.list && \
      printf '%s\n' 'Dir::Etc::SourceList "/wheelhouse/sources.list";' \
        'Dir::Etc::SourceParts "/dev/null";' >/etc/apt/apt.conf.d/wheelhouse; \
    fi && \
    apt-get update

# ---- Debian with Python -------------------------------------------------------------------------
FROM base AS system
# TFX's wheels need libstdc++6. Keras needs certificates to fetch ImageNet's weights.
RUN apt-get install -y --no-install-recommends ca-certificates libstdc++6 python3 && \
    rm -rf /wheelhouse /etc/apt/apt.conf.d/wheelhouse /var/lib/apt/lists/* /var/cache/apt/* \
      /var/cache/debconf/*-old /var/log/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/*

# ---- the Python packages, and our code ----------------------------------------------------------
FROM base AS build
# The compiler builds the few requirements that are published only as source.
RUN apt-get install -y --no-install-recommends binutils g++ python3-dev python3-venv
WORKDIR /wheelhouse
RUN if [ -e Packages ]; then \
      printf '%s\n' '[global]' 'no-index = true' 'find-links = /wheelhouse' >/etc/pip.conf && \
      mkdir /etc/uv && \
      printf '%s\n' 'no-index = true' 'find-links = ["/wheelhouse"]' >/etc/uv/uv.toml; \
    fi && \
    python3 -m venv --without-pip /opt/venv && \
    python3 -m venv /opt/tools && \
    sed -n '/^uv==/,/[^\\]$/p' requirements.lock >/tmp/tools.txt && \
    /opt/tools/bin/pip install --no-cache-dir --require-hashes -r /tmp/tools.txt
ENV PATH=/opt/tools/bin:$PATH UV_LINK_MODE=copy UV_NO_CACHE=1 \
    UV_BUILD_CONSTRAINT=/wheelhouse/requirements.lock
ARG GPU=
COPY setup.py /src/
# requirements.lock also has the developers' tools, so it serves as a constraint here. uv, unlike
# pip, also takes the hashes of a constraint.
RUN uv pip compile /src/setup.py ${GPU:+--extra gpu} --quiet \
      -c requirements.lock -c requirements-gpu.lock -o /tmp/requirements.txt && \
    uv pip install --python /opt/venv/bin/python --no-deps --compile-bytecode --require-hashes \
      -r /tmp/requirements.txt -c requirements.lock -c requirements-gpu.lock
# Nothing is compiled or debugged in this image: headers, tests and symbol tables can go.
WORKDIR /opt/venv/lib/python3.13/site-packages
RUN rm -rf tensorflow/include nvidia/*/include /opt/venv/.lock && \
    find numpy pandas pyarrow scipy sklearn -type d -name tests -exec rm -rf {} + && \
    strip --strip-unneeded tensorflow/libtensorflow_*.so.2
COPY pyproject.toml /src/
COPY components /src/components
COPY pipeline /src/pipeline
COPY schemas /src/schemas
COPY serving /src/serving
# Without dependencies: a public index may have a stranger's package under one of our names.
RUN uv pip install --python /opt/venv/bin/python --no-deps --compile-bytecode \
      --target /opt/goodseed /src /src/serving/client && \
    rm -f /opt/goodseed/.lock

FROM scratch
COPY --from=system / /
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/goodseed /opt/goodseed
# Any user id works, also OpenShift's random ones. The user has no home folder, and writes to /tmp
# and to mounted folders. TFX asks for the user's name, by Python's getpass.
ENV PATH=/opt/goodseed/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/goodseed PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp USER=goodseed TF_CPP_MIN_LOG_LEVEL=2 TF_ENABLE_ONEDNN_OPTS=1
USER 10001:0
WORKDIR /tmp
CMD ["goodseed", "--help"]
# Last, because it changes with each commit; so the layers above stay cached.
ARG REVISION=
LABEL org.opencontainers.image.title="Good Seed Age Check" \
      org.opencontainers.image.revision=$REVISION
ENV GOODSEED_REVISION=$REVISION
