#!/usr/bin/env bash
# Builds the agent into crates/podkit-agent/prebuilt, the same bytes wherever the checkout is.
#   (no argument)  builds and puts the binary and its hash in place
#   --check        fails when the shipped binary is not what the sources build, which the same
#                  compiler alone can tell
#   --clippy       lints the sources as they are built
set -euo pipefail
cd "$(dirname "$0")/.."

arch=x86_64
target=$arch-unknown-linux-gnu
out=crates/podkit-agent/prebuilt
# A place and flags of its own: what the caller has set for other builds is not for this one.
root=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
export CARGO_TARGET_DIR="$root/agent"
unset CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS
cargo_home=${CARGO_HOME:-$HOME/.cargo}
RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static"
RUSTFLAGS+=" -C link-arg=-nostartfiles -C link-arg=-nostdlib -C link-arg=-static -C link-arg=-no-pie"
RUSTFLAGS+=" -C link-arg=-Wl,--build-id=none -C link-arg=-Wl,-z,norelro -C link-arg=-Wl,--gc-sections"
RUSTFLAGS+=" -C link-arg=-Wl,--no-eh-frame-hdr -C link-arg=-Wl,-T,crates/podkit-agent/agent.ld"
# Less is inlined than `opt-level = "s"` would: 3 % less binary.
RUSTFLAGS+=" -C llvm-args=--inline-threshold=30"
RUSTFLAGS+=" --remap-path-prefix=$PWD=/podkit --remap-path-prefix=$cargo_home=/cargo"
arguments=(-q -p podkit-agent --bin podkit-agent --features bin --target "$target")

if [ "${1:-}" = --clippy ]; then
    export RUSTFLAGS
    exec cargo clippy "${arguments[@]}" --profile agent -- -D warnings
fi
compiler=$(rustc --version)
if [ "${1:-}" = --check ] && [ "$compiler" != "$(cat "$out/compiler")" ]; then
    echo "warning: the shipped agent was built by $(cat "$out/compiler"), this is $compiler:" \
        "their binaries cannot be compared" >&2
    exit 0
fi
export RUSTFLAGS="$RUSTFLAGS -D warnings"
cargo build "${arguments[@]}" --profile agent
built="$CARGO_TARGET_DIR/$target/agent/podkit-agent"
hash=$(sha256sum "$built" | cut -d' ' -f1)

if [ "${1:-}" = --check ]; then
    if ! cmp -s "$built" "$out/podkit-agent-$arch" || [ "$hash" != "$(cat "$out/podkit-agent-$arch.sha256")" ]; then
        echo "error: $out/podkit-agent-$arch is not what the sources build; run ./scripts/build-agent.sh" >&2
        exit 1
    fi
    exit 0
fi
install -m 644 "$built" "$out/podkit-agent-$arch"
printf %s "$hash" >"$out/podkit-agent-$arch.sha256"
echo "$compiler" >"$out/compiler"
echo "$out/podkit-agent-$arch: $(stat -c %s "$built") bytes, sha256 $hash" >&2
