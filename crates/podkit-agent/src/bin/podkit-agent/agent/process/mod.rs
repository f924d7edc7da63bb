//! Processes: commands that belong to no connection, with a log or a terminal that is kept.

mod begin;
mod calls;
mod log;
mod show;

use alloc::vec::Vec;

use podkit_agent::{
    ExecStatus, ExecUsage, MemorySource, ProcessInfo, ProcessSpec, ProcessState, Reply,
    RestartPolicy,
};

use self::{log::Log, show::Show};
use super::{
    Agent,
    clocks::{now_ms, unix_ms},
    exec::{Cause, Owner},
};

/// Shortest and longest time before a process is begun again; it doubles in between.
const DELAY_MS: [u64; 2] = [100, 10_000];

/// A process that ran so long is begun again as if for the first time.
const STEADY_MS: u64 = 10_000;

/// Most processes that have not ended, and most that have and are remembered.
const MOST_RUNNING: usize = 1024;
const MOST_ENDED: usize = 256;

/// Most bytes of a command line that are told.
const TOLD_BYTES: usize = 4096;

/// One process.
pub(super) struct Process {
    spec: ProcessSpec,
    /// Who wants it, until that is sure; and whether it has been told that it runs.
    spawner: Option<Owner>,
    told: bool,
    /// Its command, while there is one.
    exec: Option<u32>,
    /// Where what it writes goes: either of them.
    log: Option<Log>,
    show: Option<Show>,
    /// Who waits for its end.
    waiters: Vec<Owner>,
    /// Whether somebody wants it to end, and when what is left of it is killed.
    stopping: bool,
    kill_at: Option<u64>,
    restarts: u32,
    delay_ms: u64,
    /// When it is begun again.
    begin_at: Option<u64>,
    began_ms: u64,
    started_unix_ms: u64,
    ended_unix_ms: Option<u64>,
    /// How its command ended last, and what that used.
    last: Option<(ExecStatus, ExecUsage)>,
}

const NOTHING_USED: ExecUsage = ExecUsage {
    wall_us: 0,
    user_us: 0,
    system_us: 0,
    peak_memory_bytes: 0,
    peak_memory_source: MemorySource::LargestProcess,
};

impl Process {
    /// Whether it runs, or will.
    fn is_alive(&self) -> bool {
        self.exec.is_some() || self.begin_at.is_some() || self.spawner.is_some()
    }

    /// The child that writes its log.
    pub(super) fn logger(&self) -> Option<i32> {
        self.log.as_ref().and_then(Log::pid)
    }

    const fn keep_alive(&self) -> bool {
        !self.spec.exec.passive
    }

    /// Whether it holds the container up beside its command: it is begun again soon, or somebody looks
    /// at its terminal.
    pub(super) fn holds_off(&self) -> bool {
        self.keep_alive() && self.begin_at.is_some()
            || self.show.as_ref().is_some_and(Show::is_seen)
    }

    /// When it has to be looked at.
    pub(super) fn next(&self) -> Option<u64> {
        let log = self.log.as_ref().and_then(Log::next);
        [self.begin_at, self.kill_at, log]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether it is begun again after it ended like this.
    fn begins_again(&self, status: ExecStatus) -> bool {
        match self.spec.restart {
            RestartPolicy::Never => false,
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure(most) => {
                status != ExecStatus::Exited(0) && most.is_none_or(|most| self.restarts < most)
            }
        }
    }
}

impl Agent {
    /// Processes that somebody has been told of, by their numbers.
    fn known(&self) -> impl Iterator<Item = (u32, &Process)> {
        let known = self.background.iter();
        known
            .filter(|(_, process)| process.spawner.is_none())
            .map(|(number, process)| (*number, process))
    }

    /// The number of the process with this id, or of the newest of this name.
    fn find_process(&self, id: &[u8]) -> Option<u32> {
        if id.is_empty() {
            return None;
        }
        let by_id = self.known().find(|(_, one)| one.spec.id == id);
        let by_name = || {
            let named = self.known().filter(|(_, one)| one.spec.name == id);
            named.max_by_key(|(_, one)| (one.is_alive(), one.started_unix_ms))
        };
        by_id.or_else(by_name).map(|(number, _)| number)
    }

