//! The helper: a clean start, groups, namespaces, ids; then it ends and leaves PID 1 behind.

use alloc::{format, vec::Vec};
use core::mem::ManuallyDrop;

use podkit_agent::plan::{ContainerPlan, ProbePlan, Report};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{Mode, OFlags, openat},
    io::{Errno, read, write},
    pipe::{PipeFlags, pipe_with},
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, Uid, WaitOptions, geteuid, getpid, kill_process,
        pidfd_open, setpriority_process, setrlimit, umask, waitpid,
    },
    thread::{
        CapabilitySet, CpuSet, capabilities, sched_setaffinity, set_capabilities,
        set_thread_res_uid,
    },
};

use super::{
    Result, Step,
    channel::Channel,
    init::{self, Birth},
    layers::Loose,
    maps,
};
use crate::sys::container::{
    clone, clone_process, exit_group, open_files_as_root, reset_signals, unshare_cgroup,
};

/// Makes the container; PID 1 never returns, and the helper ends.
pub(super) fn make(
    plan: ContainerPlan,
    descriptors: Vec<OwnedFd>,
    channel: &mut Channel,
) -> Result<()> {
    clean_start();
    for place in &plan.descriptors.agent_tasks {
        // A thread may move itself without waiting for all others of the machine, which a write
        // of a pid to `cgroup.procs` does.
        let tasks = at(&descriptors, *place)?;
        write(tasks, b"0").step("enter the agent's cgroup")?;
    }
    let (hear, tell) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let helper = pidfd_open(getpid(), PidfdFlags::empty()).step("open a pidfd")?;
    let agent_group = match plan.descriptors.agent_group {
        Some(place) => Some(at(&descriptors, place)?),
        None => None,
    };
    let flags = namespaces(plan.own_network) | clone::FILES;
    let pid = match plan.descriptors.namespace_group {
        Some(place) => clone_below(&plan, at(&descriptors, place)?, flags, agent_group)?,
        None => bear(&plan, flags, agent_group).step("make the namespaces")?,
    };
    // From here on both processes share one descriptor table, and only PID 1 may close anything.
    let mut birth = ManuallyDrop::new(Birth {
        plan,
        descriptors,
        hear,
        tell,
        helper,
    });
    let Some(pid) = pid else {
        init::run(ManuallyDrop::into_inner(birth), channel);
    };
    if let Err(failed) = hand_over(&mut birth, pid, channel) {
        channel.fail(failed);
        let _ = kill_process(pid, Signal::KILL);
    }
    exit_group(0)
}

/// Makes PID 1 with its namespaces, which belong to the container's own root where that can be.
///
/// What the kernel counts for each user (watches of files, queued signals, bytes of message queues)
/// it also counts for the owner of the user's namespace: if that were this process's root, one
/// container could take all of it from the host's root and from every other container.
fn bear(
    plan: &ContainerPlan,
    flags: u64,
    group: Option<BorrowedFd<'_>>,
) -> core::result::Result<Option<Pid>, Errno> {
    // Root that may not look into others' processes could not hand anything to one of another user.
    let held = capabilities(None)?;
    let owner = match maps::root_of(&plan.maps) {
        Ok((owner, _))
            if plan.privileged
                && geteuid().is_root()
                && held.effective.contains(CapabilitySet::SYS_PTRACE) =>
        {
            owner
        }
        _ => return clone_process(flags, group),
    };
    become_for_now(owner)?;
    // That took the rights away, and some machines ask for them before they make a user namespace.
    set_capabilities(None, held)?;
    // It enters the cgroup by opening one of root's files.
    open_files_as_root()?;
    let born = clone_process(flags, group);
    if !matches!(born, Ok(None)) {
        become_for_now(Uid::ROOT)?;
    }
    born
}

/// Changes the effective user of this thread alone, and keeps the way back.
fn become_for_now(user: Uid) -> core::result::Result<(), Errno> {
    set_thread_res_uid(Uid::ROOT, user, Uid::ROOT)
}

/// Gives PID 1 its ids and mounts.
fn hand_over(birth: &mut Birth, pid: Pid, channel: &mut Channel) -> Result<()> {
    maps::write_maps(pid, &birth.plan.maps)?;
    channel.send(&Report::Pid(pid.as_raw_nonzero().get().cast_unsigned()));
    let mut message = Vec::new();
    if birth.plan.privileged {
        let userns = ManuallyDrop::new(maps::namespace_of(pid)?);
        let loose = Loose::gather(&birth.plan, Some(userns.as_fd()))?;
        let built = ManuallyDrop::new(loose.assemble(&birth.plan)?);
        built.encode(&mut message);
    } else {
        message.push(0);
    }
    write(&birth.tell, &message).step("hand the mounts over")?;
    Ok(())
}

/// The descriptor at a place of the plan's list.
pub(super) fn at(descriptors: &[OwnedFd], place: u8) -> Result<BorrowedFd<'_>> {
    descriptors
        .get(usize::from(place))
        .map(AsFd::as_fd)
        .ok_or(Errno::BADF)
        .step(format!("find descriptor {place} of the plan"))
}

