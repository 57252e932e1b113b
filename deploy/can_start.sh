#!/bin/sh
# What `make up` and `make down` need: says what is missing, and what to do, before docker says it less clearly.
missing() {
  printf '%s\n  %s\n' "$1" "$2" >&2
  exit 2
}

case "$1" in
  small | full) ;;
  *) missing "there is no profile '$1'" "give PROFILE=small or PROFILE=full" ;;
esac
[ -f .env ] || missing "there is no .env" "make env writes one with new secrets; then fill in the bucket"
command -v docker >/dev/null || missing "docker is not installed" "install Docker Engine 25 or newer with its compose plugin; without it: make airflow"
docker compose version >/dev/null 2>&1 || missing "docker has no compose" "install Docker's compose plugin, 2.24 or newer"
docker info >/dev/null 2>&1 || missing "the Docker engine does not answer" "start it, and see whether you may use it: docker info"
