//! Background processes of a session: begun, looked at, waited for, stopped; their logs.

use std::{fmt, future::IntoFuture, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use podkit_agent::ProcessSpec;

use super::{
    exec::order, handle::Session, logs::Logs, open::Effort, scoped::random_id, slot::Live,
};
use crate::{
    agent::{AgentClient, ExecHandle, check_signal},
    container::inside_workspace,
    error::{ErrorKind, Result},
    event::{EventKind, ProcessRef, told_words},
    exec::{ExecRequest, TerminalSize},
    process::{
        DEFAULT_LOG_LIMIT_BYTES, ProcessInfo, RestartPolicy, SpawnRequest, check_name, millis,
    },
};

/// Signal that ends a process whatever it does.
const SIGKILL: i32 = 9;

/// A background process: awaited, it begins and gives its handle once it runs.
///
/// It belongs to the container, not to this handle or process: it goes on when they end, and ends
/// with the container's life. It does not keep the container from stopping by itself, unless it is
/// begun with [`keep_alive`](Self::keep_alive).
///
/// # Errors
/// As of [`Exec`](super::Exec); `AlreadyExists` when a process of this name runs, `LimitExceeded`
/// beyond 1024 of them, `PermissionDenied` or `LimitExceeded` when its log cannot be begun. A program
/// that is missing is the process's outcome 127, as in a shell.
///
/// # Cancel safety
/// The process of a dropped call is killed and forgotten.
#[derive(Debug)]
#[must_use = "a process begins when this is awaited"]
pub struct Spawn {
    session: Session,
    request: SpawnRequest,
}

impl Spawn {
    pub(super) const fn new(session: Session, request: SpawnRequest) -> Self {
        Self { session, request }
    }

    /// Names it, so that it can be found by [`Session::process`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.request.name = Some(name.into());
        self
    }

    /// Sets a variable, on top of the session's environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.exec.env.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory; a relative one is in `/workspace`.
    pub fn cwd(mut self, directory: impl Into<String>) -> Self {
        self.request.exec.cwd = Some(directory.into());
        self
    }

    /// Sets the user, as `name`, `uid`, `name:group` or `uid:gid`.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.request.exec.user = Some(user.into());
        self
    }

    /// Kills it after this long, each time that it is begun.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.exec.timeout = Some(timeout);
        self
    }

    /// Sends standard error where standard output goes.
    pub fn merge_output(mut self) -> Self {
        self.request.exec.merge_output = true;
        self
    }

    /// Says when it is begun again; never, unless set.
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.request.restart = policy;
        self
    }

    /// Keeps the container from stopping by itself while it runs.
    pub fn keep_alive(mut self) -> Self {
        self.request.keep_alive = true;
        self
    }

    /// Says where its logs are; see [`SpawnRequest::log_directory`].
    pub fn log_directory(mut self, directory: impl Into<String>) -> Self {
        self.request.log_directory = Some(directory.into());
        self
    }

    /// Says how many bytes of its log are kept; at most twice as many are on disk.
    pub fn log_limit(mut self, bytes: u64) -> Self {
        self.request.log_limit_bytes = Some(bytes);
        self
    }

    /// Gives it a terminal instead of a log: [`Process::attach`].
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        self.request.exec.terminal = Some(size);
        self
    }

    async fn run(self) -> Result<Process> {
        let Self { session, request } = self;
        request.check()?;
        let id: String = random_id().chars().take(16).collect();
        let (containers, wish) = (session.manager().containers(), &request);
        let info = session
            .on_live("start process", Effort::Create, |live| {
                let spec = process_spec(&id, wish, &order(&wish.exec, &live, None));
                let containers = containers.clone();
                async move {
                    let begun = live.client.spawn(spec);
                    containers
                        .ask("start process", &live.container, begun)
                        .await
                }
            })
            .await?;
        let about = ProcessRef {
            id: info.id.clone(),
            name: info.name.unwrap_or_default(),
            argv: told_words(&info.argv),
        };
        let started = EventKind::ProcessStarted(about);
        session.manager().tell(session.slot(), started);
        Ok(Process {
            session,
            id: info.id,
        })
    }
}

