#!/bin/bash
# The trials of one set-up, as root of a machine that is there for nothing else. Results go to
# /podkit/results/SETUP: `trials` has a line for each, and what each said is beside it.
set -uo pipefail
setup=$1
podkit=/podkit/podkit
results=/podkit/results/$setup
user=tester
home=/home/$user
cd /

# What comes before each command: what makes it run in this set-up.
around=(env)
as_user=(setpriv --reuid "$user" --regid "$user" --init-groups env -i "HOME=$home" "PATH=$PATH" LANG=C.UTF-8)

make_user() { # SUB-IDS
    useradd --create-home --home-dir "$home" --shell /bin/bash "$user"
    sed -i "/^$user:/d" /etc/subuid /etc/subgid
    [ "$1" = 0 ] || echo "$user:900000:$1" | tee -a /etc/subuid >>/etc/subgid
    around=("${as_user[@]}")
}

# The user's own service manager, and in it a scope with what it may hand on, as `podkit doctor` advises.
in_delegated_scope() {
    loginctl enable-linger "$user"
    local id
    id=$(id -u "$user")
    until systemctl is-active -q "user@$id.service"; do sleep 0.2; done
    around=("${as_user[@]}" "XDG_RUNTIME_DIR=/run/user/$id" systemd-run --user --scope --quiet -p Delegate=yes)
}

in_service() { # as root or as the user
    local properties=()
    if [ "${1:-}" = "$user" ]; then
        properties=(-p "User=$user" -E "HOME=$home")
    else
        properties=(-E HOME=/root)
    fi
    around=(systemd-run --quiet --pipe --wait --collect "${properties[@]}" -E "PATH=$PATH" -E LANG=C.UTF-8)
}

in_container() { # OPTIONS OF DOCKER
    if ! docker info >/dev/null 2>&1; then
        dockerd --bridge none --iptables=false >"$results/dockerd.log" 2>&1 &
        until docker info >/dev/null 2>&1; do sleep 1; done
    fi
    # A small image that has this machine's programs.
    if ! docker image inspect podkit-vm >/dev/null 2>&1; then
        local tree=/var/tmp/image
        mkdir -p "$tree"/{usr,var/lib,root,home,proc,sys,dev,run,podkit} && mkdir -m 1777 "$tree"/{tmp,var/tmp}
        cp -a /bin /sbin /lib /lib64 /etc "$tree/"
        tar -C "$tree" -c . | docker import - podkit-vm >/dev/null
    fi
    docker run -d --name "$setup" --network none -v /podkit:/podkit -v /usr:/usr:ro "$@" podkit-vm sleep infinity >/dev/null
    around=(docker exec -i "$setup" env)
}

trial() { # NAME COMMAND...
    local name=$1 began=$SECONDS verdict=ok
    shift
    "$@" >"$results/$name.log" 2>&1 || verdict=failed
    printf '%s\t%s\t%s\n' "$name" "$verdict" $((SECONDS - began)) >>"$results/trials"
    echo "$name: $verdict ($((SECONDS - began)) s)" | tee /dev/console
}

doctor() {
    "${around[@]}" "$podkit" doctor --format json >"$results/doctor.json"
}

first_command() {
    local out
    out=$("${around[@]}" "$podkit" exec bob/123 -- pwd) || return
    echo "$out"
    [ "$out" = /workspace ] && "${around[@]}" "$podkit" close bob/123
}

# Files stay between calls and, where the engine says so, over a stop; close removes.
life() {
    (
        set -e
        run() { "${around[@]}" "$podkit" "$@"; }
        run exec bob/first -- sh -c 'echo kept > note'
        [ "$(run exec bob/first -- cat note)" = kept ]
        run stop bob/first
        if grep -q '"stop_keeps_files": true' "$results/doctor.json"; then
            [ "$(run exec bob/first -- cat note)" = kept ]
        fi
        run exec --timeout 1s bob/first -- sh -c 'sleep 600 & setsid sleep 600 & wait' || [ $? = 124 ]
        run close bob/first
        run gc
        [ -z "$(run ls -aq)" ]
    )
}

# `podkit` cannot work here: it says so, why and what helps, and leaves nothing.
refused() { # WORDS THAT THE ANSWER HAS
    local before after code=0
    before=$(everything)
    "${around[@]}" "$podkit" --format json exec bob/123 -- pwd >"$results/refused.out" 2>"$results/refused.json" || code=$?
    after=$(everything)
    cat "$results/refused.json"
    [ "$code" = 125 ] && [ ! -s "$results/refused.out" ] || { echo "ended with $code"; return 1; }
    diff <(echo "$before") <(echo "$after") || return
    python3 - "$results/refused.json" "$@" <<'PYTHON' || return
import json, sys
error = json.loads(open(sys.argv[1]).read())["error"]
assert error["kind"] in ("unsupported", "permission_denied"), error
for word in sys.argv[2:]:
    assert word in error["message"] + (error["hint"] or ""), word
assert error["hint"], error
PYTHON
    "${around[@]}" "$podkit" doctor >"$results/refused.doctor"
    [ $? != 0 ] && grep -q 'cannot work here' "$results/refused.doctor"
}

# What may be left of a container: processes, groups, mounts, files.
everything() {
    /podkit/scripts/leftovers.sh
    find "$home" -path '*podkit*/containers/*' -o -path '*podkit*/tmp/*' 2>/dev/null
}

