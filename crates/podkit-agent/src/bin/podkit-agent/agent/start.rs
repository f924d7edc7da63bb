//! How a command begins: its pipes, what holds it together, and the fork.

use alloc::vec::Vec;

use podkit_agent::{ExecSpec, FrameBuffer};
use rustix::{
    fd::OwnedFd,
    io::{Errno, Result, ioctl_fionbio},
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
    tree::Group,
};
use crate::sys::{container::clone_process, serve};

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

impl Agent {
    /// Starts a command; its program may still turn out to be missing.
    pub(super) fn start_exec(&mut self, spec: &ExecSpec, owner: Option<Owner>) -> Result<u32> {
        let id = self.fresh_id();
        let began_us = now_us();
        let oom_before = self.oom_count();
        let (stdin, their_stdin) = match spec.stdin {
            true => {
                let (ours, theirs) = pipe(false)?;
                (Some(ours), Some(theirs))
            }
            false => (None, None),
        };
        let (stdout, their_stdout) = pipe(true)?;
        let (stderr, their_stderr) = if spec.merge_output {
            (None, None)
        } else {
            let (ours, theirs) = pipe(true)?;
            (Some(ours), Some(theirs))
        };
        let (report, their_report) = pipe(true)?;
        let ends = Ends {
            stdin: their_stdin,
            stdout: their_stdout,
            stderr: their_stderr,
            report: their_report,
        };
        let input = match stdin {
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
            pid,
            hold,
            report: Some(report),
            told: FrameBuffer::new(),
            started: false,
            input,
            outs: [
                Some(Out::new(stdout, limit)),
                stderr.map(|fd| Out::new(fd, limit)),
            ],
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
