//! A command, from its request to its result.

use alloc::{format, string::String, vec::Vec};

use podkit_agent::{
    ExecSpec, ExecStatus, ExecUsage, Failure, FailureKind, FrameBuffer, MemorySource, Reply,
};
use rustix::{fd::OwnedFd, io::Errno};

use super::{
    Agent,
    clocks::{KILL_LOOK_MS, now_us},
    connection::read_some,
    input::Input,
    output::Out,
    requests::failure,
    start::Written,
    tree::{Group, Hunt},
};
use crate::sys::serve::Used;

/// SIGKILL.
const KILLED: u8 = 9;

/// Who wants the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) connection: u32,
    pub(super) stream: u32,
}

/// Why a command is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    TimedOut,
    GivenUp,
    Closed,
}

/// What holds a command's processes together.
pub(super) enum Hold {
    /// A version 2 group of its own.
    Group(Group),
    /// A subreaper.
    Supervisor {
        pid: i32,
        /// What it tells; gone with it.
        tells: Option<OwnedFd>,
        heard: Vec<u8>,
        ended: bool,
    },
}

/// How far killing the tree has come.
pub(super) enum Kill {
    No,
    Since(u64, Hunt),
    Done,
    /// Something of it resists.
    Survived,
}

/// A command, from its request to its result.
pub(super) struct Exec {
    pub(super) owner: Option<Owner>,
    pub(super) detached: bool,
    pub(super) passive: bool,
    /// Whether it is the container's own program.
    pub(super) main: bool,
    /// The process that it is the command of.
    pub(super) process: Option<u32>,
    /// Whether its input and output are a terminal.
    pub(super) terminal: bool,
    /// In this pid namespace; not known at first where a supervisor starts it.
    pub(super) pid: Option<i32>,
    pub(super) hold: Hold,
    /// Ends when the program was executed, or says why not.
    pub(super) report: Option<OwnedFd>,
    pub(super) told: FrameBuffer,
    pub(super) started: bool,
    pub(super) input: Option<Input>,
    pub(super) outs: [Option<Out>; 2],
    pub(super) truncated: [bool; 2],
    /// How it ended, and what it used.
    pub(super) ended: Option<(i32, Used)>,
    pub(super) ended_us: u64,
    pub(super) cause: Option<Cause>,
    pub(super) kill: Kill,
    /// When it is killed.
    pub(super) deadline: Option<u64>,
    /// When what others hold open of its output is let go.
    pub(super) drain_until: Option<u64>,
    pub(super) began_us: u64,
    /// Kills for memory before it began.
    pub(super) oom_before: Option<u64>,
}

impl Exec {
    pub(super) const fn is_running(&self) -> bool {
        self.ended.is_none()
    }

    pub(super) const fn holds_off(&self) -> bool {
        !self.passive
    }

    /// When it has to be looked at.
    pub(super) fn next(&self, now: u64) -> Option<u64> {
        if matches!(self.kill, Kill::Since(..)) {
            return Some(now + KILL_LOOK_MS);
        }
        let deadline = self.deadline.filter(|_| self.ended.is_none());
        let drain = self
            .drain_until
            .filter(|_| self.outs.iter().flatten().any(Out::is_open_ended));
        let look = self.outs[0].as_ref().and_then(|out| out.look_at);
        [deadline, drain, look].into_iter().flatten().min()
    }

    /// Whether it has to be looked at now. The kernel tells of a process's end before its group is
    /// empty, so what is being killed is looked at until it is gone, whatever else happens.
    pub(super) fn is_due(&self, now: u64) -> bool {
        matches!(self.kill, Kill::Since(..)) || self.next(now).is_some_and(|at| at <= now)
    }

    pub(super) fn status(&self, oom_now: Option<u64>) -> ExecStatus {
        let Some((status, _)) = self.ended else {
            return match self.cause {
                Some(Cause::TimedOut) => ExecStatus::TimedOut,
                Some(Cause::Closed) => ExecStatus::SessionClosed,
                _ => ExecStatus::Signaled(9),
            };
        };
        match self.cause {
            Some(Cause::TimedOut) => return ExecStatus::TimedOut,
            Some(Cause::Closed) => return ExecStatus::SessionClosed,
            Some(Cause::GivenUp) | None => {}
        }
        let signal = u8::try_from(status & 0x7f).unwrap_or(0);
        let code = u8::try_from(status >> 8 & 0xff).unwrap_or(0);
        // A shell tells in its code that what it ran was killed.
        let killed = signal == KILLED || (signal == 0 && code == 128 + KILLED);
        let starved =
            matches!((self.oom_before, oom_now), (Some(before), Some(now)) if now > before);
        match signal {
            _ if killed && starved && self.cause.is_none() => ExecStatus::OutOfMemory,
            0 => ExecStatus::Exited(code),
            _ => ExecStatus::Signaled(signal),
        }
    }

