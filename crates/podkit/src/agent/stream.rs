//! One command or file call: what came for it, checked against what may come.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use podkit_agent::{
    ExecStatus, ExecUsage, Failure, INITIAL_WINDOW_BYTES, MAX_DATA_BYTES, MemorySource, Output,
    Reply, StopReason,
};

use super::{
    MAX_ENTRIES, MAX_ENTRY_BYTES, MAX_PROCESSES,
    failure::Ended,
    file::FileEntry,
    inbox::{Credit, Inbox},
};
use crate::{
    exec::{self, ExecResult, Outcome, Usage},
    process::{ProcessInfo, ProcessState},
    sync::Lock,
};

/// The streams that are open, by number.
pub(super) type Streams = HashMap<u32, Arc<Stream>>;

/// Called when processes of a command resist being killed.
pub(crate) type OnSurvivors = Box<dyn FnOnce() + Send>;

/// What a stream is for, and so what may come on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// A command: `Started`, output, `Exited`.
    Exec,
    /// Reading a file: output, `Done`.
    Read,
    /// Writing a file: credit, `Done`.
    Write,
    /// Output of both kinds, `Done`.
    Archive,
    /// Output, credit, `Done`.
    Extract,
    /// Entries, `Done`.
    List,
    /// One entry, `Done`.
    Stat,
    /// `Done`.
    Plain,
    /// Processes, `Done`.
    Processes,
    /// Output of both kinds, `Done`.
    Logs,
    /// Output of both kinds, credit, `Done`.
    Port,
    /// As a command, and `Done` for one who leaves.
    Attach,
}

impl Call {
    const fn takes_input(self) -> bool {
        matches!(
            self,
            Self::Exec | Self::Attach | Self::Write | Self::Extract | Self::Port
        )
    }
}

/// How a stream ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    Done,
    Failed(Failure),
    Exited(ExecResult),
    /// More entries than [`MAX_ENTRIES`] or [`MAX_ENTRY_BYTES`].
    TooMany,
    /// The connection ended before.
    Lost(Ended, Option<StopReason>),
}

/// What a consumer gets next.
#[derive(Debug)]
pub(super) enum Item {
    Data(Output, Bytes, Credit),
    End(End),
}

/// What the connection has to do after a frame.
#[derive(Debug, Default)]
pub(super) struct After {
    /// The stream has ended; no frame may follow.
    pub(super) last: bool,
    /// Credit for bytes that nobody wants.
    pub(super) credit: Credit,
    /// Whether the call is to be given up.
    pub(super) cancel: bool,
}

/// One stream, shared by the connection and its handle.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    call: Call,
    state: Lock<State>,
}

struct State {
    started: Option<u32>,
    inbox: Inbox,
    entries: Vec<FileEntry>,
    processes: Vec<ProcessInfo>,
    entry_count: usize,
    entry_bytes: usize,
    end: Option<End>,
    /// Nobody wants what comes; it is checked and dropped.
    discarded: bool,
    reader: Option<Waker>,
    input_left: u64,
    input_closed: bool,
    writer: Option<Waker>,
    on_survivors: Option<OnSurvivors>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(id: u32, call: Call) -> Self {
        let state = State {
            started: None,
            inbox: Inbox::new(),
            entries: Vec::new(),
            processes: Vec::new(),
            entry_count: 0,
            entry_bytes: 0,
            end: None,
            discarded: false,
            reader: None,
            input_left: u64::from(INITIAL_WINDOW_BYTES),
            input_closed: false,
            writer: None,
            on_survivors: None,
        };
        Self {
            id,
            call,
            state: Lock::new(state),
        }
    }

    /// Takes in output.
    ///
    /// # Errors
    /// What is wrong with it; the connection cannot be trusted any more.
    pub(super) fn receive_data(&self, output: Output, bytes: &[u8]) -> Result<After, String> {
        let mut state = self.state.lock();
        let expected = match self.call {
            Call::Exec | Call::Attach => state.started.is_some(),
            Call::Read | Call::Extract => output == Output::Stdout,
            Call::Logs | Call::Port | Call::Archive => true,
            Call::Write | Call::List | Call::Stat | Call::Plain | Call::Processes => false,
        };
        if !expected {
            return Err("output came on a stream that has none".to_owned());
        }
        if bytes.len() > MAX_DATA_BYTES {
            return Err(format!("a data frame of {} bytes came", bytes.len()));
        }
        let exceeded = || "more output came than was granted".to_owned();
        if state.discarded {
            let credit = state
                .inbox
                .drop_data(output, bytes.len())
                .map_err(|()| exceeded())?;
            return Ok(After {
                credit,
                ..After::default()
            });
        }
        if !state.inbox.push(output, bytes) {
            return Err(exceeded());
        }
        wake(&mut state.reader);
        Ok(After::default())
    }

