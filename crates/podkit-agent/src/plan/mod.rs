//! What the embedded engine tells the agent before it becomes PID 1.
//!
//! The engine starts the agent binary as `podkit-agent setup` with one end of a stream socket as
//! its standard input, sends one [`Plan`] as a frame with the descriptors that the plan names by
//! their place, and reads [`Report`] frames. For a container the engine answers
//! [`Report::Ready`] with [`COMMIT`] once the container is on record; the end of the stream
//! before that ends the container.
//!
//! Both sides come from the same build, so there is no version here.

mod wire;

use alloc::{boxed::Box, string::String, vec::Vec};

use crate::{Clocks, StopReason};

/// Sent by the engine once the container is on record.
pub const COMMIT: u8 = b'C';

/// Most descriptors that travel with one plan.
pub const MAX_DESCRIPTORS: usize = 32;

/// Begins the step at which a file system refused to be shown with other ids.
pub const SHOW_IDS: &str = "show the container's ids in";

/// From here on ids of a [`TreePlan`] are the host's: what belongs to one of them belongs in a copy to the
/// container's own that has its place.
pub const HOST_IDS: u32 = 65_536;

/// What the helper process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Makes a container and becomes its PID 1.
    Container(Box<ContainerPlan>),
    /// Works on trees of files as the root of a user namespace.
    Tree(TreePlan),
    /// Makes the namespaces of a container and ends: answers whether that can work here.
    Probe(ProbePlan),
}

/// One line of a `uid_map` or `gid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// How a user namespace gets its ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
    /// Whether `setgroups` has to be denied first: an unprivileged single id.
    pub deny_setgroups: bool,
    /// `newuidmap` and `newgidmap`, when the maps are theirs to write.
    pub writers: Option<(Vec<u8>, Vec<u8>)>,
}

/// Which of the descriptors that came with the plan is what; numbers are places in that list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// Socket on which the agent listens.
    pub listener: Option<u8>,
    /// File of the mark that a stopped container leaves.
    pub exit_mark: Option<u8>,
    /// The container's lock, held until the commit.
    pub lock: Option<u8>,
    /// File that the main command writes to.
    pub output: Option<u8>,
    /// `tasks` files of version 1 groups that the agent enters.
    pub agent_tasks: Vec<u8>,
    /// `tasks` files of version 1 groups that commands enter.
    pub work_tasks: Vec<u8>,
    /// Version 2 group that the agent is born into.
    pub agent_group: Option<u8>,
    /// Version 2 group below which commands get groups of their own.
    pub work_group: Option<u8>,
    /// Version 2 group that becomes the root of the cgroup namespace.
    pub namespace_group: Option<u8>,
    /// File that counts kills for memory.
    pub oom: Option<u8>,
    /// Sockets of the host's network, for each of the plan's ports.
    pub ports: Vec<u8>,
}

/// The root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootPlan {
    /// Read-only layers, uppermost first; host paths.
    pub lowers: Vec<Vec<u8>>,
    /// Whether the layers are shown with the container's ids.
    pub idmap_lowers: bool,
    /// Directory that holds (or gets) `upper` and `work`; without it the root is a tmpfs upper.
    pub writable: Vec<u8>,
    /// Whether the container cannot write its root.
    pub read_only: bool,
    /// Whether overlay keeps its notes in `user.` attributes.
    pub userxattr: bool,
    /// Bytes of a tmpfs upper, where the directory's file system cannot be one.
    pub fallback_bytes: u64,
}

/// How a bind's owner is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerMap {
    /// User on the host that is shown as root inside.
    pub uid: u32,
    /// Group on the host that is shown as root's inside.
    pub gid: u32,
    /// First id on disk of the other users inside, for id 1.
    pub others: u32,
}

/// One mount, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountPlan {
    /// A file or directory of the host.
    Bind {
        /// Host path.
        source: Vec<u8>,
        /// Device and inode that the source had when it was checked.
        identity: (u64, u64),
        /// Whether it is a directory.
        directory: bool,
        /// Path inside.
        target: Vec<u8>,
        /// Whether it cannot be written.
        read_only: bool,
        /// Whether programs in it cannot run.
        no_exec: bool,
        /// Whether mounts below the source are shown as well.
        recursive: bool,
        /// How owners are shown; as they are without.
        owner: Option<OwnerMap>,
    },
    /// Memory.
    Tmpfs {
        /// Path inside.
        target: Vec<u8>,
        /// Size.
        bytes: u64,
        /// Permission bits of its root.
        mode: u32,
    },
}

