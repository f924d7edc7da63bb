//! What the library asks of an agent.

use std::{fmt, future::poll_fn, sync::Arc, time::Duration};

use podkit_agent::{
    AgentStatus, ExecSpec, FileCall, MAX_EXEC_BYTES, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN,
    Request, StopReason, compatible,
};
use tokio::{sync::oneshot, task::JoinSet, time::Instant};

use super::{
    MAX_ENTRIES,
    connection::{Answer, Connection, Greeting, Wants},
    exec::ExecHandle,
    failure::{Ended, Sent, failed, stopped},
    file::{FileEntry, FileReader, FileWriter},
    stream::{Call, End, Stream},
};
use crate::{
    backend::AgentStream,
    error::{Error, ErrorKind, Result},
};

/// Time limit of a file call that moves bytes: its pace is the caller's, who ends it by dropping
/// it.
const TRANSFER_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Bytes that a request has beside its arguments; only how much room is reserved depends on it.
const REQUEST_BYTES: usize = 128;

/// A connection to the agent of one container. Cheap to clone; clones share it.
///
/// The connection ends with the last clone and the last handle that was made by one.
#[derive(Clone)]
pub(crate) struct AgentClient(Arc<Inner>);

struct Inner {
    connection: Arc<Connection>,
    greeting: Greeting,
    /// The tasks of the connection. They end when this is dropped.
    _tasks: JoinSet<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.connection.end(Ended::Dropped);
    }
}

