//! Time: when the container stops by itself, and when anything is due.

use podkit_agent::{AgentStatus, Clocks, StopReason};
use rustix::time::{ClockId, clock_gettime};

use super::{Agent, Process, closing};

/// How soon what is being killed is looked at again.
pub(super) const KILL_LOOK_MS: u64 = 2;

/// Milliseconds since the machine started, also while it slept.
pub(super) fn now_ms() -> u64 {
    now_us() / 1000
}

/// Microseconds since the machine started, also while it slept.
pub(super) fn now_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000 + nanoseconds / 1000
}

/// Who wakes so much too late was not let run: the container was paused.
pub(super) const FROZEN_MS: u64 = 1000;

/// Milliseconds since the machine started, without those in which it slept.
pub(super) fn awake_ms() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// The clocks of DESIGN: what stops the container.
pub(super) struct ClockState {
    began: u64,
    last_activity: u64,
    auto_stop_ms: Option<u64>,
    /// When all is over.
    lifetime_end: Option<u64>,
}

impl ClockState {
    pub(super) fn new(clocks: Clocks) -> Self {
        let now = now_ms();
        let mut state = Self {
            began: now,
            last_activity: now,
            auto_stop_ms: None,
            lifetime_end: None,
        };
        state.set(clocks);
        state
    }

    pub(super) fn set(&mut self, clocks: Clocks) {
        self.auto_stop_ms = clocks.auto_stop_ms;
        self.lifetime_end = clocks.max_lifetime_ms.map(|ms| now_ms().saturating_add(ms));
    }

    pub(super) fn touch(&mut self) {
        self.last_activity = now_ms();
    }

    /// When the container stops, and why; `busy` holds the first clock off.
    fn due(&self, busy: bool) -> Option<(u64, StopReason)> {
        let idle = self.auto_stop_ms.filter(|_| !busy);
        let idle = idle.map(|ms| (self.last_activity.saturating_add(ms), StopReason::AutoStop));
        let end = self.lifetime_end.map(|end| (end, StopReason::MaxLifetime));
        [idle, end].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

impl Agent {
    /// Commands that hold off the clock.
    fn running(&self) -> usize {
        let execs = self.execs.values();
        execs
            .filter(|exec| exec.holds_off() && exec.is_running())
            .count()
    }

    /// Whether anything holds off the clock: a command, or a file call, which may take long to
    /// move its bytes.
    fn is_busy(&self) -> bool {
        self.running() > 0
            || self.files.values().any(|job| job.activity)
            || self.background.values().any(Process::holds_off)
    }

    pub(super) fn status(&self) -> AgentStatus {
        let now = now_ms();
        let clocks = &self.clocks;
        AgentStatus {
            uptime_ms: now.saturating_sub(clocks.began),
            idle_ms: if self.is_busy() {
                0
            } else {
                now.saturating_sub(clocks.last_activity)
            },
            running_execs: u32::try_from(self.running()).unwrap_or(u32::MAX),
            clocks: Clocks {
                auto_stop_ms: clocks.auto_stop_ms,
                max_lifetime_ms: clocks.lifetime_end.map(|end| end.saturating_sub(now)),
            },
        }
    }

    /// Milliseconds until something is due.
    pub(super) fn next_wake(&self) -> Option<u64> {
        let now = now_ms();
        let clock = match &self.closing {
            Some(closing) => Some(closing.next(now)),
            None => self.clocks.due(self.is_busy()).map(|(at, _)| at),
        };
        let execs = self.execs.values().filter_map(|exec| exec.next(now));
        let files = self.files.values().map(|job| job.deadline);
        let lingering = self.lingering.iter().map(|(_, until)| *until);
        let pulses = self
            .connections
            .values()
            .map(|connection| connection.next(now));
        let orphans = self.orphans.as_ref().map(|_| now + KILL_LOOK_MS);
        let processes = self.background.values().filter_map(Process::next);
        execs
            .chain(files)
            .chain(lingering)
            .chain(pulses)
            .chain(clock)
            .chain(orphans)
            .chain(processes)
            .chain(self.resting_until)
            .min()
            .map(|at| at.saturating_sub(now))
    }

    /// While it was paused nobody could be heard or use the container: the wait that it was paused in
    /// does not count. Times that commands were given, and the container's lifetime, go on.
    pub(super) fn was_frozen(&mut self, milliseconds: u64) {
        let now = now_ms();
        self.clocks.last_activity = (self.clocks.last_activity + milliseconds).min(now);
        for connection in self.connections.values_mut() {
            connection.pass_over(milliseconds, now);
        }
    }

    /// Does what is due.
    pub(super) fn pass_time(&mut self) {
        let now = now_ms();
        self.beat(now);
        self.end_rest(now);
        self.end_files_in_time(now);
        self.hunt_orphans();
        let due: alloc::vec::Vec<u32> = self
            .execs
            .iter()
            .filter(|(_, exec)| exec.is_due(now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.exec_is_due(id, now);
        }
        self.tend_processes(now);
        if self.closing.is_some() {
            return self.go_on_closing();
        }
        if let Some((at, reason)) = self.clocks.due(self.is_busy())
            && at <= now
        {
            self.close(reason, 0, closing::OWN_GRACE_MS);
        }
    }
}
