//! Create or reconnect.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::{Instrument, info, info_span};

use super::{
    handle::Session,
    manager::SessionManager,
    opening::Opening,
    ready::{Readiness, StartupCheck},
    slot::{Live, Slot},
};
use crate::{
    config::SessionSpec,
    error::{Error, ErrorKind, Result},
    event::{EventKind, Reason},
    id::SessionKey,
};

/// What happens when the session's container was made with another configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnConflict {
    /// The opening fails with [`Conflict`](crate::ErrorKind::Conflict), naming the fields.
    #[default]
    Fail,
    /// The container is used as it is, with a warning in the log.
    Reuse,
    /// The container is removed and made anew. What was in it is lost; the workspace stays.
    Replace,
}

/// What opening a session did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Opened {
    /// Its container was made.
    Created,
    /// Its container was there and did not run.
    Started,
    /// Its container was paused.
    Resumed,
    /// Its container was running.
    Reconnected,
    /// Its container was broken, or gone behind this process' back, and was made anew: what was
    /// in it is lost.
    Recovered,
}

impl Opened {
    /// Stable lower-case name: `reconnected`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Started => "started",
            Self::Resumed => "resumed",
            Self::Reconnected => "reconnected",
            Self::Recovered => "recovered",
        }
    }
}

/// Opens a session when it is awaited: creates its container, or connects to it.
///
/// # Cancel safety
/// A dropped future leaves the container as it was, or complete: what has begun goes on.
///
/// # Errors
/// - [`Conflict`](crate::ErrorKind::Conflict): the container was made with another configuration.
/// - [`InvalidInput`](crate::ErrorKind::InvalidInput), [`Unsupported`](crate::ErrorKind::Unsupported): a field of
///   the spec cannot be used; nothing was made.
/// - [`NotFound`](crate::ErrorKind::NotFound): there is no container, and none was to be made.
/// - [`Unavailable`](crate::ErrorKind::Unavailable), [`TimedOut`](crate::ErrorKind::TimedOut),
///   [`AgentUnreachable`](crate::ErrorKind::AgentUnreachable): the engine or the agent does not answer.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> podkit::Result<()> {
/// use podkit::{Opened, Podkit, SessionSpec};
///
/// let podkit = Podkit::connect("memory").await?;
/// let spec = SessionSpec::new().env("LANG", "C.UTF-8");
/// let session = podkit.session("bob", "123").spec(spec).await?;
/// assert_eq!(session.opened(), Opened::Created);
/// assert_eq!(podkit.session("bob", "123").await?.opened(), Opened::Reconnected);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a session is opened when this is awaited"]
pub struct OpenSession {
    target: Result<Target>,
    wish: Wish,
}

/// Where to open; the process-wide default is connected to when it is needed.
#[derive(Debug)]
enum Target {
    Here(SessionManager, SessionKey),
    Default(SessionKey),
}

/// What one caller wants.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) spec: SessionSpec,
    pub(super) on_conflict: OnConflict,
    pub(super) effort: Effort,
    /// Whether it must stay up.
    pub(super) startup: Option<StartupCheck>,
    /// When it is ready, and how long that may take.
    pub(super) ready: Option<(Readiness, Duration)>,
}

impl Wish {
    pub(super) const fn new(spec: SessionSpec, on_conflict: OnConflict, effort: Effort) -> Self {
        Self {
            spec,
            on_conflict,
            effort,
            startup: None,
            ready: None,
        }
    }
}

/// What is done to have a running container, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effort {
    /// One that runs is connected to.
    Connect,
    /// One that is there is started.
    Start,
    /// One is made.
    Create,
}

/// Who has a session opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// One who uses it.
    User,
    /// Whoever watches over it.
    Monitor,
}

impl Asker {
    const fn opened(self, opened: Opened) -> EventKind {
        match self {
            Self::User => EventKind::SessionOpened(opened),
            Self::Monitor => EventKind::Recovered(opened),
        }
    }

    const fn failed(self, reason: Reason) -> EventKind {
        match self {
            Self::User => EventKind::SessionOpenFailed(reason),
            Self::Monitor => EventKind::RecoveryFailed(reason),
        }
    }
}

impl OpenSession {
    pub(crate) fn new(manager: SessionManager, key: Result<SessionKey>) -> Self {
        Self::at(key.map(|key| Target::Here(manager, key)))
    }

    pub(crate) fn on_default(key: Result<SessionKey>) -> Self {
        Self::at(key.map(Target::Default))
    }

    fn at(target: Result<Target>) -> Self {
        let wish = Wish::new(SessionSpec::new(), OnConflict::Fail, Effort::Create);
        Self { target, wish }
    }

    /// Says what the container should be like. Fields that are not set match anything.
    pub fn spec(mut self, spec: SessionSpec) -> Self {
        self.wish.spec = spec;
        self
    }

