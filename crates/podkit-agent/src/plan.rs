//! What the embedded engine tells the agent before it becomes PID 1.
//!
//! The engine starts the agent binary as `podkit-agent setup` with one end of a stream socket as
//! its standard input, sends one [`Plan`] as a frame with the descriptors that the plan names by
//! their place, and reads [`Report`] frames. For a container the engine answers
//! [`Report::Ready`] with [`COMMIT`] once the container is on record; the end of the stream
//! before that ends the container.
//!
//! Both sides come from the same build, so there is no version here.

use alloc::{boxed::Box, string::String, vec::Vec};

use crate::{
    Clocks, StopReason,
    codec::{DecodeError, Decoder, Encoder, FrameBuffer},
};

/// Sent by the engine once the container is on record.
pub const COMMIT: u8 = b'C';

/// Most descriptors that travel with one plan.
pub const MAX_DESCRIPTORS: usize = 32;

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
}

impl ExitMark {
    const REASONS: [(StopReason, &'static str); 4] = [
        (StopReason::Requested, "requested"),
        (StopReason::AutoStop, "auto_stop"),
        (StopReason::MaxLifetime, "max_lifetime"),
        (StopReason::MainExited, "main_exited"),
    ];

    /// The line, such as `reason=auto_stop code=0`.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut reasons = Self::REASONS.iter();
        let name = reasons
            .find(|(reason, _)| *reason == self.reason)
            .map_or("requested", |(_, name)| name);
        alloc::format!("reason={name} code={}\n", self.code)
    }

    /// Reads a line; `None` for anything else, and for a file that is still empty.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (reason, code) = line.trim_end().strip_prefix("reason=")?.split_once(" code=")?;
        let (reason, _) = Self::REASONS.iter().find(|(_, name)| *name == reason)?;
        Some(Self {
            reason: *reason,
            code: code.parse().ok()?,
        })
    }
}

mod kind {
    pub(super) const CONTAINER: u8 = 1;
    pub(super) const TREE: u8 = 2;
    pub(super) const PROBE: u8 = 3;
    pub(super) const PID: u8 = 16;
    pub(super) const READY: u8 = 17;
    pub(super) const DONE: u8 = 18;
    pub(super) const FAILED: u8 = 19;
}

impl Plan {
    /// Appends the plan as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let tag = match self {
            Self::Container(_) => kind::CONTAINER,
            Self::Tree(_) => kind::TREE,
            Self::Probe(_) => kind::PROBE,
        };
        let mut frame = Encoder::frame(out, tag, 0);
        match self {
            Self::Container(plan) => plan.encode(&mut frame),
            Self::Tree(plan) => {
                plan.maps.encode(&mut frame);
                frame.list(&plan.remove);
                count(&mut frame, plan.copy.len());
                for (from, to) in &plan.copy {
                    frame.bytes(from).bytes(to);
                }
            }
            Self::Probe(plan) => {
                plan.maps.encode(&mut frame);
                frame.bytes(&plan.overlay);
            }
        }
        frame.end();
    }

    /// Takes a plan once it is there whole.
    ///
    /// # Errors
    /// Any [`DecodeError`]: the two sides are not of one build.
    pub fn take(buffer: &mut FrameBuffer) -> Result<Option<Self>, DecodeError> {
        let Some((tag, _, payload)) = buffer.next_frame()? else {
            return Ok(None);
        };
        let mut from = Decoder::new(payload);
        let plan = match tag {
            kind::CONTAINER => Self::Container(Box::new(ContainerPlan::decode(&mut from)?)),
            kind::TREE => Self::Tree(TreePlan {
                maps: IdMaps::decode(&mut from)?,
                remove: from.list()?,
                copy: many(&mut from, |from| Ok((owned(from)?, owned(from)?)))?,
            }),
            kind::PROBE => Self::Probe(ProbePlan {
                maps: IdMaps::decode(&mut from)?,
                overlay: owned(&mut from)?,
            }),
            tag => return Err(DecodeError::Unknown(tag)),
        };
        from.finish()?;
        Ok(Some(plan))
    }
}

