//! Whether the other side is still there: a pure count of ticks.

use std::time::Duration;

/// Length of a tick. Ticks that were missed are not made up for, so that a program which was held
/// up for long does not take its own silence for the agent's.
pub(super) const TICK: Duration = Duration::from_millis(TICK_MS);
const TICK_MS: u64 = 1800;

/// Ticks without sending after which a ping is sent: 9 s.
const PING_TICKS: u64 = podkit_agent::PING_INTERVAL_MS / TICK_MS;

/// Silent ticks after which an idle connection is dead: 29 s.
const DEAD_TICKS: u64 = podkit_agent::DEAD_AFTER_MS / TICK_MS;

/// Silent ticks after which a connection that somebody waits on is dead: 5.4 s after the ping that
/// the first of them sends. The tick in which the call was made does not count when something was
/// heard in it, so that is 9 s after the call at most.
const DEAD_BUSY_TICKS: u64 = 4;

/// Counts silence.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Ticks in which nothing was heard.
    silent: u64,
    /// The same, as far as somebody was waiting.
    awaited: u64,
    /// Ticks in which nothing was sent.
    unsent: u64,
}

/// What a tick calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing.
    Rest,
    /// A ping.
    Ping,
    /// The end of the connection.
    Dead,
}

impl Pulse {
    /// Counts one tick, given what happened in it and whether somebody waits for an answer.
    pub(super) const fn tick(&mut self, heard: bool, sent: bool, busy: bool) -> Beat {
        self.silent = if heard { 0 } else { self.silent + 1 };
        self.awaited = if heard || !busy { 0 } else { self.awaited + 1 };
        self.unsent = if sent { 0 } else { self.unsent + 1 };
        if self.silent >= DEAD_TICKS || self.awaited >= DEAD_BUSY_TICKS {
            return Beat::Dead;
        }
        if self.awaited == 1 || self.unsent >= PING_TICKS {
            self.unsent = 0;
            return Beat::Ping;
        }
        Beat::Rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(ticks: usize, heard: bool, sent: bool, busy: bool) -> Vec<Beat> {
        let mut pulse = Pulse::default();
        (0..ticks).map(|_| pulse.tick(heard, sent, busy)).collect()
    }

    #[test]
    fn pulse_of_an_idle_connection_pings_every_ten_seconds() {
        let beats = beats(10, true, false, false);
        let pings: Vec<_> = (0..10).filter(|&n| beats[n] == Beat::Ping).collect();
        assert_eq!(pings, [4, 9]);
        assert!(!beats.contains(&Beat::Dead));
    }

    #[test]
    fn pulse_of_a_silent_connection_ends_after_thirty_seconds() {
        let dead = beats(16, false, true, false)
            .iter()
            .position(|beat| *beat == Beat::Dead);
        assert_eq!(dead, Some(15));
    }

    #[test]
    fn pulse_of_an_awaited_connection_pings_and_ends_within_ten_seconds() {
        assert_eq!(
            beats(4, false, true, true),
            [Beat::Ping, Beat::Rest, Beat::Rest, Beat::Dead]
        );
        let mut pulse = Pulse::default();
        assert_eq!(pulse.tick(true, true, true), Beat::Rest);
        let calls: Vec<_> = (0..4).map(|_| pulse.tick(false, true, true)).collect();
        assert_eq!(calls.last(), Some(&Beat::Dead));
        const { assert!((DEAD_BUSY_TICKS + 1) * TICK_MS < 10_000) };
    }

    #[test]
    fn pulse_silent_while_idle_does_not_count_against_a_call() {
        let mut pulse = Pulse::default();
        for _ in 0..5 {
            pulse.tick(false, true, false);
        }
        assert_eq!(pulse.tick(false, true, true), Beat::Ping);
        assert_eq!(pulse.tick(true, true, true), Beat::Rest);
    }
}
