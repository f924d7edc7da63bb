//! What client and agent say to each other.

mod file;
mod port;
mod process;
mod wire;

use alloc::{string::String, vec::Vec};

pub use self::{
    file::{FileCall, FileChange, FileChangeKind, FileKind, FileStat, FileUsage},
    port::PortCall,
    process::{LogQuery, ProcessCall, ProcessInfo, ProcessSpec, ProcessState, RestartPolicy},
};
use crate::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};

/// Which of a command's output streams a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Standard output; also both, when merged.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Whom a signal goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The command's process group.
    Group,
    /// Every process of the exec, also what left the group or session.
    Tree,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// One command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments; the program is looked up in the PATH of `env` when it has no slash.
    pub argv: Vec<Vec<u8>>,
    /// `KEY=VALUE` entries on top of the agent's base environment.
    pub env: Vec<Vec<u8>>,
    /// Working directory, absolute; empty for the session's.
    pub cwd: Vec<u8>,
    /// `user`, `uid`, `user:group`, `uid:gid`; empty for the session's.
    pub user: Vec<u8>,
    /// Whether the client will send standard input; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Whether standard error goes where standard output goes.
    pub merge_output: bool,
    /// Whether the command outlives its connection.
    pub detached: bool,
    /// Whether the command does not hold off the `auto_stop` clock and counts as no activity.
    pub passive: bool,
    /// Milliseconds until the whole tree is killed.
    pub timeout_ms: Option<u64>,
    /// Bytes of each output stream that are sent; what follows is read and dropped.
    pub output_limit_bytes: Option<u64>,
    /// A terminal for input and output. The end of input is then not told: whoever types says it
    /// as a character. Since version 2.
    pub terminal: Option<TerminalSize>,
}

/// When the container stops by itself. Milliseconds; `None` is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// From the last activity, when nothing holds it off.
    pub auto_stop_ms: Option<u64>,
    /// From now on, whatever happens.
    pub max_lifetime_ms: Option<u64>,
}

/// What a client asks of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// First message: the client's version range.
    Hello {
        /// The client's version.
        version: u16,
        /// The oldest agent that the client works with.
        version_min: u16,
    },
    /// Answered by `Pong`. No activity.
    Ping,
    /// Answered by `Status`. No activity.
    Status,
    /// Answered by `Done`; counts as activity and does nothing else.
    Touch,
    /// Sets the clocks anew; answered by `Done`. No activity.
    SetClocks(Clocks),
    /// Ends every exec (`SessionClosed`), sends TERM to all processes, waits up to the grace,
    /// kills what is left, and ends PID 1. Answered by `Closing` at once, then the results of what
    /// runs, then the end of the stream.
    Stop {
        /// Milliseconds between TERM and KILL.
        grace_ms: u64,
    },
    /// Begins a command on a new stream.
    Exec(ExecSpec),
    /// Input of a command or of a file call.
    Stdin(Vec<u8>),
    /// The end of input.
    StdinEnd,
    /// Grants the agent more bytes of an output stream.
    Credit(Output, u32),
    /// Sends a signal to a running command; no answer. Activity.
    Signal(Target, i32),
    /// Changes the size of a command's terminal; no answer. Activity. Since version 2.
    Resize(TerminalSize),
    /// Begins a process, a command that belongs to no connection. Answered by `Process` once it runs;
    /// the client says by `StdinEnd` that it knows, which is answered by `Done`. Until then the process
    /// is nobody else's, and is killed and forgotten when the client gives it up or is gone. Since
    /// version 2.
    Spawn(ProcessSpec),
    /// Answered by one `Process` for each process that is known, then `Done`. No activity. Since
    /// version 2.
    Processes,
    /// Does something with one process. Since version 2.
    Process {
        /// The process's id, or the name of one; of several with that name the newest.
        id: Vec<u8>,
        /// What to do.
        call: ProcessCall,
    },
    /// Does something with a port of the container. Since version 2.
    Port {
        /// What to do.
        call: PortCall,
        /// The port; 0 where none is meant.
        port: u16,
        /// Milliseconds until the call is given up; never without.
        timeout_ms: Option<u64>,
    },
    /// Gives a stream up: an exec's tree is killed, a file call ended. Answered by the stream's
    /// own last message (`Exited`, `Done` or `Failed`).
    Cancel,
    /// Begins a file call on a new stream.
    File {
        /// What to do.
        call: FileCall,
        /// Absolute path, or relative to the session's working directory.
        path: Vec<u8>,
        /// As in [`ExecSpec::user`].
        user: Vec<u8>,
        /// Milliseconds until the call is given up; 60 s without.
        timeout_ms: Option<u64>,
    },
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecStatus {
    /// With this code.
    Exited(u8),
    /// By this signal.
    Signaled(u8),
    /// Its time was over; the tree was killed.
    TimedOut,
    /// The kernel killed it for memory.
    OutOfMemory,
    /// The session was closed or the container stopped.
    SessionClosed,
}