fn process_spec(id: &str, request: &SpawnRequest, exec: &podkit_agent::ExecSpec) -> ProcessSpec {
    let log_directory = request.log_directory.as_deref().map(inside_workspace);
    let mut exec = exec.clone();
    exec.passive = !request.keep_alive;
    // A session's timeout is that of commands that somebody waits for.
    exec.timeout_ms = request.exec.timeout.map(|time| millis(time).max(1));
    ProcessSpec {
        id: id.as_bytes().to_vec(),
        name: request.name.clone().unwrap_or_default().into_bytes(),
        log_directory: log_directory.unwrap_or_default().into_bytes(),
        log_limit_bytes: request.log_limit_bytes.unwrap_or(DEFAULT_LOG_LIMIT_BYTES),
        restart: request.restart.to_wire(),
        exec,
    }
}

impl IntoFuture for Spawn {
    type Output = Result<Process>;
    type IntoFuture = BoxFuture<'static, Result<Process>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A background process of a session. Cheap to clone; dropping it leaves the process as it is.
///
/// Each method is `NotFound` when the container has stopped or was made anew since the process began:
/// processes end with it.
///
/// # Examples
/// ```no_run
/// # async fn example(session: podkit::Session) -> podkit::Result<()> {
/// use std::time::Duration;
/// let web = session.spawn(["python3", "-m", "http.server"]).name("web").await?;
/// web.wait_for_log("Serving HTTP", Duration::from_secs(10)).await?;
/// for chunk in web.logs().tail(20).await? {
///     print!("{}", String::from_utf8_lossy(&chunk.bytes));
/// }
/// web.stop(Duration::from_secs(2)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Process {
    session: Session,
    id: String,
}

impl Process {
    pub(super) const fn new(session: Session, id: String) -> Self {
        Self { session, id }
    }

    /// Its id, or the name by which it was looked up.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Makes a call about it; nothing is started, since no process outlives its container's life.
    async fn on_running<T, F>(
        &self,
        operation: &'static str,
        call: impl Fn(Arc<Live>, String) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        check_name(&self.id)?;
        self.session
            .on_live(operation, Effort::Connect, |live| {
                call(live, self.id.clone())
            })
            .await
    }

    /// As [`on_running`](Self::on_running), with the deadline of what an agent answers at once.
    pub(super) async fn ask<T, F>(
        &self,
        operation: &'static str,
        question: impl Fn(AgentClient, String) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let containers = self.session.manager().containers();
        self.on_running(operation, |live, id| {
            let asked = question(live.client.clone(), id);
            let containers = containers.clone();
            async move { containers.ask(operation, &live.container, asked).await }
        })
        .await
    }

    /// Looks at it; no activity.
    ///
    /// # Errors
    /// `NotFound`; `AgentUnreachable`.
    pub async fn info(&self) -> Result<ProcessInfo> {
        self.ask("inspect process", |client, id| async move {
            client.inspect_process(&id).await
        })
        .await
    }

    /// Waits until it has ended and is not begun again; no activity.
    ///
    /// # Errors
    /// `NotFound`; `ContainerGone` when its container stopped first; `AgentUnreachable`.
    ///
    /// # Cancel safety
    /// Nothing changes when the future is dropped.
    pub async fn wait(&self) -> Result<ProcessInfo> {
        self.on_running("wait for process", |live, id| async move {
            live.client.wait_process(&id).await
        })
        .await
    }

    /// Sends a signal to its process group; does nothing when it has ended.
    ///
    /// # Errors
    /// `InvalidInput` for a number that is no signal's; `NotFound`.
    pub async fn signal(&self, number: i32) -> Result<()> {
        check_signal(number)?;
        self.send_signal(false, number).await
    }

