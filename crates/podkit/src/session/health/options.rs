//! How sessions are watched over.

use std::time::Duration;

/// How sessions are watched over.
///
/// One that this process has stopped or paused rests, whatever ended it, until it is used. Nothing is begun any
/// more once the last handle of the `Podkit` and of its sessions is dropped.
///
/// A session that another process has closed looks like one whose container was removed, and is made anew
/// while this `Podkit` has it open: close it here as well.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> podkit::Result<()> {
/// use std::time::Duration;
/// use podkit::{HealthOptions, Podkit};
///
/// let health = HealthOptions::new().interval(Duration::from_secs(10)).clean_orphans(Duration::from_secs(3600));
/// let podkit = Podkit::builder().backend("memory").health(health).build().await?;
/// # podkit.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthOptions {
    /// Time between two looks at a session, give or take a half; 30 s. At least 10 ms.
    pub interval: Duration,
    /// How long an agent may take to answer; 5 s.
    pub probe_deadline: Duration,
    /// Lines of a container's own program that events carry; 50.
    pub log_lines: usize,
    /// Whether sessions of the prefix are watched that this `Podkit` has not opened; no.
    pub all_sessions: bool,
    /// How long before a session expires that is told; a minute, or a tenth of its `idle_timeout`
    /// when that is less.
    pub warn_before: Duration,
    /// Removes containers of the prefix, whoever made them, that were not used for so long; off.
    pub clean_orphans: Option<Duration>,
}

impl Default for HealthOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            probe_deadline: Duration::from_secs(5),
            log_lines: 50,
            all_sessions: false,
            warn_before: Duration::from_secs(60),
            clean_orphans: None,
        }
    }
}

impl HealthOptions {
    /// The documented values.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`interval`](Self::interval).
    #[must_use]
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets [`probe_deadline`](Self::probe_deadline).
    #[must_use]
    pub const fn probe_deadline(mut self, deadline: Duration) -> Self {
        self.probe_deadline = deadline;
        self
    }

    /// Sets [`log_lines`](Self::log_lines).
    #[must_use]
    pub const fn log_lines(mut self, lines: usize) -> Self {
        self.log_lines = lines;
        self
    }

    /// Sets [`all_sessions`](Self::all_sessions).
    #[must_use]
    pub const fn all_sessions(mut self, all: bool) -> Self {
        self.all_sessions = all;
        self
    }

    /// Sets [`warn_before`](Self::warn_before).
    #[must_use]
    pub const fn warn_before(mut self, before: Duration) -> Self {
        self.warn_before = before;
        self
    }

    /// Sets [`clean_orphans`](Self::clean_orphans).
    #[must_use]
    pub const fn clean_orphans(mut self, idle: Duration) -> Self {
        self.clean_orphans = Some(idle);
        self
    }
}
