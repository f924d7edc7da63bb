//! How a command ends: by itself, at its deadline, or because nobody wants it any more.

use podkit_agent::{DRAIN_MS, Reply, StopReason, Target};
use rustix::fd::OwnedFd;

use super::{
    Agent,
    clocks::{now_ms, now_us},
    closing,
    exec::{Cause, Hold, Kill},
    log::Log,
    requests,
    tree::Hunt,
};
use crate::sys::serve::{self, Used};

/// How long a tree may resist being killed.
const KILL_PATIENCE_MS: u64 = 2000;

/// How long whoever reads the log may keep the container from its end.
const LOG_PATIENCE_MS: u64 = 5000;

/// How soon it is looked at again.
const LOG_LOOK_MS: u64 = 50;

impl Agent {
    /// The command itself has ended.
    pub(super) fn exec_ended(&mut self, id: u32, status: i32, used: Used) {
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        if exec.ended.is_some() {
            return;
        }
        exec.ended = Some((status, used));
        exec.ended_us = now_us();
        let (process, terminal) = (exec.process, exec.terminal);
        exec.drain_until = Some(now_ms() + DRAIN_MS);
        if matches!(exec.hold, Hold::Supervisor { ended: true, .. }) {
            self.orphans.get_or_insert_with(Hunt::default);
        }
        if !exec.passive {
            self.clocks.touch();
        }
        // What a process that is being stopped leaves goes with it.
        if process.is_some_and(|process| self.is_stopping(process)) {
            return self.kill_exec(id, Cause::GivenUp);
        }
        if terminal {
            self.resume_output(id);
        }
        self.settle(id);
    }

    /// Something is due: the deadline, the end of the drain, a look at what is being killed.
    pub(super) fn exec_is_due(&mut self, id: u32, now: u64) {
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        if exec.ended.is_none() && exec.deadline.is_some_and(|at| at <= now) {
            exec.deadline = None;
            self.kill_exec(id, Cause::TimedOut);
            return;
        }
        let look = exec.outs[0].as_ref().and_then(|out| out.look_at);
        if look.is_some_and(|at| at <= now) {
            self.resume_output(id);
        }
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        if exec.drain_until.is_some_and(|at| at <= now) {
            if exec.main && !self.log.has_room() {
                if exec.ended_us / 1000 + LOG_PATIENCE_MS > now {
                    exec.drain_until = Some(now + LOG_LOOK_MS);
                    return;
                }
                self.log = Log::Dropped;
            }
            exec.drain_until = None;
            for out in exec.outs.iter_mut().flatten() {
                out.end_after_what_is_there();
            }
            self.resume_output(id);
        }
        self.settle(id);
    }

    /// Kills the command with everything that it has started.
    pub(super) fn kill_exec(&mut self, id: u32, cause: Cause) {
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        if exec.ended.is_none() {
            exec.cause.get_or_insert(cause);
        }
        if matches!(exec.kill, Kill::No) {
            exec.kill = Kill::Since(now_ms(), Hunt::default());
        }
        self.settle(id);
    }

    /// The client gives it up.
    pub(super) fn cancel(&mut self, id: u32) {
        self.kill_exec(id, Cause::GivenUp);
    }

    /// The client is gone.
    pub(super) fn exec_lost_its_client(&mut self, id: u32) {
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        exec.owner = None;
        let detached = exec.detached;
        if let Some(input) = exec.input.take() {
            input.leave(&self.poll);
        }
        if detached {
            self.resume_output(id);
            return self.settle(id);
        }
        self.kill_exec(id, Cause::GivenUp);
        self.resume_output(id);
    }

    /// Sends a signal to the command's group or to all that it has started.
    pub(super) fn signal(&self, id: u32, target: Target, number: i32) {
        if !(1..=64).contains(&number) {
            return;
        }
        let Some(exec) = self.execs.get(&id) else {
            return;
        };
        match (target, exec.pid, &exec.ended) {
            (Target::Group, Some(pid), None) => {
                if serve::kill(-pid, number).is_err() {
                    let _ = serve::kill(pid, number);
                }
            }
            (Target::Group, ..) => {}
            (Target::Tree, ..) => {
                for pid in self.tree_of(exec) {
                    let _ = serve::kill(pid, number);
                }
            }
        }
    }

