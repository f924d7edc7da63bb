//! How long an engine or an agent may take to answer.

use std::time::Duration;

/// How long each call may take, retries included. An answer that does not come is
/// [`TimedOut`](crate::ErrorKind::TimedOut), from an agent
/// [`AgentUnreachable`](crate::ErrorKind::AgentUnreachable).
///
/// Commands and their output have no deadline here; that is the timeout of an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deadlines {
    /// Asking whether the engine is there: 5 s.
    pub ping: Duration,
    /// Looking up one container: 10 s.
    pub inspect: Duration,
    /// Listing containers: 30 s.
    pub list: Duration,
    /// Making a container, with the import of its image: 10 min.
    pub create: Duration,
    /// Starting, pausing or resuming a container: 60 s.
    pub start: Duration,
    /// Stopping a container, on top of the grace: 30 s.
    pub stop: Duration,
    /// Removing a container with its storage: 60 s.
    pub remove: Duration,
    /// Reaching the agent of a running container: 10 s.
    pub connect: Duration,
    /// A question to the agent: 10 s.
    pub agent: Duration,
    /// Reading a container's log: 30 s.
    pub logs: Duration,
    /// Sweeping the engine: 2 min.
    pub sweep: Duration,
    /// Fetching or importing an image: 1 h; a registry may be silent for a minute of it.
    pub pull: Duration,
    /// Waiting for a container that another caller removes or stops: 60 s.
    pub settle: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            ping: seconds(5),
            inspect: seconds(10),
            list: seconds(30),
            create: seconds(600),
            start: seconds(60),
            stop: seconds(30),
            remove: seconds(60),
            connect: seconds(10),
            agent: seconds(10),
            logs: seconds(30),
            sweep: seconds(120),
            pull: seconds(3600),
            settle: seconds(60),
        }
    }
}
