//! How far a copy has come, on a terminal and only when it lasts.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::Context;

/// A copy that is done by then shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts bytes and shows them on standard error.
#[derive(Debug)]
pub(super) struct Progress {
    wanted: bool,
    began: Instant,
    bytes: u64,
    total: Option<u64>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Counts towards `total` bytes, when that is known.
    pub(super) fn new(context: &Context, quiet: bool, total: Option<u64>) -> Self {
        let wanted = !quiet && !context.output.is_json() && io::stderr().is_terminal();
        Self {
            wanted,
            began: Instant::now(),
            bytes: 0,
            total,
            bar: None,
        }
    }

    /// Counts more bytes.
    pub(super) fn add(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.set(self.bytes.saturating_add(bytes));
    }

    /// Says how many bytes there are now.
    pub(super) fn set(&mut self, bytes: u64) {
        self.bytes = bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.bytes);
        } else if self.wanted && self.began.elapsed() > PATIENCE {
            let bar = self
                .total
                .map_or_else(ProgressBar::no_length, ProgressBar::new);
            let template = match self.total {
                Some(_) => "{bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta}",
                None => "{spinner} {bytes} {bytes_per_sec}",
            };
            // The templates above are constant; without one the default is used.
            bar.set_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.set_position(self.bytes);
            self.bar = Some(bar);
        }
    }

    /// Bytes so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the line away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
