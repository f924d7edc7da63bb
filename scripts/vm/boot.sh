#!/bin/bash
# First program of a machine of scripts/vm.sh: PID 1 itself, or started by systemd. Sets up what an init
# would, runs the trials, and switches the machine off.
word() { grep -qw "podkit\.$1" /proc/cmdline; }
setups=$(sed 's/.*podkit\.setups=\([^ ]*\).*/\1/;s/,/ /g' /proc/cmdline)
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

if [ $$ = 1 ]; then
    mountpoint -q /dev/pts || { mkdir -p /dev/pts && mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts; }
    mkdir -p /dev/shm && mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    mountpoint -q /run || mount -t tmpfs -o mode=755 tmpfs /run
    if word v1; then
        mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
        for controller in memory cpu,cpuacct pids freezer; do
            mkdir "/sys/fs/cgroup/$controller"
            mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
        done
    else
        mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
    fi
    mount -t securityfs securityfs /sys/kernel/security
    ip link set lo up
    hostname podkit-vm
fi
if word shell; then
    setsid -c bash -l <>/dev/ttyS0 >&0 2>&1
else
    for setup in $setups; do
        mkdir -p "/podkit/results/$setup"
        echo "== $setup"
        bash /podkit/scripts/vm/guest.sh "$setup" >"/podkit/results/$setup/log" 2>&1
        echo "ended with $?"
        sync
    done
    dmesg --level=emerg,alert,crit,err,warn 2>/dev/null | tail -60 >/podkit/results/kernel-log
fi
sync
umount -l /podkit
sync
echo o >/proc/sysrq-trigger
sleep 60
