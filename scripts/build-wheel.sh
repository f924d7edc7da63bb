#!/usr/bin/env bash
# Builds the wheel of the Python package, with the `podkit` command in it, into DIR (python/dist).
# `PROFILE=dev` builds it without optimisation, for tests of changes. maturin is installed from PyPI into a
# virtual environment of its own, beside what cargo builds.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(realpath -m "${1:-python/dist}")
profile=${PROFILE:-release}
target=${CARGO_TARGET_DIR:-$PWD/target}
tools=$target/python-tools
python=${PYTHON:-/usr/bin/python3}

if [ ! -x "$tools/bin/maturin" ]; then
    "$python" -m venv "$tools"
    "$tools/bin/pip" -q --disable-pip-version-check install 'maturin>=1.9,<2'
fi

cargo build -q --profile "$profile" -p podkit-cli
built=$target/$([ "$profile" = dev ] && echo debug || echo "$profile")
install -D "$built/podkit" python/podkit.data/scripts/podkit
[ "$profile" != dev ] || strip --strip-debug python/podkit.data/scripts/podkit
mkdir -p "$out"
rm -f "$out"/podkit-*.whl
cd python
"$tools/bin/maturin" build -q --profile "$profile" --strip --interpreter "$python" --out "$out"
echo "$out"/podkit-*.whl
