//! Processes of a container: what the library asks its agent about them.

use std::{fmt, future::poll_fn, sync::Arc};

use bytes::Bytes;
use podkit_agent::{
    LogQuery, Output, ProcessCall, ProcessSpec, Request, Target, TerminalSize as Size,
};

use super::{
    client::{AgentClient, Guard, error_of, size_of},
    exec::{ExecHandle, Wants},
    stream::{Call, End, Item, Stream},
};
use crate::{
    error::{Error, ErrorKind, Result},
    process::ProcessInfo,
};

/// The version of the protocol that knows processes.
const VERSION: u16 = 2;

/// Bytes that a request about a process has at most.
const REQUEST_BYTES: usize = 512;

impl AgentClient {
    /// Begins a process; returns once it runs.
    ///
    /// # Errors
    /// As [`exec`](Self::exec); `AlreadyExists` when its name is taken.
    ///
    /// # Cancel safety
    /// The process of a dropped call is killed and forgotten.
    pub(crate) async fn spawn(&self, spec: ProcessSpec) -> Result<ProcessInfo> {
        let size = size_of(&spec.exec)? + spec.name.len() + spec.log_directory.len();
        let request = Request::Spawn(spec);
        let stream = self.begin_process(&request, Call::Processes, size).await?;
        let guard = Guard::new(self, stream, true);
        let came = poll_fn(|context| guard.stream.poll_process(context)).await;
        let stream = guard.disarm();
        let infos = came.map_err(error_of)?;
        // Nothing is waited for between this and the caller's knowing.
        let connection = self.connection();
        connection.send(stream.id, &Request::StdinEnd, 0);
        connection.abandon(&stream, false);
        one(infos)
    }

    /// All processes that the agent knows.
    pub(crate) async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        self.processes_of(&Request::Processes, Call::Processes, REQUEST_BYTES)
            .await
    }

    pub(crate) async fn inspect_process(&self, id: &str) -> Result<ProcessInfo> {
        one(self.about(id, ProcessCall::Inspect).await?)
    }

    /// Waits until a process has ended for good.
    pub(crate) async fn wait_process(&self, id: &str) -> Result<ProcessInfo> {
        one(self.about(id, ProcessCall::Wait).await?)
    }

    pub(crate) async fn stop_process(&self, id: &str, grace_ms: u64) -> Result<ProcessInfo> {
        one(self.about(id, ProcessCall::Stop { grace_ms }).await?)
    }

    pub(crate) async fn signal_process(&self, id: &str, tree: bool, number: i32) -> Result<()> {
        let target = if tree { Target::Tree } else { Target::Group };
        let call = ProcessCall::Signal(target, number);
        self.about(id, call).await.map(drop)
    }

    pub(crate) async fn keep_process_alive(&self, id: &str, keep: bool) -> Result<()> {
        self.about(id, ProcessCall::KeepAlive(keep)).await.map(drop)
    }

    pub(crate) async fn forget_process(&self, id: &str) -> Result<()> {
        self.about(id, ProcessCall::Forget).await.map(drop)
    }

    /// Reads a process's log.
    pub(crate) async fn process_logs(&self, id: &str, query: LogQuery) -> Result<LogReader> {
        let stream = self
            .begin_process(
                &about(id, ProcessCall::Logs(query)),
                Call::Logs,
                REQUEST_BYTES,
            )
            .await?;
        Ok(LogReader {
            client: self.clone(),
            stream,
            over: false,
        })
    }

    /// Joins in with a process that has a terminal. Dropping the handle leaves the process.
    pub(crate) async fn attach(&self, id: &str, size: Option<Size>) -> Result<ExecHandle> {
        let request = about(id, ProcessCall::Attach { size });
        let stream = self
            .begin_process(&request, Call::Attach, REQUEST_BYTES)
            .await?;
        let guard = Guard::new(self, stream, true);
        let started = poll_fn(|context| guard.stream.poll_started(context)).await;
        let stream = guard.disarm();
        let wants = Wants {
            input: true,
            detached: false,
        };
        match started {
            Ok(pid) => Ok(ExecHandle::new(self.clone(), stream, pid, wants)),
            Err(end) => Err(error_of(end)),
        }
    }

    async fn about(&self, id: &str, call: ProcessCall) -> Result<Vec<ProcessInfo>> {
        self.processes_of(&about(id, call), Call::Processes, REQUEST_BYTES)
            .await
    }

    async fn begin_process(
        &self,
        request: &Request,
        call: Call,
        size: usize,
    ) -> Result<Arc<Stream>> {
        self.require(VERSION, "processes")?;
        self.connection().begin(call, request, size).await
    }

    async fn processes_of(
        &self,
        request: &Request,
        call: Call,
        size: usize,
    ) -> Result<Vec<ProcessInfo>> {
        let stream = self.begin_process(request, call, size).await?;
        let guard = Guard::new(self, stream, true);
        let end = poll_fn(|context| guard.stream.poll_end(context)).await;
        let stream = guard.disarm();
        match end {
            End::Done => Ok(stream.take_processes()),
            end => Err(error_of(end)),
        }
    }
}

fn about(id: &str, call: ProcessCall) -> Request {
    Request::Process {
        id: id.as_bytes().to_vec(),
        call,
    }
}

fn one(infos: Vec<ProcessInfo>) -> Result<ProcessInfo> {
    infos.into_iter().next().ok_or_else(|| {
        Error::new(
            ErrorKind::AgentUnreachable,
            "facts about a process did not come",
        )
    })
}

/// A log, as it comes.
pub(crate) struct LogReader {
    client: AgentClient,
    stream: Arc<Stream>,
    over: bool,
}

impl LogReader {
    /// The next bytes: whether they are of standard error. `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<(bool, Bytes)>> {
        if self.over {
            return Ok(None);
        }
        match poll_fn(|context| self.stream.poll_item(context)).await {
            Item::Data(output, bytes, credit) => {
                self.client.connection().grant(self.stream.id, credit);
                Ok(Some((output == Output::Stderr, bytes)))
            }
            Item::End(end) => {
                self.over = true;
                match end {
                    End::Done => Ok(None),
                    end => Err(error_of(end)),
                }
            }
        }
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        if !self.over {
            self.client.connection().abandon(&self.stream, true);
        }
    }
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader")
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}
