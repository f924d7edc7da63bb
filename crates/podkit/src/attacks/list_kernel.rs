//! Attacks on the kernel's interfaces, and on what the host has: files, sockets, networks.

use super::{Attack, DENIED, DENIED_OR_ABSENT, NOT_READABLE, NOT_WRITABLE, attack};
use crate::backend::Capabilities;

fn has_a_network(can: &Capabilities) -> Option<&'static str> {
    can.outbound.then_some(
        "a container with a network reaches what its host reaches, and the host: `--network none`",
    )
}

fn parts_no_sessions(can: &Capabilities) -> Option<&'static str> {
    (can.outbound && !can.parts_sessions)
        .then_some("containers of this engine's default network reach each other: `--network none`")
}

pub(super) const ATTACKS: &[Attack] = &[
    attack("add a key", &["kernel", "add_key"], DENIED_OR_ABSENT),
    attack(
        "take over the user's keyring",
        &["kernel", "keyring"],
        DENIED_OR_ABSENT,
    )
    .optional(),
    attack("load a BPF map", &["kernel", "bpf"], DENIED_OR_ABSENT),
    attack(
        "open a performance event",
        &["kernel", "perf_event_open"],
        DENIED_OR_ABSENT,
    ),
    attack(
        "handle page faults",
        &["kernel", "userfaultfd"],
        DENIED_OR_ABSENT,
    ),
    attack(
        "set up an io_uring",
        &["kernel", "io_uring_setup"],
        DENIED_OR_ABSENT,
    ),
    attack(
        "load a module",
        &["kernel", "init_module"],
        DENIED_OR_ABSENT,
    )
    .optional(),
    attack(
        "load a module from a file",
        &["kernel", "finit_module"],
        DENIED_OR_ABSENT,
    )
    .optional(),
    attack("load a kernel", &["kernel", "kexec_load"], DENIED_OR_ABSENT).optional(),
    attack(
        "swap to a file",
        &["kernel", "swapon", "/etc/passwd"],
        DENIED,
    ),
    attack("reboot", &["kernel", "reboot"], DENIED),
    attack("set the clock", &["kernel", "settime"], DENIED),
    attack("slew the clock", &["kernel", "adjtimex"], DENIED),
    attack("reach io ports", &["kernel", "iopl"], DENIED_OR_ABSENT).optional(),
    attack("read the kernel's log", &["kernel", "kernel_log"], DENIED),
    attack(
        "learn the kernel's addresses",
        &["kernel", "addresses"],
        &["EPERM", "ENOENT"],
    )
    .optional(),
    attack(
        "hold up every opening of a file",
        &["kernel", "fanotify_init"],
        DENIED_OR_ABSENT,
    )
    .optional(),
    attack(
        "make all memory executable",
        &["kernel", "personality"],
        DENIED,
    ),
    attack("rename the machine", &["kernel", "sethostname"], DENIED),
    attack(
        "switch accounting on",
        &["kernel", "acct"],
        DENIED_OR_ABSENT,
    ),
    attack(
        "make a 32-bit call",
        &["kernel", "compat_call"],
        &["SIGSYS", "ENOSYS", "EPERM"],
    )
    .optional(),
    attack("open a raw socket", &["reach", "raw_socket"], DENIED),
    attack(
        "open a packet socket",
        &["reach", "packet_socket"],
        &["EPERM", "EAFNOSUPPORT"],
    ),
    attack(
        "reach the machine below",
        &["reach", "vm_socket"],
        &["EPERM", "EAFNOSUPPORT"],
    )
    .optional(),
    attack(
        "have the kernel load a cipher",
        &["reach", "kernel_crypto"],
        &["EPERM", "EAFNOSUPPORT"],
    )
    .optional(),
    attack(
        "hear the kernel's events",
        &["reach", "kernel_events"],
        &["EPERM", "EAFNOSUPPORT", "EPROTONOSUPPORT"],
    ),
    attack(
        "configure the network",
        &["reach", "configure_network"],
        DENIED,
    ),
    attack(
        "connect to a name",
        &["reach", "unix_socket", "@{abstract}"],
        &["ECONNREFUSED"],
    ),
    attack(
        "connect to a socket file",
        &["reach", "unix_socket", "{socket}"],
        &["ENOENT"],
    ),
    attack(
        "connect to loopback",
        &["reach", "tcp", "127.0.0.1", "{port}"],
        &["ECONNREFUSED"],
    ),
    attack(
        "connect to an address of the host's",
        &["reach", "tcp", "{host_address}", "{open_port}"],
        &["ENETUNREACH", "ECONNREFUSED", "EHOSTUNREACH"],
    )
    .conceded(has_a_network),
    attack(
        "find a way to the metadata service",
        &["reach", "find_way", "169.254.169.254"],
        &["ENETUNREACH", "EHOSTUNREACH"],
    )
    .optional()
    .conceded(has_a_network),
    attack(
        "connect to another session's port",
        &["reach", "tcp", "{neighbour}", "{neighbour_port}"],
        &["ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "ETIMEDOUT"],
    )
    .conceded(parts_no_sessions),
    attack(
        "attach the host's shared memory",
        &["reach", "shared_memory", "{key}"],
        &["ENOENT"],
    ),
    attack(
        "open the host's shared memory by name",
        &["reach", "shared_memory_file", "{shared}"],
        &["ENOENT"],
    ),
    attack(
        "open the host's message queue",
        &["reach", "message_queue", "{shared}"],
        &["ENOENT"],
    ),
    attack(
        "read a root-only file",
        &["reach", "read_file", "{root_only}"],
        NOT_READABLE,
    ),
    attack(
        "read the shadow file",
        &["reach", "read_file", "/etc/shadow"],
        NOT_READABLE,
    )
    .at_host_image(),
    attack(
        "read a host file",
        &["reach", "read_file", "{marker}"],
        &["ENOENT"],
    ),
    attack(
        "read through init's root",
        &["reach", "read_file", "{init}{marker}"],
        NOT_READABLE,
    ),
    attack(
        "read the keys in use",
        &["reach", "read_file", "/proc/keys"],
        NOT_READABLE,
    ),
    attack(
        "read kernel memory",
        &["reach", "read_file", "/proc/kcore"],
        NOT_READABLE,
    )
    .optional(),
    attack(
        "write to the log",
        &["reach", "open_for_writing", "/dev/kmsg"],
        &["ENOENT", "EPERM"],
    ),
    attack(
        "set the core pattern",
        &["reach", "write_back", "{core_pattern}"],
        NOT_WRITABLE,
    ),
    attack(
        "set the helper for modules",
        &["reach", "write_back", "/proc/sys/kernel/modprobe"],
        NOT_WRITABLE,
    )
    .optional(),
    attack(
        "set the helper for devices",
        &["reach", "open_for_writing", "/sys/kernel/uevent_helper"],
        NOT_WRITABLE,
    )
    .optional(),
    attack(
        "trigger a request",
        &["reach", "open_for_writing", "{sysrq}"],
        NOT_WRITABLE,
    )
    .optional(),
    attack(
        "write to sysfs",
        &["reach", "write_back", "{sysfs}"],
        NOT_WRITABLE,
    ),
    attack(
        "write a read-only bind",
        &["reach", "open_for_writing", "{read_only}"],
        &["EROFS"],
    ),
    attack(
        "write to /usr",
        &["reach", "open_for_writing", "/usr/bin/env"],
        &["EROFS", "EACCES"],
    )
    .at_host_image(),
];