    /// Takes in anything but output.
    ///
    /// # Errors
    /// As [`receive_data`](Self::receive_data).
    pub(super) fn receive(&self, reply: Reply, size: usize) -> Result<After, String> {
        let mut state = self.state.lock();
        let end = match (reply, self.call) {
            (Reply::Started(pid), Call::Exec | Call::Attach) if state.started.is_none() => {
                state.started = Some(pid);
                wake(&mut state.reader);
                return Ok(After::default());
            }
            (Reply::Credit(bytes), call) if call.takes_input() => {
                state.input_left = state.input_left.saturating_add(u64::from(bytes));
                wake(&mut state.writer);
                return Ok(After::default());
            }
            (Reply::StdinClosed, call) if call.takes_input() => {
                state.input_closed = true;
                wake(&mut state.writer);
                return Ok(After::default());
            }
            (Reply::Entry { name, stat }, Call::List | Call::Stat) => {
                return state.receive_entry(self.call, FileEntry::new(&name, &stat), size);
            }
            (Reply::Process(info), Call::Processes) => {
                return state.receive_process(&info, size);
            }
            (
                Reply::Exited {
                    status,
                    stdout_truncated,
                    stderr_truncated,
                    tree_survives,
                    usage,
                },
                Call::Exec | Call::Attach,
            ) if state.started.is_some() => End::Exited(ExecResult {
                outcome: outcome(status),
                stdout_truncated,
                stderr_truncated,
                container_restarted: tree_survives,
                usage: to_usage(usage),
            }),
            (Reply::Failed(failure), call) if call != Call::Exec || state.started.is_none() => {
                End::Failed(failure)
            }
            (Reply::Done, Call::Stat) if state.entry_count == 0 && !state.discarded => {
                return Err("facts about a file did not come".to_owned());
            }
            (Reply::Done, call) if call != Call::Exec => End::Done,
            (_, call) => {
                return Err(format!(
                    "a message came that a stream of {call:?} does not have"
                ));
            }
        };
        let survivors = match &end {
            End::Exited(result) if result.container_restarted => state.on_survivors.take(),
            _ => None,
        };
        state.finish(end);
        drop(state);
        if let Some(call) = survivors {
            call();
        }
        Ok(After {
            last: true,
            ..After::default()
        })
    }

    /// The connection has ended.
    pub(super) fn lose(&self, ended: &Ended, closing: Option<StopReason>) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.finish(End::Lost(ended.clone(), closing));
        }
    }

    /// Whether somebody waits for something of this stream.
    pub(super) fn is_awaited(&self) -> bool {
        let state = self.state.lock();
        !state.discarded && state.end.is_none()
    }

    /// Waits for the command's pid, or the stream's end.
    pub(super) fn poll_started(&self, context: &mut Context<'_>) -> Poll<Result<u32, End>> {
        let mut state = self.state.lock();
        match (state.started, &state.end) {
            (Some(pid), _) => Poll::Ready(Ok(pid)),
            (None, Some(end)) => Poll::Ready(Err(end.clone())),
            (None, None) => {
                keep(&mut state.reader, context);
                Poll::Pending
            }
        }
    }

    /// Waits until there is output to take, or the end without any.
    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Option<End>> {
        let mut state = self.state.lock();
        if !state.inbox.is_empty() {
            return Poll::Ready(None);
        }
        if let Some(end) = &state.end {
            return Poll::Ready(Some(end.clone()));
        }
        keep(&mut state.reader, context);
        Poll::Pending
    }

    /// Takes the oldest output out, or tells the end once there is none.
    pub(super) fn poll_item(&self, context: &mut Context<'_>) -> Poll<Item> {
        let mut state = self.state.lock();
        if let Some((output, bytes, credit)) = state.inbox.pop() {
            return Poll::Ready(Item::Data(
                output,
                bytes,
                credit.filter(|_| state.end.is_none()),
            ));
        }
        if let Some(end) = &state.end {
            return Poll::Ready(Item::End(end.clone()));
        }
        keep(&mut state.reader, context);
        Poll::Pending
    }

    /// Waits for the end of a call without output.
    pub(super) fn poll_end(&self, context: &mut Context<'_>) -> Poll<End> {
        let mut state = self.state.lock();
        if let Some(end) = &state.end {
            return Poll::Ready(end.clone());
        }
        keep(&mut state.reader, context);
        Poll::Pending
    }

    /// The entries that came.
    pub(super) fn take_entries(&self) -> Vec<FileEntry> {
        std::mem::take(&mut self.state.lock().entries)
    }

    /// Waits for a process, or the stream's end without one.
    pub(super) fn poll_process(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Vec<ProcessInfo>, End>> {
        let mut state = self.state.lock();
        if !state.processes.is_empty() {
            return Poll::Ready(Ok(std::mem::take(&mut state.processes)));
        }
        if let Some(end) = &state.end {
            return Poll::Ready(Err(end.clone()));
        }
        keep(&mut state.reader, context);
        Poll::Pending
    }

    /// The processes that came.
    pub(super) fn take_processes(&self) -> Vec<ProcessInfo> {
        std::mem::take(&mut self.state.lock().processes)
    }

    /// Waits until input may be sent: how much, or `None` when none is wanted any more.
    pub(super) fn poll_input(&self, context: &mut Context<'_>) -> Poll<Option<u64>> {
        let mut state = self.state.lock();
        if state.input_closed || state.end.is_some() {
            return Poll::Ready(None);
        }
        if state.input_left > 0 {
            return Poll::Ready(Some(state.input_left));
        }
        keep(&mut state.writer, context);
        Poll::Pending
    }

    /// Counts input that is sent.
    pub(super) fn spend_input(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.input_left = state.input_left.saturating_sub(bytes as u64);
    }

    /// Marks the input as ended; whether the other side has to be told.
    pub(super) fn end_input(&self) -> bool {
        let mut state = self.state.lock();
        let told = state.input_closed || state.end.is_some();
        state.input_closed = true;
        !told
    }

    /// Drops what came and what will come. Says what is to be granted for it, and whether the
    /// stream is still open.
    pub(super) fn discard(&self) -> ([Credit; 2], bool) {
        let mut state = self.state.lock();
        state.discarded = true;
        state.input_closed = true;
        state.entries = Vec::new();
        wake(&mut state.writer);
        (state.inbox.clear(), state.end.is_none())
    }

    /// Says what happens when processes of the command resist being killed.
    pub(super) fn on_survivors(&self, call: OnSurvivors) {
        let mut state = self.state.lock();
        match &state.end {
            Some(End::Exited(result)) if result.container_restarted => {
                drop(state);
                call();
            }
            Some(_) => {}
            None => state.on_survivors = Some(call),
        }
    }
}

