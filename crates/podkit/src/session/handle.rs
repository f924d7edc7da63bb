//! The handle of an open session.

use std::{fmt, path::Path, path::PathBuf, sync::Arc, time::Duration};

use super::{
    close::CloseReport,
    exec::Exec,
    files::Files,
    info::SessionInfo,
    manager::SessionManager,
    open::{Asker, Effort, Opened},
    slot::{Live, Slot},
};
use crate::{
    agent::AgentClient,
    container::MountContext,
    error::{Error, ErrorKind, Result},
    exec::ExecRequest,
    id::{ContainerId, SessionKey},
    sync::Lock,
};

/// One user's container, open. Cheap to clone; many commands may run at once.
///
/// A handle outlives its container: when that has stopped by itself, or was removed by another
/// process, the next command starts it again, or makes it anew
/// ([`opened`](Self::opened) says `Recovered` then). Only a [`close`](Self::close) by this process
/// ends the handle.
///
/// Dropping it leaves the container as it is.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

struct Shared {
    manager: SessionManager,
    slot: Arc<Slot>,
    /// Closings of the session by this process before this handle was made.
    closings: u64,
    /// What is done about a container that vanished or has stopped.
    effort: Effort,
    opened: Lock<(Opened, bool)>,
}

impl Session {
    pub(super) fn new(
        manager: SessionManager,
        slot: Arc<Slot>,
        live: &Live,
        opened: Opened,
        closings: u64,
        effort: Effort,
    ) -> Self {
        let opened = Lock::new((opened, live.config_lost));
        Self(Arc::new(Shared {
            manager,
            slot,
            closings,
            effort,
            opened,
        }))
    }

