#!/bin/sh
# Fills /wheelhouse with everything that the Dockerfiles install: Debian's and Python's packages.
# `make wheelhouse` runs this script in a container of the image's base, so that interpreter, platform
# and Debian's versions are those of the image. Only this container needs a network.
set -eu
cd /wheelhouse
mkdir -p partial
apt-get update
# Java is for k8s/beam/Dockerfile.
apt-get install -y --no-install-recommends -o Dir::Cache::archives=/wheelhouse \
  ca-certificates g++ libstdc++6 openjdk-21-jre-headless python3-dev python3-venv

# The index that apt needs to install from this folder. apt has just checked the signatures.
for deb in *.deb; do
  dpkg-deb --field "$deb"
  printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' \
    "$deb" "$(stat --format %s "$deb")" "$(sha256sum "$deb" | cut -d ' ' -f 1)"
done >Packages

python3 -m venv /opt/tools
pip() { /opt/tools/bin/pip --disable-pip-version-check "$@"; }
sed -n '/^\(setuptools\|uv\)==/,/[^\\]$/p' /src/requirements.lock >/tmp/tools.txt
pip download --require-hashes -r /tmp/tools.txt
pip install --no-index --find-links . --require-hashes -r /tmp/tools.txt
# shellcheck disable=SC2086  # GPU is a flag
/opt/tools/bin/uv pip compile /src/setup.py ${GPU:+--extra gpu} --quiet \
  --python /opt/tools/bin/python --no-build-isolation \
  -c /src/requirements.lock -c /src/requirements-gpu.lock -o /tmp/requirements.txt
# The Dockerfile checks the hashes. pip needs setuptools, installed above, to look into an sdist.
pip download --no-build-isolation --no-deps -r /tmp/requirements.txt

rm -rf partial lock
chown -R "$(stat --format %u:%g .)" .
