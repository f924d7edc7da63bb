//! A running command: its events, its input, its end.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use futures::{Stream as FuturesStream, future::BoxFuture};
use podkit_agent::{MAX_DATA_BYTES, Output, Request, StopReason, Target};

use super::{
    client::{AgentClient, error_of},
    failure::{Ended, Sent},
    stream::{Call, End, Item, OnSurvivors, Stream},
};
use crate::{
    error::{Error, ErrorKind, Result},
    exec::{ExecEvent, ExecOutput, ExecResult, TerminalSize},
    sync::Lock,
};

/// Signal that ends a process whatever it does.
const SIGKILL: i32 = 9;

/// Largest number of a signal.
const SIGNAL_MAX: i32 = 64;

/// Changes between the output streams whose order is kept; beyond it the last two runs take all.
const MAX_ORDER: usize = 1 << 20;

/// A command that runs. Its output waits for its reader: a command that writes faster than its
/// events are taken is held back, and nobody else is.
///
/// Dropping it kills the command with all that it started, unless it was started `detached` or is
/// [let go](Self::detach).
pub struct ExecHandle {
    client: AgentClient,
    stream: Arc<Stream>,
    stdin: Option<ExecStdin>,
    pid: u32,
    begun: Instant,
    announced: bool,
    over: bool,
    cancel: bool,
    judge: Option<Judge>,
    /// Hears of the end.
    ending: Ending,
    /// The connection broke, and the judge is at work; the error is told unless it finds an end.
    judging: Option<(Lock<BoxFuture<'static, bool>>, Error)>,
}

/// Finds out whether a container to which the connection broke has ended.
pub(crate) type Judge = Box<dyn FnOnce() -> BoxFuture<'static, bool> + Send + Sync>;

/// Is told how a command ended; nothing when its handle went before that.
pub(crate) type OnEnd =
    Box<dyn FnOnce(Option<std::result::Result<&ExecResult, &Error>>) + Send + Sync>;

struct Ending(Option<OnEnd>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(None);
        }
    }
}

impl ExecHandle {
    pub(super) fn new(client: AgentClient, stream: Arc<Stream>, pid: u32, wants: Wants) -> Self {
        let stdin = wants
            .input
            .then(|| ExecStdin(Input::new(client.clone(), Arc::clone(&stream))));
        Self {
            client,
            stream,
            stdin,
            pid,
            begun: Instant::now(),
            announced: false,
            over: false,
            cancel: !wants.detached,
            judge: None,
            ending: Ending(None),
            judging: None,
        }
    }

    /// A command whose container ended while it began: it may have begun, and it is over.
    pub(crate) fn of_ended(client: AgentClient) -> Self {
        let stream = Arc::new(Stream::new(0, Call::Exec));
        stream.lose(&Ended::Dropped, Some(StopReason::Requested));
        let wants = Wants {
            input: false,
            detached: true,
        };
        let mut handle = Self::new(client, stream, 0, wants);
        handle.announced = true;
        handle
    }

    /// Says who finds out, when the connection breaks, whether the container has ended: then that
    /// is the command's result, and no error.
    pub(crate) fn judge_loss(&mut self, judge: Judge) {
        self.judge = Some(judge);
    }

