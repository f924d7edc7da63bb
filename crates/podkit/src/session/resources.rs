//! What a session's container uses, its limits, and its rest.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep_until};

use super::{handle::Session, manager::SessionManager, slot::Slot};
use crate::{
    config::LimitChange,
    container::{ContainerInfo, ContainerState, ContainerStats, change_limits},
    error::{Error, ErrorKind, Result},
    id::SessionKey,
};

/// Shortest time between two looks of a [`StatsStream`].
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

impl Session {
    /// What the container uses now. No activity, and nothing is started.
    ///
    /// # Errors
    /// `Unsupported` where the engine does not count; `ContainerGone` when the container does not
    /// run; `NotFound` when there is none; `Unavailable` or `TimedOut`.
    pub async fn stats(&self) -> Result<ContainerStats> {
        self.manager().stats(self.key()).await
    }

    /// What the container uses, now and then every `interval` (at least 10 ms).
    ///
    /// # Errors
    /// `Unsupported` where the engine does not count.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(session: podkit::Session) -> podkit::Result<()> {
    /// let mut stats = session.watch_stats(std::time::Duration::from_secs(1))?;
    /// let mut last = None;
    /// while let Some(now) = stats.next().await? {
    ///     if let Some(cpus) = last.and_then(|last| now.cpus_since(&last)) {
    ///         println!("{cpus:.2} cores, {:?} bytes", now.memory_bytes);
    ///     }
    ///     last = Some(now);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch_stats(&self, interval: Duration) -> Result<StatsStream> {
        self.manager().watch_stats(self.key().clone(), interval)
    }

    /// Changes limits of the container, at once and for its later starts. A container that is made
    /// anew has those of its spec.
    ///
    /// # Errors
    /// - `InvalidInput`: a limit that cannot be, or none at all.
    /// - `Unsupported`: the engine cannot; nothing has changed.
    /// - `LimitExceeded`: the container uses more memory than that; nothing has changed.
    /// - `NotFound` when there is no container; `Unavailable` or `TimedOut`.
    pub async fn set_limits(&self, change: LimitChange) -> Result<()> {
        self.manager().set_limits(self.key(), &change).await
    }

    /// Freezes every process, and the container's idle clock; the next use through podkit lets them go
    /// on. Succeeds when it is paused already.
    ///
    /// Timeouts and the greatest lifetime go on, and whoever waits for a command of another client
    /// gets `AgentUnreachable` after some seconds: pause a container in which nobody waits.
    ///
    /// # Errors
    /// `Unsupported` where the engine cannot; `ContainerGone` when the container does not run;
    /// `NotFound` when there is none; `Unavailable` or `TimedOut`.
    pub async fn pause(&self) -> Result<()> {
        self.manager().pause(self.key()).await
    }

    /// Lets a paused container go on. Succeeds when it is not paused.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub async fn resume(&self) -> Result<()> {
        self.manager().resume(self.key()).await
    }
}

impl SessionManager {
    pub(crate) async fn stats(&self, key: &SessionKey) -> Result<ContainerStats> {
        let slot = self.slot(key)?;
        let look = async {
            self.inspect_ours(key, &slot.name).await?;
            self.containers().stats(&slot.name).await
        };
        look.await
            .map_err(|error: Error| error.with_operation("read stats"))
    }

    pub(crate) fn watch_stats(&self, key: SessionKey, interval: Duration) -> Result<StatsStream> {
        if !self.containers().capabilities().stats {
            return Err(Error::unsupported(
                "this engine does not count what a container uses",
            ));
        }
        Ok(StatsStream {
            manager: self.clone(),
            key,
            interval: interval.max(SHORTEST_INTERVAL),
            next: None,
            last: None,
        })
    }

    pub(crate) async fn set_limits(&self, key: &SessionKey, change: &LimitChange) -> Result<()> {
        let limits = change_limits(change, &self.containers().capabilities())
            .map_err(|error| error.with_operation("set limits"))?;
        self.held("set limits", key, move |manager, _, info| async move {
            manager.containers().set_limits(&info.id, limits).await
        })
        .await
    }

    pub(crate) async fn pause(&self, key: &SessionKey) -> Result<()> {
        self.held("pause session", key, |manager, slot, info| async move {
            match info.state {
                ContainerState::Paused => return Ok(()),
                ContainerState::Running => {}
                _ => return Err(does_not_run()),
            }
            // The next use finds out that it rests.
            slot.stopped();
            slot.set_resting(true);
            let paused = manager.pause_container(&slot).await;
            manager.containers().forget(&info.id);
            slot.set_resting(paused.is_ok());
            paused
        })
        .await
    }

    pub(crate) async fn resume(&self, key: &SessionKey) -> Result<()> {
        self.held("resume session", key, |manager, slot, info| async move {
            match info.state {
                ContainerState::Running => Ok(()),
                ContainerState::Paused => {
                    manager.resume_container(&slot).await?;
                    slot.set_resting(false);
                    Ok(())
                }
                _ => Err(does_not_run()),
            }
        })
        .await
    }

    /// Does something with a session's container while nobody else opens, closes or restarts it; to
    /// its end, also when the caller is gone.
    async fn held<F>(
        &self,
        operation: &'static str,
        key: &SessionKey,
        body: impl FnOnce(Self, Arc<Slot>, ContainerInfo) -> F + Send + 'static,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send,
    {
        let (slot, manager) = (self.slot(key)?, self.clone());
        let task = async move {
            let _gate = slot.gate.lock().await;
            let info = manager.inspect_ours(&slot.key, &slot.name).await?;
            let held = Arc::clone(&slot);
            body(manager, held, info).await
        };
        self.tasks()
            .run(task)
            .await
            .map_err(|error| error.with_operation(operation))
    }
}

fn does_not_run() -> Error {
    Error::new(ErrorKind::ContainerGone, "the container does not run")
}

/// Looks at what a container uses, again and again.
#[derive(Debug)]
pub struct StatsStream {
    manager: SessionManager,
    key: SessionKey,
    interval: Duration,
    next: Option<Instant>,
    last: Option<SystemTime>,
}

impl StatsStream {
    /// The next look; `None` once the container does not run any more.
    ///
    /// # Errors
    /// `NotFound` or `ContainerGone` when it did not run at the first look; `Unavailable` or
    /// `TimedOut`, after which it may be asked again.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<ContainerStats>> {
        if let Some(next) = self.next {
            sleep_until(next).await;
        }
        self.next = Some(Instant::now() + self.interval);
        match self.manager.stats(&self.key).await {
            Ok(stats) => {
                self.last = Some(stats.at);
                Ok(Some(stats))
            }
            Err(error)
                if self.last.is_some()
                    && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ContainerGone) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
