#!/usr/bin/env bash
# Uses podkit for a long time while containers and clients are killed, and checks that no write is
# lost, nothing hangs and nothing is left: crates/podkit/examples/soak. Needs root; Docker has to
# run, with the images of `./scripts/engines.sh start`.
#   ./scripts/soak.sh [--backend embedded|docker] [--minutes N] [--sessions N] [--seed N]
#   ./scripts/soak.sh --churn 10000 [--backend embedded|docker] [--sessions 100]
# The second looks whether anything grows when so many sessions come and go in one client.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "error: the soak test kills containers; run it as root" >&2; exit 1; }
exec cargo run -q --release -p podkit --example soak -- "$@"