    /// Waits for what happens next; `None` after the last event.
    ///
    /// # Errors
    /// `AgentUnreachable` when the connection broke; the command is then killed by its agent,
    /// unless it is detached.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<ExecEvent>> {
        poll_fn(|context| self.poll_told(context)).await
    }

    /// Says who hears of the end.
    pub(crate) fn on_end(&mut self, tell: OnEnd) {
        self.ending = Ending(Some(tell));
    }

    fn poll_told(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ExecEvent>>> {
        let polled = self.poll_event(context);
        let end = match &polled {
            Poll::Ready(Some(Ok(ExecEvent::Exited(result)))) => Ok(result),
            Poll::Ready(Some(Err(error))) => Err(error),
            _ => return polled,
        };
        if let Some(tell) = self.ending.0.take() {
            tell(Some(end));
        }
        polled
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ExecEvent>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some((judging, _)) = &self.judging {
            let ended = ready!(judging.lock().as_mut().poll(context));
            self.over = true;
            let closed = ExecResult::closed(self.begun.elapsed());
            return Poll::Ready(self.judging.take().map(|(_, error)| {
                if ended {
                    Ok(ExecEvent::Exited(closed))
                } else {
                    Err(error)
                }
            }));
        }
        if !self.announced {
            self.announced = true;
            return Poll::Ready(Some(Ok(ExecEvent::Started(self.pid))));
        }
        let end = match ready!(self.stream.poll_item(context)) {
            Item::Data(output, bytes, credit) => {
                self.client.connection().grant(self.stream.id, credit);
                return Poll::Ready(Some(Ok(match output {
                    Output::Stdout => ExecEvent::Stdout(bytes),
                    Output::Stderr => ExecEvent::Stderr(bytes),
                })));
            }
            Item::End(end) => end,
        };
        if let (End::Lost(_, None), Some(judge)) = (&end, self.judge.take()) {
            self.judging = Some((Lock::new(judge()), error_of(end)));
            return self.poll_event(context);
        }
        self.over = true;
        Poll::Ready(Some(match end {
            End::Exited(result) => Ok(ExecEvent::Exited(result)),
            // The agent has said that the container stops, and then it was gone.
            End::Lost(_, Some(_)) => {
                Ok(ExecEvent::Exited(ExecResult::closed(self.begun.elapsed())))
            }
            end => Err(error_of(end)),
        }))
    }

    /// The command's pid inside the container.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends bytes to standard input, as fast as the command reads; see [`ExecStdin::write_all`].
    ///
    /// # Errors
    /// `InvalidInput` when the command was begun without an input stream, or when it was taken or
    /// closed.
    pub async fn write_stdin(&mut self, bytes: Bytes) -> Result<()> {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(bytes).await,
            None => Err(Error::invalid_input(
                "the command has no standard input stream here",
            )),
        }
    }

    /// Ends standard input: the command reads end-of-file.
    ///
    /// # Errors
    /// None at present; input that was never there or has ended is left as it is.
    pub async fn close_stdin(&mut self) -> Result<()> {
        match self.stdin.take() {
            Some(stdin) => stdin.close().await,
            None => Ok(()),
        }
    }

    /// Takes standard input out, so that writing and reading can go on at once.
    #[must_use]
    pub const fn take_stdin(&mut self) -> Option<ExecStdin> {
        self.stdin.take()
    }

    /// Sends a signal to the command's process group; does nothing when the command has ended.
    ///
    /// # Errors
    /// `InvalidInput` for a number that is no signal's; `AgentUnreachable`.
    pub async fn signal(&self, number: i32) -> Result<()> {
        check_signal(number)?;
        self.send_signal(Target::Group, number).await
    }

    /// Changes the size of the command's terminal; does nothing when it has none, or has ended.
    ///
    /// # Errors
    /// `AgentUnreachable`.
    pub async fn resize(&self, size: TerminalSize) -> Result<()> {
        self.tell(&Request::Resize(size.to_wire())).await
    }

    /// Kills the command with all that it started, also what left its group or session; does
    /// nothing when it has ended. The result follows as an event.
    ///
    /// # Errors
    /// `AgentUnreachable`.
    pub async fn kill(&self) -> Result<()> {
        self.send_signal(Target::Tree, SIGKILL).await
    }

    async fn send_signal(&self, target: Target, number: i32) -> Result<()> {
        self.tell(&Request::Signal(target, number)).await
    }

    /// Says something that has no answer, unless the command has ended.
    async fn tell(&self, request: &Request) -> Result<()> {
        if !self.stream.is_awaited() {
            return Ok(());
        }
        let connection = self.client.connection();
        let room = connection.reserve(1).await?;
        connection.send(self.stream.id, request, room);
        if connection.is_open() {
            Ok(())
        } else {
            Err(connection.error(Sent::Yes))
        }
    }

    /// Waits for the end, dropping the output. Standard input that was not taken is closed first.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn wait(mut self) -> Result<ExecResult> {
        self.stdin = None;
        while let Some(event) = self.next().await {
            if let ExecEvent::Exited(result) = event? {
                return Ok(result);
            }
        }
        Err(Error::invalid_input("the command's end was told already"))
    }

    /// Waits for the end and keeps at most `limit` bytes of each output stream; what follows is
    /// dropped and flagged. Standard input that was not taken is closed first.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn collect(mut self, limit: u64) -> Result<ExecOutput> {
        self.stdin = None;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut output = ExecOutput::new(ExecResult::closed(self.begun.elapsed()));
        let (mut stdout_cut, mut stderr_cut) = (false, false);
        while let Some(event) = self.next().await {
            match event? {
                ExecEvent::Started(_) => {}
                ExecEvent::Stdout(bytes) => {
                    let kept = keep(&mut output.stdout, &bytes, limit);
                    stdout_cut |= kept < bytes.len();
                    record(&mut output.order, 0, kept);
                }
                ExecEvent::Stderr(bytes) => {
                    let kept = keep(&mut output.stderr, &bytes, limit);
                    stderr_cut |= kept < bytes.len();
                    record(&mut output.order, 1, kept);
                }
                ExecEvent::Exited(mut result) => {
                    result.stdout_truncated |= stdout_cut;
                    result.stderr_truncated |= stderr_cut;
                    output.outcome = result.outcome;
                    output.result = result;
                    return Ok(output);
                }
            }
        }
        Err(Error::invalid_input("the command's end was told already"))
    }

    /// Lets the command go on without this handle; its further output is dropped. It ends with the
    /// connection, unless it was begun `detached`.
    ///
    /// # Errors
    /// `AgentUnreachable` or `ContainerGone` when the connection has ended already.
    pub async fn detach(mut self) -> Result<()> {
        self.cancel = false;
        let connection = self.client.connection();
        if connection.is_open() {
            Ok(())
        } else {
            Err(connection.error(Sent::Yes))
        }
    }

    /// Says what happens when processes of the command resist being killed, whether or not the
    /// handle is still there then.
    pub(crate) fn on_survivors(&self, call: OnSurvivors) {
        self.stream.on_survivors(call);
    }
}

