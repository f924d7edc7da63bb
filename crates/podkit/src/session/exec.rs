//! Commands in a session's container.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use podkit_agent::ExecSpec;
use tracing::{Instrument, debug, debug_span, warn};

use super::{handle::Session, manager::SessionManager, slot::Live, slot::Slot};
use crate::{
    agent::{ExecHandle, ExecStdin},
    container::{ContainerState, inside_workspace, jittered},
    error::{ErrorKind, Result},
    exec::{DEFAULT_OUTPUT_LIMIT_BYTES, ExecOutput, ExecRequest, Stdin, TerminalSize},
};

/// How often what was refused before it began is begun again: a connection may be stale,
/// and closers may be at it.
pub(super) const REOPENINGS: u32 = 3;

/// How often a container is looked at to tell whether it is being killed.
const LOOKS: u32 = 3;

/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// A command: awaited, it runs to its end and gives its output; [`stream`](Self::stream) gives the
/// output while it runs.
///
/// # Cancel safety
/// Dropping the future kills the command with all it started, unless it is
/// [`detached`](Self::detached). The session goes on.
///
/// # Errors
/// A command that fails, is killed or runs out of time is a result. Errors are:
/// - [`InvalidInput`](ErrorKind::InvalidInput): empty argv, NUL bytes, an unknown user, a missing
///   working directory.
/// - [`LimitExceeded`](ErrorKind::LimitExceeded): more than 1 MiB of arguments, or no process left.
/// - [`ContainerGone`](ErrorKind::ContainerGone): the session was closed by this process.
/// - [`AgentUnreachable`](ErrorKind::AgentUnreachable): the connection broke while it ran and the
///   container lives on, or nobody answers. It is not run again: it may have begun.
#[derive(Debug)]
#[must_use = "a command runs when this is awaited or streamed"]
pub struct Exec {
    session: Session,
    request: ExecRequest,
}

impl Exec {
    pub(super) const fn new(session: Session, request: ExecRequest) -> Self {
        Self { session, request }
    }

    /// Sets a variable, on top of the session's environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.env.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory; a relative one is in `/workspace`.
    pub fn cwd(mut self, directory: impl Into<String>) -> Self {
        self.request.cwd = Some(directory.into());
        self
    }

