#!/usr/bin/env bash
# Tests the Python package as its users have it: builds the wheel, installs it into a fresh virtual
# environment, and runs pytest from there, on the engines in PODKIT_TEST_BACKENDS (embedded,docker); a few tests on
# those in PODKIT_TEST_ALSO, too. WHEELS names a directory that has the wheel already.
# `./scripts/test-python.sh -k NAME` passes what it is given on to pytest. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-/usr/bin/python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Containers of other users of this machine's are made from what is below.
chmod 755 "$work"

wheels=${WHEELS:-$work/dist}
[ -n "${WHEELS:-}" ] || PROFILE="${PROFILE:-release}" PYTHON=/usr/bin/python3 ./scripts/build-wheel.sh "$wheels"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" -q --disable-pip-version-check install --no-index "$wheels"/podkit-*.whl
# The wheel needs nothing else; these are for the tests.
"$work/venv/bin/pip" -q --disable-pip-version-check install 'pytest>=8' 'hypothesis>=6' 'mypy>=1.15' \
    'docker>=7' 'ipykernel>=6'

cp -r python/tests "$work/tests"
cp README.md "$work/tests"
cp python/pyproject.toml "$work/pyproject.toml"
cd "$work/tests"
"$work/venv/bin/python" -m pytest -c "$work/pyproject.toml" --rootdir "$work/tests" -q "$@"
