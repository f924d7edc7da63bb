//! Background processes of a session: begun, looked at, waited for, stopped; their logs.

use std::{
    fmt,
    future::IntoFuture,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use podkit_agent::ProcessSpec;
use tokio::time::timeout;

use super::{exec::order, handle::Session, scoped::random_id};
use crate::{
    agent::{ExecHandle, LogReader},
    backend::ContainerState,
    container::inside_workspace,
    error::{Error, ErrorKind, Result},
    exec::{ExecRequest, TerminalSize},
    process::{
        DEFAULT_LOG_LIMIT_BYTES, LogChunk, LogOptions, LogStream, ProcessInfo, RestartPolicy,
        SpawnRequest, millis, wire_size,
    },
};

/// Signal that ends a process whatever it does.
const SIGKILL: i32 = 9;

/// Largest number of a signal.
const SIGNAL_MAX: i32 = 64;

/// Most bytes of a log that [`Logs`] holds in memory.
const LOGS_LIMIT_BYTES: usize = 256 << 20;

/// Most bytes of one line that [`Process::wait_for_log`] looks through.
const LINE_LIMIT_BYTES: usize = 1 << 20;

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
        let (containers, wish) = (session.manager().containers().clone(), &request);
        let info = session
            .on_live("start process", |live| {
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

    /// Looks at it; no activity.
    ///
    /// # Errors
    /// `NotFound`; `AgentUnreachable`.
    pub async fn info(&self) -> Result<ProcessInfo> {
        let containers = self.session.manager().containers().clone();
        self.session
            .on_live("inspect process", |live| {
                let (containers, id) = (containers.clone(), self.id.clone());
                async move {
                    let asked = live.client.inspect_process(&id);
                    containers
                        .ask("inspect process", &live.container, asked)
                        .await
                }
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
        self.session
            .on_live("wait for process", |live| {
                let id = self.id.clone();
                async move { live.client.wait_process(&id).await }
            })
            .await
    }

    /// Sends a signal to its process group; does nothing when it has ended.
    ///
    /// # Errors
    /// `InvalidInput` for a number that is no signal's; `NotFound`.
    pub async fn signal(&self, number: i32) -> Result<()> {
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
        if !(1..=SIGNAL_MAX).contains(&number) {
            return Err(Error::invalid_input(format!("{number} is not a signal")));
        }
        self.session
            .on_live("signal process", |live| {
                let id = self.id.clone();
                async move { live.client.signal_process(&id, tree, number).await }
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
        self.session
            .on_live("stop process", |live| {
                let id = self.id.clone();
                async move { live.client.stop_process(&id, millis(grace)).await }
            })
            .await
    }

    /// Forgets a process that has ended, and removes its log.
    ///
    /// # Errors
    /// `AlreadyExists` while it runs; `NotFound`.
    pub async fn forget(&self) -> Result<()> {
        self.session
            .on_live("forget process", |live| {
                let id = self.id.clone();
                async move { live.client.forget_process(&id).await }
            })
            .await
    }

    /// Its log, when it is awaited; [`stream`](Logs::stream) gives it as it comes.
    pub fn logs(&self) -> Logs {
        Logs {
            process: self.clone(),
            options: LogOptions::default(),
        }
    }

    /// Joins in with a process that has a terminal: what it showed last (up to 256 KiB), then what
    /// it shows; input is typed by [`ExecHandle::take_stdin`]. Several may look at once. Dropping
    /// the handle leaves the process as it is.
    ///
    /// # Errors
    /// `InvalidInput` for a process that has no terminal or has ended; `NotFound`.
    pub async fn attach(&self, size: Option<TerminalSize>) -> Result<ExecHandle> {
        self.session
            .on_live("attach to process", |live| {
                let id = self.id.clone();
                async move { live.client.attach(&id, wire_size(size)).await }
            })
            .await
    }

    /// Waits until its log has a line with `text`, and returns that line; lines that were written
    /// before count.
    ///
    /// # Errors
    /// `TimedOut`; `NotFound` when the process ended without such a line, or there is no process.
    pub async fn wait_for_log(&self, text: &str, limit: Duration) -> Result<String> {
        let found = async {
            let mut logs = self.logs().follow().stream().await?;
            let mut lines = [Vec::new(), Vec::new()];
            while let Some(chunk) = logs.next().await? {
                let line = match chunk.stream {
                    LogStream::Stdout => &mut lines[0],
                    LogStream::Stderr => &mut lines[1],
                };
                if let Some(found) = look(line, &chunk.bytes, text) {
                    return Ok(found);
                }
            }
            let rest = lines.iter().find_map(|line| containing(line, text));
            rest.ok_or_else(|| {
                let message = format!("the process ended without a line with {text:?} in its log");
                Error::new(ErrorKind::NotFound, message)
            })
        };
        timeout(limit, found).await.unwrap_or_else(|_| {
            let message = format!("no line with {text:?} came within {limit:?}");
            Err(Error::new(ErrorKind::TimedOut, message)
                .with_operation("wait for a line of the log"))
        })
    }
}

/// Adds bytes to the line that is not whole yet, and looks through those that are.
fn look(line: &mut Vec<u8>, bytes: &[u8], text: &str) -> Option<String> {
    for part in bytes.split_inclusive(|byte| *byte == b'\n') {
        let room = LINE_LIMIT_BYTES.saturating_sub(line.len());
        line.extend_from_slice(part.get(..room).unwrap_or(part));
        if part.ends_with(b"\n") {
            if let Some(found) = containing(line, text) {
                return Some(found);
            }
            line.clear();
        }
    }
    None
}

fn containing(line: &[u8], text: &str) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    line.contains(text).then(|| line.trim_end().to_owned())
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("session", self.session.key())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A process's log: awaited, all that is asked for, at most 256 MiB. Reading it is no activity.
///
/// # Errors
/// `NotFound`; `InvalidInput` for a process with a terminal; `LimitExceeded` for too much.
#[derive(Debug)]
#[must_use = "a log is read when this is awaited or streamed"]
pub struct Logs {
    process: Process,
    options: LogOptions,
}

impl Logs {
    /// Only the last lines, of both streams together.
    pub const fn tail(mut self, lines: u64) -> Self {
        self.options.tail_lines = Some(lines);
        self
    }

    /// Only what was written since.
    pub const fn since(mut self, time: SystemTime) -> Self {
        self.options.since = Some(time);
        self
    }

    /// Only one of the streams.
    pub const fn only(mut self, stream: LogStream) -> Self {
        self.options.only = Some(stream);
        self
    }

    /// Also what is written from now on, until the process has ended.
    pub const fn follow(mut self) -> Self {
        self.options.follow = true;
        self
    }

    /// Gives the log as it comes.
    ///
    /// # Errors
    /// As awaiting it.
    pub async fn stream(self) -> Result<LogEvents> {
        let query = self.options.to_wire();
        let process = self.process;
        let reader = process
            .session
            .on_live("read the log", |live| {
                let id = process.id.clone();
                async move { live.client.process_logs(&id, query).await }
            })
            .await?;
        Ok(LogEvents(reader))
    }

    async fn run(self) -> Result<Vec<LogChunk>> {
        let mut events = self.stream().await?;
        let (mut chunks, mut size) = (Vec::new(), 0);
        while let Some(chunk) = events.next().await? {
            size += chunk.bytes.len();
            if size > LOGS_LIMIT_BYTES {
                return Err(
                    Error::new(ErrorKind::LimitExceeded, "the log is larger than 256 MiB")
                        .with_hint("read its end, or stream it"),
                );
            }
            chunks.push(chunk);
        }
        Ok(chunks)
    }
}

impl IntoFuture for Logs {
    type Output = Result<Vec<LogChunk>>;
    type IntoFuture = BoxFuture<'static, Result<Vec<LogChunk>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A log, as it comes.
#[derive(Debug)]
pub struct LogEvents(LogReader);

impl LogEvents {
    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// `ContainerGone` or `AgentUnreachable` when the container stopped.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<LogChunk>> {
        let next = self.0.next().await?;
        Ok(next.map(|(is_error, bytes)| LogChunk {
            stream: if is_error {
                LogStream::Stderr
            } else {
                LogStream::Stdout
            },
            bytes,
        }))
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
        if self.slot().live(self.closings())?.is_none() {
            let info = self.info().await?;
            if info.state != ContainerState::Running {
                return Ok(Vec::new());
            }
        }
        let containers = self.manager().containers().clone();
        self.on_live("list processes", |live| {
            let containers = containers.clone();
            async move {
                let asked = live.client.processes();
                containers
                    .ask("list processes", &live.container, asked)
                    .await
            }
        })
        .await
    }
}
