//! How a command begins: its pipes, what holds it together, and the fork.

use alloc::vec::Vec;

use podkit_agent::{ExecSpec, FrameBuffer};
use rustix::{
    fd::OwnedFd,
    io::{Errno, Result, fcntl_dupfd_cloexec, ioctl_fionbio},
    pipe::{PipeFlags, pipe_with},
};

use super::{
    Agent,
    child::{self, Ends, Order},
    clocks::{now_ms, now_us},
    exec::{Exec, Hold, Kill, Owner},
    input::Input,
    output::Out,
    poll::{Source, Wants},
    supervisor,
    terminal::Terminals,
    tree::Group,
};
use crate::sys::{container::clone_process, serve};

/// The first descriptor that is not one of the standard streams.
const FIRST_FREE: i32 = 3;

/// A pipe whose end on our side does not block. `ours_reads` says which end that is.
pub(super) fn pipe(ours_reads: bool) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let (ours, theirs) = if ours_reads {
        (reader, writer)
    } else {
        (writer, reader)
    };
    ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// Where what a command writes goes.
#[derive(Clone, Copy)]
pub(super) enum Written<'a> {
    /// To the agent.
    Here,
    /// To pipes that somebody else reads: standard output, and standard error where it is apart.
    Elsewhere([Option<&'a OwnedFd>; 2]),
}

/// What is between a command and the agent.
struct Wires {
    ends: Ends,
    input: Option<OwnedFd>,
    outs: [Option<OwnedFd>; 2],
    report: OwnedFd,
}

impl Wires {
    fn new(spec: &ExecSpec, written: Written<'_>, terminals: &Terminals) -> Result<Self> {
        let (report, their_report) = pipe(true)?;
        if let Some(size) = spec.terminal {
            let (ours, theirs) = terminals.open(size)?;
            let ends = Ends {
                stdin: Some(copy(&theirs)?),
                stdout: theirs,
                stderr: None,
                report: their_report,
                terminal: true,
            };
            return Ok(Self {
                ends,
                input: Some(copy(&ours)?),
                outs: [Some(ours), None],
                report,
            });
        }
        let (input, stdin) = split(spec.stdin, false)?;
        let (outs, stdout, stderr) = match written {
            Written::Here => {
                let (stdout, their_stdout) = pipe(true)?;
                let (stderr, their_stderr) = split(!spec.merge_output, true)?;
                ([Some(stdout), stderr], their_stdout, their_stderr)
            }
            Written::Elsewhere([stdout, stderr]) => {
                let stdout = copy(stdout.ok_or(Errno::BADF)?)?;
                ([None, None], stdout, stderr.map(copy).transpose()?)
            }
        };
        let ends = Ends {
            stdin,
            stdout,
            stderr,
            report: their_report,
            terminal: false,
        };
        Ok(Self {
            ends,
            input,
            outs,
            report,
        })
    }
}

/// A pipe where one is wanted, as [`pipe`] makes it.
fn split(wanted: bool, ours_reads: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    if !wanted {
        return Ok((None, None));
    }
    let (ours, theirs) = pipe(ours_reads)?;
    Ok((Some(ours), Some(theirs)))
}

/// Another descriptor of the same.
fn copy(fd: &OwnedFd) -> Result<OwnedFd> {
    fcntl_dupfd_cloexec(fd, FIRST_FREE)
}

impl Agent {
    /// Starts a command; its program may still turn out to be missing.
    pub(super) fn start_exec(
        &mut self,
        spec: &ExecSpec,
        owner: Option<Owner>,
        written: Written<'_>,
    ) -> Result<u32> {
        let id = self.fresh_id();
        let began_us = now_us();
        let oom_before = self.oom_count();
        let Wires {
            ends,
            input,
            outs: [stdout, stderr],
            report,
        } = Wires::new(spec, written, &self.terminals)?;
        let input = match input {
            Some(fd) if spec.terminal.is_some() => Some(Input::of_terminal(fd)),
            Some(fd) => Some(Input::new(fd, &self.poll, Source::Stdin(id))?),
            None => None,
        };
        self.poll.add(&report, Source::Report(id), Wants::Read)?;
        let (pid, hold) = self.fork_command(id, spec, &ends)?;
        drop(ends);
        let limit = spec.output_limit_bytes;
        let exec = Exec {
            owner,
            detached: spec.detached,
            passive: spec.passive,
            main: false,
            process: None,
            terminal: spec.terminal.is_some(),
            pid,
            hold,
            report: Some(report),
            told: FrameBuffer::new(),
            started: false,
            input,
            outs: [stdout, stderr].map(|fd| fd.map(|fd| Out::new(fd, limit))),
            truncated: [false; 2],
            ended: None,
            ended_us: 0,
            cause: None,
            kill: Kill::No,
            deadline: spec.timeout_ms.map(|ms| now_ms().saturating_add(ms)),
            drain_until: None,
            began_us,
            oom_before,
        };
        self.execs.insert(id, exec);
        Ok(id)
    }

    fn fork_command(&self, id: u32, spec: &ExecSpec, ends: &Ends) -> Result<(Option<i32>, Hold)> {
        let order = Order {
            spec,
            config: &self.config,
            processes: &self.processes,
            ends,
        };
        let Some(unified) = &self.config.unified else {
            let (tells, their_tells) = pipe(true)?;
            self.poll.add(&tells, Source::Supervisor(id), Wants::Read)?;
            let pid = match clone_process(0, None)? {
                Some(pid) => pid.as_raw_nonzero().get(),
                None => supervisor::run(&order, &their_tells),
            };
            let hold = Hold::Supervisor {
                pid,
                tells: Some(tells),
                heard: Vec::new(),
                ended: false,
            };
            return Ok((None, hold));
        };
        let group = Group::new(unified, id)?;
        let pid = match clone_process(0, Some(group.as_fd())) {
            Ok(Some(pid)) => pid.as_raw_nonzero().get(),
            Ok(None) => child::execute(&order),
            Err(errno) => {
                self.remove_group(&group);
                return Err(errno);
            }
        };
        Ok((Some(pid), Hold::Group(group)))
    }

    /// Takes in what a supervisor tells: the command's number, then how it ended.
    pub(super) fn hear_supervisor(&mut self, id: u32) {
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        let Hold::Supervisor { tells, heard, .. } = &mut exec.hold else {
            return;
        };
        let Some(fd) = tells else {
            return;
        };
        let mut buffer = [0_u8; 128];
        let mut over = false;
        while let Some(count) = super::connection::read_some(fd, &mut buffer) {
            if count == 0 || heard.len() > supervisor::MOST_BYTES {
                over = true;
                break;
            }
            heard.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
        let (pid, ended) = supervisor::told(heard);
        if over {
            self.poll.remove(&*fd);
            *tells = None;
        }
        if let Some(pid) = pid {
            exec.pid = Some(pid);
        }
        if pid.is_some() {
            self.tell_started(id);
        }
        if let Some((status, used)) = ended {
            self.exec_ended(id, status, used);
        } else if over && pid.is_none() {
            // It could not even start the command.
            self.exec_ended(id, 9, serve::Used::default());
        }
    }
}

/// Whether starting a process failed for want of something.
pub(super) const fn is_want(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC
    )
}