impl Report {
    /// Appends the report as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let frame = match self {
            Self::Pid(pid) => {
                let mut frame = Encoder::frame(out, kind::PID, 0);
                frame.u32(*pid);
                frame
            }
            Self::Ready { volatile_root } => {
                let mut frame = Encoder::frame(out, kind::READY, 0);
                frame.bool(*volatile_root);
                frame
            }
            Self::Done => Encoder::frame(out, kind::DONE, 0),
            Self::Failed { step, errno } => {
                let mut frame = Encoder::frame(out, kind::FAILED, 0);
                frame.bytes(step.as_bytes()).i32(*errno);
                frame
            }
        };
        frame.end();
    }

    /// Takes the next report once it is there whole.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn take(buffer: &mut FrameBuffer) -> Result<Option<Self>, DecodeError> {
        let Some((tag, _, payload)) = buffer.next_frame()? else {
            return Ok(None);
        };
        let mut from = Decoder::new(payload);
        let report = match tag {
            kind::PID => Self::Pid(from.u32()?),
            kind::READY => Self::Ready {
                volatile_root: from.bool()?,
            },
            kind::DONE => Self::Done,
            kind::FAILED => Self::Failed {
                step: from.string()?,
                errno: from.i32()?,
            },
            tag => return Err(DecodeError::Unknown(tag)),
        };
        from.finish()?;
        Ok(Some(report))
    }
}

fn count(frame: &mut Encoder<'_>, count: usize) {
    frame.u32(u32::try_from(count).unwrap_or(u32::MAX));
}

fn owned(from: &mut Decoder<'_>) -> Result<Vec<u8>, DecodeError> {
    Ok(from.bytes()?.to_vec())
}

fn many<'a, T>(
    from: &mut Decoder<'a>,
    mut one: impl FnMut(&mut Decoder<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = from.u32()?;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(one(from)?);
    }
    Ok(all)
}

fn place(frame: &mut Encoder<'_>, place: Option<u8>) {
    frame.u8(place.unwrap_or(u8::MAX));
}

fn some_place(from: &mut Decoder<'_>) -> Result<Option<u8>, DecodeError> {
    let place = from.u8()?;
    Ok((place != u8::MAX).then_some(place))
}

fn ranges(frame: &mut Encoder<'_>, ranges: &[IdRange]) {
    count(frame, ranges.len());
    for range in ranges {
        frame.u32(range.inside).u32(range.outside).u32(range.count);
    }
}

fn some_ranges(from: &mut Decoder<'_>) -> Result<Vec<IdRange>, DecodeError> {
    many(from, |from| {
        Ok(IdRange {
            inside: from.u32()?,
            outside: from.u32()?,
            count: from.u32()?,
        })
    })
}

impl IdMaps {
    fn encode(&self, frame: &mut Encoder<'_>) {
        ranges(frame, &self.uids);
        ranges(frame, &self.gids);
        frame.bool(self.deny_setgroups).bool(self.writers.is_some());
        if let Some((uid, gid)) = &self.writers {
            frame.bytes(uid).bytes(gid);
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            uids: some_ranges(from)?,
            gids: some_ranges(from)?,
            deny_setgroups: from.bool()?,
            writers: if from.bool()? {
                Some((owned(from)?, owned(from)?))
            } else {
                None
            },
        })
    }
}

impl Descriptors {
    fn encode(&self, frame: &mut Encoder<'_>) {
        place(frame, self.listener);
        place(frame, self.exit_mark);
        place(frame, self.lock);
        place(frame, self.output);
        frame.bytes(&self.agent_tasks).bytes(&self.work_tasks);
        place(frame, self.agent_group);
        place(frame, self.work_group);
        place(frame, self.namespace_group);
        place(frame, self.oom);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            listener: some_place(from)?,
            exit_mark: some_place(from)?,
            lock: some_place(from)?,
            output: some_place(from)?,
            agent_tasks: owned(from)?,
            work_tasks: owned(from)?,
            agent_group: some_place(from)?,
            work_group: some_place(from)?,
            namespace_group: some_place(from)?,
            oom: some_place(from)?,
        })
    }
}

