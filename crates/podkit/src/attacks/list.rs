//! Attacks on mounts, on cgroups, on processes and their rights, and on the agent.

use super::{Attack, DENIED, DENIED_OR_ABSENT, NOT_WRITABLE, Words, attack};

const UNSEEN: Words = &["ESRCH", "EPERM"];

pub(super) const ATTACKS: &[Attack] = &[
    attack("mount a file system", &["mounts", "mount", "{tmp}"], DENIED).within(":"),
    attack(
        "mount by the newer calls",
        &["mounts", "mount_api"],
        DENIED_OR_ABSENT,
    ),
    attack(
        "clone the mount tree",
        &["mounts", "open_tree"],
        DENIED_OR_ABSENT,
    ),
    attack(
        "unmount a mask",
        &["mounts", "umount", "/proc/keys"],
        DENIED,
    )
    .within("mount --bind /dev/null /proc/keys"),
    attack(
        "make a mount writable",
        &["mounts", "remount", "/proc/sys"],
        DENIED,
    )
    .within("mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"),
    attack(
        "make it writable by the newer call",
        &["mounts", "mount_setattr", "/proc/sys"],
        DENIED_OR_ABSENT,
    )
    .within("mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"),
    attack("pivot the root", &["mounts", "pivot_root", "{tmp}"], DENIED).within(":"),
    attack(
        "leave by chroot",
        &["mounts", "chroot_escape", "{tmp}/jail", "{marker}"],
        &["ENOENT", "EPERM"],
    ),
    attack(
        "make a device",
        &["mounts", "make_device", "{tmp}/device"],
        DENIED,
    ),
    attack(
        "open a device in a bind",
        &["reach", "open_for_writing", "{device}"],
        &["EACCES", "EPERM"],
    ),
    attack(
        "open a file by its handle",
        &["mounts", "open_by_handle", "/usr"],
        DENIED,
    ),
    attack(
        "set a release agent",
        &["mounts", "release_agent", "{tmp}"],
        DENIED,
    )
    .within(":"),
    attack(
        "open the release agent in sight",
        &["reach", "open_for_writing", "{release_agent}"],
        NOT_WRITABLE,
    )
    .optional(),
    attack(
        "register a binary format",
        &["mounts", "binary_format", "{tmp}"],
        DENIED,
    )
    .within(":")
    .optional(),
    attack(
        "redirect a layer of the root",
        &["mounts", "redirect_layer", "{tmp}/redirect"],
        &["EPERM", "EOPNOTSUPP"],
    ),
    attack(
        "leave the cgroup",
        &["mounts", "leave_cgroup", "{cgroup}"],
        NOT_WRITABLE,
    )
    .optional(),
    attack(
        "trace a host process",
        &["processes", "ptrace", "{victim}"],
        UNSEEN,
    ),
    attack(
        "read a host process",
        &["processes", "read_memory", "{victim}"],
        UNSEEN,
    ),
    attack(
        "kill a host process",
        &["processes", "kill", "{victim}"],
        &["ESRCH"],
    ),
    attack(
        "take a descriptor",
        &["processes", "take_descriptor", "{victim}"],
        UNSEEN,
    ),
    attack(
        "find a host process by name",
        &["processes", "find_process", "victim", "{victim}"],
        UNSEEN,
    ),
    attack(
        "time a host process",
        &["processes", "read_clock", "{victim}"],
        &["ESRCH", "EINVAL"],
    ),
    attack(
        "use a descriptor left open",
        &["processes", "left_open", "{marker}"],
        &["EBADF"],
    )
    .within("exec 5</"),
    attack(
        "unshare a user namespace",
        &["processes", "unshare_user"],
        DENIED,
    ),
    attack(
        "clone a user namespace",
        &["processes", "clone_user"],
        DENIED,
    ),
    attack(
        "clone3 a mount namespace",
        &["processes", "clone3_mount"],
        &["ENOSYS"],
    ),
    attack(
        "join a namespace",
        &["processes", "setns", "/proc/self/ns/net"],
        DENIED,
    ),
    attack(
        "raise a capability",
        &["processes", "raise_capability"],
        DENIED,
    ),
    attack("raise a hard limit", &["processes", "raise_limit"], DENIED).optional(),
    attack(
        "hide from the killer of what is out of memory",
        &["reach", "write_text", "/proc/self/oom_score_adj", "-1000"],
        &["EACCES"],
    )
    .optional(),
    attack(
        "become a real-time task",
        &["processes", "realtime"],
        DENIED,
    ),
    attack(
        "become root by a set-id file",
        &["processes", "set_id", "{tmp}/set-id"],
        DENIED,
    ),
    attack(
        "become root by a set-id file of a bind",
        &["processes", "set_id_of_bind", "{set_id}"],
        DENIED,
    ),
    attack(
        "become capable by a file's capabilities",
        &["processes", "file_capability", "{tmp}/capable"],
        DENIED,
    ),
    attack(
        "type into the terminal",
        &["processes", "tiocsti"],
        &["ENXIO", "ENOENT", "ENOTTY"],
    )
    .on_terminal(),
    attack(
        "overwrite the agent",
        &["processes", "overwrite_program", "{program}"],
        &["EACCES", "EPERM"],
    ),
    attack(
        "end the agent",
        &["processes", "end_process", "{program}"],
        DENIED,
    ),
    attack(
        "trace the agent",
        &["processes", "ptrace", "{program}"],
        DENIED,
    ),
    attack(
        "read the agent's memory",
        &["processes", "read_memory", "{program}"],
        DENIED,
    ),
    attack(
        "write the agent's memory",
        &["reach", "open_for_writing", "/proc/{program}/mem"],
        &["EACCES", "EPERM"],
    ),
    attack(
        "take a descriptor of the agent's",
        &["processes", "take_descriptor", "{program}"],
        DENIED,
    ),
    attack(
        "be answered by the agent's socket",
        &["reach", "answering_socket", "{answering}"],
        &["ENOENT", "ECONNRESET", "ECONNREFUSED", "EAGAIN", "EPIPE"],
    ),
];
