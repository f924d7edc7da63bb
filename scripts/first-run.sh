#!/usr/bin/env bash
# Runs the README's first command as a new user would: from a clean clone, with an empty
# environment and empty state, without network; as root, and as an ordinary user (made here and
# removed again) without sub-ids, with a range of them, with many, and with ones that cannot be used.
#   (no argument)  builds and runs
#   --build DIR    only builds, in DIR, which is new
#   DIR            runs what was built there, and removes it
set -euo pipefail
cd "$(dirname "$0")/.."
user=podkit-test

# Nothing but HOME and PATH, and no network: a namespace of its own.
clean() { unshare --net env -i HOME="$HOME" PATH="$PATH" "$@"; }
build() { # DIR
    git clone -q . "$1/podkit"
    (cd "$1/podkit" && cargo fetch -q)
    (cd "$1/podkit" && clean cargo build -q --offline --release --target-dir "$1/target")
}
if [ "${1:-}" = --build ]; then
    mkdir "$2"
    build "$2"
    exit
fi

work=${1:-}
cleanup() {
    userdel "$user" 2>/dev/null || true
    sed -i "/^$user:/d" /etc/subuid /etc/subgid
    rm -rf "$work"
}
trap cleanup EXIT

if [ -z "$work" ]; then
    work=$(mktemp -d /var/tmp/podkit-first-run.XXXXXX)
    build "$work"
fi
cd "$work/podkit"
echo "-- as root, from a clean clone" >&2
out=$(clean cargo run -q --offline --release --target-dir "$work/target" -- exec bob/123 -- pwd)
[ "$out" = /workspace ] || { echo "error: expected /workspace, got: $out" >&2; exit 1; }
podkit="$work/target/release/podkit"

# Runs the session's life once: files stay between calls, close removes.
life() {
    "$@" "$podkit" exec bob/first -- sh -c 'echo kept > note'
    [ "$("$@" "$podkit" exec bob/first -- cat note)" = kept ]
    "$@" "$podkit" stop bob/first
    [ "$("$@" "$podkit" exec bob/first -- cat note)" = kept ]
    "$@" "$podkit" close bob/first
    "$@" "$podkit" gc
    [ -z "$("$@" "$podkit" ls -q --user bob 2>/dev/null | grep first || true)" ]
}
clean "$podkit" close bob/123
life clean

useradd --create-home --home-dir "$work/home" "$user"
chmod 755 "$work"
install -m 755 "$podkit" "$work/podkit-bin"
podkit="$work/podkit-bin"
held=()
as_user() { setpriv "${held[@]}" --reuid "$user" --regid "$user" --init-groups env -i HOME="$work/home" PATH="$PATH" "$@"; }

# The README's first command, then the life of a session; doctor says whose ids containers have.
first() {
    [ "$(as_user "$podkit" exec bob/123 -- pwd)" = /workspace ]
    as_user "$podkit" close bob/123
    life as_user
    as_user "$podkit" doctor >"$work/doctor"
    grep -qx "isolation of user ids: $1" "$work/doctor" || { cat "$work/doctor" >&2; exit 1; }
    [ -z "$(as_user "$podkit" ls -aq)" ]
}
sub_ids() {
    sed -i "/^$user:/d" /etc/subuid /etc/subgid
    [ "$1" = 0 ] || echo "$user:900000:$1" | tee -a /etc/subuid >>/etc/subgid
}

echo "-- as an ordinary user without sub-ids" >&2
sub_ids 0
first "caller uid"
echo "-- as an ordinary user with one range of sub-ids" >&2
sub_ids 65536
first "shared range"
echo "-- as an ordinary user with sub-ids for many containers" >&2
sub_ids 655360
first "own range"
echo "-- as that user, when the machine was started anew and all ranges of ids are in use" >&2
sub_ids 131072
for session in bob/1 bob/2; do
    as_user "$podkit" exec "$session" -- true
    as_user "$podkit" stop "$session"
done
anew() { as_user PODKIT_RUN_DIR="$work/home/run" "$podkit" "$@"; }
if anew exec bob/3 -- true 2>"$work/refused"; then
    echo "error: a third container has ids" >&2
    exit 1
fi
grep -q 'all 2 ranges of user ids are in use' "$work/refused"
[ "$(anew exec bob/1 -- pwd)" = /workspace ]
anew close bob/1
anew close bob/2
echo "-- as an ordinary user whose sub-ids cannot be used: newuidmap gains no rights" >&2
held=(--no-new-privs)
first "caller uid"
