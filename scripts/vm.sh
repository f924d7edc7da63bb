#!/usr/bin/env bash
# Tries podkit on other kernels and set-ups, in virtual machines, one after the other. Set-ups that need the
# same machine share one.
#
#   scripts/vm.sh              all set-ups
#   scripts/vm.sh SETUP...     these
#   scripts/vm.sh --list       names them
#   scripts/vm.sh --prepare    only makes what is kept from one run to the next
#   scripts/vm.sh --table      makes the README's table from the results that are there, and boots nothing
#   scripts/vm.sh --shell SETUP    a root shell on the console instead of the trials
#
# What it does: makes a Debian with mmdebstrap for each release that is wanted (once: it is kept), and a
# disk with the command, the tests' programs and scripts/vm; boots both with qemu, without a network;
# takes the results from the disk after the machine has switched itself off; writes
# docs/setups/SETUP.json and the README's table. It ends with 1 when a trial failed.
#
#   PODKIT_VM_CACHE   where Debians and machines' disks are kept (3 GB; default ~/.cache/podkit-vm or /var/cache/podkit-vm)
#   PODKIT_VM_MEMORY  memory of a machine (3G)     PODKIT_VM_CPUS   its processors (1)
#   PODKIT_VM_REUSE   any word: what the last run built is taken again
#   PODKIT_VM_ONLY    a filter of nextest's: only these tests; nothing is written below docs then
#
# Needs root (mmdebstrap as root makes the quickest images; no file system is mounted), the packages
# qemu-system-x86, mmdebstrap and e2fsprogs, which it installs. Without the processor's own
# virtualisation (KVM on Intel's or AMD's) machines are emulated, which is slower by a factor of ten,
# and no tests are run unless PODKIT_VM_ONLY names some: the command alone is tried.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${PODKIT_VM_CACHE:-${XDG_CACHE_HOME:-/var/cache}/podkit-vm}
say() { printf '== %s (%s s)\n' "$*" "$SECONDS" >&2; }
fail() { echo "error: $*" >&2; exit 1; }

# NAME|DEBIAN|KERNEL|INIT|WORDS FOR THE KERNEL|ABOUT. What is done in each is in scripts/vm/guest.sh.
setups() {
    cat <<'SETUPS'
v2-root|bookworm|6.1|plain||root, cgroups v2
v1-root|bookworm|6.1|plain|podkit.v1|root, cgroups v1
v2-user-subids|bookworm|6.1|plain||user with sub-ids
v2-user|bookworm|6.1|plain||user without sub-ids
sub-ids-unusable|bookworm|6.1|plain||user whose sub-ids cannot be used (`nosuid`, no new privileges)
systemd-root|bookworm|6.1|systemd||root, a systemd service
systemd-user|bookworm|6.1|systemd||user with sub-ids, a systemd service
systemd-user-delegated|bookworm|6.1|systemd||user with sub-ids, `systemd-run --user --scope -p Delegate=yes`
systemd-user-delegated-plain|bookworm|6.1|systemd||user without sub-ids, the same
kernel-5.10|bookworm|5.10|plain||root
kernel-6.12|trixie|6.12|plain||root
kernel-6.12-user|trixie|6.12|plain||user with sub-ids
kernel-7|trixie|7|plain||root
userns-none|bookworm|6.1|plain||`user.max_user_namespaces=0`
userns-clone-off|bookworm|6.1|plain||user, `kernel.unprivileged_userns_clone=0`
userns-clone-off-root|bookworm|6.1|plain||root, `kernel.unprivileged_userns_clone=0`
apparmor-userns|trixie|6.12|plain||user, AppArmor restricts user namespaces
docker|bookworm|6.1|plain||in Docker, its defaults
docker-relaxed|bookworm|6.1|plain||in Docker, `seccomp`, `apparmor` and `systempaths` unconfined
docker-relaxed-volumes|bookworm|6.1|plain||the same, a volume for podkit's state
docker-privileged|bookworm|6.1|plain||in Docker, `--privileged`
docker-privileged-volumes|bookworm|6.1|plain||in Docker, `--privileged`, a volume for podkit's state
SETUPS
}
names() { setups | cut -d'|' -f1; }
field() { setups | awk -F'|' -v name="$1" -v n="$2" '$1 == name { print $n }'; }

install_packages() {
    local missing=() package
    for package in qemu-system-x86 mmdebstrap e2fsprogs python3; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    [ "$(id -u)" = 0 ] || fail "run $0 as root, to install: ${missing[*]}"
    say "install ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}" >/dev/null
}

