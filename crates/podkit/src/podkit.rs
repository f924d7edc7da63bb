//! The front door: one engine, one prefix, everybody's sessions.

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use tokio::sync::OnceCell;

use crate::{
    backend::{
        BackendRef,
        connect::{ConnectOptions, connect},
    },
    config::{LimitChange, SessionSpec},
    container::{
        Capabilities, ContainerManager, ContainerStats, Deadlines, MountStrategy, ParentInfo,
        PullObserver, PullProgress, WorkspaceMounts,
    },
    error::{Error, Result},
    event::{AuditLog, EventBus, EventHandler, EventStream},
    exec::ExecOutput,
    id::{Prefix, SessionKey},
    session::{
        CloseReport, GcOptions, GcReport, HealthOptions, ListSessions, OpenSession, RunOnce,
        Session, SessionInfo, SessionManager, StatsStream,
    },
};

/// Name of the engine when none is named: the best one that is there.
const AUTO: &str = "auto";

/// Everybody's sessions on one engine, under one prefix. Cheap to clone; clones share connections.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> podkit::Result<()> {
/// use podkit::Podkit;
///
/// let podkit = Podkit::connect("memory").await?;
/// podkit.session("bob", "123").await?.exec(["true"]).await?.check()?;
/// for info in podkit.list().user("bob").await? {
///     assert_eq!(info.key.to_string(), "bob/123");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Podkit(SessionManager);

impl Podkit {
    /// Connects to an engine: `auto`, `embedded`, `docker`, `podman`, the URL of an engine, or
    /// `memory` for tests.
    ///
    /// # Errors
    /// - `InvalidInput` for another name.
    /// - `Unavailable` when the engine is not there or this machine cannot run it; the hint says
    ///   what would help.
    pub async fn connect(name: &str) -> Result<Self> {
        Self::builder().backend(name).build().await
    }

    /// Says more than the engine's name.
    pub fn builder() -> PodkitBuilder {
        PodkitBuilder::default()
    }

    /// Opens a user's session when it is awaited: makes its container, or connects to it.
    pub fn session(&self, user: impl Into<String>, session: impl Into<String>) -> OpenSession {
        OpenSession::new(self.0.clone(), SessionKey::new(user, session))
    }

    /// Opens the session of a key that was checked before.
    pub fn open(&self, key: &SessionKey) -> OpenSession {
        OpenSession::new(self.0.clone(), Ok(key.clone()))
    }

    /// Lists the sessions of this prefix when it is awaited.
    pub fn list(&self) -> ListSessions {
        ListSessions::new(self.0.clone())
    }

    /// Looks at one session; no activity, and nothing is started.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` or `TimedOut`.
    pub async fn inspect(&self, key: &SessionKey) -> Result<SessionInfo> {
        self.0.inspect(key).await
    }

    /// Stops a session's container: commands end with `SessionClosed`, programs have `grace` to
    /// end, files stay where the engine keeps them.
    ///
    /// # Errors
    /// `NotFound`; whatever keeps the engine from stopping it.
    ///
    /// # Cancel safety
    /// The stop goes on when the future is dropped.
    pub async fn stop(&self, key: &SessionKey, grace: Duration) -> Result<()> {
        self.0.stop(key, grace).await
    }

    /// Freezes a session's container, which nothing is started for. See [`Session::pause`].
    ///
    /// # Errors
    /// As [`Session::pause`].
    ///
    /// # Cancel safety
    /// It goes on when the future is dropped.
    pub async fn pause(&self, key: &SessionKey) -> Result<()> {
        self.0.pause(key).await
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// As [`Session::pause`].
    ///
    /// # Cancel safety
    /// It goes on when the future is dropped.
    pub async fn resume(&self, key: &SessionKey) -> Result<()> {
        self.0.resume(key).await
    }

    /// Changes limits of a session's container. See [`Session::set_limits`].
    ///
    /// # Errors
    /// As [`Session::set_limits`].
    ///
    /// # Cancel safety
    /// It goes on when the future is dropped.
    pub async fn set_limits(&self, key: &SessionKey, change: LimitChange) -> Result<()> {
        self.0.set_limits(key, &change).await
    }

    /// What a session's container uses now. See [`Session::stats`].
    ///
    /// # Errors
    /// As [`Session::stats`].
    pub async fn stats(&self, key: &SessionKey) -> Result<ContainerStats> {
        self.0.stats(key).await
    }

    /// What a session's container uses, now and then every `interval` (at least 10 ms).
    ///
    /// # Errors
    /// As [`Session::watch_stats`].
    pub fn watch_stats(&self, key: &SessionKey, interval: Duration) -> Result<StatsStream> {
        self.0.watch_stats(key.clone(), interval)
    }

    /// Removes a session's container at once, and leaves its workspace. Idempotent.
    ///
    /// # Errors
    /// `Unavailable` or `TimedOut`. What could not be removed is in the report.
    ///
    /// # Cancel safety
    /// The removal goes on when the future is dropped.
    pub async fn close(&self, key: &SessionKey) -> Result<CloseReport> {
        self.0.close(key).await
    }

    /// Removes the sessions of this prefix that have expired, and what crashed callers left.
    /// Workspaces stay.
    ///
    /// # Errors
    /// `Unavailable` or `TimedOut` when the engine cannot be looked at. What failed for single
    /// sessions is in the report.
    pub async fn gc(&self, options: GcOptions) -> Result<GcReport> {
        self.0.gc(options).await
    }

    /// Lends a fresh throw-away session to `body` and closes it: also when the body fails, panics
    /// or is dropped.
    ///
    /// # Errors
    /// What the body returns; what keeps the session from being opened or closed.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> podkit::Result<()> {
    /// use podkit::{Podkit, SessionSpec};
    ///
    /// let podkit = Podkit::connect("memory").await?;
    /// let output =
    ///     podkit.scoped(SessionSpec::new(), async |s| s.exec(["echo", "hi"]).await).await?;
    /// assert_eq!(output.stdout, b"hi\n");
    /// assert!(podkit.list().await?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn scoped<T>(
        &self,
        spec: impl Into<SessionSpec>,
        body: impl AsyncFnOnce(&Session) -> Result<T>,
    ) -> Result<T> {
        self.0.scoped(spec.into(), body).await
    }

