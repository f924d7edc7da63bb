//! Sessions on the memory engine: create or reconnect, conflicts, races, recovery, expiry.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod clocks;
mod engine;
mod faults;
mod lifecycle;
mod races;

use std::time::{Duration, Instant};

/// Waits for a condition, at most ten seconds.
async fn wait_for<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "{what} did not happen"
        );
        tokio::task::yield_now().await;
    }
}
