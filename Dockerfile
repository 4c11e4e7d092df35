# The pipeline's image: what every step on Kubeflow runs in, and Beam's workers with it.
#
#   make image            as requirements.lock says, tagged with the git revision
#   make image GPU=1      with CUDA's libraries, as requirements-gpu.lock says
#
# Where wheelhouse/ is (`make wheelhouse`), all comes from there and no network is used. Any builder
# will do, BuildKit or not: that is why folders are copied and not mounted.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS base
ENV DEBIAN_FRONTEND=noninteractive
# The lock files are there to match in any case: nothing matching would be an error.
COPY requirements.lock requirements-gpu.lock wheelhouse* /wheelhouse/
RUN if [ -e /wheelhouse/Packages ]; then \
      echo 'deb [trusted=yes] file:/wheelhouse ./' >/wheelhouse/sources.list && \
      printf '%s\n' 'Dir::Etc::SourceList "/wheelhouse/sources.list";' \
        'Dir::Etc::SourceParts "/dev/null";' >/etc/apt/apt.conf.d/wheelhouse; \
    fi && \
    apt-get update

# ---- Debian with Python, and nothing else -------------------------------------------------------
FROM base AS system
# libstdc++6 is what TFX's wheels link to; Keras fetches ImageNet's weights over TLS.
RUN apt-get install -y --no-install-recommends ca-certificates libstdc++6 python3 && \
    rm -rf /wheelhouse /etc/apt/apt.conf.d/wheelhouse /var/lib/apt/lists/* /var/cache/apt/* \
      /var/cache/debconf/*-old /var/log/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/*

# ---- the Python packages, and our code ----------------------------------------------------------
FROM base AS build
# The compiler is for the few requirements that come as source only.
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
# For uv, unlike pip, the hashes of a constraint count: the one lock serves .venv, with its tools
# for developers, and this image, without.
RUN uv pip compile /src/setup.py --extra pipeline ${GPU:+--extra gpu} --quiet \
      -c requirements.lock -c requirements-gpu.lock -o /tmp/requirements.txt && \
    uv pip install --python /opt/venv/bin/python --no-deps --compile-bytecode --require-hashes \
      -r /tmp/requirements.txt -c requirements.lock -c requirements-gpu.lock
# Headers, tests and symbol tables are of no use to who neither compiles nor debugs.
WORKDIR /opt/venv/lib/python3.13/site-packages
RUN rm -rf tensorflow/include nvidia/*/include /opt/venv/.lock && \
    find numpy pandas pyarrow scipy sklearn -type d -name tests -exec rm -rf {} + && \
    strip --strip-unneeded tensorflow/libtensorflow_*.so.2
COPY pyproject.toml /src/
COPY components /src/components
COPY pipeline /src/pipeline
COPY schemas /src/schemas
COPY serving /src/serving
RUN uv pip install --python /opt/venv/bin/python --no-deps --compile-bytecode \
      --target /opt/goodseed /src /src/serving/client && \
    rm -f /opt/goodseed/.lock

FROM scratch
COPY --from=system / /
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/goodseed /opt/goodseed
# Any user will do, OpenShift's random ones too: it has no name or home elsewhere, and writes to
# /tmp and to what is mounted. (A name is asked for by Python's getpass, which TFX uses.)
ENV PATH=/opt/goodseed/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/goodseed PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp USER=goodseed TF_CPP_MIN_LOG_LEVEL=2 TF_ENABLE_ONEDNN_OPTS=1
USER 10001:0
WORKDIR /tmp
CMD ["goodseed", "--help"]
# Last, since it changes with each commit and the layers before it need not.
ARG REVISION=
LABEL org.opencontainers.image.title="Good Seed Age Check" \
      org.opencontainers.image.revision=$REVISION
ENV GOODSEED_REVISION=$REVISION
