//! How plans and reports are written as bytes.

use alloc::{boxed::Box, vec::Vec};

use super::{
    ContainerPlan, Descriptors, FilePlan, IdMaps, IdRange, MountPlan, OwnerMap, Plan, ProbePlan,
    Report, RootPlan, TreePlan,
};
use crate::{
    Clocks,
    codec::{DecodeError, Decoder, Encoder, FrameBuffer},
};

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
        frame.bytes(&self.ports);
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
            ports: owned(from)?,
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
            .list(self.main.as_deref().unwrap_or_default());
        count(frame, self.ports.len());
        for port in &self.ports {
            frame.u16(*port);
        }
        frame.rest(&self.boot_token);
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
            ports: many(from, Decoder::u16)?,
            boot_token: from
                .rest()
                .try_into()
                .map_err(|_| DecodeError::Invalid("token"))?,
        })
    }
}
