//! PID 1 between its birth and the agent.

use alloc::vec::Vec;

use podkit_agent::plan::{ContainerPlan, ProbePlan, Report};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{CWD, Mode, OFlags, openat},
    io::{Errno, fcntl_dupfd_cloexec, read},
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    process::setsid,
    system::sethostname,
};

use super::{
    Result, Step,
    channel::Channel,
    harden, layers,
    layers::{Built, Loose},
    maps, overlay,
    process::at,
    root,
};
use crate::agent::Written;
use crate::sys::container::{
    close_others, control, exit_group, raise_loopback, replace_standard_streams, unshare_cgroup,
};

/// What PID 1 is born with.
pub(super) struct Birth {
    pub(super) plan: ContainerPlan,
    pub(super) descriptors: Vec<OwnedFd>,
    /// Says that ids and mounts are there.
    pub(super) hear: OwnedFd,
    pub(super) tell: OwnedFd,
    /// The helper's pidfd, which tells when it is gone.
    pub(super) helper: OwnedFd,
}

/// The descriptors that the agent works with.
struct Kept {
    listener: Option<OwnedFd>,
    exit_mark: Option<OwnedFd>,
    output: Option<OwnedFd>,
    unified: Option<OwnedFd>,
    tasks: Vec<OwnedFd>,
    oom: Option<OwnedFd>,
    ports: Vec<OwnedFd>,
}

/// Makes the container around this process, and becomes its agent.
pub(super) fn run(birth: Birth, channel: &mut Channel) -> ! {
    match set_up(&birth) {
        Ok(volatile_root) => channel.send(&Report::Ready { volatile_root }),
        Err(failed) => {
            channel.fail(failed);
            exit_group(1);
        }
    }
    // Until the engine has written this container down nobody could find it: then its end is ours.
    if !channel.committed() {
        exit_group(0);
    }
    match become_agent(birth) {
        Ok(config) => crate::agent::run(config),
        Err(_) => exit_group(1),
    }
}

fn set_up(birth: &Birth) -> Result<bool> {
    let plan = &birth.plan;
    let mut message = [0_u8; 2048];
    let length = wait_for_helper(birth, &mut message)?;
    let message = message.get(..length).unwrap_or_default();
    let handed = Built::decode(message)?;
    // Without privileges outside, the caller's own files are opened before this stops being the
    // caller.
    let loose = match &handed {
        Some(_) => None,
        None => Some(Loose::gather(plan, None)?),
    };
    let _ = setsid();
    maps::become_root(plan.maps.deny_setgroups)?;
    if plan.descriptors.namespace_group.is_none() {
        unshare_cgroup().step("make the cgroup namespace")?;
    }
    sethostname(&plan.hostname).step("set the host name")?;
    if plan.own_network {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .step("make a socket")?;
        raise_loopback(socket.as_fd()).step("switch loopback on")?;
    }
    let built = match (handed, loose) {
        (Some(built), _) => built,
        (None, Some(loose)) => loose.assemble(plan)?,
        (None, None) => return Err(Errno::PROTO).step("take the mounts over"),
    };
    root::enter(plan, &built)?;
    harden::apply(plan)?;
    Ok(built.volatile_root)
}

/// Waits for ids and mounts. A helper that died, or an engine that is gone, ends this process.
fn wait_for_helper(birth: &Birth, message: &mut [u8]) -> Result<usize> {
    loop {
        let mut fds = [
            PollFd::new(&birth.hear, PollFlags::IN),
            PollFd::new(&birth.helper, PollFlags::IN),
            PollFd::from_borrowed_fd(control(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).step("wait for the helper"),
        }
        let ended = !fds[1].revents().is_empty();
        // A helper that has ended may have said all just before.
        if fds[0].revents().contains(PollFlags::IN) || (ended && has_input(&birth.hear)) {
            return read(&birth.hear, message).step("hear from the helper");
        }
        if ended || !fds[2].revents().is_empty() {
            exit_group(0);
        }
    }
}

fn has_input(pipe: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::IN)
}

/// Keeps the descriptors that the agent works with, and closes all others.
fn become_agent(birth: Birth) -> Result<crate::agent::Config> {
    let Birth {
        plan, descriptors, ..
    } = &birth;
    let wanted = &plan.descriptors;
    let own = |place: Option<u8>| -> Result<Option<OwnedFd>> {
        match place {
            // Above everything that is closed below.
            Some(place) => fcntl_dupfd_cloexec(at(descriptors, place)?, 3)
                .step("keep a descriptor")
                .map(Some),
            None => Ok(None),
        }
    };
    let mut tasks = Vec::new();
    for place in &wanted.work_tasks {
        tasks.extend(own(Some(*place))?);
    }
    let mut ports = Vec::new();
    for place in &wanted.ports {
        ports.extend(own(Some(*place))?);
    }
    let unified = own(wanted.work_group)?;
    let oom = own(wanted.oom)?;
    let listener = own(wanted.listener)?;
    let exit_mark = own(wanted.exit_mark)?;
    let output = own(wanted.output)?;
    let keep: Vec<_> = [&unified, &oom, &listener, &exit_mark, &output]
        .into_iter()
        .flatten()
        .chain(&tasks)
        .chain(&ports)
        .map(AsRawFd::as_raw_fd)
        .collect();
    null_standard_streams()?;
    let Birth {
        plan,
        descriptors,
        hear,
        tell,
        helper,
    } = birth;
    // They are closed with all others.
    let _ = core::mem::ManuallyDrop::new((descriptors, hear, tell, helper));
    close_others(3, &keep);
    Ok(config(
        plan,
        Kept {
            listener,
            exit_mark,
            output,
            unified,
            tasks,
            oom,
            ports,
        },
    ))
}

/// Puts the container's `/dev/null` in the place of what the engine gave: its socket, its log.
fn null_standard_streams() -> Result<()> {
    let null = openat(
        CWD,
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open /dev/null")?;
    replace_standard_streams(null.as_fd()).step("close the socket to the engine")
}

/// Tries what every container needs beyond its namespaces.
pub(super) fn probe(plan: &ProbePlan) -> Result<()> {
    let writable = if plan.overlay.is_empty() {
        None
    } else {
        Some(layers::open_directory(&plan.overlay)?)
    };
    maps::become_root(plan.maps.deny_setgroups)?;
    layers::file_system("proc", &[], 0)?;
    match writable {
        Some(writable) => overlay::probe(&plan.overlay, writable),
        None => Ok(()),
    }
}

fn config(plan: ContainerPlan, kept: Kept) -> crate::agent::Config {
    crate::agent::Config {
        clocks: plan.clocks,
        cwd: plan.cwd,
        user: plan.user,
        env: plan.env,
        main: plan.main,
        main_user: Vec::new(),
        main_cwd: Vec::new(),
        capabilities: None,
        boot_token: plan.boot_token,
        exec_filter: plan.exec_filter,
        listener: kept.listener.map(|socket| crate::agent::Listener {
            socket,
            inside: false,
        }),
        dial: None,
        exit_mark: kept.exit_mark,
        output: kept.output.map_or_else(Written::default, Written::File),
        unified: kept.unified,
        tasks: kept.tasks,
        oom: kept.oom,
        ports: kept.ports.into_iter().zip(plan.ports).collect(),
    }
}