    fn process_info(&self, process: &Process) -> ProcessInfo {
        let exec = process.exec.and_then(|exec| self.execs.get(&exec));
        let state = match (exec, process.is_alive(), process.last) {
            (Some(_), ..) | (None, _, None) => ProcessState::Running,
            (None, true, Some(_)) => ProcessState::Restarting,
            (None, false, Some((status, _))) => ProcessState::Ended(status),
        };
        let usage = match (exec, process.last) {
            (Some(exec), _) => exec.usage(),
            (None, Some((_, usage))) => usage,
            (None, None) => NOTHING_USED,
        };
        let mut left = TOLD_BYTES;
        let words = process.spec.exec.argv.iter().take_while(|word| {
            let fits = word.len() < left;
            left = left.saturating_sub(word.len());
            fits
        });
        ProcessInfo {
            id: process.spec.id.clone(),
            name: process.spec.name.clone(),
            argv: words.cloned().collect(),
            log_directory: process.log.as_ref().map_or(Vec::new(), Log::directory),
            pid: exec
                .filter(|exec| exec.is_running())
                .and_then(|exec| exec.pid)
                .map(i32::cast_unsigned),
            state,
            restarts: process.restarts,
            started_unix_ms: process.started_unix_ms,
            ended_unix_ms: process.ended_unix_ms.filter(|_| exec.is_none()),
            terminal: process.show.is_some(),
            keep_alive: process.keep_alive(),
            usage,
        }
    }

    /// Tells a client of one process, and ends its stream.
    fn tell_of(&mut self, owner: Owner, number: u32) {
        self.tell_info(owner, number);
        self.reply(owner.connection, owner.stream, &Reply::Done);
        self.forget_stream(owner);
    }

    fn tell_info(&mut self, owner: Owner, number: u32) {
        if let Some(process) = self.background.get(&number) {
            let info = Reply::Process(self.process_info(process));
            self.reply(owner.connection, owner.stream, &info);
        }
    }

    /// Whether somebody has asked for the end of a process.
    pub(super) fn is_stopping(&self, number: u32) -> bool {
        self.background
            .get(&number)
            .is_some_and(|process| process.stopping)
    }

    /// The command of a process has ended.
    pub(super) fn process_ended(&mut self, number: u32, status: ExecStatus, usage: ExecUsage) {
        let closing = self.closing.is_some();
        let Some(process) = self.background.get_mut(&number) else {
            return;
        };
        process.exec = None;
        process.kill_at = None;
        process.last = Some((status, usage));
        process.ended_unix_ms = Some(unix_ms());
        if closing || process.stopping || !process.begins_again(status) {
            return self.process_is_over(number);
        }
        if now_ms().saturating_sub(process.began_ms) >= STEADY_MS {
            process.delay_ms = DELAY_MS[0];
        }
        process.begin_at = Some(now_ms() + process.delay_ms);
        process.delay_ms = (process.delay_ms * 2).min(DELAY_MS[1]);
    }

    /// A process has ended for good: whoever waits is told.
    fn process_is_over(&mut self, number: u32) {
        let Some(process) = self.background.get_mut(&number) else {
            return;
        };
        process.begin_at = None;
        process.kill_at = None;
        if let Some(log) = &mut process.log {
            log.ends();
        }
        for waiter in core::mem::take(&mut process.waiters) {
            self.tell_of(waiter, number);
        }
        self.end_show(number);
        self.forget_old_processes();
    }

    /// Forgets the oldest of those that have ended, when they are many, with their logs.
    pub(super) fn forget_old_processes(&mut self) {
        let ended = |one: &Process| !one.is_alive();
        while self.background.values().filter(|one| ended(one)).count() > MOST_ENDED {
            let oldest = self.background.iter().filter(|(_, one)| ended(one));
            let Some(number) = oldest
                .min_by_key(|(_, one)| one.ended_unix_ms)
                .map(|(number, _)| *number)
            else {
                return;
            };
            if let Some(process) = self.drop_process(number) {
                self.clear_log(&process);
            }
        }
    }

    fn drop_process(&mut self, number: u32) -> Option<Process> {
        let mut process = self.background.remove(&number)?;
        if let Some(log) = &mut process.log {
            self.drop_log(log);
        }
        Some(process)
    }

    /// Does what is due for processes.
    pub(super) fn tend_processes(&mut self, now: u64) {
        let due = self
            .background
            .iter()
            .filter(|(_, process)| process.next().is_some_and(|at| at <= now));
        for number in due.map(|(number, _)| *number).collect::<Vec<_>>() {
            let Some(process) = self.background.get_mut(&number) else {
                continue;
            };
            if process.kill_at.is_some_and(|at| at <= now) {
                process.kill_at = None;
                if let Some(exec) = process.exec {
                    self.kill_exec(exec, Cause::GivenUp);
                }
            }
            self.tend_log(number, now);
            let Some(process) = self.background.get_mut(&number) else {
                continue;
            };
            if process.begin_at.is_some_and(|at| at <= now) {
                process.begin_at = None;
                process.restarts += 1;
                self.begin_again(number);
            }
        }
    }

    /// The container stops: nothing is begun again, and loggers end with what they log.
    pub(super) fn let_processes_end(&mut self) {
        let numbers: Vec<u32> = self.background.keys().copied().collect();
        for number in numbers {
            let Some(process) = self.background.get_mut(&number) else {
                continue;
            };
            if let Some(log) = &mut process.log {
                log.let_go();
            }
            if process.begin_at.take().is_some() {
                self.process_is_over(number);
            }
        }
    }
}
