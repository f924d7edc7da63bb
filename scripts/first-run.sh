#!/usr/bin/env bash
# Runs the README's first command as a new user would: from a clean clone, with an empty
# environment and empty state, without network; as root, and as an ordinary user (made here and
# removed again) without sub-ids, with a range of them and with many.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d /var/tmp/podkit-first-run.XXXXXX)
user=podkit-test
cleanup() {
    userdel "$user" 2>/dev/null || true
    sed -i "/^$user:/d" /etc/subuid /etc/subgid
    rm -rf "$work"
}
trap cleanup EXIT

git clone -q . "$work/podkit"
cd "$work/podkit"
cargo fetch -q
echo "-- as root, from a clean clone" >&2
# Nothing but HOME and PATH, and no network: a namespace of its own.
clean() { unshare --net env -i HOME="$HOME" PATH="$PATH" "$@"; }
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
as_user() { setpriv --reuid "$user" --regid "$user" --init-groups env -i HOME="$work/home" PATH="$PATH" "$@"; }

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