    /// Sets the user, as `name`, `uid`, `name:group` or `uid:gid`.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.request.user = Some(user.into());
        self
    }

    /// Sends these bytes as standard input, and then its end.
    pub fn stdin(mut self, bytes: impl Into<Bytes>) -> Self {
        self.request.stdin = Stdin::Bytes(bytes.into());
        self
    }

    /// Takes standard input from [`ExecHandle::take_stdin`]; for [`stream`](Self::stream).
    pub fn stdin_stream(mut self) -> Self {
        self.request.stdin = Stdin::Stream;
        self
    }

    /// Kills the whole tree after this long; the result is `TimedOut`, with what was written so
    /// far.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Keeps at most so many bytes of each output stream; the rest is dropped and flagged.
    pub fn output_limit(mut self, bytes: u64) -> Self {
        self.request.output_limit_bytes = Some(bytes);
        self
    }

    /// Sends standard error where standard output goes.
    pub fn merge_output(mut self) -> Self {
        self.request.merge_output = true;
        self
    }

    /// Gives the command a terminal of this size for its input and output, which are one stream
    /// then. The end of the input is typed as its end-of-file character, where it has one.
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        self.request.terminal = Some(size);
        self
    }

    /// Lets the command outlive this handle and this process.
    pub fn detached(mut self) -> Self {
        self.request.detached = true;
        self
    }

    /// Begins the command and gives its events while it runs. Dropping the handle kills it, unless
    /// it is [`detached`](Self::detached).
    ///
    /// # Errors
    /// As awaiting it.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> podkit::Result<()> {
    /// # let podkit = podkit::Podkit::connect("memory").await?;
    /// use podkit::ExecEvent;
    /// let session = podkit.session("bob", "123").await?;
    /// let mut events = session.exec(["echo", "hi"]).stream().await?;
    /// while let Some(event) = events.next().await {
    ///     if let ExecEvent::Stdout(bytes) = event? {
    ///         assert_eq!(&bytes[..], b"hi\n");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stream(self) -> Result<ExecHandle> {
        let (session, mut request) = (self.session, self.request);
        let input = take_bytes(&mut request);
        let limit = request.output_limit_bytes;
        let (live, mut handle) = begin(&session, &request, limit).await?;
        if let Some(input) = input
            && let Some(stdin) = handle.take_stdin()
        {
            session.manager().tasks().spawn(feed(stdin, input))?;
        }
        let (manager, slot) = (session.manager().clone(), Arc::clone(session.slot()));
        handle.on_survivors(Box::new(move || {
            let tasks = manager.clone();
            let restart = async move {
                if let Err(error) = manager.restart(&slot, &live).await {
                    warn!(%error, "a container with processes that cannot be killed stays");
                }
            };
            if let Err(error) = tasks.tasks().spawn(restart) {
                warn!(%error, "a container with processes that cannot be killed stays");
            }
        }));
        Ok(handle)
    }

    async fn run(self) -> Result<ExecOutput> {
        let (session, mut request) = (self.session, self.request);
        let input = take_bytes(&mut request);
        let limit = request
            .output_limit_bytes
            .unwrap_or(DEFAULT_OUTPUT_LIMIT_BYTES);
        let (live, mut handle) = begin(&session, &request, Some(limit)).await?;
        let named = |error: crate::error::Error| {
            error
                .with_operation("execute command")
                .with_container(&live.container)
        };
        let stdin = if matches!(request.stdin, Stdin::None) {
            None
        } else {
            handle.take_stdin()
        };
        let output = match stdin {
            None => handle.collect(limit).await,
            Some(stdin) => {
                let feeding = feed(stdin, input.unwrap_or_default());
                let (output, ()) = futures::future::join(handle.collect(limit), feeding).await;
                output
            }
        };
        let output = output.map_err(named)?;
        if output.result.container_restarted {
            session
                .manager()
                .restart(session.slot(), &live)
                .await
                .map_err(named)?;
        }
        Ok(output)
    }
}

impl IntoFuture for Exec {
    type Output = Result<ExecOutput>;
    type IntoFuture = BoxFuture<'static, Result<ExecOutput>>;

    fn into_future(self) -> Self::IntoFuture {
        let key = self.session.key();
        let span = debug_span!(
            "podkit.exec",
            session.user = key.user().as_str(),
            session.id = key.session().as_str(),
            container.id = self.session.container().as_str(),
        );
        Box::pin(self.run().instrument(span))
    }
}

/// Takes the bytes of standard input out of a request; the agent gets them as a stream.
fn take_bytes(request: &mut ExecRequest) -> Option<Bytes> {
    match &mut request.stdin {
        Stdin::Bytes(bytes) => Some(std::mem::take(bytes)),
        Stdin::None | Stdin::Stream => None,
    }
}

/// Sends all input and its end. A command need not read it: that it does not is no error.
async fn feed(mut stdin: ExecStdin, input: Bytes) {
    let sent = async {
        if !input.is_empty() {
            stdin.write_all(input).await?;
        }
        stdin.close().await
    };
    if let Err(error) = sent.await {
        debug!(%error, "the command did not read all of its input");
    }
}

/// Begins a command on the session's one connection: no engine call, and no lock that is held
/// while waiting.
async fn begin(
    session: &Session,
    request: &ExecRequest,
    limit: Option<u64>,
) -> Result<(Arc<Live>, ExecHandle)> {
    request.check()?;
    let (manager, slot) = (session.manager(), session.slot());
    let begun = begin_on_live(session, request, limit).await;
    match begun {
        Ok((live, mut handle)) => {
            manager.tell_of_command(slot, request, &mut handle);
            Ok((live, handle))
        }
        Err(error) => {
            manager.tell_of_refusal(slot, request, &error);
            Err(error)
        }
    }
}

