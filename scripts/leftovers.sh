#!/usr/bin/env bash
# Lists what podkit has on this machine: processes, cgroups, uid ranges, mounts, state. CI compares
# the list from before the tests with the one from after.
set -u
for status in /proc/[0-9]*/comm; do
    # One that has ended and waits for the init of this machine is not left.
    if read -r name <"$status" 2>/dev/null && [ "$name" = podkit-agent ] &&
        ! grep -qs '^State:.Z' "${status%comm}status"; then
        echo "process $name"
    fi
done
find /sys/fs/cgroup -maxdepth 4 -type d -path '*podkit*' 2>/dev/null | sed 's/^/cgroup /'
find /var/lib/podkit/uid-ranges -type f -name '[0-9]*' 2>/dev/null | sed 's/^/uid range /'
find /var/lib/podkit/containers /var/lib/podkit/tmp /var/lib/podkit/trash -mindepth 1 -maxdepth 1 \
    2>/dev/null | sed 's/^/state /'
find /run/podkit/links -mindepth 2 -maxdepth 2 2>/dev/null | sed 's/^/sockets /'
for engine in docker podman; do
    for label in podkit.prefix podkit.agent podkit.test; do
        timeout 20 "$engine" ps -a --filter "label=$label" --format '{{.Names}}' 2>/dev/null |
            sed "s/^/$engine container /"
    done
done
grep -s podkit /proc/self/mountinfo | sed 's/^/mount /'
exit 0