    /// Whose session it is, and which.
    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.0.slot.key
    }

    /// The container's name.
    #[must_use]
    pub fn container(&self) -> &ContainerId {
        &self.0.slot.name
    }

    /// What opening it did; changes to `Recovered` or `Started` when the container had to be made
    /// or started again since.
    #[must_use]
    pub fn opened(&self) -> Opened {
        self.0.opened.lock().0
    }

    /// Whether the configuration of the container that was found could not be read, so that the
    /// caller's was taken for it.
    #[must_use]
    pub fn config_lost(&self) -> bool {
        self.0.opened.lock().1
    }

    /// Runs a program, without a shell.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> podkit::Result<()> {
    /// # let podkit = podkit::Podkit::connect("memory").await?;
    /// use podkit::Outcome;
    /// let session = podkit.session("bob", "123").await?;
    /// let output = session.exec(["false"]).await?;
    /// assert_eq!(output.outcome, Outcome::Exited(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn exec(&self, argv: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Exec {
        self.execute(ExecRequest::new(argv))
    }

    /// Runs `text` with `/bin/sh -c`.
    pub fn shell(&self, text: impl Into<Vec<u8>>) -> Exec {
        self.execute(ExecRequest::shell(text))
    }

    /// Runs a request that was put together elsewhere.
    pub fn execute(&self, request: ExecRequest) -> Exec {
        Exec::new(self.clone(), request)
    }

    /// The container's files.
    #[must_use]
    pub fn files(&self) -> Files {
        Files::new(self.clone())
    }

    /// Looks at the session; no activity.
    ///
    /// # Errors
    /// `NotFound` when its container is gone; `Unavailable` or `TimedOut`.
    pub async fn info(&self) -> Result<SessionInfo> {
        self.0.manager.inspect(self.key()).await
    }

    /// Counts as activity, so that the clocks begin anew.
    ///
    /// # Errors
    /// `AgentUnreachable`, or what keeps a stopped container from starting again.
    pub async fn touch(&self) -> Result<()> {
        self.ask(
            "touch session",
            |client| async move { client.touch().await },
        )
        .await
    }

    /// Stops the container: commands end with `SessionClosed`, files stay where the engine keeps
    /// them, and the next use starts it again.
    ///
    /// # Errors
    /// `NotFound` when the container is gone; whatever keeps the engine from stopping it.
    pub async fn stop(&self, grace: Duration) -> Result<()> {
        self.0.manager.stop(self.key(), grace).await
    }

    /// Removes the container at once. Commands end with `SessionClosed`; the workspace stays.
    /// Idempotent. This handle, and every other one of this process, is closed.
    ///
    /// # Errors
    /// `Unavailable` or `TimedOut`. What could not be removed is in the report.
    ///
    /// # Cancel safety
    /// The removal goes on when the future is dropped.
    pub async fn close(&self) -> Result<CloseReport> {
        self.0.manager.close(self.key()).await
    }

    /// The same as long as the container's PID 1 lives.
    ///
    /// # Errors
    /// What keeps a stopped container from starting again.
    pub async fn boot_token(&self) -> Result<[u8; 16]> {
        Ok(self.usable().await?.client.boot_token())
    }

    /// Where this process finds what the container has at `path`, in the workspace.
    ///
    /// # Errors
    /// `InvalidInput` without a workspace, or for a path outside of it.
    pub fn to_host_path(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        self.translate(|context, manager| manager.strategy().to_host_path(context, path.as_ref()))
    }

    /// Where the container finds what this process has at `path`, in the workspace.
    ///
    /// # Errors
    /// `InvalidInput` without a workspace, or for a path outside of it.
    pub fn to_container_path(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        self.translate(|context, manager| {
            manager.strategy().to_container_path(context, path.as_ref())
        })
    }

    fn translate<T>(
        &self,
        how: impl FnOnce(&MountContext<'_>, &SessionManager) -> Result<T>,
    ) -> Result<T> {
        let spec = self.0.slot.known().ok_or_else(|| self.closed())?;
        let key = self.key();
        how(
            &MountContext::new(key.user().as_str(), key.session().as_str(), &spec),
            &self.0.manager,
        )
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::ContainerGone, "the session was closed")
            .with_container(self.container())
    }

    pub(super) fn manager(&self) -> &SessionManager {
        &self.0.manager
    }

    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.0.slot
    }

    /// The running container: the one that is known, without asking anybody, or one that is
    /// brought back.
    pub(super) async fn usable(&self) -> Result<Arc<Live>> {
        self.usable_by(self.0.effort).await
    }

    /// As [`usable`](Self::usable), with so much effort at most: `NotFound` where it would take more.
    async fn usable_by(&self, most: Effort) -> Result<Arc<Live>> {
        if let Some(live) = self.0.slot.live(self.0.closings)? {
            return Ok(live);
        }
        let shared = &self.0;
        let effort = most.min(shared.effort);
        let reopen = shared
            .manager
            .reopen(&shared.slot, shared.closings, effort, Asker::User);
        let (live, opened) = Box::pin(reopen).await?;
        if opened != Opened::Reconnected {
            *shared.opened.lock() = (opened, live.config_lost);
        }
        Ok(live)
    }

    /// Makes a call on the running container; when that turned out to be gone before the call had
    /// begun, on the one that takes its place. As [`usable_by`](Self::usable_by).
    pub(super) async fn on_live<T, F>(
        &self,
        operation: &'static str,
        most: Effort,
        call: impl Fn(Arc<Live>) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut refused = 0;
        loop {
            let live = self.usable_by(most).await?;
            match call(Arc::clone(&live)).await {
                Err(error) if error.is_refused() && refused < super::exec::REOPENINGS => {
                    refused += 1;
                    self.0.slot.unset_live(&live);
                }
                result => {
                    return result.map_err(|error| {
                        error
                            .with_operation(operation)
                            .with_container(&live.container)
                    });
                }
            }
        }
    }

    /// Asks the agent something that may be asked twice. When the container vanished before the
    /// agent could begin, it is brought back once.
    ///
    /// The question owns its client: an `AsyncFn` over a borrowed one would make the futures of all
    /// callers impossible to spawn.
    pub(super) async fn ask<T, F>(
        &self,
        operation: &'static str,
        question: impl Fn(AgentClient) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut live = self.usable().await?;
        let result = match question(live.client.clone()).await {
            Err(error) if error.kind() == ErrorKind::ContainerGone => {
                self.0.slot.unset_live(&live);
                live = self.usable().await?;
                question(live.client.clone()).await
            }
            result => result,
        };
        result.map_err(|error| {
            error
                .with_operation(operation)
                .with_container(&live.container)
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("key", self.key())
            .field("container", self.container())
            .field("opened", &self.opened())
            .finish_non_exhaustive()
    }
}
