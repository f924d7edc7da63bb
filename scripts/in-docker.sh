#!/usr/bin/env bash
# Runs the tests of Docker, the conformance suite among them, in a container that has Docker's socket. The
# engines run already: `./scripts/test.sh --in-docker` sees to that. They are built here; what they need
# besides is shown to the container read-only. Words are the names of tests, for nextest.
#
# The tests' directories and programs have the same path here and in there: the engine, which mounts
# them, is outside. So are the ports that it offers (hence the host's network), and the pids that it tells
# (hence the host's, for the tests that kill a container's agent).
set -euo pipefail
cd "$(dirname "$0")/.."

image=podkit-test/debian:1
socket=/run/docker.sock
if [ "$(id -u)" != 0 ]; then
    echo "error: Docker's tests are run by root" >&2
    exit 1
fi

# Where tests keep their files.
own=$(mktemp -d /var/tmp/podkit-in-docker.XXXXXX)
name=$(basename "$own" | tr '[:upper:].' '[:lower:]-')
trap 'docker rm -f "$name" >/dev/null 2>&1 || true; rm -rf "$own"' EXIT

echo "in-docker: build the tests" >&2
cargo nextest archive --archive-file "$own/tests.tar.zst" -p podkit -p podkit-cli \
    --features podkit/conformance --test conformance --test engines --test nested
nextest=$(command -v cargo-nextest)

# The attacks have their aims on the host itself, and a client outside of all containers is there. What is
# in the tests of the engines beside the nested clients starts engines and servers of its own, which is for
# the host as well.
tests='binary(conformance) | test(/docker::/) & (binary(nested) | test(/::nested::/))'
tests="($tests) & not test(/isolation_attacks|client_outside/)"

echo "in-docker: run them in a container" >&2
docker run --rm --name "$name" --hostname podkit-tests --network host --pid host \
    -v "$socket:$socket" -v /var/tmp:/var/tmp -v "$PWD:$PWD:ro" -v "$nextest:$nextest:ro" \
    -v /usr:/usr:ro -v /etc/alternatives:/etc/alternatives:ro -w "$PWD" \
    -e PODKIT_TEST_BACKENDS=memory,docker -e HOME=/root \
    "$image" \
    "$nextest" nextest run --archive-file "$own/tests.tar.zst" --extract-to "$own" \
    --workspace-remap "$PWD" --profile in-docker -E "$tests" "$@"