impl AgentClient {
    /// Greets the agent at the other end of a stream.
    ///
    /// # Errors
    /// `AgentUnreachable` when it does not answer or does not speak the protocol, `Unsupported`
    /// when it speaks another version.
    ///
    /// # Cancel safety
    /// A dropped call closes the stream.
    pub(crate) async fn connect(stream: AgentStream) -> Result<Self> {
        let (source, sink) = stream.split();
        let (sender, receiver) = oneshot::channel();
        let connection = Arc::new(Connection::new(Box::new(sink), sender));
        // The one place where tasks begin. They are joined to what owns them: whoever drops the
        // last client ends them.
        let mut tasks = JoinSet::new();
        connection.set_reader(tasks.spawn(Arc::clone(&connection).read_task(source)));
        tasks.spawn(Arc::clone(&connection).write_task());
        let hello = Request::Hello {
            version: PROTOCOL_VERSION,
            version_min: PROTOCOL_VERSION_MIN,
        };
        connection.send(0, &hello, 0);
        let greeting = receiver.await.map_err(|_| {
            let error = connection.error(Sent::Yes);
            Error::new(ErrorKind::AgentUnreachable, error.message())
        })?;
        if !compatible(greeting.version, greeting.version_min) {
            return Err(Error::unsupported(format!(
                "the container's agent speaks version {} of the protocol, this podkit versions \
                 {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}",
                greeting.version
            ))
            .with_hint("close the session and open it again"));
        }
        Ok(Self(Arc::new(Inner {
            connection,
            greeting,
            _tasks: tasks,
        })))
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Random; the same as long as this life of the container lasts.
    pub(crate) fn boot_token(&self) -> [u8; 16] {
        self.0.greeting.boot_token
    }

    /// Refuses what an agent of an older version does not know: one of a container that an older
    /// podkit has made.
    pub(super) fn require(&self, version: u16, what: &str) -> Result<()> {
        if self.0.greeting.version >= version {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "the container's agent is older than this podkit and has no {what}"
        ))
        .with_hint("close the session and open it again"))
    }

    /// Whether the connection is there.
    pub(crate) fn is_open(&self) -> bool {
        self.connection().is_open()
    }

    /// When it was last used, if it is open and nothing is under way on it.
    pub(crate) fn unused_since(&self) -> Option<Instant> {
        self.connection().unused_since()
    }

    /// Closes the connection unless something is under way on it; calls that come later are refused,
    /// with nothing done.
    pub(crate) fn close_unused(&self) {
        self.connection().end_if_unused();
    }

    /// Why the container stops, once the agent has said so.
    pub(crate) fn closing(&self) -> Option<StopReason> {
        self.connection().closing()
    }

    /// Begins a command; returns once it runs.
    ///
    /// # Errors
    /// The command has not begun: `InvalidInput` for an unknown user or a missing directory,
    /// `LimitExceeded`, `ContainerGone` when the container was stopping. It may have begun:
    /// `AgentUnreachable`.
    ///
    /// # Cancel safety
    /// The command of a dropped call is killed, unless it is detached.
    pub(crate) async fn exec(&self, spec: ExecSpec) -> Result<ExecHandle> {
        let size = size_of(&spec)?;
        if spec.terminal.is_some() {
            self.require(2, "terminals")?;
        }
        let wants = super::exec::Wants {
            input: spec.stdin,
            detached: spec.detached,
        };
        let stream = self
            .connection()
            .begin(Call::Exec, &Request::Exec(spec), size)
            .await?;
        let guard = Guard::new(self, stream, !wants.detached);
        let started = poll_fn(|context| guard.stream.poll_started(context)).await;
        let stream = guard.disarm();
        match started {
            Ok(pid) => Ok(ExecHandle::new(self.clone(), stream, pid, wants)),
            Err(end) => Err(error_of(end)),
        }
    }

    /// How the agent is. No activity.
    pub(crate) async fn status(&self) -> Result<AgentStatus> {
        match self
            .connection()
            .ask(&Request::Status, Wants::Status)
            .await?
        {
            Answer::Status(status) => Ok(status),
            answer => Err(not_done(&answer)),
        }
    }

    /// Counts as activity and does nothing else.
    pub(crate) async fn touch(&self) -> Result<()> {
        done(&self.connection().ask(&Request::Touch, Wants::Done).await?)
    }

    /// Ends every exec with `SessionClosed`, gives the rest `grace` to end, and stops the
    /// container. Returns once the connection has ended with it.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<()> {
        let connection = self.connection();
        connection.stop(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX))?;
        connection.over().await;
        match connection.error(Sent::Yes) {
            error if error.kind() == ErrorKind::ContainerGone => Ok(()),
            error => Err(error),
        }
    }

    /// Reads a file from `offset` on, at most `limit` bytes; returns once there are some.
    pub(crate) async fn read(
        &self,
        path: &str,
        user: &str,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<FileReader> {
        let call = FileCall::Read { offset, limit };
        let stream = self.begin_file(Call::Read, call, path, user).await?;
        let guard = Guard::new(self, stream, true);
        // An error after the first bytes is told when they have been read.
        let end = poll_fn(|context| guard.stream.poll_ready(context)).await;
        let stream = guard.disarm();
        match end {
            Some(End::Done) | None => Ok(FileReader::new(self.clone(), stream)),
            Some(end) => Err(error_of(end)),
        }
    }

    /// Writes a file as `call` says: [`FileCall::Write`] or [`FileCall::Append`].
    pub(crate) async fn write(&self, call: FileCall, path: &str, user: &str) -> Result<FileWriter> {
        let stream = self.begin_file(Call::Write, call, path, user).await?;
        Ok(FileWriter::new(self.clone(), stream))
    }

    /// The entries of a directory, in no order.
    pub(crate) async fn list(&self, path: &str, user: &str) -> Result<Vec<FileEntry>> {
        self.entries(Call::List, FileCall::List, path, user).await
    }

    /// Facts about a file; of what a link leads to, with `follow`.
    pub(crate) async fn stat(&self, path: &str, user: &str, follow: bool) -> Result<FileEntry> {
        let entries = self
            .entries(Call::Stat, FileCall::Stat { follow }, path, user)
            .await?;
        let mut entry = entries.into_iter().next().ok_or_else(|| {
            Error::new(
                ErrorKind::AgentUnreachable,
                "facts about a file did not come",
            )
        })?;
        let name = path
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default();
        entry.name = if name.is_empty() {
            "/".to_owned()
        } else {
            name.to_owned()
        };
        Ok(entry)
    }

    /// Makes a directory; with `parents` also what is missing above it, and one may exist.
    pub(crate) async fn make_dir(
        &self,
        path: &str,
        user: &str,
        mode: Option<u32>,
        parents: bool,
    ) -> Result<()> {
        self.entries(Call::Plain, FileCall::MakeDir { mode, parents }, path, user)
            .await
            .map(drop)
    }

    /// Renames; a file at the target is replaced.
    pub(crate) async fn rename(&self, from: &str, to: &str, user: &str) -> Result<()> {
        let call = FileCall::Rename {
            to: to.as_bytes().to_vec(),
        };
        self.entries(Call::Plain, call, from, user).await.map(drop)
    }

    /// Removes a file, a link or a directory; a directory that is not empty with `recursive` only.
    pub(crate) async fn remove(&self, path: &str, user: &str, recursive: bool) -> Result<()> {
        self.entries(Call::Plain, FileCall::Remove { recursive }, path, user)
            .await
            .map(drop)
    }

    /// Runs a file call to its end.
    async fn entries(
        &self,
        call: Call,
        file_call: FileCall,
        path: &str,
        user: &str,
    ) -> Result<Vec<FileEntry>> {
        let stream = self.begin_file(call, file_call, path, user).await?;
        let guard = Guard::new(self, stream, true);
        let end = poll_fn(|context| guard.stream.poll_end(context)).await;
        let stream = guard.disarm();
        match end {
            End::Done => Ok(stream.take_entries()),
            end => Err(error_of(end)),
        }
    }

    pub(super) async fn begin_file(
        &self,
        call: Call,
        file_call: FileCall,
        path: &str,
        user: &str,
    ) -> Result<Arc<Stream>> {
        let size = path.len() + user.len() + REQUEST_BYTES;
        if size > MAX_EXEC_BYTES {
            return Err(Error::invalid_input(format!(
                "a path of {} bytes is too long",
                path.len()
            )));
        }
        let moves_bytes = matches!(
            call,
            Call::Read | Call::Write | Call::Archive | Call::Extract
        );
        let limit = u64::try_from(TRANSFER_LIMIT.as_millis()).unwrap_or(u64::MAX);
        let request = Request::File {
            call: file_call,
            path: path.as_bytes().to_vec(),
            user: user.as_bytes().to_vec(),
            timeout_ms: moves_bytes.then_some(limit),
        };
        self.connection().begin(call, &request, size).await
    }
}