/// A file that is written before the container starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlan {
    /// Path inside, in a directory that exists in the image.
    pub path: Vec<u8>,
    /// Content.
    pub bytes: Vec<u8>,
}

/// Everything about one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPlan {
    /// Descriptors.
    pub descriptors: Descriptors,
    /// Whether mounts are built outside, with the host's privileges.
    pub privileged: bool,
    /// Ids.
    pub maps: IdMaps,
    /// Whether it gets a network namespace with nothing but loopback.
    pub own_network: bool,
    /// Host name.
    pub hostname: Vec<u8>,
    /// Root file system.
    pub root: RootPlan,
    /// Further mounts, in order.
    pub mounts: Vec<MountPlan>,
    /// Bytes of `/dev/shm`.
    pub shm_bytes: u64,
    /// Files to write.
    pub files: Vec<FilePlan>,
    /// Directories to make where they are missing.
    pub directories: Vec<Vec<u8>>,
    /// Paths that are covered.
    pub masked: Vec<Vec<u8>>,
    /// Paths that become read-only.
    pub read_only: Vec<Vec<u8>>,
    /// Capabilities as a bit set.
    pub capabilities: u64,
    /// Whether privileges cannot be gained by executing a file.
    pub no_new_privileges: bool,
    /// System call filter of everything, or empty.
    pub filter: Vec<u8>,
    /// Further filter of every command, or empty.
    pub exec_filter: Vec<u8>,
    /// Limit of processes where there is no group for it.
    pub processes_max: Option<u64>,
    /// When it stops by itself.
    pub clocks: Clocks,
    /// Working directory of commands.
    pub cwd: Vec<u8>,
    /// User of commands.
    pub user: Vec<u8>,
    /// Environment of commands.
    pub env: Vec<Vec<u8>>,
    /// The container's own program.
    pub main: Option<Vec<Vec<u8>>>,
    /// Ports that callers of the sockets are passed on to.
    pub ports: Vec<u16>,
    /// Tells this start from others.
    pub boot_token: [u8; 16],
}

/// Work on trees of files, as root of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreePlan {
    /// Ids; no namespace is made without any.
    pub maps: IdMaps,
    /// Trees that are removed with all that is in them.
    pub remove: Vec<Vec<u8>>,
    /// Trees that are copied: from, to. The target's parent exists and may be written by all.
    pub copy: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a probe tries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbePlan {
    /// Ids.
    pub maps: IdMaps,
    /// Whether an overlay is tried: a directory that can be written.
    pub overlay: Vec<u8>,
}

/// What the helper says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// PID 1 exists: its pid where the helper runs.
    Pid(u32),
    /// PID 1 is about to run, and waits for the commit.
    Ready {
        /// Whether the root's upper is a tmpfs, because nothing else worked.
        volatile_root: bool,
    },
    /// Done; for everything but containers.
    Done,
    /// It cannot be.
    Failed {
        /// What was tried: `mount /proc`.
        step: String,
        /// The kernel's error number, or 0.
        errno: i32,
    },
}

/// What a container leaves when it stops: one line in a file that nothing inside can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitMark {
    /// Why it stopped.
    pub reason: StopReason,
    /// Exit code of its own program; 0 without one.
    pub code: u8,
    /// Milliseconds since the last activity.
    pub idle_ms: u64,
}

impl ExitMark {
    const REASONS: [(StopReason, &'static str); 4] = [
        (StopReason::Requested, "requested"),
        (StopReason::AutoStop, "auto_stop"),
        (StopReason::MaxLifetime, "max_lifetime"),
        (StopReason::MainExited, "main_exited"),
    ];

    /// The line, such as `reason=auto_stop code=0 idle_ms=60000`.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut reasons = Self::REASONS.iter();
        let name = reasons
            .find(|(reason, _)| *reason == self.reason)
            .map_or("requested", |(_, name)| name);
        let Self { code, idle_ms, .. } = self;
        alloc::format!("reason={name} code={code} idle_ms={idle_ms}\n")
    }

    /// Reads a line; `None` for anything else, and for a file that is still empty.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let rest = line.trim_end().strip_prefix("reason=")?;
        let (reason, rest) = rest.split_once(" code=")?;
        let (code, idle_ms) = rest.split_once(" idle_ms=")?;
        let (reason, _) = Self::REASONS.iter().find(|(_, name)| *name == reason)?;
        Some(Self {
            reason: *reason,
            code: code.parse().ok()?,
            idle_ms: idle_ms.parse().ok()?,
        })
    }
}
