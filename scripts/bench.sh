#!/usr/bin/env bash
# Prints the tables of docs/benchmarks.md. Wants an idle machine; needs root for the rows as root.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
cargo build -q --release -p podkit-cli
cargo bench -q -p podkit --bench embedded -- "$target/release/podkit"