    /// What happens to sessions from now on, as far as this `Podkit` and its clones do it or see it.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> podkit::Result<()> {
    /// use podkit::{EventKind, Opened, Podkit};
    ///
    /// let podkit = Podkit::connect("memory").await?;
    /// let mut events = podkit.events();
    /// podkit.session("bob", "123").await?;
    /// while let Some(event) = events.next().await {
    ///     if event.kind == EventKind::SessionOpened(Opened::Created) {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> EventStream {
        self.0.events().subscribe()
    }

    /// Runs one command in a fresh throw-away container, with files of its own; the container is removed
    /// whatever happens.
    ///
    /// # Errors
    /// As of an exec; what keeps the container from being made, or a file from being written.
    ///
    /// # Cancel safety
    /// The container is removed when the future is dropped.
    pub async fn run_once(
        &self,
        spec: impl Into<SessionSpec>,
        once: RunOnce,
    ) -> Result<ExecOutput> {
        self.0.run_once(spec.into(), once).await
    }

    /// Name of the engine, such as `embedded`.
    #[must_use]
    pub fn backend_name(&self) -> &'static str {
        self.0.containers().backend_name()
    }

    /// What the engine can do, here and now.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.0.containers().capabilities()
    }

    /// The container that this process itself runs in, proven by what the kernel says of the process;
    /// `None` where it runs in none of this engine's.
    ///
    /// # Errors
    /// - `Unsupported` for an engine that cannot tell ([`Capabilities::inherit`]).
    /// - `Unavailable` or `TimedOut` when the engine does not answer.
    pub async fn parent(&self) -> Result<Option<ParentInfo>> {
        self.0.containers().parent().await
    }

    /// Whose sessions these are.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        self.0.prefix()
    }

    /// The containers below the sessions.
    #[must_use]
    pub fn containers(&self) -> &ContainerManager {
        self.0.containers()
    }

    /// Asks the engine whether it is there.
    ///
    /// # Errors
    /// `Unavailable` or `TimedOut`.
    pub async fn ping(&self) -> Result<()> {
        self.0.containers().ping().await
    }

    /// Takes no more work and waits for what has begun. Sessions stay as they are; throw-away ones
    /// are closed. Calls of this and every clone are `Unavailable` afterwards.
    pub async fn shutdown(&self) {
        self.0.shutdown().await;
    }

    pub(crate) fn into_manager(self) -> SessionManager {
        self.0
    }
}

impl fmt::Debug for Podkit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Podkit").field(&self.0).finish()
    }
}

/// Puts a [`Podkit`] together.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> podkit::Result<()> {
/// use podkit::{Podkit, Prefix, SessionSpec};
///
/// let podkit = Podkit::builder()
///     .backend("memory")
///     .prefix(Prefix::new("grader")?)
///     .default_spec(SessionSpec::new().env("LANG", "C.UTF-8"))
///     .build()
///     .await?;
/// assert_eq!(podkit.backend_name(), "memory");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use = "nothing is connected to before `build`"]
pub struct PodkitBuilder {
    backend: Option<String>,
    engine: Option<BackendRef>,
    prefix: Prefix,
    options: ConnectOptions,
    default_spec: SessionSpec,
    strategy: Option<Arc<dyn MountStrategy>>,
    deadlines: Deadlines,
    max_connections: Option<NonZeroUsize>,
    observer: Option<PullObserver>,
    handlers: Handlers,
    audit: Option<AuditLog>,
    health: Option<HealthOptions>,
}

