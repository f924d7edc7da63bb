//! The end of a session's container.

use std::{sync::Arc, time::Duration};

use tracing::{Instrument, debug, info, info_span};

use super::{labels, manager::SessionManager, slot::Slot};
use crate::{
    container::{ContainerInfo, ContainerState},
    error::{Error, ErrorKind, Result},
    event::EventKind,
    id::SessionKey,
};

/// How long a container's agent has to end its commands before the container is killed.
const FAREWELL: Duration = Duration::from_millis(500);

/// What closing a session found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CloseReport {
    /// Whether there was a container.
    pub existed: bool,
    /// What could not be removed, and why.
    pub failed: Vec<Error>,
}

impl SessionManager {
    /// Removes a session's container at once and leaves its workspace. Idempotent.
    pub(crate) async fn close(&self, key: &SessionKey) -> Result<CloseReport> {
        let slot = self.slot(key)?;
        let span = info_span!(
            "podkit.close",
            backend = self.containers().backend_name(),
            session.user = key.user().as_str(),
            session.id = key.session().as_str(),
        );
        let manager = self.clone();
        let task = async move {
            let _gate = slot.gate.lock().await;
            slot.closed();
            manager.close_now(&slot).await
        };
        let task = self.tasks().run(task.instrument(span));
        task.await
            .map_err(|error| error.with_operation("close session"))
    }

    /// As [`close`](Self::close), by whoever holds the gate.
    pub(super) async fn close_now(&self, slot: &Arc<Slot>) -> Result<CloseReport> {
        let mut report = CloseReport::default();
        let Some(info) = self.containers().find(&slot.name).await? else {
            return Ok(report);
        };
        if labels::owner(self.prefix(), &info).as_ref() != Some(&slot.key) {
            report.failed.push(
                Error::new(
                    ErrorKind::Conflict,
                    "a container of this name exists that does not carry this session's labels",
                )
                .with_container(&info.id),
            );
            return Ok(report);
        }
        report.existed = true;
        self.tell(slot, EventKind::SessionClosing);
        match self.remove_ours(slot, &info).await {
            Ok(()) => {
                info!("session closed");
                self.tell(slot, EventKind::SessionClosed);
            }
            Err(error) => report.failed.push(error),
        }
        Ok(report)
    }

    /// Removes a container. Its commands, of whatever client, end with `SessionClosed` first, when
    /// the agent is there to say so.
    pub(super) async fn remove_ours(&self, slot: &Slot, info: &ContainerInfo) -> Result<()> {
        self.tell_agent(info, Duration::ZERO).await;
        self.remove_container(slot, &info.id).await
    }

    /// Has the agent end a container that runs, as far as it answers: it keeps the time better than
    /// some engines, and says to every client why.
    async fn tell_agent(&self, info: &ContainerInfo, grace: Duration) {
        if info.state != ContainerState::Running {
            return;
        }
        match tokio::time::timeout(FAREWELL, self.containers().end(info, grace)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the agent was not told"),
            Err(_) => debug!("the agent did not answer in time"),
        }
    }

    /// Stops a session's container; its files stay where the engine keeps them.
    pub(crate) async fn stop(&self, key: &SessionKey, grace: Duration) -> Result<()> {
        let slot = self.slot(key)?;
        let span = info_span!(
            "podkit.stop",
            backend = self.containers().backend_name(),
            session.user = key.user().as_str(),
            session.id = key.session().as_str(),
        );
        let manager = self.clone();
        let task = async move {
            let _gate = slot.gate.lock().await;
            let info = manager.inspect_ours(&slot.key, &slot.name).await?;
            slot.stopped();
            slot.set_resting(true);
            manager.tell_agent(&info, grace).await;
            let stopped = match manager.stop_container(&slot, grace).await {
                Err(error) if error.kind() == ErrorKind::ContainerGone => Ok(()),
                result => result,
            };
            slot.set_resting(stopped.is_ok());
            stopped
        };
        let task = self.tasks().run(task.instrument(span));
        task.await
            .map_err(|error| error.with_operation("stop session"))
    }
}
