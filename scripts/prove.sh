#!/usr/bin/env bash
# Attacks podkit on each engine by the installed command, beside a container of Docker's own defaults,
# and writes the table of docs/security.md.
#   (no argument)     embedded, Docker and Podman; the table goes into docs/security.md
#   ENGINE...         these alone; nothing is written but what is found
# Wants root, a C compiler, and for Docker and Podman what `scripts/engines.sh start` makes.
set -euo pipefail
cd "$(dirname "$0")/.."

image=podkit-test/debian:1
engines=("$@")
[ $# -gt 0 ] || engines=(docker podman embedded)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# A build that is there already may be named.
podkit=${PODKIT:-}
if [ -z "$podkit" ]; then
    cargo build --release -q -p podkit-cli
    podkit=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/podkit
fi

bad=0
for engine in "${engines[@]}"; do
    arguments=(doctor --attack --format json --backend "$engine" --prefix prove --state-dir "$out/state")
    case $engine in
    docker) arguments+=(--beside "docker:$image") ;;&
    docker | podman) export PODKIT_IMAGE=$image ;;
    *) unset PODKIT_IMAGE ;;
    esac
    echo "prove: attack $engine" >&2
    "$podkit" "${arguments[@]}" >"$out/$engine.json" || bad=1
    python3 scripts/prove-table.py summary "$out/$engine.json"
done
if [ $# -eq 0 ]; then
    python3 scripts/prove-table.py table docs/security.md "$out"/{docker,podman,embedded}.json
fi
exit $bad
