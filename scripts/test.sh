#!/usr/bin/env bash
# Does everything on a fresh machine: installs what tests need, builds, and runs all tests.
# `./scripts/test.sh NAME` runs only the tests whose names contain NAME.
# `./scripts/test.sh --in-docker [NAME]` runs the tests of Docker in a container that has its socket, as
# a client would that runs in one itself.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/install.sh
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"
export RUSTFLAGS="${RUSTFLAGS--D warnings}"

say() { printf '\n== %s (%s s)\n' "$*" "$SECONDS" >&2; }

# Runs something beside the rest of this script, on what that leaves of the processors.
in_rest() { # LOG COMMAND...
    setsid chrt --idle 0 "${@:2}" >"$1" 2>&1 &
    builder=$!
}
engines_run() { [ -z "$engines" ] || wait "$engines"; }

ahead=$(mktemp -d /var/tmp/podkit-test.XXXXXX)
chmod 755 "$ahead"
builder='' engines='' running=''
cleanup() {
    [ -z "$builder" ] || kill -- "-$builder" 2>/dev/null || true
    wait
    [ -z "$engines" ] || ./scripts/engines.sh stop $running
    rm -rf "$ahead"
}
trap cleanup EXIT

if [ "$(id -u)" = 0 ]; then
    # Those that run already stay.
    running=$(./scripts/engines.sh running | tr '\n' ' ')
    ./scripts/engines.sh start &
    engines=$!
else
    echo "not root: without the tests of Docker and Podman, which start these engines" >&2
    export PODKIT_TEST_BACKENDS="${PODKIT_TEST_BACKENDS:-memory,embedded,embedded-without-cgroups,embedded-as-user}"
fi

if [ "${1:-}" = --in-docker ]; then
    shift
    engines_run
    ./scripts/in-docker.sh "$@"
    exit
fi

if [ $# -gt 0 ]; then
    engines_run
    cargo nextest run --workspace --features podkit/conformance "$@"
    exit
fi

say "formatting and lints"
cargo fmt --all --check
cargo clippy --workspace --all-targets --features podkit/conformance -- -D warnings
./scripts/build-agent.sh --clippy

say "the shipped agent is what its sources build"
./scripts/build-agent.sh --check

say "tests"
cargo nextest run --profile ci --workspace --features podkit/conformance --no-run
engines_run
before=$(./scripts/leftovers.sh)
cargo nextest run --profile ci --workspace --features podkit/conformance
cargo test -q --doc --workspace --features podkit/conformance

say "the Python package: a wheel in a fresh environment"
PROFILE=dev ./scripts/build-wheel.sh "$ahead/dist"
export WHEELS="$ahead/dist"
if [ "$(id -u)" = 0 ]; then
    # What the next step needs is built meanwhile: these tests are one after the other.
    in_rest "$ahead/release" ./scripts/first-run.sh --build "$ahead/first-run"
    PODKIT_TEST_ALSO=podman ./scripts/test-python.sh
else
    PODKIT_TEST_BACKENDS=embedded ./scripts/test-python.sh
fi

if [ "$(id -u)" = 0 ]; then
    say "the first command of the README: as root, and as an ordinary user with and without sub-ids"
    wait "$builder" || { cat "$ahead/release" >&2; exit 1; }
    ./scripts/first-run.sh "$ahead/first-run"
fi

say "nothing of ours is left"
# The kernel takes the last processes and groups away a moment after their end.
for _ in $(seq 30); do
    after=$(./scripts/leftovers.sh)
    [ "$before" = "$after" ] && break
    sleep 1
done
if [ "$before" != "$after" ]; then
    diff <(echo "$before") <(echo "$after") >&2 || true
    echo "error: the tests left something behind" >&2
    exit 1
fi
say "all passed"