# What the trials need of a Debian. The kernel's plain flavour for clouds is the same source with fewer drivers.
packages=systemd-sysv,dbus,dbus-user-session,libpam-systemd,udev,kmod,initramfs-tools,linux-image-cloud-amd64
packages+=,uidmap,procps,util-linux,iproute2,e2fsprogs,gcc,libc6-dev,binutils,gawk,git,python3,python3-venv
packages+=,ca-certificates,apparmor,docker.io,iptables

# One Debian as an image, with its kernels beside it.
make_debian() { # RELEASE
    local release=$1 out tree
    # Made anew when the recipe changes.
    out=$cache/$release-$( (declare -f make_debian; echo "$packages") | sha256sum | cut -c1-12)
    if [ ! -e "$out/done" ]; then
        [ "$(id -u)" = 0 ] || fail "run $0 as root: it makes a Debian"
        say "make Debian $release"
        rm -rf "$cache/$release"-*
        mkdir -p "$out"
        tree=$out/tree
        local more=("deb http://deb.debian.org/debian $release main")
        case $release in
        # The oldest kernel is from the release before.
        bookworm) more+=("deb http://deb.debian.org/debian bullseye main") ;;
        trixie) more+=("deb http://deb.debian.org/debian trixie-backports main") ;;
        esac
        printf '%s\n' "${more[@]}" | mmdebstrap --quiet --variant=minbase --include="$packages" \
            --customize-hook='mkdir "$1/podkit"' \
            --customize-hook='printf "#!/bin/bash\nmount /dev/vdb /podkit && exec /bin/bash /podkit/scripts/vm/boot.sh\n" >"$1/sbin/podkit-vm" && chmod 755 "$1/sbin/podkit-vm"' \
            --customize-hook='printf "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nExecStart=/sbin/podkit-vm\nTimeoutStartSec=infinity\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS0\n[Install]\nWantedBy=default.target\n" >"$1/etc/systemd/system/podkit-vm.service" && systemctl --quiet --root "$1" enable podkit-vm' \
            --customize-hook='systemctl --quiet --root "$1" disable docker docker.socket containerd apt-daily.timer apt-daily-upgrade.timer' \
            --customize-hook='printf "127.0.0.1 localhost podkit-vm\n" >"$1/etc/hosts"; echo podkit-vm >"$1/etc/hostname"' \
            --customize-hook="case $release in bookworm) chroot \"\$1\" apt-get -qy install '?name(^linux-image-5\.10\..*-cloud-amd64\$)' ;; trixie) chroot \"\$1\" apt-get -qy install -t trixie-backports linux-image-cloud-amd64 ;; esac >/dev/null" \
            "$release" "$tree" -
        local kernel
        for kernel in "$tree"/boot/vmlinuz-*; do
            cp "$kernel" "$out/"
            cp "$tree/boot/initrd.img-${kernel##*/vmlinuz-}" "$out/"
        done
        mke2fs -q -t ext4 -d "$tree" "$out/root.img" 6G
        rm -rf "$tree"
        touch "$out/done"
    fi
    debian=$out
}

# The command, the tests and the sources: all that is the same in each machine.
make_payload() {
    payload=$cache/payload
    if [ -n "${PODKIT_VM_REUSE:-}" ]; then
        rm -rf "$payload/scripts" && cp -a scripts "$payload/"
        return
    fi
    say "build the command and the tests"
    rm -rf "$payload"
    mkdir -p "$payload/results"
    cargo build -q -p podkit-cli
    local target
    target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    strip -o "$payload/podkit" "$target/debug/podkit"
    cargo nextest archive --archive-file "$cache/tests.tar.zst" --zstd-level 1 -p podkit -p podkit-runtime \
        --features podkit/conformance --test conformance --test isolation --test containers --test crash --test setups >&2
    tar --zstd -xf "$cache/tests.tar.zst" -C "$payload"
    rm "$cache/tests.tar.zst"
    find "$payload/target" -type f -perm -100 -size +1M -exec strip -S {} +
    cp "$(command -v cargo-nextest)" "$payload/"
    git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$payload"
    chmod -R a+rX "$payload"
}

