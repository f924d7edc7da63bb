#!/usr/bin/env bash
# Prints the tables of docs/benchmarks.md. Wants an idle machine; needs root for the rows as root.
# The table of Docker needs an engine with the test images: `./scripts/engines.sh start`.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
cargo build -q --release -p podkit-cli
for bench in ${1:-embedded docker}; do
    cargo bench -q -p podkit --bench "$bench" -- "$target/release/podkit"
    echo
done