impl RootPlan {
    fn encode(&self, frame: &mut Encoder<'_>) {
        frame
            .list(&self.lowers)
            .bool(self.idmap_lowers)
            .bytes(&self.writable)
            .bool(self.read_only)
            .bool(self.userxattr)
            .u64(self.fallback_bytes);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            lowers: from.list()?,
            idmap_lowers: from.bool()?,
            writable: owned(from)?,
            read_only: from.bool()?,
            userxattr: from.bool()?,
            fallback_bytes: from.u64()?,
        })
    }
}

impl MountPlan {
    fn encode(&self, frame: &mut Encoder<'_>) {
        match self {
            Self::Bind {
                source,
                identity,
                directory,
                target,
                read_only,
                no_exec,
                recursive,
                owner,
            } => {
                frame.u8(1).bytes(source).u64(identity.0).u64(identity.1);
                frame.bool(*directory).bytes(target).bool(*read_only);
                frame.bool(*no_exec).bool(*recursive).bool(owner.is_some());
                if let Some(owner) = owner {
                    frame.u32(owner.uid).u32(owner.gid).u32(owner.others);
                }
            }
            Self::Tmpfs {
                target,
                bytes,
                mode,
            } => {
                frame.u8(2).bytes(target).u64(*bytes).u32(*mode);
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Bind {
                source: owned(from)?,
                identity: (from.u64()?, from.u64()?),
                directory: from.bool()?,
                target: owned(from)?,
                read_only: from.bool()?,
                no_exec: from.bool()?,
                recursive: from.bool()?,
                owner: if from.bool()? {
                    Some(OwnerMap {
                        uid: from.u32()?,
                        gid: from.u32()?,
                        others: from.u32()?,
                    })
                } else {
                    None
                },
            },
            2 => Self::Tmpfs {
                target: owned(from)?,
                bytes: from.u64()?,
                mode: from.u32()?,
            },
            tag => return Err(DecodeError::Unknown(tag)),
        })
    }
}

impl ContainerPlan {
    fn encode(&self, frame: &mut Encoder<'_>) {
        self.descriptors.encode(frame);
        frame.bool(self.privileged);
        self.maps.encode(frame);
        frame.bool(self.own_network).bytes(&self.hostname);
        self.root.encode(frame);
        count(frame, self.mounts.len());
        for mount in &self.mounts {
            mount.encode(frame);
        }
        frame.u64(self.shm_bytes);
        count(frame, self.files.len());
        for file in &self.files {
            frame.bytes(&file.path).bytes(&file.bytes);
        }
        frame
            .list(&self.directories)
            .list(&self.masked)
            .list(&self.read_only)
            .u64(self.capabilities)
            .bool(self.no_new_privileges)
            .bytes(&self.filter)
            .bytes(&self.exec_filter)
            .option_u64(self.processes_max)
            .option_u64(self.clocks.auto_stop_ms)
            .option_u64(self.clocks.max_lifetime_ms)
            .bytes(&self.cwd)
            .bytes(&self.user)
            .list(&self.env)
            .bool(self.main.is_some())
            .list(self.main.as_deref().unwrap_or_default())
            .rest(&self.boot_token);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            descriptors: Descriptors::decode(from)?,
            privileged: from.bool()?,
            maps: IdMaps::decode(from)?,
            own_network: from.bool()?,
            hostname: owned(from)?,
            root: RootPlan::decode(from)?,
            mounts: many(from, MountPlan::decode)?,
            shm_bytes: from.u64()?,
            files: many(from, |from| {
                Ok(FilePlan {
                    path: owned(from)?,
                    bytes: owned(from)?,
                })
            })?,
            directories: from.list()?,
            masked: from.list()?,
            read_only: from.list()?,
            capabilities: from.u64()?,
            no_new_privileges: from.bool()?,
            filter: owned(from)?,
            exec_filter: owned(from)?,
            processes_max: from.option_u64()?,
            clocks: Clocks {
                auto_stop_ms: from.option_u64()?,
                max_lifetime_ms: from.option_u64()?,
            },
            cwd: owned(from)?,
            user: owned(from)?,
            env: from.list()?,
            main: {
                let present = from.bool()?;
                let main = from.list()?;
                present.then_some(main)
            },
            boot_token: from
                .rest()
                .try_into()
                .map_err(|_| DecodeError::Invalid("token"))?,
        })
    }
}
