//! The helper: a clean start, groups, namespaces, ids; then it ends and leaves PID 1 behind.

use alloc::{format, vec::Vec};
use core::mem::ManuallyDrop;

use podkit_agent::plan::{ContainerPlan, ProbePlan, Report};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::Mode,
    io::{Errno, read, write},
    pipe::{PipeFlags, pipe_with},
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, getpid, kill_process, pidfd_open,
        setpriority_process, setrlimit, umask, waitpid,
    },
    thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_setaffinity},
};

use super::{
    Result, Step,
    channel::Channel,
    init::{self, Birth},
    layers::Loose,
    maps,
};
use crate::sys::container::{clone, clone_process, exit_group, reset_signals};

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
    if let Some(group) = plan.descriptors.namespace_group {
        enter_cgroup_namespace(at(&descriptors, group)?)?;
    }
    let (hear, tell) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let helper = pidfd_open(getpid(), PidfdFlags::empty()).step("open a pidfd")?;
    let agent_group = match plan.descriptors.agent_group {
        Some(place) => Some(at(&descriptors, place)?),
        None => None,
    };
    let flags = namespaces(plan.own_network) | clone::FILES;
    let pid = clone_process(flags, agent_group).step("make the namespaces")?;
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

/// Makes `group` the root of the cgroup namespace in which PID 1 is born. The group must not have
/// members later, so a child enters it, makes the namespace, and ends.
fn enter_cgroup_namespace(group: BorrowedFd<'_>) -> Result<()> {
    let (hear, tell) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let (stay, leave) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let child = clone_process(0, Some(group)).step("enter the container's cgroup")?;
    let Some(child) = child else {
        drop(leave);
        let done = crate::sys::container::unshare_cgroup();
        let _ = write(&tell, &[u8::from(done.is_ok())]);
        let _ = read(&stay, &mut [0_u8]);
        exit_group(0);
    };
    drop(tell);
    let mut answer = [0_u8];
    let heard = read(&hear, &mut answer);
    let entered = if heard == Ok(1) && answer == [1] {
        open_cgroup_namespace(child)
    } else {
        Err(Errno::PERM).step("make the cgroup namespace")
    };
    drop(leave);
    drop(stay);
    let _ = kill_process(child, Signal::KILL);
    let _ = waitpid(Some(child), WaitOptions::empty());
    entered
}

fn open_cgroup_namespace(child: Pid) -> Result<()> {
    use rustix::fs::{CWD, OFlags, openat};
    let path = format!("/proc/{}/ns/cgroup", child.as_raw_nonzero());
    let namespace = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step("open the cgroup namespace")?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ControlGroup))
        .step("enter the cgroup namespace")
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
