#!/usr/bin/env bash
# Installs all that podkit's tests need on a bare Debian: compilers, the programs that the
# `host` image is tried with, id maps for ordinary users, Docker and Podman. Needs root, and says
# what it does.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(gcc libc6-dev git python3 python3-venv binutils uidmap util-linux procps ca-certificates gawk)
if [ "$(id -u)" = 0 ]; then
    # The engines of the tests, and what their images are made with.
    packages+=(docker.io podman netavark aardvark-dns runc iptables docker-registry apache2-utils
        busybox-static mmdebstrap curl openssh-client openssh-server openssl stunnel4)
fi
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "install: ${missing[*]}" >&2
    if [ "$(id -u)" != 0 ]; then
        echo "error: run ./scripts/install.sh as root once, to install: ${missing[*]}" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    # Packages start no service: the tests start what they need, and end it.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    apt-get -q update >/dev/null
    apt-get -qy install --no-install-recommends "${missing[@]}" >/dev/null
fi
if ! command -v cargo >/dev/null; then
    echo "error: there is no Rust toolchain; install one (1.92 or later) as https://rustup.rs says" >&2
    exit 1
fi
if ! cargo nextest --version >/dev/null 2>&1; then
    echo "install: cargo-nextest" >&2
    cargo install --locked --quiet cargo-nextest
fi
