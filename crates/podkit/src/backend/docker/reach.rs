//! Reaching a container's agent by the better of the two ways.

use std::path::Path;

use tokio::time::timeout;

use super::{DIAL, DockerBackend, link, link::Waiting};
use crate::{backend::AgentStream, error::Result, id::ContainerId};

impl DockerBackend {
    /// Waits for the agent to dial out; when it is late, asks the engine as well.
    pub(super) async fn dial(
        &self,
        id: &ContainerId,
        pid: u32,
        directory: &Path,
    ) -> Result<AgentStream> {
        let links = self.links.as_ref().filter(|links| links.has(directory));
        let waiting = links.and_then(|_| Waiting::new(directory).ok());
        let Some(waiting) = waiting else {
            return link::through_engine(&self.docker, id).await;
        };
        let dialled = async { waiting.dialled(pid).await.map(AgentStream::new) };
        tokio::pin!(dialled);
        if let Ok(Ok(stream)) = timeout(DIAL, &mut dialled).await {
            self.note_dials(true);
            return Ok(stream);
        }
        let engine = link::through_engine(&self.docker, id);
        tokio::pin!(engine);
        tokio::select! {
            Ok(stream) = &mut dialled => Ok(stream),
            stream = &mut engine => {
                if stream.is_ok() && self.dials.miss() {
                    self.note_dials(false);
                }
                stream
            }
        }
    }
}