    pub(super) fn usage(&self) -> ExecUsage {
        let used = self.ended.map(|(_, used)| used).unwrap_or_default();
        let ended_us = if self.ended.is_some() {
            self.ended_us
        } else {
            now_us()
        };
        let group = match &self.hold {
            Hold::Group(group) => Some(group.usage()),
            Hold::Supervisor { .. } => None,
        };
        let (cpu, peak) = group.unwrap_or_default();
        let (user_us, system_us) = cpu.unwrap_or((used.user_us, used.system_us));
        ExecUsage {
            wall_us: ended_us.saturating_sub(self.began_us),
            user_us,
            system_us,
            peak_memory_bytes: peak.unwrap_or(used.resident_bytes),
            peak_memory_source: if peak.is_some() {
                MemorySource::Cgroup
            } else {
                MemorySource::LargestProcess
            },
        }
    }
}

impl Agent {
    /// Begins a command for a client.
    pub(super) fn begin_exec(
        &mut self,
        connection: u32,
        stream: u32,
        spec: &ExecSpec,
    ) -> Result<u32, Failure> {
        check(spec)?;
        if !spec.passive {
            self.clocks.touch();
        }
        let owner = Owner { connection, stream };
        self.start_exec(spec, Some(owner), Written::Here)
            .map_err(not_started)
    }

    /// The child says that it cannot execute, or ends silently because it has.
    pub(super) fn hear_report(&mut self, id: u32) {
        let mut buffer = [0_u8; 1024];
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        let Some(report) = &exec.report else {
            return;
        };
        match read_some(report, &mut buffer) {
            None => return,
            Some(0) => {}
            Some(count) => {
                exec.told.push(buffer.get(..count).unwrap_or_default());
                return;
            }
        }
        let said = match exec.told.next_frame() {
            Ok(Some((kind, 0, payload))) => Reply::decode(kind, payload).ok(),
            _ => None,
        };
        if let Some(report) = exec.report.take() {
            self.poll.remove(&report);
        }
        match said {
            Some(Reply::Failed(failure)) => self.exec_failed(id, failure),
            _ => self.tell_started(id),
        }
    }

    /// Tells the client once the program runs and its number is known.
    pub(super) fn tell_started(&mut self, id: u32) {
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        let (None, false, Some(pid)) = (&exec.report, exec.started, exec.pid) else {
            return;
        };
        exec.started = true;
        let exec_process = exec.process;
        if let Some(owner) = exec.owner {
            let started = Reply::Started(pid.cast_unsigned());
            self.reply(owner.connection, owner.stream, &started);
        }
        if let Some(process) = exec_process {
            self.process_began(process);
        }
        self.resume_output(id);
        self.settle(id);
    }

    /// It never began.
    pub(super) fn exec_failed(&mut self, id: u32, failure: Failure) {
        if let Some(process) = self.execs.get(&id).and_then(|exec| exec.process) {
            self.process_refused(process, &failure);
        }
        if let Some(exec) = self.execs.get_mut(&id)
            && let Some(owner) = exec.owner.take()
        {
            self.reply(owner.connection, owner.stream, &Reply::Failed(failure));
            self.forget_stream(owner);
        }
        self.settle(id);
    }

    pub(super) fn forget_stream(&mut self, owner: Owner) {
        if let Some(connection) = self.connections.get_mut(&owner.connection) {
            connection.streams.remove(&owner.stream);
        }
    }
}

/// Why there is no process for a command.
pub(super) fn not_started(errno: Errno) -> Failure {
    let kind = match errno {
        Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE => FailureKind::LimitExceeded,
        Errno::NODEV => FailureKind::Unsupported,
        _ => FailureKind::Unexpected,
    };
    let message = format!("start a process: {}", words(errno));
    failure(kind, errno.raw_os_error(), message)
}

/// What can be told before anything is begun.
pub(super) fn check(spec: &ExecSpec) -> Result<(), Failure> {
    let invalid = |message: &str| Err(failure(FailureKind::InvalidInput, 0, String::from(message)));
    if spec.argv.first().is_none_or(Vec::is_empty) {
        return invalid("the command is empty");
    }
    if spec
        .argv
        .iter()
        .chain(&spec.env)
        .any(|word| word.contains(&0))
    {
        return invalid("an argument or an entry of the environment has a NUL byte");
    }
    if spec
        .env
        .iter()
        .any(|entry| entry.first() == Some(&b'=') || !entry.contains(&b'='))
    {
        return invalid("an entry of the environment has no name or no value");
    }
    if spec.cwd.contains(&0) || spec.user.contains(&0) {
        return invalid("the working directory or the user has a NUL byte");
    }
    Ok(())
}

fn words(errno: Errno) -> &'static str {
    match errno {
        Errno::AGAIN => "the limit of processes is reached",
        Errno::NOMEM => "there is no memory left",
        Errno::MFILE | Errno::NFILE => "there are no descriptors left",
        Errno::NODEV => "the container has no terminals at /dev/pts",
        _ => "the kernel refused",
    }
}