#[derive(Default)]
struct Handlers(Vec<Arc<dyn EventHandler>>);

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} handlers", self.0.len())
    }
}

impl PodkitBuilder {
    /// Names the engine; `auto` without.
    pub fn backend(mut self, name: impl Into<String>) -> Self {
        self.backend = Some(name.into());
        self
    }

    /// Gives an engine that is connected to already.
    pub fn engine(mut self, engine: BackendRef) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Says whose sessions these are; `podkit` without.
    pub fn prefix(mut self, prefix: Prefix) -> Self {
        self.prefix = prefix;
        self
    }

    /// Says where an engine keeps its state.
    pub fn connect_options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// Says what new containers are like where a session's own spec says nothing. Never a cause
    /// of a conflict.
    pub fn default_spec(mut self, spec: SessionSpec) -> Self {
        self.default_spec = spec;
        self
    }

    /// Says which mounts containers have beside those of their spec; [`WorkspaceMounts`] without.
    pub fn mount_strategy(mut self, strategy: impl MountStrategy) -> Self {
        self.strategy = Some(Arc::new(strategy));
        self
    }

    /// Says how long engine and agents may take to answer.
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Has `tell` told how far the fetching of images is, whoever asked for them.
    pub fn on_pull(mut self, tell: impl Fn(&PullProgress) + Send + Sync + 'static) -> Self {
        self.observer = Some(PullObserver::new(tell));
        self
    }

    /// Keeps at most so many connections to agents open, a descriptor each: those that were not used
    /// for longest are closed, unless something is under way on them, and made anew when they are
    /// needed. Half of the descriptors that the process may have without, at most 4096.
    pub fn max_connections(mut self, most: NonZeroUsize) -> Self {
        self.max_connections = Some(most);
        self
    }

    /// Has `handler` told what happens, and asked what is made; several are, in their order.
    pub fn event_handler(mut self, handler: impl EventHandler) -> Self {
        self.handlers.0.push(Arc::new(handler));
        self
    }

    /// Has each command written down with how it ended.
    pub fn audit(mut self, log: AuditLog) -> Self {
        self.audit = Some(log);
        self
    }

    /// Has sessions watched over: what is not well is recovered, what is not used expires. Until the
    /// `Podkit`, its clones and its sessions are gone, or it is shut down.
    pub fn health(mut self, options: HealthOptions) -> Self {
        self.health = Some(options);
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// - `InvalidInput` for an unknown engine, for two of them, or a default spec that cannot be
    ///   used.
    /// - `Unsupported` for a default spec that the engine cannot honour.
    /// - `Unavailable` when the engine is not there.
    pub async fn build(self) -> Result<Podkit> {
        let engine = match (self.engine, &self.backend) {
            (Some(_), Some(name)) => {
                return Err(Error::invalid_input(format!(
                    "an engine was given, and another one was named: `{name}`"
                )));
            }
            (Some(engine), None) => engine,
            (None, name) => connect(name.as_deref().unwrap_or(AUTO), &self.options).await?,
        };
        let strategy = self.strategy.unwrap_or_else(|| Arc::new(WorkspaceMounts));
        let defaults = self.default_spec;
        let manager = SessionManager::new(
            engine,
            self.deadlines,
            self.prefix,
            defaults.clone(),
            strategy,
            EventBus::new(self.handlers.0, self.audit)?,
        );
        manager.containers().check(&defaults)?;
        if let Some(observer) = self.observer {
            manager.containers().observe_pulls(observer);
        }
        if let Some(most) = self.max_connections {
            manager.containers().set_most_links(most.get());
        }
        if let Some(options) = self.health {
            manager.watch_health(options)?;
        }
        Ok(Podkit(manager))
    }
}

/// Opens a session on the process-wide default [`Podkit`], which is connected to on first use as
/// `Podkit::connect("auto")` does.
///
/// # Examples
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> podkit::Result<()> {
/// let output = podkit::session("bob", "123").await?.shell("pwd").await?;
/// assert_eq!(output.stdout, b"/workspace\n");
/// # Ok(())
/// # }
/// ```
pub fn session(user: impl Into<String>, session: impl Into<String>) -> OpenSession {
    OpenSession::on_default(SessionKey::new(user, session))
}

/// The process-wide default; a failure to connect is not remembered.
pub(crate) async fn default_podkit() -> Result<Podkit> {
    static DEFAULT: OnceCell<Podkit> = OnceCell::const_new();
    DEFAULT
        .get_or_try_init(|| Podkit::connect(AUTO))
        .await
        .cloned()
}
