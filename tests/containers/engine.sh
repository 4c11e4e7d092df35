#!/usr/bin/env bash
# Starts a Docker engine on machines without one, such as CI's. Makes the base image if no registry has
# it.
#
#   tests/containers/engine.sh start   uses a running engine, or starts dockerd (as root)
#   tests/containers/engine.sh stop    stops the engine that `start` started
#
# If there can be no engine, `start` prints one line, and its status is not 0. The containers have no
# network, because no step may need one.
set -euo pipefail

readonly state=${XDG_RUNTIME_DIR:-/run}/goodseed-engine
readonly base=debian:trixie-slim

die() {
  echo "engine: $*" >&2
  exit 1
}

start() {
  docker info &>/dev/null || start_daemon
  docker image inspect "$base" &>/dev/null || docker pull --quiet "$base" 2>/dev/null || make_base
}

start_daemon() {
  command -v dockerd >/dev/null || die "no Docker here (Debian, Ubuntu: apt-get install docker.io)"
  [ "$(id -u)" = 0 ] || die "Docker does not run, and only root may start it"
  mkdir -p "$state"
  setsid dockerd --bridge=none --iptables=false --pidfile "$state/pid" &>"$state/log" </dev/null &
  for _ in $(seq 60); do
    docker info &>/dev/null && return
    kill -0 $! 2>/dev/null || break
    sleep 0.5
  done
  stop
  die "dockerd does not start: $(grep -v level=info "$state/log" | tail -n 1)"
}

# Makes the same as debian:trixie-slim: a minimal Debian without manuals and translations.
make_base() {
  command -v debootstrap >/dev/null ||
    die "no registry has $base, and debootstrap to make it is missing (apt-get install debootstrap)"
  local root mirror
  root=$(mktemp -d)
  # shellcheck disable=SC2064  # $root is expanded now
  trap "rm -rf '$root'" EXIT
  # shellcheck disable=SC2016  # apt expands this variable
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
  debootstrap --variant=minbase trixie "$root" "$mirror" >"$root.log" 2>&1 ||
    die "debootstrap: $(tail -n 1 "$root.log")"
  rm -rf "$root"/var/{cache/apt,lib/apt/lists,log}/* "$root"/usr/share/{doc,info,locale,man}/*
  tar -C "$root" -c . | docker import - "$base" >/dev/null
}

stop() {
  [ -e "$state/pid" ] || return 0
  kill "$(cat "$state/pid")" 2>/dev/null || true
  while [ -e "$state/pid" ]; do sleep 0.2; done
}

case ${1:-} in
  start | stop) "$1" ;;
  *) die "usage: $0 start|stop" ;;
esac