    /// Says what happens when the container was made with another configuration.
    pub fn on_conflict(mut self, on_conflict: OnConflict) -> Self {
        self.wish.on_conflict = on_conflict;
        self
    }

    /// Has a container that is started looked at for a while: one whose own program ends at once fails
    /// the opening.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(podkit: podkit::Podkit) -> podkit::Result<()> {
    /// use std::time::Duration;
    /// use podkit::{Readiness, SessionSpec, StartupCheck};
    ///
    /// let session = podkit
    ///     .session("bob", "web")
    ///     .spec(SessionSpec::new().image("my-server").image_defaults(true).port(8000))
    ///     .startup_check(StartupCheck::new())
    ///     .ready_when(Readiness::http(8000, "/health"), Duration::from_secs(30))
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub const fn startup_check(mut self, check: StartupCheck) -> Self {
        self.wish.startup = Some(check);
        self
    }

    /// Waits, for so long at most, until a container that is started is ready. One that was made and
    /// does not become ready is removed, and the opening fails with `TimedOut`.
    pub fn ready_when(mut self, readiness: Readiness, limit: Duration) -> Self {
        self.wish.ready = Some((readiness, limit));
        self
    }

    /// Says whether a missing container is made (the default) or `NotFound`.
    pub fn create(mut self, create: bool) -> Self {
        self.wish.effort = if create {
            Effort::Create
        } else {
            Effort::Start
        };
        self
    }

    async fn open(self) -> Result<Session> {
        let (manager, key) = match self.target? {
            Target::Here(manager, key) => (manager, key),
            Target::Default(key) => (crate::podkit::default_podkit().await?.into_manager(), key),
        };
        manager.open(&key, self.wish).await
    }
}

impl IntoFuture for OpenSession {
    type Output = Result<Session>;
    type IntoFuture = BoxFuture<'static, Result<Session>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

impl SessionManager {
    /// Opens a session as [`OpenSession`] says.
    pub(super) async fn open(&self, key: &SessionKey, wish: Wish) -> Result<Session> {
        if let Some((readiness, _)) = &wish.ready {
            readiness.check()?;
        }
        let slot = self.slot(key)?;
        let effort = wish.effort;
        let (live, opened, closings) = self.open_slot(&slot, wish, None, Asker::User).await?;
        Ok(Session::new(
            self.clone(),
            slot,
            &live,
            opened,
            closings,
            effort,
        ))
    }

    /// Opens anew what a handle, made after so many closings, believed to be open.
    ///
    /// # Errors
    /// `ContainerGone` when this process has closed the session since.
    pub(super) async fn reopen(
        &self,
        slot: &Arc<Slot>,
        closings: u64,
        effort: Effort,
        asker: Asker,
    ) -> Result<(Arc<Live>, Opened)> {
        let wish = Wish::new(SessionSpec::new(), OnConflict::Reuse, effort);
        let (live, opened, _) = self.open_slot(slot, wish, Some(closings), asker).await?;
        Ok((live, opened))
    }

    async fn open_slot(
        &self,
        slot: &Arc<Slot>,
        wish: Wish,
        handle: Option<u64>,
        asker: Asker,
    ) -> Result<(Arc<Live>, Opened, u64)> {
        let span = info_span!(
            "podkit.open",
            backend = self.containers().backend_name(),
            session.user = slot.key.user().as_str(),
            session.id = slot.key.session().as_str(),
            container.id = slot.name.as_str(),
        );
        // Boxed, since the caller would carry the whole state machine otherwise.
        let task: BoxFuture<'static, _> = {
            let (manager, slot) = (self.clone(), Arc::clone(slot));
            Box::pin(
                async move {
                    let _gate = slot.gate.lock().await;
                    if let Some(closings) = handle
                        && let Some(live) = slot.live(closings)?
                    {
                        // Another handle of this process was faster.
                        return Ok((live, Opened::Reconnected, closings));
                    }
                    if asker == Asker::Monitor && slot.is_resting() {
                        let kind = ErrorKind::ContainerGone;
                        return Err(Error::new(kind, "the session was stopped meanwhile"));
                    }
                    let begin = Instant::now();
                    let mut opening = Opening::new(&manager, &slot, wish);
                    let (live, opened) = match opening.run().await {
                        Ok(done) => done,
                        Err(error) => {
                            let reason = Reason::new(&error);
                            manager.tell(&slot, asker.failed(reason));
                            return Err(error);
                        }
                    };
                    slot.set_live(Arc::clone(&live));
                    manager.tell(&slot, asker.opened(opened));
                    let elapsed_ms = begin.elapsed().as_millis();
                    info!(outcome = opened.as_str(), elapsed_ms, "session opened");
                    Ok((live, opened, slot.closings()))
                }
                .instrument(span),
            )
        };
        self.tasks()
            .run(task)
            .await
            .map_err(|error| error.with_operation("open session"))
    }
}
