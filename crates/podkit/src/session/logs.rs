//! Logs of background processes.

use std::{
    future::IntoFuture,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use tokio::time::timeout;

use super::process::Process;
use crate::{
    agent::LogReader,
    error::{Error, ErrorKind, Result},
    process::{LogChunk, LogOptions, LogStream},
};

/// Most bytes of a log that [`Logs`] holds in memory.
const LOGS_LIMIT_BYTES: usize = 256 << 20;

/// Most bytes of one line that [`Process::wait_for_log`] looks through.
const LINE_LIMIT_BYTES: usize = 1 << 20;

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
    pub(super) const fn new(process: Process) -> Self {
        Self {
            process,
            options: LogOptions {
                only: None,
                tail_lines: None,
                since: None,
                follow: false,
            },
        }
    }

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
        let reader = self
            .process
            .ask("read the log", move |client, id| async move {
                client.process_logs(&id, query).await
            });
        Ok(LogEvents(reader.await?))
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

impl Process {
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
