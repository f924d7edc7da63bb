//! Signals to PID 1.

use podkit_agent::StopReason;
use rustix::io::read;

use super::Agent;
use crate::sys::serve;

pub(super) const KILL: i32 = 9;
pub(super) const TERM: i32 = 15;
pub(super) const CONTINUE: i32 = 18;
pub(super) const STOP: i32 = 19;

/// HUP, INT, QUIT, USR1, USR2, TERM, CHLD and IO.
pub(super) const TAKEN: &[u32] = &[1, 2, 3, 10, 12, 15, CHILD, NEWS];

const CHILD: u32 = 17;

/// SIGIO: there may be new clients.
const NEWS: u32 = 29;

/// Of those, the ones that ask for the end: HUP, INT, QUIT and TERM.
const ENDING: &[u32] = &[1, 2, 3, 15];

/// Time that programs have to end when the container is stopped from outside.
const GRACE_MS: u64 = 10_000;

/// Bytes of `struct signalfd_siginfo`.
const INFO: usize = 128;

impl Agent {
    pub(super) fn take_signals(&mut self) {
        let mut news = false;
        let mut infos = [0_u8; INFO * 8];
        while let Ok(count) = read(&self.signals, &mut infos) {
            if count == 0 {
                break;
            }
            for info in infos.get(..count).unwrap_or_default().chunks_exact(INFO) {
                let word = |at: usize| {
                    let bytes = info.get(at..at + 4)?.try_into().ok()?;
                    Some(u32::from_ne_bytes(bytes))
                };
                // Number at 0, sender at 12: 0 for one that cannot be seen in this pid namespace.
                // What inner processes send counts for nothing.
                match (word(0), word(12)) {
                    (Some(NEWS), Some(0)) => news = true,
                    (Some(CHILD), _) => {}
                    (Some(number), Some(0)) => self.signal_from_outside(number),
                    _ => {}
                }
            }
        }
        if news {
            self.hear_of_clients();
        }
        self.reap();
    }

    fn signal_from_outside(&mut self, number: u32) {
        let main = self
            .main
            .and_then(|id| self.execs.get(&id))
            .and_then(|exec| exec.pid);
        match main {
            Some(pid) => {
                let _ = serve::kill(pid, number.cast_signed());
            }
            None if ENDING.contains(&number) => self.close(StopReason::Requested, 0, GRACE_MS),
            None => {}
        }
    }
}