const fn namespaces(own_network: bool) -> u64 {
    let flags = clone::NEWUSER | clone::NEWNS | clone::NEWPID | clone::NEWUTS | clone::NEWIPC;
    if own_network {
        flags | clone::NEWNET
    } else {
        flags
    }
}

/// Undoes what the engine's process has set for itself.
fn clean_start() {
    reset_signals();
    umask(Mode::from_raw_mode(0o022));
    // Each of these may be forbidden; the container then keeps what the caller has.
    let _ = setpriority_process(None, 0);
    let mut all = CpuSet::new();
    for cpu in 0..CpuSet::MAX_CPU {
        all.set(cpu);
    }
    let _ = sched_setaffinity(None, &all);
    for (resource, soft, hard) in [
        (Resource::Nofile, 1024, 1024 * 1024),
        (Resource::Core, 0, 0),
        (Resource::Stack, 8 * 1024 * 1024, u64::MAX),
    ] {
        lower(resource, soft, hard);
    }
}

/// Sets a limit, never above what the hard limit allows.
fn lower(resource: Resource, soft: u64, hard: u64) {
    let now = rustix::process::getrlimit(resource);
    let hard = now.maximum.map_or(hard, |maximum| maximum.min(hard));
    let limit = Rlimit {
        current: Some(soft.min(hard)),
        maximum: (hard != u64::MAX).then_some(hard),
    };
    let _ = setrlimit(resource, limit);
}

/// As [`bear`], with `group` as the root of a cgroup namespace that belongs to the container.
///
/// A namespace's root is the group that its maker is in, so a child that enters `group` makes the
/// namespace and PID 1, as the helper's own child, and ends: the group must not have members later.
/// From outside the namespace nobody could be put below it where namespaces are borders of delegation
/// (`nsdelegate`). An ordinary user makes the namespace only together with one of users; then PID 1
/// goes to its group by itself, since one that is born there has that one as its namespace's root.
fn clone_below(
    plan: &ContainerPlan,
    group: BorrowedFd<'_>,
    flags: u64,
    agent_group: Option<BorrowedFd<'_>>,
) -> Result<Option<Pid>> {
    let (hear, tell) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    // The descriptor table is everybody's from here on; PID 1 closes what it does not need.
    let (hear, tell) = (ManuallyDrop::new(hear), ManuallyDrop::new(tell));
    let child = clone_process(clone::FILES, Some(group)).step("enter the container's cgroup")?;
    let Some(child) = child else {
        let made = unshare_cgroup().is_ok();
        let (more, born_in) = if made {
            (0, agent_group)
        } else {
            (clone::NEWCGROUP, None)
        };
        let answer = match bear(plan, flags | more | clone::PARENT, born_in) {
            Ok(None) => {
                if let (false, Some(group)) = (made, agent_group) {
                    enter_group(group)?;
                }
                return Ok(None);
            }
            Ok(Some(pid)) => pid.as_raw_nonzero().get(),
            Err(errno) => errno.raw_os_error().wrapping_neg(),
        };
        let _ = write(&*tell, &answer.to_le_bytes());
        exit_group(0);
    };
    // It may die without a word, so its end is what is waited for.
    let _ = waitpid(Some(child), WaitOptions::empty());
    let mut answer = [0_u8; 4];
    let heard = poll(
        &mut [PollFd::new(&*hear, PollFlags::IN)],
        Some(&Timespec::default()),
    );
    if heard == Ok(1) && read(&*hear, &mut answer) == Ok(answer.len()) {
        match i32::from_le_bytes(answer) {
            errno @ ..0 => Err(Errno::from_raw_os_error(errno.wrapping_neg())),
            pid => Pid::from_raw(pid).map(Some).ok_or(Errno::CHILD),
        }
    } else {
        Err(Errno::CHILD)
    }
    .step("make the namespaces")
}

fn enter_group(group: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    openat(group, "cgroup.procs", flags, Mode::empty())
        .and_then(|members| write(&members, b"0"))
        .step("enter the agent's cgroup")
        .map(drop)
}

/// Tries what every container needs, and leaves nothing.
pub(super) fn probe(plan: &ProbePlan) -> Result<()> {
    let (hear, tell) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let (result, told) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let child = clone_process(namespaces(true), None).step("make the namespaces")?;
    let Some(child) = child else {
        drop((tell, result));
        let _ = read(&hear, &mut [0_u8]);
        let _ = write(&told, &super::answer(init::probe(plan)));
        exit_group(0);
    };
    drop(told);
    let mapped = maps::write_maps(child, &plan.maps);
    drop(tell);
    let mut message = [0_u8; 512];
    let tried = match mapped {
        Ok(()) => {
            let length = read(&result, &mut message).unwrap_or(0);
            super::take_answer(message.get(..length).unwrap_or_default())
        }
        failed => failed,
    };
    let _ = kill_process(child, Signal::KILL);
    let _ = waitpid(Some(child), WaitOptions::empty());
    drop(hear);
    tried
}

/// Raw numbers of descriptors, for the other process of the shared table.
pub(super) fn raw(fd: &OwnedFd) -> [u8; 4] {
    fd.as_raw_fd().to_le_bytes()
}