    /// Kills it with all that it started. It may be begun again, as its policy says; see
    /// [`stop`](Self::stop).
    ///
    /// # Errors
    /// `NotFound`; `AgentUnreachable`.
    pub async fn kill(&self) -> Result<()> {
        self.send_signal(true, SIGKILL).await
    }

    async fn send_signal(&self, tree: bool, number: i32) -> Result<()> {
        self.ask("signal process", move |client, id| async move {
            client.signal_process(&id, tree, number).await
        })
        .await
    }

    /// Sends TERM to all that it started, kills what is left once it has ended itself or `grace`
    /// has passed, and returns when it is gone. It is not begun again. Does nothing when it has
    /// ended.
    ///
    /// # Errors
    /// `NotFound`; `AgentUnreachable`.
    ///
    /// # Cancel safety
    /// It is stopped all the same when the future is dropped.
    pub async fn stop(&self, grace: Duration) -> Result<ProcessInfo> {
        self.on_running("stop process", |live, id| async move {
            live.client.stop_process(&id, millis(grace)).await
        })
        .await
    }

    /// Says whether it keeps the container from stopping by itself, as
    /// [`keep_alive`](Spawn::keep_alive) does at its begin.
    ///
    /// # Errors
    /// `NotFound`; `AgentUnreachable`.
    pub async fn set_keep_alive(&self, keep: bool) -> Result<()> {
        self.ask("keep process alive", move |client, id| async move {
            client.keep_process_alive(&id, keep).await
        })
        .await
    }

    /// Forgets a process that has ended, and removes its log.
    ///
    /// # Errors
    /// `AlreadyExists` while it runs; `NotFound`.
    pub async fn forget(&self) -> Result<()> {
        self.ask("forget process", |client, id| async move {
            client.forget_process(&id).await
        })
        .await
    }

    /// Its log, when it is awaited; [`stream`](Logs::stream) gives it as it comes.
    pub fn logs(&self) -> Logs {
        Logs::new(self.clone())
    }

    /// Joins in with a process that has a terminal: what it showed last (up to 256 KiB), then what
    /// it shows; input is typed by [`ExecHandle::take_stdin`]. Several may look at once. The
    /// container does not stop by itself while somebody looks. Dropping the handle leaves the process
    /// as it is.
    ///
    /// # Errors
    /// `InvalidInput` for a process that has no terminal or does not run now; `NotFound`.
    pub async fn attach(&self, size: Option<TerminalSize>) -> Result<ExecHandle> {
        let size = size.map(TerminalSize::to_wire);
        self.ask("attach to process", move |client, id| async move {
            client.attach(&id, size).await
        })
        .await
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("session", self.session.key())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Begins a program in the background, without a shell.
    pub fn spawn(&self, argv: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Spawn {
        Spawn::new(self.clone(), SpawnRequest::new(ExecRequest::new(argv)))
    }

    /// Begins `text` with `/bin/sh -c` in the background.
    pub fn spawn_shell(&self, text: impl Into<Vec<u8>>) -> Spawn {
        Spawn::new(self.clone(), SpawnRequest::new(ExecRequest::shell(text)))
    }

    /// Begins a request that was put together elsewhere.
    pub fn spawn_request(&self, request: SpawnRequest) -> Spawn {
        Spawn::new(self.clone(), request)
    }

    /// The process with this id, or the newest with this name; nothing is asked yet.
    pub fn process(&self, id: impl Into<String>) -> Process {
        Process::new(self.clone(), id.into())
    }

    /// The processes of this life of the container, those that have ended among them (the last 256).
    /// None when the container does not run: nothing is started.
    ///
    /// # Errors
    /// `AgentUnreachable`; `Unavailable` or `TimedOut`.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        let containers = self.manager().containers().clone();
        let listed = self.on_live("list processes", Effort::Connect, |live| {
            let containers = containers.clone();
            async move {
                let asked = live.client.processes();
                containers
                    .ask("list processes", &live.container, asked)
                    .await
            }
        });
        match listed.await {
            // One that has stopped has none.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.info().await.map(|_| Vec::new())
            }
            result => result,
        }
    }
}
