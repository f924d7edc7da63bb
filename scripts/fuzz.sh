#!/usr/bin/env bash
# Fuzzes what reads bytes from a container, an engine or a user: ten million inputs for each target, and
# a table of what came of it.
#   ./scripts/fuzz.sh [TARGET ...] [--runs N] [--jobs N] [--minimise]
#     --runs N      so many inputs for each target
#     --jobs N      so many targets at once; one for each core without
#     --minimise    then puts what the inputs have found into the corpus, as few and as short as can be
# Findings and logs go to fuzz/artifacts and fuzz/logs. Needs a nightly compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

corpus_bytes=65536
runs=10000000 jobs=$(nproc) minimise='' targets=()
while [ $# -gt 0 ]; do
    case $1 in
        --runs) runs=$2 && shift ;;
        --jobs) jobs=$2 && shift ;;
        --minimise) minimise=1 ;;
        -*) sed -n '2,9s/^# \?//p' "$0" >&2 && exit 2 ;;
        *) targets+=("$1") ;;
    esac
    shift
done
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | tail -n +2)

# What the caller has set for other builds is not for these.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "installing cargo-fuzz" >&2
    env -u CARGO_TARGET_DIR cargo install --locked cargo-fuzz >&2
fi
out=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
# There is no `unsafe` in what is fuzzed for a sanitizer to watch; overflows are checked, and
# what an input makes a target hold is counted.
cargo +nightly fuzz build --sanitizer none --target-dir "$out" >&2
binaries=$out/$(rustc +nightly -vV | sed -n 's/^host: //p')/release
scratch=$(mktemp -d "$([ -d /dev/shm ] && echo /dev/shm || echo /tmp)/podkit-fuzz-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
mkdir -p fuzz/logs

# Longest input: some are whole archives.
longest() {
    case $1 in
        archive) echo 2048 ;;
        tree | image | links | words | translations) echo 512 ;;
        *) echo 4096 ;;
    esac
}

one() {
    local target=$1
    mkdir -p "fuzz/artifacts/$target" "$scratch/$target.new" "$scratch/$target"
    # What is found on the way is no part of the corpus yet.
    PODKIT_FUZZ_SCRATCH=$scratch/$target nice -n 15 "$binaries/$target" \
        -runs="$runs" -max_len="$(longest "$target")" \
        -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" \
        "$scratch/$target.new" "fuzz/corpus/$target" >"fuzz/logs/$target" 2>&1 || true
    local number='s/^stat::'
    local executed speed coverage findings
    executed=$(sed -n "${number}number_of_executed_units: *//p" "fuzz/logs/$target")
    speed=$(sed -n "${number}average_exec_per_sec: *//p" "fuzz/logs/$target")
    coverage=$(grep -ao 'cov: [0-9]*' "fuzz/logs/$target" | tail -n 1 | cut -d' ' -f2)
    findings=$(find "fuzz/artifacts/$target" -type f | wc -l)
    echo "| $target | ${executed:-0} | ${speed:-0} | ${coverage:-0} | $findings |" >"$scratch/$target.row"
    if [ -n "$minimise" ] && [ "$findings" = 0 ]; then
        mkdir "$scratch/$target.least"
        PODKIT_FUZZ_SCRATCH=$scratch/$target nice -n 15 "$binaries/$target" -set_cover_merge=1 \
            "$scratch/$target.least" "$scratch/$target.new" "fuzz/corpus/$target" >>"fuzz/logs/$target" 2>&1
        rm -rf "fuzz/corpus/$target"
        mkdir "fuzz/corpus/$target"
        # By chance of their names, as much as a repository is to hold.
        local size=0 file
        for file in "$scratch/$target.least"/*; do
            size=$((size + $(stat -c %s "$file")))
            [ "$size" -le "$corpus_bytes" ] || break
            mv "$file" "fuzz/corpus/$target/"
        done
    fi
}

for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    one "$target" &
done
wait
echo "| target | inputs | inputs a second | edges covered | findings |"
echo "| --- | --- | --- | --- | --- |"
cat $(printf "$scratch/%s.row " "${targets[@]}")
! grep -qv '| 0 |$' "$scratch"/*.row