/// Where a peak of memory was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemorySource {
    /// The exec's own cgroup: everything the tree used at once, page cache included.
    Cgroup,
    /// The largest resident set of any one process of the tree.
    LargestProcess,
}

/// What a command used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecUsage {
    /// Microseconds from the start to the end.
    pub wall_us: u64,
    /// Microseconds of processor time in user mode.
    pub user_us: u64,
    /// Microseconds of processor time in the kernel.
    pub system_us: u64,
    /// Most memory in bytes.
    pub peak_memory_bytes: u64,
    /// What `peak_memory_bytes` means.
    pub peak_memory_source: MemorySource,
}

/// What kind of failure; each maps to one kind of the library's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Bad argument: unknown user, missing working directory, NUL in a string.
    InvalidInput,
    /// No such file or directory.
    NotFound,
    /// Something is already there.
    AlreadyExists,
    /// The user may not.
    PermissionDenied,
    /// Processes, descriptors, disk or a size limit of the protocol.
    LimitExceeded,
    /// The agent or the kernel cannot do this.
    Unsupported,
    /// The call's time is over.
    TimedOut,
    /// The client gave the call up.
    Cancelled,
    /// The container is stopping; nothing was begun.
    Closing,
    /// Anything else.
    Unexpected,
}

/// Why a call failed. For an exec it means that the command never began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What a caller can decide on.
    pub kind: FailureKind,
    /// The kernel's error number, or 0.
    pub errno: i32,
    /// For people; UTF-8, names the subject.
    pub message: String,
}

/// Why a container stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A client asked for it.
    Requested,
    /// The `auto_stop` clock.
    AutoStop,
    /// The `max_lifetime` clock.
    MaxLifetime,
    /// The main command ended.
    MainExited,
}

/// A look at the agent; no activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// Milliseconds since PID 1 started.
    pub uptime_ms: u64,
    /// Milliseconds since the last activity; none while something holds `auto_stop` off: a command, a file call, a
    /// process that was started to do so.
    pub idle_ms: u64,
    /// Commands that run now and hold off `auto_stop`.
    pub running_execs: u32,
    /// The clocks, as last set; `max_lifetime_ms` is what is left of it.
    pub clocks: Clocks,
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Answer to `Hello`.
    Hello {
        /// The agent's version.
        version: u16,
        /// The oldest client that the agent works with.
        version_min: u16,
        /// Random; the same as long as this PID 1 lives.
        boot_token: [u8; 16],
        /// Whether trees are killed by the kernel (`cgroup.kill`), not by best effort.
        kernel_tree_kill: bool,
    },
    /// Answer to `Ping`.
    Pong,
    /// Answer to `Status`.
    Status(AgentStatus),
    /// The call succeeded; last message of its stream.
    Done,
    /// The call failed; last message of its stream.
    Failed(Failure),
    /// The command began: its pid inside the container.
    Started(u32),
    /// Output of a command, or bytes of a file.
    Data(Output, Vec<u8>),
    /// Grants the client more bytes of input.
    Credit(u32),
    /// The command has closed its input or ended: send no more; what is on its way is dropped.
    StdinClosed,
    /// The command ended; last message of its stream.
    Exited {
        /// How.
        status: ExecStatus,
        /// Whether standard output was cut at its limit.
        stdout_truncated: bool,
        /// Whether standard error was cut at its limit.
        stderr_truncated: bool,
        /// Whether processes of the tree were still alive 2 s after they were killed.
        tree_survives: bool,
        /// What it used.
        usage: ExecUsage,
    },
    /// One directory entry.
    Entry {
        /// Name without a slash.
        name: Vec<u8>,
        /// Facts.
        stat: FileStat,
    },
    /// One process. Since version 2.
    Process(ProcessInfo),
    /// The container stops; no stream is begun any more.
    Closing(StopReason),
}

impl StopReason {
    /// The word in the mark that a stopped container leaves: `requested`, `auto_stop`,
    /// `max_lifetime` or `main_exited`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::AutoStop => "auto_stop",
            Self::MaxLifetime => "max_lifetime",
            Self::MainExited => "main_exited",
        }
    }
}

/// Whether two sides with these versions can talk.
#[must_use]
pub const fn compatible(version: u16, version_min: u16) -> bool {
    version >= PROTOCOL_VERSION_MIN && version_min <= PROTOCOL_VERSION
}
