//! Whether a container that was started stays up, and is ready.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{exec::order, manager::SessionManager, slot::Live, slot::Slot};
use crate::{
    container::{ContainerState, jittered},
    error::{Error, ErrorKind, Result},
    exec::ExecRequest,
};

/// Shortest and longest time between two looks whether a container is ready.
const LOOK: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(500)];

/// Bytes of an answer that are read for its status.
const STATUS_BYTES: u64 = 64;

/// That a container stays up after it was started: for programs of its own that may fail at once.
///
/// An opening that starts the container looks `checks` times; when it does not run then, the opening
/// fails with its exit code and its last lines, and a container that it has made is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StartupCheck {
    /// Looks; 3. At least one.
    pub checks: u32,
    /// Time before each of them; 1 s.
    pub interval: Duration,
    /// Lines of its own program that a failure carries; 50.
    pub log_lines: usize,
}

impl Default for StartupCheck {
    fn default() -> Self {
        Self {
            checks: 3,
            interval: Duration::from_secs(1),
            log_lines: 50,
        }
    }
}

impl StartupCheck {
    /// The documented values.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`checks`](Self::checks).
    #[must_use]
    pub const fn checks(mut self, checks: u32) -> Self {
        self.checks = checks;
        self
    }

    /// Sets [`interval`](Self::interval).
    #[must_use]
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets [`log_lines`](Self::log_lines).
    #[must_use]
    pub const fn log_lines(mut self, lines: usize) -> Self {
        self.log_lines = lines;
        self
    }
}

/// When a container is ready for use. Its agent always is when an opening returns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// Somebody listens on this TCP port in it.
    Port(u16),
    /// Somebody answers HTTP on this port.
    Http {
        /// Port in the container.
        port: u16,
        /// Path that is asked for, as `/health`.
        path: String,
        /// Status that is waited for; any from 200 to 399 without.
        status: Option<u16>,
    },
    /// This command exits with 0.
    Command(Vec<String>),
}

impl Readiness {
    /// Somebody answers `GET` of this path on this port with a status from 200 to 399.
    #[must_use]
    pub fn http(port: u16, path: impl Into<String>) -> Self {
        Self::Http {
            port,
            path: path.into(),
            status: None,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let bad = match self {
            Self::Port(port) => (*port == 0).then_some("0 is no port"),
            Self::Http { port: 0, .. } => Some("0 is no port"),
            Self::Http { path, .. } if !is_path(path) => {
                Some("a path begins with `/` and has no space or control character")
            }
            Self::Http { .. } => None,
            Self::Command(argv) => argv.is_empty().then_some("the command is empty"),
        };
        match bad {
            Some(text) => Err(Error::invalid_input(format!("`ready_when`: {text}"))),
            None => Ok(()),
        }
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && !path.chars().any(|c| c.is_control() || c.is_whitespace())
}

impl SessionManager {
    /// Looks whether a container stays up.
    pub(super) async fn verify_startup(&self, slot: &Slot, check: StartupCheck) -> Result<()> {
        for _ in 0..check.checks.max(1) {
            sleep(check.interval).await;
            let info = self.containers().find(&slot.name).await?;
            let state = info.as_ref().map(|info| info.state);
            if matches!(
                state,
                Some(ContainerState::Running | ContainerState::Paused)
            ) {
                continue;
            }
            let what = "the container does not stay up";
            let error = self.did_not_stay_up(slot, info.as_ref(), what, check.log_lines);
            return Err(error.await);
        }
        Ok(())
    }

    /// Waits until a container is ready.
    pub(super) async fn wait_until_ready(
        &self,
        live: &Arc<Live>,
        readiness: &Readiness,
        limit: Duration,
    ) -> Result<()> {
        let until = Instant::now() + limit;
        let late = || {
            let text = format!("the container is not ready after {limit:?}: {readiness:?}");
            Error::new(ErrorKind::TimedOut, text).with_container(&live.container)
        };
        if let Readiness::Port(port) = readiness {
            let waited = timeout_at(until, live.client.wait_port(*port, limit)).await;
            return match waited {
                Ok(Err(error)) if error.kind() != ErrorKind::TimedOut => Err(error),
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(late()),
            };
        }
        let mut pause = LOOK[0];
        loop {
            match timeout_at(until, is_ready(live, readiness)).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(late()),
            }
            if Instant::now() + pause > until {
                return Err(late());
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(LOOK[1]);
        }
    }
}

/// Whether it is ready now; an error that will not pass.
async fn is_ready(live: &Arc<Live>, readiness: &Readiness) -> Result<bool> {
    match readiness {
        Readiness::Command(argv) => {
            let request = ExecRequest::new(argv.iter().map(String::as_str));
            let mut order = order(&request, live, Some(0));
            order.passive = true;
            let result = live.client.exec(order).await?.wait().await?;
            Ok(result.outcome.is_success())
        }
        Readiness::Http { port, path, status } => match answer(live, *port, path).await {
            Ok(Some(found)) => Ok(match status {
                Some(status) => found == *status,
                None => (200..400).contains(&found),
            }),
            Ok(None) => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        },
        Readiness::Port(_) => Ok(true),
    }
}

/// The status of the answer to one request, if that is one.
async fn answer(live: &Arc<Live>, port: u16, path: &str) -> Result<Option<u16>> {
    let mut stream = live.client.dial_port(port).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost:{port}\r\n\r\n");
    let mut head = Vec::new();
    let talk = async {
        stream.write_all(request.as_bytes()).await?;
        stream.take(STATUS_BYTES).read_to_end(&mut head).await
    };
    // What is not there in time is asked for again.
    let _ = timeout(Duration::from_secs(5), talk).await;
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split_ascii_whitespace();
    let http = words.next().is_some_and(|word| word.starts_with("HTTP/"));
    let status = words.next().and_then(|word| word.parse().ok());
    Ok(status.filter(|_| http))
}