impl State {
    fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.on_survivors = None;
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    fn receive_process(
        &mut self,
        info: &podkit_agent::ProcessInfo,
        size: usize,
    ) -> Result<After, String> {
        self.entry_count += 1;
        self.entry_bytes = self.entry_bytes.saturating_add(size);
        if self.entry_count > MAX_PROCESSES || self.entry_bytes > MAX_ENTRY_BYTES {
            return Err("processes came without end".to_owned());
        }
        if !self.discarded {
            self.processes.push(to_process(info));
            wake(&mut self.reader);
        }
        Ok(After::default())
    }

    fn receive_entry(
        &mut self,
        call: Call,
        entry: FileEntry,
        size: usize,
    ) -> Result<After, String> {
        self.entry_count += 1;
        self.entry_bytes = self.entry_bytes.saturating_add(size);
        if call == Call::Stat && self.entry_count > 1 {
            return Err("facts about a file came twice".to_owned());
        }
        if self.entry_count > MAX_ENTRIES || self.entry_bytes > MAX_ENTRY_BYTES {
            if self.discarded {
                return Err("entries came without end".to_owned());
            }
            // The caller is told at once and the call given up. What still comes is counted anew:
            // an agent that goes on and on is cut off.
            self.finish(End::TooMany);
            self.discarded = true;
            self.entries = Vec::new();
            (self.entry_count, self.entry_bytes) = (0, 0);
            return Ok(After {
                cancel: true,
                ..After::default()
            });
        }
        if !self.discarded {
            self.entries.push(entry);
        }
        Ok(After::default())
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn keep(slot: &mut Option<Waker>, context: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(context.waker()),
        None => *slot = Some(context.waker().clone()),
    }
}

fn to_process(info: &podkit_agent::ProcessInfo) -> ProcessInfo {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let at = |ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    ProcessInfo {
        id: text(&info.id),
        name: Some(text(&info.name)).filter(|name| !name.is_empty()),
        argv: info.argv.iter().map(|word| text(word)).collect(),
        log_directory: Some(text(&info.log_directory)).filter(|path| !path.is_empty()),
        pid: info.pid,
        state: match info.state {
            podkit_agent::ProcessState::Running => ProcessState::Running,
            podkit_agent::ProcessState::Restarting => ProcessState::Restarting,
            podkit_agent::ProcessState::Ended(status) => ProcessState::Ended(outcome(status)),
        },
        restarts: info.restarts,
        started_at: at(info.started_unix_ms).unwrap_or(SystemTime::UNIX_EPOCH),
        ended_at: info.ended_unix_ms.and_then(at),
        terminal: info.terminal,
        keep_alive: info.keep_alive,
        usage: to_usage(info.usage),
    }
}

const fn outcome(status: ExecStatus) -> Outcome {
    match status {
        ExecStatus::Exited(code) => Outcome::Exited(code),
        ExecStatus::Signaled(number) => Outcome::Signaled(number),
        ExecStatus::TimedOut => Outcome::TimedOut,
        ExecStatus::OutOfMemory => Outcome::OutOfMemory,
        ExecStatus::SessionClosed => Outcome::SessionClosed,
    }
}

const fn to_usage(usage: ExecUsage) -> Usage {
    Usage {
        wall: Duration::from_micros(usage.wall_us),
        cpu_user: Duration::from_micros(usage.user_us),
        cpu_system: Duration::from_micros(usage.system_us),
        peak_memory_bytes: usage.peak_memory_bytes,
        peak_memory_source: match usage.peak_memory_source {
            MemorySource::Cgroup => exec::MemorySource::Cgroup,
            MemorySource::LargestProcess => exec::MemorySource::LargestProcess,
        },
    }
}
