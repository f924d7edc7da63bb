//! The end of the container.

use alloc::vec::Vec;

use podkit_agent::{Output, Reply, StopReason, plan::ExitMark};
use rustix::{fs::ftruncate, io::pwrite};

use super::{
    Agent,
    clocks::now_ms,
    exec::Cause,
    signals::{CONTINUE, KILL, TERM},
};
use crate::sys::{container::exit_group, serve};

/// Time that programs have to end when a clock stops the container.
pub(super) const OWN_GRACE_MS: u64 = 2000;

/// Time that commands have to end when the container's own program has.
pub(super) const LEAVE_MS: u64 = 200;

/// Time that killed processes have to go, and that clients have to hear of it.
const LAST_MS: u64 = 1000;

/// How soon it is looked again whether all are gone.
const LOOK_MS: u64 = 5;

/// A stop that is under way.
pub(super) struct Closing {
    reason: StopReason,
    code: u8,
    /// When what is left is killed.
    kill_at: u64,
    /// When this ends, whatever is left; the kernel kills that with PID 1.
    end_at: u64,
}

impl Closing {
    pub(super) const fn next(&self, now: u64) -> u64 {
        now + LOOK_MS
    }
}

impl Agent {
    /// Begins to stop the container; a later call can only make it sooner.
    pub(super) fn close(&mut self, reason: StopReason, code: u8, grace_ms: u64) {
        let kill_at = now_ms().saturating_add(grace_ms);
        if let Some(closing) = &mut self.closing {
            closing.kill_at = closing.kill_at.min(kill_at);
            return;
        }
        self.leave_mark(reason, code);
        self.closing = Some(Closing {
            reason,
            code,
            kill_at,
            end_at: u64::MAX,
        });
        let greeted = self.connections.iter().filter(|(_, one)| one.greeted);
        for id in greeted.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.reply(id, 0, &Reply::Closing(reason));
        }
        self.let_processes_end();
        // The end of the container's own program is no wish to end the others; those that are about
        // to end are let.
        if reason != StopReason::MainExited {
            self.blame();
            self.signal_everybody(TERM);
            // What is stopped cannot end otherwise.
            self.signal_everybody(CONTINUE);
        }
        self.go_on_closing();
    }

    /// Commands that run now end because of this.
    fn blame(&mut self) {
        for exec in self.execs.values_mut() {
            if exec.is_running() {
                exec.cause.get_or_insert(Cause::Closed);
            }
        }
    }

    /// Signals every process; clients inside, which another engine has started, still have to hear
    /// of the end.
    fn signal_everybody(&self, signal: i32) {
        if self
            .connections
            .values()
            .all(|connection| connection.peer == 0)
        {
            let _ = serve::kill(-1, signal);
            return;
        }
        for pid in self.everybody() {
            let _ = serve::kill(pid, signal);
        }
    }

    /// Why the container stops, if it does.
    pub(super) fn closing_reason(&self) -> Option<StopReason> {
        self.closing.as_ref().map(|closing| closing.reason)
    }

    fn leave_mark(&self, reason: StopReason, code: u8) {
        if let Some(file) = &self.config.exit_mark {
            let _ = ftruncate(file, 0);
            let mark = ExitMark {
                reason,
                code,
                idle_ms: self.status().idle_ms,
            };
            let _ = pwrite(file, mark.encode().as_bytes(), 0);
        }
    }

    /// Kills what is left when the time is over, and ends when nothing is.
    pub(super) fn go_on_closing(&mut self) {
        self.reap();
        let nobody_left =
            self.execs.values().all(|exec| !exec.is_running()) && self.everybody().is_empty();
        let now = now_ms();
        let Some(closing) = &mut self.closing else {
            return;
        };
        let kill = !nobody_left && now >= closing.kill_at;
        if kill && closing.end_at == u64::MAX {
            closing.end_at = now + LAST_MS;
        }
        let over = nobody_left || now >= closing.end_at;
        if kill {
            self.blame();
            self.signal_everybody(KILL);
        }
        if over {
            self.end();
        }
    }

    /// Tells everybody, and ends.
    fn end(&mut self) -> ! {
        let until = now_ms() + LAST_MS;
        let code = self.closing.as_ref().map_or(0, |closing| {
            if self.config.exit_mark.is_some() {
                closing.code
            } else {
                podkit_agent::exit_code(closing.reason, closing.code)
            }
        });
        let ids: Vec<u32> = self.execs.keys().copied().collect();
        for id in ids {
            self.last_words(id, until);
        }
        self.flush_all(until);
        self.end_log(until);
        self.see_clients_out(until);
        exit_group(code)
    }

    /// What a command has written, as far as its client takes it, and its result.
    fn last_words(&mut self, id: u32, until: u64) {
        let has_output = |agent: &Self| {
            agent
                .execs
                .get(&id)
                .is_some_and(|exec| exec.outs.iter().any(Option::is_some))
        };
        while has_output(self) && now_ms() < until {
            if let Some(exec) = self.execs.get_mut(&id) {
                for out in exec.outs.iter_mut().flatten() {
                    out.end_after_what_is_there();
                }
            }
            self.relay(id, Output::Stdout);
            self.relay(id, Output::Stderr);
            if has_output(self) {
                // The client has to take something before more can be told; nobody waits for one
                // that does not.
                break;
            }
        }
        self.end_exec_now(id);
    }
}