nothing_left() {
    local now
    for _ in $(seq 50); do
        now=$(everything)
        [ "$now" = "$before" ] && return
        sleep 0.2
    done
    diff <(echo "$before") <(echo "$now")
}

nextest() { # ROWS OF THE CONFORMANCE SUITE, FILTER
    local only filter=$2
    only=$(cat /podkit/only)
    [ -z "$only" ] || filter="($filter) & ($only)"
    "${around[@]}" env PODKIT_TEST_BACKENDS="$1" RUST_BACKTRACE=0 NO_COLOR=1 sh -c \
        'cd /podkit && exec ./cargo-nextest nextest run --cargo-metadata target/nextest/cargo-metadata.json \
        --binaries-metadata target/nextest/binaries-metadata.json --workspace-remap /podkit \
        --target-dir-remap /podkit/target --status-level fail --final-status-level fail \
        --failure-output final --no-tests pass --show-progress none -E "$1"' sh "$filter"
}

# Where the machine is emulated the command alone is tried, unless tests are asked for by name.
tested() {
    ! grep -q 'podkit\.short' /proc/cmdline || [ -s /podkit/only ]
}

# The command works: the life of a session.
works() {
    before=$(everything)
    trial doctor doctor
    trial first_command first_command
    ! tested || trial life life
}

as_root() {
    works
    tested || { trial nothing_left nothing_left; return; }
    trial conformance nextest "${1:-embedded}" 'binary(conformance) - test(/isolation_attacks/)'
    trial attacks nextest "${1:-embedded}" 'binary(conformance) & test(/isolation_attacks/) | binary(isolation)'
    trial runtime nextest embedded 'package(podkit-runtime)'
    trial nothing_left nothing_left
}

as_ordinary_user() {
    works
    tested || { trial nothing_left nothing_left; return; }
    trial conformance nextest embedded 'binary(conformance) - test(/isolation_attacks/)'
    trial nothing_left nothing_left
}

cannot_work() {
    before=$(everything)
    doctor
    trial refused refused "$@"
    trial nothing_left nothing_left
}

case $setup in
v2-root | v1-root) as_root ;;
v2-user-subids | kernel-6.12-user) make_user 655360; as_ordinary_user ;;
v2-user) make_user 0; as_ordinary_user ;;
systemd-root) in_service; as_root ;;
kernel-6.12 | kernel-7) as_root ;;
systemd-user) make_user 655360; in_service "$user"; as_ordinary_user ;;
sub-ids-unusable)
    # Nobody gains rights by a program, so newuidmap is of no use.
    make_user 655360
    around=(setpriv --no-new-privs "${around[@]}")
    as_ordinary_user
    ;;
systemd-user-delegated) make_user 655360; in_delegated_scope; as_ordinary_user ;;
systemd-user-delegated-plain) make_user 0; in_delegated_scope; as_ordinary_user ;;
kernel-5.10) cannot_work 'kernel from 5.12' ;;
userns-none)
    sysctl -q user.max_user_namespaces=0
    cannot_work 'user.max_user_namespaces'
    ;;
userns-clone-off)
    sysctl -q kernel.unprivileged_userns_clone=0
    make_user 655360
    cannot_work 'kernel.unprivileged_userns_clone'
    ;;
userns-clone-off-root)
    sysctl -q kernel.unprivileged_userns_clone=0
    as_root
    ;;
apparmor-userns)
    make_user 655360
    if [ -e /proc/sys/kernel/apparmor_restrict_unprivileged_userns ]; then
        sysctl -q kernel.apparmor_restrict_unprivileged_userns=1
    else
        # Kernels without that switch restrict by profile: all is allowed but user namespaces.
        profile="abi <abi/4.0>,
            profile podkit-vm /podkit/podkit {
                file, /** ix, network, capability, mount, umount, pivot_root, ptrace, signal, unix, dbus,
            }"
        apparmor_parser -r <<<"$profile"
    fi
    cannot_work AppArmor
    [ -z "${profile:-}" ] || apparmor_parser -R <<<"$profile"
    ;;
docker)
    in_container
    cannot_work seccomp=unconfined apparmor=unconfined systempaths=unconfined
    ;;
docker-relaxed)
    in_container --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
        --security-opt systempaths=unconfined
    works
    trial nothing_left nothing_left
    ;;
docker-relaxed-volumes)
    in_container --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
        --security-opt systempaths=unconfined -v /var/lib/podkit -v /var/tmp
    as_ordinary_user
    ;;
docker-privileged)
    in_container --privileged
    cannot_work volume
    ;;
docker-privileged-volumes)
    in_container --privileged -v /var/lib/podkit -v /var/tmp
    as_root
    ;;
esac
# As it was, for the next set-up of this machine.
case $setup in docker*) docker rm -fv "$setup" >/dev/null ;; esac
if id "$user" >/dev/null 2>&1; then
    loginctl disable-linger "$user" 2>/dev/null
    systemctl stop "user@$(id -u "$user")" 2>/dev/null
    userdel -r "$user" 2>/dev/null
fi
sysctl -q user.max_user_namespaces=10000
sysctl -q -e kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0
python3 /podkit/scripts/vm/results.py compose "$setup" "$results"
