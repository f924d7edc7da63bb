//! Signals to podkit, which it passes on to the command.

use std::{
    fs,
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant},
};

use podkit::{Error, ErrorKind, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT: the user's Ctrl-C.
const INTERRUPT: i32 = 2;

/// Within this time a second SIGINT kills.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// Signals that are passed on: HUP, INT, QUIT, USR1, USR2, TERM.
const FORWARDED: [i32; 6] = [1, INTERRUPT, 3, 10, 12, 15];

/// What is to be done about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Send it to the command.
    Forward(i32),
    /// Kill the command: the user has asked twice.
    Kill,
}

/// Listens for signals from its making on.
#[derive(Debug)]
pub(crate) struct Signals {
    listeners: Vec<(i32, Signal)>,
    interrupted: Option<Instant>,
}

impl Signals {
    /// Takes over the signals, but those that the caller ignores, as `nohup` does, or a shell for
    /// its background jobs.
    ///
    /// # Errors
    /// `Unexpected` when the kernel refuses.
    pub(crate) fn listen() -> Result<Self> {
        let ignored = ignored_mask(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        let listeners = FORWARDED
            .iter()
            .filter(|&&number| ignored >> (number - 1) & 1 == 0)
            .map(|&number| signal(SignalKind::from_raw(number)).map(|listener| (number, listener)))
            .collect::<Result<_, _>>()
            .map_err(|error| {
                Error::new(ErrorKind::Unexpected, "signals cannot be listened for")
                    .with_source(error)
            })?;
        Ok(Self {
            listeners,
            interrupted: None,
        })
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    /// A signal that has not been returned is returned by the next call.
    pub(crate) async fn next(&mut self) -> Wish {
        let number = self.number().await;
        if number != INTERRUPT {
            return Wish::Forward(number);
        }
        let now = Instant::now();
        match self.interrupted.replace(now) {
            Some(before) if now.duration_since(before) < IMPATIENCE => Wish::Kill,
            _ => Wish::Forward(number),
        }
    }

    /// Waits for the next signal, and gives its number.
    ///
    /// # Cancel safety
    /// As [`next`](Self::next).
    pub(crate) async fn number(&mut self) -> i32 {
        poll_fn(|context| {
            for (number, listener) in &mut self.listeners {
                if let Poll::Ready(Some(())) = listener.poll_recv(context) {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The mask of ignored signals in the text of `/proc/self/status`; none where there is no such text.
fn ignored_mask(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_mask_of_a_status_is_read() {
        assert_eq!(
            ignored_mask("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"),
            0x1001
        );
        assert_eq!(ignored_mask(""), 0);
    }
}