    /// Goes on with what is being killed, and answers once all is known.
    pub(super) fn settle(&mut self, id: u32) {
        self.go_on_killing(id);
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        let killing = matches!(exec.kill, Kill::Since(..));
        let gone = exec.ended.is_some() || matches!(exec.kill, Kill::Survived);
        let reporting = exec.report.is_some() || (exec.owner.is_some() && !exec.started);
        if !gone || killing || reporting || exec.outs.iter().any(Option::is_some) {
            // A command that never began has no owner any more, and nothing to wait for.
            return;
        }
        self.finish(id);
    }

    fn go_on_killing(&mut self, id: u32) {
        let Some(mut exec) = self.execs.remove(&id) else {
            return;
        };
        let Kill::Since(since, mut hunt) = core::mem::replace(&mut exec.kill, Kill::No) else {
            self.execs.insert(id, exec);
            return;
        };
        let gone = match &exec.hold {
            Hold::Group(group) => group.kill(),
            Hold::Supervisor { pid, ended, .. } => self.hunt(&mut hunt, (!ended).then_some(*pid)),
        };
        exec.kill = if gone {
            // Nothing can write any more, unless a descriptor was handed to another command.
            exec.drain_until = Some(now_ms());
            Kill::Done
        } else if now_ms().saturating_sub(since) > KILL_PATIENCE_MS {
            exec.drain_until = Some(now_ms());
            Kill::Survived
        } else {
            Kill::Since(since, hunt)
        };
        let over = !matches!(exec.kill, Kill::Since(..));
        self.execs.insert(id, exec);
        if over {
            self.reap();
            if let Some(exec) = self.execs.get_mut(&id) {
                for out in exec.outs.iter_mut().flatten() {
                    out.end_after_what_is_there();
                }
            }
            self.resume_output(id);
        }
    }

    /// Answers with what is known now, whatever is open.
    pub(super) fn end_exec_now(&mut self, id: u32) {
        if let Some(exec) = self.execs.get(&id)
            && exec.owner.is_some()
            && !exec.started
        {
            self.exec_failed(id, requests::closing());
        }
        self.finish(id);
    }

    /// Answers and forgets.
    fn finish(&mut self, id: u32) {
        let oom_now = self.oom_count();
        let Some(exec) = self.execs.remove(&id) else {
            return;
        };
        if let Some(process) = exec.process {
            self.process_ended(process, exec.status(oom_now), exec.usage());
        }
        if let Some(owner) = exec.owner {
            let exited = Reply::Exited {
                status: exec.status(oom_now),
                stdout_truncated: exec.truncated[0],
                stderr_truncated: exec.truncated[1],
                tree_survives: matches!(exec.kill, Kill::Survived),
                usage: exec.usage(),
            };
            self.reply(owner.connection, owner.stream, &exited);
            self.forget_stream(owner);
        }
        if let Some(input) = exec.input {
            input.leave(&self.poll);
        }
        match exec.hold {
            Hold::Group(group) => {
                if !self.remove_group(&group) {
                    self.remnant_groups.push(group.id);
                }
            }
            Hold::Supervisor {
                pid, ended, tells, ..
            } => {
                if let Some(tells) = tells {
                    self.poll.remove(&tells);
                }
                if !ended {
                    self.remnants.push(pid);
                }
            }
        }
        if exec.main && self.closing.is_none() {
            let code = exec.ended.map_or(137, |(status, _)| exit_code(status));
            self.close(StopReason::MainExited, code, closing::LEAVE_MS);
        }
    }

    /// How often the kernel has killed for memory in this container.
    pub(super) fn oom_count(&self) -> Option<u64> {
        oom_kills(self.config.oom.as_ref()?)
    }
}

/// The number in a file of a cgroup that counts what the kernel has killed for memory.
pub(super) fn oom_kills(counter: &OwnedFd) -> Option<u64> {
    let mut buffer = [0_u8; 512];
    let count = rustix::io::pread(counter, &mut buffer, 0).ok()?;
    let text = core::str::from_utf8(buffer.get(..count)?).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

/// A status of `wait` as shells tell it.
const fn exit_code(status: i32) -> u8 {
    let signal = status & 0x7f;
    let code = if signal == 0 {
        status >> 8 & 0xff
    } else {
        128 + signal
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "both are below 256"
    )]
    {
        code as u8
    }
}
