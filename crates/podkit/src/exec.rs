//! Commands and their results: plain data.

use std::{fmt, time::Duration};

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};

/// Bytes of each output stream that are kept when nothing else is said: 10 MiB.
pub const DEFAULT_OUTPUT_LIMIT_BYTES: u64 = 10 << 20;

/// Input of one exec.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ExecRequest {
    /// Program and arguments, no shell.
    pub argv: Vec<Vec<u8>>,
    /// Environment on top of the session's.
    pub env: Vec<(String, String)>,
    /// Working directory, relative to `/workspace`; the session's without.
    pub cwd: Option<String>,
    /// User; the session's without.
    pub user: Option<String>,
    /// Standard input.
    pub stdin: Stdin,
    /// Kills the whole tree after this long; the session's `exec_timeout` without.
    pub timeout: Option<Duration>,
    /// Bytes kept of each output stream; [`DEFAULT_OUTPUT_LIMIT_BYTES`] when output is collected,
    /// no limit when it is streamed, without. What follows is dropped and flagged; the command
    /// goes on.
    pub output_limit_bytes: Option<u64>,
    /// Sends standard error where standard output goes.
    pub merge_output: bool,
    /// Lets the command outlive the handle and the client.
    pub detached: bool,
    /// A terminal for input and output, which then come as one stream.
    pub terminal: Option<TerminalSize>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl TerminalSize {
    /// So many lines of so many characters.
    #[must_use]
    pub const fn new(rows: u16, columns: u16) -> Self {
        Self { rows, columns }
    }

    pub(crate) const fn to_wire(self) -> podkit_agent::TerminalSize {
        podkit_agent::TerminalSize {
            rows: self.rows,
            columns: self.columns,
        }
    }
}

/// 24 lines of 80 characters.
impl Default for TerminalSize {
    fn default() -> Self {
        Self::new(24, 80)
    }
}

/// Shows sizes, never arguments or values.
impl fmt::Debug for ExecRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecRequest")
            .field("argv", &format_args!("{} words", self.argv.len()))
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Standard input of a command. Its end is real: the command reads end-of-file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    None,
    /// These bytes, then the end.
    Bytes(Bytes),
    /// What is written to the streaming handle, up to its `close`.
    Stream,
}

impl ExecRequest {
    /// Runs `argv` without a shell.
    pub fn new(argv: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Runs `text` with `/bin/sh -c`.
    pub fn shell(text: impl Into<Vec<u8>>) -> Self {
        Self::new([b"/bin/sh".to_vec(), b"-c".to_vec(), text.into()])
    }

    /// Checks what can be checked without a container: argv not empty, no NUL bytes, names of
    /// environment variables, a timeout above zero.
    ///
    /// # Errors
    /// `InvalidInput` naming the argument; `LimitExceeded` for more than 1 MiB of arguments.
    pub fn check(&self) -> Result<()> {
        if self.argv.first().is_none_or(Vec::is_empty) {
            return Err(Error::invalid_input("the command is empty"));
        }
        if self.argv.iter().any(|word| word.contains(&0)) {
            return Err(Error::invalid_input(
                "an argument of the command contains a NUL byte",
            ));
        }
        for (name, value) in &self.env {
            check_env(name, value)?;
        }
        for (what, text) in [("working directory", &self.cwd), ("user", &self.user)] {
            if text
                .as_deref()
                .is_some_and(|text| text.is_empty() || text.contains('\0'))
            {
                return Err(Error::invalid_input(format!(
                    "the {what} is empty or contains a NUL byte"
                )));
            }
        }
        if self.timeout == Some(Duration::ZERO) {
            return Err(Error::invalid_input("a timeout of zero lets nothing run"));
        }
        let words: usize = self.argv.iter().map(|word| word.len() + 9).sum();
        let env: usize = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len() + 10)
            .sum();
        if words + env > podkit_agent::MAX_EXEC_BYTES {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "arguments and environment are {} bytes; the limit is 1 MiB",
                    words + env
                ),
            )
            .with_hint("write long data to a file, or send it as standard input"));
        }
        Ok(())
    }
}

/// Checks one environment variable.
///
/// # Errors
/// `InvalidInput`, naming the variable and never its value.
pub(crate) fn check_env(name: &str, value: &str) -> Result<()> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Error::invalid_input(format!(
            "{name:?} is not a name of a variable"
        )));
    }
    if value.contains('\0') {
        return Err(Error::invalid_input(format!(
            "the value of `{name}` contains a NUL byte"
        )));
    }
    Ok(())
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// With this code.
    Exited(u8),
    /// By this signal.
    Signaled(u8),
    /// Its time was over; the whole tree was killed.
    TimedOut,
    /// The container's memory was over.
    OutOfMemory,
    /// The session was closed, or its container stopped.
    SessionClosed,
}