# Boots one machine for set-ups that are alike, and takes their results.
run() { # SETUPS
    local setups=("$@") setup kernel words disk work=$cache/run-$1
    setup=$1
    make_debian "$(field "$setup" 2)"
    kernel=$(find "$debian" -name "vmlinuz-$(field "$setup" 3).*" | sort -V | tail -1)
    [ -n "$kernel" ] || fail "$(field "$setup" 2) has no kernel $(field "$setup" 3)"
    rm -rf "$work"
    mkdir -p "$work"
    disk=$work/disk.img
    printf '%s' "${PODKIT_VM_ONLY:-}" >"$payload/only"
    mke2fs -q -t ext4 -d "$payload" "$disk" 3G 2>/dev/null
    words="console=ttyS0 quiet panic=-1 mitigations=off systemd.mask=serial-getty@ttyS0.service systemd.mask=apparmor.service root=/dev/vda rw $short $(field "$setup" 5)"
    words+=" podkit.setups=$(IFS=,; echo "${setups[*]}")"
    [ "$(field "$setup" 4)" = systemd ] || words+=" init=/sbin/podkit-vm"
    [ -z "$shell" ] || words+=" podkit.shell"
    local machine=(-machine q35 -nodefaults -display none -no-reboot "${accelerator[@]}"
        -smp "${PODKIT_VM_CPUS:-1}" -m "${PODKIT_VM_MEMORY:-3G}" -device virtio-rng-pci
        -kernel "$kernel" -initrd "${kernel/vmlinuz-/initrd.img-}" -append "$words"
        -drive "file=$debian/root.img,format=raw,if=virtio,snapshot=on"
        -drive "file=$disk,format=raw,if=virtio")
    say "$(basename "$kernel"): $*"
    if [ -n "$shell" ]; then
        exec qemu-system-x86_64 "${machine[@]}" -serial mon:stdio
    fi
    timeout --foreground "${PODKIT_VM_DEADLINE:-7200}" \
        qemu-system-x86_64 "${machine[@]}" -serial "file:$work/console" </dev/null ||
        echo "warning: the machine did not end by itself" >&2
    # Copies without mounting; what it says of owners is no matter.
    e2fsck -fy "$disk" >/dev/null 2>&1 || true
    debugfs -R "rdump /results $work" "$disk" >/dev/null 2>&1
    rm -f "$disk"
    for setup in "${setups[@]}"; do
        echo "$setup: $(field "$setup" 6)"
        if [ ! -s "$work/results/$setup/result.json" ]; then
            tail -5 "$work/console" >&2
            echo "  no result: see $work" >&2
            failed+=("$setup")
            continue
        fi
        python3 scripts/vm/results.py show "$work/results/$setup/result.json" || failed+=("$setup")
        [ -z "${PODKIT_VM_ONLY:-}" ] || continue
        mkdir -p docs/setups
        python3 scripts/vm/results.py keep "$work/results/$setup/result.json" "docs/setups/$setup.json" \
            "$(field "$setup" 6)"
    done
}

# Set-ups that need the same machine as this one, out of those that are wanted.
alike() { # SETUP WANTED...
    local first=$1 setup
    shift
    for setup in "$@"; do
        [ "$(setups | grep "^$setup|" | cut -d'|' -f2-5)" != "$(setups | grep "^$first|" | cut -d'|' -f2-5)" ] ||
            echo "$setup"
    done
}

short=
# A kernel as Debian builds it runs on these two modules only: others offer /dev/kvm for kernels of their own.
if [ -w /dev/kvm ] && [ -d /sys/module/kvm_intel -o -d /sys/module/kvm_amd ]; then
    accelerator=(-accel kvm -cpu host)
else
    short=podkit.short
    accelerator=(-accel "tcg,thread=multi,tb-size=512" -cpu "max,la57=off")
fi

shell=
case ${1:-} in
--help | -h) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/vm.sh; exit ;;
--list) setups | awk -F'|' '{ printf "%-30s Debian %-9s kernel %-5s %s\n", $1, $2, $3, $6 }'; exit ;;
--table) exec python3 scripts/vm/results.py table docs/setups README.md $(names) ;;
--prepare)
    install_packages
    mkdir -p "$cache"
    for release in $(setups | cut -d'|' -f2 | sort -u); do make_debian "$release"; done
    exit
    ;;
--shell) shell=1; shift ;;
esac
[ $# -gt 0 ] || mapfile -t wanted < <(names)
[ $# -eq 0 ] || wanted=("$@")
for setup in "${wanted[@]}"; do
    [ -n "$(field "$setup" 1)" ] || fail "there is no set-up \`$setup\`; $0 --list names them"
done
export RUSTFLAGS="${RUSTFLAGS--D warnings}"
install_packages
[ "${accelerator[1]}" = kvm ] || echo "warning: there is no KVM for Debian's kernels: machines are emulated" >&2
mkdir -p "$cache"
make_payload
failed=()
done=" "
for setup in "${wanted[@]}"; do
    [[ $done != *" $setup "* ]] || continue
    mapfile -t together < <(alike "$setup" "${wanted[@]}")
    done+="${together[*]} "
    run "${together[@]}"
done
[ -n "${PODKIT_VM_ONLY:-}" ] || python3 scripts/vm/results.py table docs/setups README.md $(names)
say "done"
[ ${#failed[@]} = 0 ] || fail "trials failed in: ${failed[*]}"