/// Bytes of a request to run this.
pub(super) fn size_of(spec: &ExecSpec) -> Result<usize> {
    let words = spec.argv.iter().chain(&spec.env).map(|word| word.len() + 4);
    let size = words.sum::<usize>() + spec.cwd.len() + spec.user.len() + REQUEST_BYTES;
    if size > MAX_EXEC_BYTES + MAX_EXEC_BYTES / 32 {
        let message = format!("arguments and environment are {size} bytes; the limit is 1 MiB");
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(size)
}

/// Gives a stream up when the call that waits for it is dropped. Once the stream has ended there is
/// nothing to give up.
pub(super) struct Guard<'a> {
    client: &'a AgentClient,
    pub(super) stream: Arc<Stream>,
    cancel: bool,
    armed: bool,
}

impl<'a> Guard<'a> {
    pub(super) const fn new(client: &'a AgentClient, stream: Arc<Stream>, cancel: bool) -> Self {
        Self {
            client,
            stream,
            cancel,
            armed: true,
        }
    }

    pub(super) fn disarm(mut self) -> Arc<Stream> {
        self.armed = false;
        Arc::clone(&self.stream)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.client.connection().abandon(&self.stream, self.cancel);
        }
    }
}

/// The error of a call that did not succeed.
pub(super) fn error_of(end: End) -> Error {
    match end {
        End::Failed(failure) => failed(&failure),
        End::Lost(_, Some(reason)) => stopped(reason),
        End::Lost(ended, None) => ended.error(None, Sent::Yes),
        End::TooMany => Error::new(
            ErrorKind::LimitExceeded,
            format!("the directory has more entries than can be listed: {MAX_ENTRIES}, or 64 MiB"),
        ),
        End::Done | End::Exited(_) => Error::new(
            ErrorKind::AgentUnreachable,
            "the agent ended the call early",
        ),
    }
}

fn done(answer: &Answer) -> Result<()> {
    match answer {
        Answer::Done => Ok(()),
        answer => Err(not_done(answer)),
    }
}

fn not_done(answer: &Answer) -> Error {
    match answer {
        Answer::Failed(failure) => failed(failure),
        Answer::Status(_) | Answer::Done => Error::new(
            ErrorKind::AgentUnreachable,
            "the agent's answer fits no question",
        ),
    }
}

impl fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentClient")
            .field("open", &self.is_open())
            .field("closing", &self.closing())
            .finish_non_exhaustive()
    }
}