async fn begin_on_live(
    session: &Session,
    request: &ExecRequest,
    limit: Option<u64>,
) -> Result<(Arc<Live>, ExecHandle)> {
    let mut live = session.usable().await?;
    let mut reopened = 0;
    loop {
        let order = order(request, &live, limit);
        let begun = live.client.exec(order);
        let containers = session.manager().containers();
        match containers
            .ask("execute command", &live.container, begun)
            .await
        {
            Ok(mut handle) => {
                let (manager, judged) = (session.manager().clone(), Arc::clone(&live));
                handle.judge_loss(Box::new(move || {
                    Box::pin(async move { manager.has_ended(&judged).await })
                }));
                return Ok((live, handle));
            }
            // The container vanished before the command began, so it may be begun again.
            Err(error) if error.kind() == ErrorKind::ContainerGone && reopened < REOPENINGS => {
                reopened += 1;
                session.slot().unset_live(&live);
                live = session.usable().await?;
            }
            // It may have begun; what it did is not known, but that it is over.
            Err(error)
                if error.kind() == ErrorKind::AgentUnreachable
                    && session.manager().has_ended(&live).await =>
            {
                let handle = ExecHandle::of_ended(live.client.clone());
                return Ok((live, handle));
            }
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn order(request: &ExecRequest, live: &Live, limit: Option<u64>) -> ExecSpec {
    let timeout = request.timeout.or_else(|| live.exec_timeout());
    let variable = |(name, value): &(String, String)| format!("{name}={value}").into_bytes();
    let cwd = request.cwd.as_deref().map(inside_workspace);
    ExecSpec {
        argv: request.argv.clone(),
        env: request.env.iter().map(variable).collect(),
        cwd: cwd.unwrap_or_default().into_bytes(),
        user: request.user.clone().unwrap_or_default().into_bytes(),
        stdin: !matches!(request.stdin, Stdin::None),
        merge_output: request.merge_output,
        detached: request.detached,
        passive: false,
        // At least one: the agent would take none for no timeout at all.
        timeout_ms: timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1)),
        output_limit_bytes: limit,
        terminal: request.terminal.map(TerminalSize::to_wire),
    }
}

impl SessionManager {
    /// Whether the life of a container to which the connection broke is over: it was removed,
    /// stopped or killed, and maybe started again since.
    async fn has_ended(&self, live: &Live) -> bool {
        let containers = self.containers();
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(jittered(LOOK_PAUSE)).await;
            }
            let info = match containers.find(&live.container).await {
                Ok(None) => return true,
                Ok(Some(info)) => info,
                Err(_) => return false,
            };
            match info.state {
                ContainerState::Running => {}
                ContainerState::Paused => return false,
                _ => return true,
            }
            // One that is being killed still runs, and answers no more.
            if let Ok(client) = containers.client(&info.id, Some(&info)).await {
                return client.boot_token() != live.client.boot_token();
            }
        }
        false
    }

    /// Restarts a container in which processes survived being killed, so that the session stays
    /// usable.
    async fn restart(&self, slot: &Arc<Slot>, live: &Arc<Live>) -> Result<()> {
        let (manager, slot, live) = (self.clone(), Arc::clone(slot), Arc::clone(live));
        slot.unset_live(&live);
        let task = async move {
            let _gate = slot.gate.lock().await;
            warn!(
                container.id = live.container.as_str(),
                "restarting: processes resist kill"
            );
            let restarted = async {
                manager.stop_container(&slot, Duration::ZERO).await?;
                manager.start_container(&slot).await
            };
            match restarted.await {
                // Removed meanwhile, with the processes.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                result => result,
            }
        };
        self.tasks().run(task).await
    }
}