/// Checks the number of a signal.
///
/// # Errors
/// `InvalidInput`.
pub(crate) fn check_signal(number: i32) -> Result<()> {
    if (1..=SIGNAL_MAX).contains(&number) {
        return Ok(());
    }
    Err(Error::invalid_input(format!("{number} is not a signal")))
}

/// How a command was begun, as far as its handle cares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    pub(super) input: bool,
    pub(super) detached: bool,
}

/// Appends what fits; returns how much that was.
fn keep(kept: &mut Vec<u8>, bytes: &[u8], limit: usize) -> usize {
    let count = bytes.len().min(limit.saturating_sub(kept.len()));
    kept.extend_from_slice(bytes.get(..count).unwrap_or_default());
    count
}

/// Notes that bytes of a stream came: 0 for standard output, 1 for standard error.
fn record(order: &mut Vec<usize>, stream: usize, count: usize) {
    if count == 0 {
        return;
    }
    let continues = order.len() % 2 != stream;
    let place = match order.len() {
        0 if stream == 1 => {
            order.push(0);
            None
        }
        0 => None,
        length if continues => Some(length - 1),
        length if length >= MAX_ORDER => Some(length - 2),
        _ => None,
    };
    match place.and_then(|place| order.get_mut(place)) {
        Some(run) => *run += count,
        None => order.push(count),
    }
}

impl FuturesStream for ExecHandle {
    type Item = Result<ExecEvent>;

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<ExecEvent>>> {
        self.get_mut().poll_told(context)
    }
}

impl Drop for ExecHandle {
    fn drop(&mut self) {
        if !self.over {
            self.client.connection().abandon(&self.stream, self.cancel);
        }
    }
}

impl fmt::Debug for ExecHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecHandle")
            .field("pid", &self.pid)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// Standard input of a running command. Dropping it ends the input, as [`close`](Self::close) does.
#[derive(Debug)]
pub struct ExecStdin(Input);

impl ExecStdin {
    /// Sends all bytes, as fast as the command reads them.
    ///
    /// # Errors
    /// A command need not read its input: when it has closed it or has ended, the error is
    /// `Unexpected` with an [`io::Error`] of kind `BrokenPipe` as its source, and the command's
    /// result comes as an event as ever. `AgentUnreachable` or `ContainerGone` when the connection
    /// has ended.
    ///
    /// # Cancel safety
    /// A part of the bytes is sent when the future is dropped.
    pub async fn write_all(&mut self, bytes: Bytes) -> Result<()> {
        if self.0.write_all(bytes).await {
            return Ok(());
        }
        let connection = self.0.client.connection();
        if !connection.is_open() {
            return Err(connection.error(Sent::Yes));
        }
        Err(Error::new(
            ErrorKind::Unexpected,
            "the command reads no more standard input",
        )
        .with_source(io::Error::from(io::ErrorKind::BrokenPipe)))
    }

    /// Ends the input: the command reads end-of-file.
    ///
    /// # Errors
    /// None at present; a command that has ended needs no end of its input.
    pub async fn close(self) -> Result<()> {
        self.0.end();
        Ok(())
    }
}

impl Drop for ExecStdin {
    fn drop(&mut self) {
        if self.0.stream.end_input() {
            self.0
                .client
                .connection()
                .post(self.0.stream.id, &Request::StdinEnd);
        }
    }
}

/// Sends input of a stream under its flow control. Its end follows when it is dropped.
#[derive(Debug)]
pub(super) struct Input {
    client: AgentClient,
    stream: Arc<Stream>,
}

impl Input {
    pub(super) const fn new(client: AgentClient, stream: Arc<Stream>) -> Self {
        Self { client, stream }
    }

    pub(super) const fn client(&self) -> &AgentClient {
        &self.client
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Sends all bytes; `false` when no more are wanted.
    pub(super) async fn write_all(&mut self, mut bytes: Bytes) -> bool {
        let connection = self.client.connection();
        while !bytes.is_empty() {
            let Some(left) = poll_fn(|context| self.stream.poll_input(context)).await else {
                return false;
            };
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            let count = bytes.len().min(MAX_DATA_BYTES).min(left);
            // Room is given out in turn, so that one sender of much delays no other.
            let Ok(room) = connection.reserve(count).await else {
                return false;
            };
            let part = bytes.split_to(count);
            self.stream.spend_input(count);
            connection.send(self.stream.id, &Request::Stdin(part.to_vec()), room);
        }
        true
    }

    /// Ends the input, once.
    pub(super) fn end(&self) {
        if self.stream.end_input() {
            self.client
                .connection()
                .send(self.stream.id, &Request::StdinEnd, 0);
        }
    }
}
