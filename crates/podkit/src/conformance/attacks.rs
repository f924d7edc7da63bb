//! The attacks of the isolation theme: each must succeed in a control run on the host, and be
//! refused inside.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

/// One C source; it builds to one static program with several attacks in it.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name of the program, and of its source without `.c`.
    pub name: &'static str,
    /// The source.
    pub source: &'static str,
}

/// The programs.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "mounts",
        source: include_str!("../../attacks/mounts.c"),
    },
    Program {
        name: "processes",
        source: include_str!("../../attacks/processes.c"),
    },
    Program {
        name: "kernel",
        source: include_str!("../../attacks/kernel.c"),
    },
    Program {
        name: "reach",
        source: include_str!("../../attacks/reach.c"),
    },
    Program {
        name: "escape_timeout",
        source: include_str!("../../attacks/escape_timeout.c"),
    },
];

/// What the programs include.
const HEADER: &str = include_str!("../../attacks/attack.h");

/// Builds the attack programs into a directory, with `cc` as static programs.
///
/// # Panics
/// When there is no working `cc`, or the directory cannot be written.
pub fn build_programs(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("attack.h"), HEADER).unwrap();
    let start = |program: &Program| {
        let source: PathBuf = directory.join(program.name).with_extension("c");
        fs::write(&source, program.source).unwrap();
        Command::new("cc")
            .args(["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&directory.join(program.name), &source])
            .spawn()
            .expect("a C compiler is needed to build the attack programs")
    };
    let builds: Vec<Child> = PROGRAMS.iter().map(start).collect();
    for mut build in builds {
        assert!(
            build.wait().unwrap().success(),
            "the attack programs must build"
        );
    }
}

/// Where an attack must succeed, to show that it is real.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// On the host, as root.
    Host,
    /// On the host in a mount namespace of its own, after this shell text.
    Mounts(&'static str),
    /// On the host, with a terminal as standard input.
    Terminal,
}

/// One attack. Its arguments may hold words that the [`Stage`](super::Stage) replaces.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// What it tries, in a few words.
    pub about: &'static str,
    /// Program, name of the attack in it, arguments.
    pub argv: &'static [&'static str],
    /// Where it succeeds.
    pub control: Control,
    /// Errors with which it may fail inside.
    pub refused_with: &'static [&'static str],
    /// Whether kernels may be built without what it attacks; then the control run fails with
    /// `ENOSYS` or `ENOENT`.
    pub optional: bool,
    /// Whether it aims at files of the host's that the image `host` shows. Another image has files
    /// of its own there, which are the container's.
    pub aims_at_host_image: bool,
}

type Words = &'static [&'static str];

const fn attack(about: &'static str, argv: Words, refused_with: Words) -> Attack {
    Attack {
        about,
        argv,
        control: Control::Host,
        refused_with,
        optional: false,
        aims_at_host_image: false,
    }
}

impl Attack {
    const fn within(mut self, setup: &'static str) -> Self {
        self.control = Control::Mounts(setup);
        self
    }

    const fn on_terminal(mut self) -> Self {
        self.control = Control::Terminal;
        self
    }

    const fn at_host_image(mut self) -> Self {
        self.aims_at_host_image = true;
        self
    }

    const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

const DENIED: Words = &["EPERM"];
const DENIED_OR_ABSENT: Words = &["EPERM", "ENOSYS", "EACCES"];
const UNSEEN: Words = &["ESRCH", "EPERM"];
const NOT_WRITABLE: Words = &["EROFS", "EACCES", "ENOENT"];
const NOT_READABLE: Words = &["EACCES", "ENOENT", "ENODATA"];

/// All of them.
pub const ATTACKS: &[Attack] = &[
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
        "leave the cgroup",
        &["mounts", "leave_cgroup", "{cgroup}"],
        NOT_WRITABLE,
    ),
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
    attack("add a key", &["kernel", "add_key"], DENIED_OR_ABSENT),
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
    attack("load a kernel", &["kernel", "kexec_load"], DENIED_OR_ABSENT).optional(),
    attack(
        "swap to a file",
        &["kernel", "swapon", "/etc/passwd"],
        DENIED,
    ),
    attack("reboot", &["kernel", "reboot"], DENIED),
    attack("set the clock", &["kernel", "settime"], DENIED),
    attack("reach io ports", &["kernel", "iopl"], DENIED_OR_ABSENT).optional(),
    attack("read the kernel's log", &["kernel", "kernel_log"], DENIED),
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
