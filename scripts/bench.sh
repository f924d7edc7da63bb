#!/usr/bin/env bash
# Prints the tables of docs/benchmarks.md, and draws its plots. Wants an idle machine; needs root for the rows
# as root. `./scripts/bench.sh embedded`, `docker` or `python` makes one part, `copies` Docker's rows of copying
# alone. Those of Docker need an engine with the test images: `./scripts/engines.sh start`. Tools that are not
# installed (bubblewrap, crun, runc, Podman) are left out, and named.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

python_part() {
    local work
    work=$(mktemp -d)
    trap 'rm -rf "$work"' RETURN
    chmod 755 "$work"
    ./scripts/build-wheel.sh "$work/dist" >/dev/null
    /usr/bin/python3 -m venv "$work/venv"
    "$work/venv/bin/pip" -q --disable-pip-version-check install --no-index "$work"/dist/podkit-*.whl
    "$work/venv/bin/python" python/bench/bench.py embedded host 50 200
    echo
    "$work/venv/bin/python" python/bench/bench.py docker podkit-test/debian:1 50 200
}

for part in ${1:-embedded docker python}; do
    case $part in
    python) python_part ;;
    copies) cargo bench -q -p podkit --bench docker -- copies ;;
    *)
        cargo build -q --release -p podkit-cli
        cargo bench -q -p podkit --bench "$part" -- "$target/release/podkit" "$PWD/docs"
        ;;
    esac
    echo
done
