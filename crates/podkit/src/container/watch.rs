//! Waiting for something to happen to a container.

use std::time::{Duration, SystemTime};

use futures::{StreamExt, stream::BoxStream};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::manager::ContainerManager;
use crate::{
    backend::events::{ContainerEvent, Watched},
    error::Result,
    id::ContainerId,
};

/// Longest wait for an event, where the engine tells them: some changes are none.
const LONGEST: Duration = Duration::from_millis(250);

/// Events of an engine.
pub(crate) type Told = BoxStream<'static, Result<ContainerEvent>>;

impl ContainerManager {
    /// What the engine tells of containers from a moment on; `None` for one that tells nothing.
    pub(crate) async fn watch(&self, about: &Watched, since: SystemTime) -> Option<Result<Told>> {
        let events = self.0.backend.events()?;
        Some(events.watch(about, since).await)
    }

    /// Waits until something has happened to a container since a moment, or for so long at most:
    /// a pause before it is looked at again, where the engine tells nothing.
    pub(crate) async fn changed(&self, id: &ContainerId, since: SystemTime, pause: Duration) {
        let Some(events) = self.0.backend.events() else {
            return sleep(pause).await;
        };
        let until = Instant::now() + LONGEST.max(pause);
        let about = Watched::Container(id.clone());
        let first = async {
            let mut told = events.watch(&about, since).await?;
            told.next().await.transpose()
        };
        match timeout_at(until, first).await {
            Ok(Ok(Some(_))) | Err(_) => {}
            Ok(Ok(None)) => sleep(pause).await,
            Ok(Err(error)) => {
                debug!(%error, "no events");
                sleep(pause).await;
            }
        }
    }
}