impl Outcome {
    /// Whether the command exited with 0.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Exited(0))
    }

    /// The conventional exit code: the command's own, 128 + signal, 124 for time, 137 for memory,
    /// 143 for a closed session.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(number) => 128_u8.saturating_add(number),
            Self::TimedOut => 124,
            Self::OutOfMemory => 137,
            Self::SessionClosed => 143,
        }
    }

    /// Stable lower-case name, as in JSON: `timed_out`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exited(_) => "exited",
            Self::Signaled(_) => "signaled",
            Self::TimedOut => "timed_out",
            Self::OutOfMemory => "out_of_memory",
            Self::SessionClosed => "session_closed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Signaled(number) => write!(f, "was killed by signal {number}"),
            Self::TimedOut => f.write_str("ran out of time"),
            Self::OutOfMemory => f.write_str("ran out of memory"),
            Self::SessionClosed => f.write_str("ended with its session"),
        }
    }
}

/// Where a peak of memory was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemorySource {
    /// The exec's own cgroup: the whole tree at once.
    Cgroup,
    /// The largest resident set of any one process.
    LargestProcess,
}

/// What a command used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// From start to end.
    pub wall: Duration,
    /// Processor time in user mode.
    pub cpu_user: Duration,
    /// Processor time in the kernel.
    pub cpu_system: Duration,
    /// Most memory in bytes.
    pub peak_memory_bytes: u64,
    /// What `peak_memory_bytes` means.
    pub peak_memory_source: MemorySource,
}

/// How a command ended, without its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecResult {
    /// How.
    pub outcome: Outcome,
    /// Whether standard output was cut at its limit.
    pub stdout_truncated: bool,
    /// Whether standard error was cut at its limit.
    pub stderr_truncated: bool,
    /// Whether processes of the tree resisted being killed for 2 s; the container was restarted.
    pub container_restarted: bool,
    /// What it used.
    pub usage: Usage,
}

impl ExecResult {
    /// The result of a command whose container stopped before it could be told.
    pub(crate) const fn closed(wall: Duration) -> Self {
        Self {
            outcome: Outcome::SessionClosed,
            stdout_truncated: false,
            stderr_truncated: false,
            container_restarted: false,
            usage: Usage {
                wall,
                cpu_user: Duration::ZERO,
                cpu_system: Duration::ZERO,
                peak_memory_bytes: 0,
                peak_memory_source: MemorySource::LargestProcess,
            },
        }
    }
}

/// What a streamed command tells, in order: `Started`, output, `Exited`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecEvent {
    /// It began: its pid in the container.
    Started(u32),
    /// Bytes of standard output (of both streams, when merged).
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// It ended; nothing follows.
    Exited(ExecResult),
}

/// A command's whole result.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecOutput {
    /// How it ended.
    pub outcome: Outcome,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Both in the order of their arrival, as lengths that alternate, beginning with standard
    /// output; see [`output`](Self::output).
    pub(crate) order: Vec<usize>,
    /// How it ended, and what it used.
    pub result: ExecResult,
}

impl ExecOutput {
    /// Collects nothing yet; `result` is filled in at the end.
    #[must_use]
    pub(crate) fn new(result: ExecResult) -> Self {
        Self {
            outcome: result.outcome,
            stdout: Vec::new(),
            stderr: Vec::new(),
            order: Vec::new(),
            result,
        }
    }

    /// Standard output as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Both streams in the order of their arrival.
    #[must_use]
    pub fn output(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.stdout.len() + self.stderr.len());
        let (mut stdout, mut stderr) = (self.stdout.as_slice(), self.stderr.as_slice());
        for (turn, &length) in self.order.iter().enumerate() {
            let from = if turn % 2 == 0 {
                &mut stdout
            } else {
                &mut stderr
            };
            let (head, tail) = from.split_at(length.min(from.len()));
            out.extend_from_slice(head);
            *from = tail;
        }
        out
    }

    /// The conventional exit code; see [`Outcome::code`].
    #[must_use]
    pub const fn code(&self) -> u8 {
        self.outcome.code()
    }

    /// Turns anything but exit code 0 into an error that shows the end of standard error.
    ///
    /// # Errors
    /// `Unexpected`, with the outcome in its message.
    pub fn check(self) -> Result<Self> {
        if self.outcome.is_success() {
            return Ok(self);
        }
        let text = self.stderr_text();
        let tail: Vec<&str> = text.lines().rev().take(5).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        let mut message = format!("the command {}", self.outcome);
        if !tail.is_empty() {
            message.push_str(": ");
            message.push_str(&tail.join("\n"));
        }
        Err(Error::new(ErrorKind::Unexpected, message))
    }
}

/// Shows sizes, never the output.
impl fmt::Debug for ExecOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecOutput")
            .field("result", &self.result)
            .field("stdout", &format_args!("{} bytes", self.stdout.len()))
            .field("stderr", &format_args!("{} bytes", self.stderr.len()))
            .finish_non_exhaustive()
    }
}
