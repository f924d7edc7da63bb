//! What client and agent say to each other.

use alloc::{string::String, vec::Vec};

use crate::{
    MAGIC, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN,
    codec::{DecodeError, Decoder, Encoder},
};

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
}

/// A file operation, resolved inside the container under `user`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileCall {
    /// Sends the file's bytes as `Output(Stdout)`, then `Done`.
    Read {
        /// First byte.
        offset: u64,
        /// Most bytes; all without.
        limit: Option<u64>,
    },
    /// Replaces the file at once (a reader sees the old bytes or the new ones) with what follows
    /// as `Stdin` frames up to `StdinEnd`, then `Done`. A call cut off before its `StdinEnd`
    /// changes nothing.
    Write {
        /// Permission bits of a file that is made; one that exists keeps its own without.
        mode: Option<u32>,
        /// Whether missing parent directories are made.
        parents: bool,
    },
    /// Appends what follows as `Stdin` frames, making the file if it is missing, then `Done`.
    Append {
        /// Permission bits of a file that is made.
        mode: Option<u32>,
        /// Whether missing parent directories are made.
        parents: bool,
    },
    /// Sends one `Entry` for each entry of the directory, in no order, then `Done`.
    List,
    /// Sends one `Entry` (with an empty name), then `Done`.
    Stat {
        /// Whether a link at the end of the path is followed.
        follow: bool,
    },
    /// Makes a directory.
    MakeDir {
        /// Permission bits; 0o755 without.
        mode: Option<u32>,
        /// Whether missing parents are made and an existing directory is fine.
        parents: bool,
    },
    /// Renames `path`; an existing file at the target is replaced.
    Rename {
        /// Target path.
        to: Vec<u8>,
    },
    /// Removes a file, a link or a directory.
    Remove {
        /// Whether a directory is removed with all that is in it. Links are not followed.
        recursive: bool,
    },
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

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Device, FIFO or socket.
    Other,
}

/// Facts about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Kind.
    pub kind: FileKind,
    /// Permission bits, with set-id and sticky: 0o7777.
    pub mode: u32,
    /// Owner as seen inside.
    pub uid: u32,
    /// Group as seen inside.
    pub gid: u32,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Nanoseconds since 1970 of the last change.
    pub modified_ns: i64,
    /// Target, for a link.
    pub link_target: Vec<u8>,
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
    /// Milliseconds since the last activity.
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
    /// The container stops; no stream is begun any more.
    Closing(StopReason),
}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const PING: u8 = 2;
    pub(super) const STATUS: u8 = 3;
    pub(super) const TOUCH: u8 = 4;
    pub(super) const SET_CLOCKS: u8 = 5;
    pub(super) const STOP: u8 = 6;
    pub(super) const EXEC: u8 = 7;
    pub(super) const STDIN: u8 = 8;
    pub(super) const STDIN_END: u8 = 9;
    pub(super) const CREDIT: u8 = 10;
    pub(super) const SIGNAL: u8 = 11;
    pub(super) const CANCEL: u8 = 12;
    pub(super) const FILE: u8 = 13;
    pub(super) const DONE: u8 = 64;
    pub(super) const FAILED: u8 = 65;
    pub(super) const STARTED: u8 = 66;
    pub(super) const STDOUT: u8 = 67;
    pub(super) const STDERR: u8 = 68;
    pub(super) const STDIN_CLOSED: u8 = 69;
    pub(super) const EXITED: u8 = 70;
    pub(super) const ENTRY: u8 = 71;
    pub(super) const CLOSING: u8 = 72;
}

/// Field-less enums as one byte.
macro_rules! tags {
    ($type:ident { $($tag:literal => $variant:ident),* $(,)? }) => {
        impl $type {
            const fn tag(self) -> u8 {
                match self { $(Self::$variant => $tag),* }
            }
            const fn from_tag(tag: u8) -> Result<Self, DecodeError> {
                match tag {
                    $($tag => Ok(Self::$variant),)*
                    _ => Err(DecodeError::Unknown(tag)),
                }
            }
        }
    };
}

tags!(Output { 1 => Stdout, 2 => Stderr });
tags!(Target { 1 => Group, 2 => Tree });
tags!(MemorySource { 1 => Cgroup, 2 => LargestProcess });
tags!(FileKind { 1 => File, 2 => Directory, 3 => Symlink, 4 => Other });
tags!(StopReason { 1 => Requested, 2 => AutoStop, 3 => MaxLifetime, 4 => MainExited });
tags!(FailureKind {
    1 => InvalidInput, 2 => NotFound, 3 => AlreadyExists, 4 => PermissionDenied,
    5 => LimitExceeded, 6 => Unsupported, 7 => TimedOut, 8 => Cancelled, 9 => Closing,
    10 => Unexpected,
});

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

fn option_u32(value: Option<u64>) -> Result<Option<u32>, DecodeError> {
    value
        .map(u32::try_from)
        .transpose()
        .map_err(|_| DecodeError::Invalid("number"))
}

impl Clocks {
    fn encode(self, frame: &mut Encoder<'_>) {
        frame
            .option_u64(self.auto_stop_ms)
            .option_u64(self.max_lifetime_ms);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            auto_stop_ms: from.option_u64()?,
            max_lifetime_ms: from.option_u64()?,
        })
    }
}

impl FileCall {
    fn encode(&self, frame: &mut Encoder<'_>) {
        match self {
            Self::Read { offset, limit } => frame.u8(1).u64(*offset).option_u64(*limit),
            Self::Write { mode, parents } => {
                frame.u8(2).option_u64(mode.map(u64::from)).bool(*parents)
            }
            Self::Append { mode, parents } => {
                frame.u8(3).option_u64(mode.map(u64::from)).bool(*parents)
            }
            Self::List => frame.u8(4),
            Self::Stat { follow } => frame.u8(5).bool(*follow),
            Self::MakeDir { mode, parents } => {
                frame.u8(6).option_u64(mode.map(u64::from)).bool(*parents)
            }
            Self::Rename { to } => frame.u8(7).bytes(to),
            Self::Remove { recursive } => frame.u8(8).bool(*recursive),
        };
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Read {
                offset: from.u64()?,
                limit: from.option_u64()?,
            },
            2 => Self::Write {
                mode: option_u32(from.option_u64()?)?,
                parents: from.bool()?,
            },
            3 => Self::Append {
                mode: option_u32(from.option_u64()?)?,
                parents: from.bool()?,
            },
            4 => Self::List,
            5 => Self::Stat {
                follow: from.bool()?,
            },
            6 => Self::MakeDir {
                mode: option_u32(from.option_u64()?)?,
                parents: from.bool()?,
            },
            7 => Self::Rename {
                to: from.bytes()?.to_vec(),
            },
            8 => Self::Remove {
                recursive: from.bool()?,
            },
            tag => return Err(DecodeError::Unknown(tag)),
        })
    }
}

impl ExecSpec {
    fn encode(&self, frame: &mut Encoder<'_>) {
        frame
            .list(&self.argv)
            .list(&self.env)
            .bytes(&self.cwd)
            .bytes(&self.user);
        frame
            .bool(self.stdin)
            .bool(self.merge_output)
            .bool(self.detached)
            .bool(self.passive);
        frame
            .option_u64(self.timeout_ms)
            .option_u64(self.output_limit_bytes);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            argv: from.list()?,
            env: from.list()?,
            cwd: from.bytes()?.to_vec(),
            user: from.bytes()?.to_vec(),
            stdin: from.bool()?,
            merge_output: from.bool()?,
            detached: from.bool()?,
            passive: from.bool()?,
            timeout_ms: from.option_u64()?,
            output_limit_bytes: from.option_u64()?,
        })
    }
}

impl Request {
    /// Appends this request to `out` as one frame.
    pub fn encode(&self, stream: u32, out: &mut Vec<u8>) {
        let begin = |out, kind| Encoder::frame(out, kind, stream);
        let frame = match self {
            Self::Hello {
                version,
                version_min,
            } => {
                let mut frame = begin(out, kind::HELLO);
                frame.rest(&MAGIC).u16(*version).u16(*version_min);
                frame
            }
            Self::Ping => begin(out, kind::PING),
            Self::Status => begin(out, kind::STATUS),
            Self::Touch => begin(out, kind::TOUCH),
            Self::SetClocks(clocks) => {
                let mut frame = begin(out, kind::SET_CLOCKS);
                clocks.encode(&mut frame);
                frame
            }
            Self::Stop { grace_ms } => {
                let mut frame = begin(out, kind::STOP);
                frame.u64(*grace_ms);
                frame
            }
            Self::Exec(spec) => {
                let mut frame = begin(out, kind::EXEC);
                spec.encode(&mut frame);
                frame
            }
            Self::Stdin(data) => {
                let mut frame = begin(out, kind::STDIN);
                frame.rest(data);
                frame
            }
            Self::StdinEnd => begin(out, kind::STDIN_END),
            Self::Credit(output, bytes) => {
                let mut frame = begin(out, kind::CREDIT);
                frame.u8(output.tag()).u32(*bytes);
                frame
            }
            Self::Signal(target, number) => {
                let mut frame = begin(out, kind::SIGNAL);
                frame.u8(target.tag()).i32(*number);
                frame
            }
            Self::Cancel => begin(out, kind::CANCEL),
            Self::File {
                call,
                path,
                user,
                timeout_ms,
            } => {
                let mut frame = begin(out, kind::FILE);
                call.encode(&mut frame);
                frame.bytes(path).bytes(user).option_u64(*timeout_ms);
                frame
            }
        };
        frame.end();
    }

    /// Reads the payload of a frame that a client sent.
    ///
    /// # Errors
    /// [`DecodeError`]; the connection cannot be trusted any more.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(payload);
        let request = match kind {
            kind::HELLO => {
                let (version, version_min) = decode_hello(&mut from)?;
                Self::Hello {
                    version,
                    version_min,
                }
            }
            kind::PING => Self::Ping,
            kind::STATUS => Self::Status,
            kind::TOUCH => Self::Touch,
            kind::SET_CLOCKS => Self::SetClocks(Clocks::decode(&mut from)?),
            kind::STOP => Self::Stop {
                grace_ms: from.u64()?,
            },
            kind::EXEC => Self::Exec(ExecSpec::decode(&mut from)?),
            kind::STDIN => Self::Stdin(from.rest().to_vec()),
            kind::STDIN_END => Self::StdinEnd,
            kind::CREDIT => Self::Credit(Output::from_tag(from.u8()?)?, from.u32()?),
            kind::SIGNAL => Self::Signal(Target::from_tag(from.u8()?)?, from.i32()?),
            kind::CANCEL => Self::Cancel,
            kind::FILE => Self::File {
                call: FileCall::decode(&mut from)?,
                path: from.bytes()?.to_vec(),
                user: from.bytes()?.to_vec(),
                timeout_ms: from.option_u64()?,
            },
            tag => return Err(DecodeError::Unknown(tag)),
        };
        from.finish()?;
        Ok(request)
    }
}

fn decode_hello(from: &mut Decoder<'_>) -> Result<(u16, u16), DecodeError> {
    for byte in MAGIC {
        if from.u8()? != byte {
            return Err(DecodeError::Invalid("magic"));
        }
    }
    Ok((from.u16()?, from.u16()?))
}

/// Whether two sides with these versions can talk.
#[must_use]
pub const fn compatible(version: u16, version_min: u16) -> bool {
    version >= PROTOCOL_VERSION_MIN && version_min <= PROTOCOL_VERSION
}

impl ExecStatus {
    fn encode(self, frame: &mut Encoder<'_>) {
        let (tag, value) = match self {
            Self::Exited(code) => (1, code),
            Self::Signaled(number) => (2, number),
            Self::TimedOut => (3, 0),
            Self::OutOfMemory => (4, 0),
            Self::SessionClosed => (5, 0),
        };
        frame.u8(tag).u8(value);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (tag, value) = (from.u8()?, from.u8()?);
        Ok(match tag {
            1 => Self::Exited(value),
            2 => Self::Signaled(value),
            3 => Self::TimedOut,
            4 => Self::OutOfMemory,
            5 => Self::SessionClosed,
            tag => return Err(DecodeError::Unknown(tag)),
        })
    }
}

impl ExecUsage {
    fn encode(self, frame: &mut Encoder<'_>) {
        frame
            .u64(self.wall_us)
            .u64(self.user_us)
            .u64(self.system_us);
        frame
            .u64(self.peak_memory_bytes)
            .u8(self.peak_memory_source.tag());
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            wall_us: from.u64()?,
            user_us: from.u64()?,
            system_us: from.u64()?,
            peak_memory_bytes: from.u64()?,
            peak_memory_source: MemorySource::from_tag(from.u8()?)?,
        })
    }
}

impl FileStat {
    fn encode(&self, frame: &mut Encoder<'_>) {
        frame
            .u8(self.kind.tag())
            .u32(self.mode)
            .u32(self.uid)
            .u32(self.gid);
        frame
            .u64(self.size_bytes)
            .i64(self.modified_ns)
            .bytes(&self.link_target);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: FileKind::from_tag(from.u8()?)?,
            mode: from.u32()?,
            uid: from.u32()?,
            gid: from.u32()?,
            size_bytes: from.u64()?,
            modified_ns: from.i64()?,
            link_target: from.bytes()?.to_vec(),
        })
    }
}

impl AgentStatus {
    fn encode(self, frame: &mut Encoder<'_>) {
        frame
            .u64(self.uptime_ms)
            .u64(self.idle_ms)
            .u32(self.running_execs);
        self.clocks.encode(frame);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            uptime_ms: from.u64()?,
            idle_ms: from.u64()?,
            running_execs: from.u32()?,
            clocks: Clocks::decode(from)?,
        })
    }
}

impl Reply {
    /// Appends this reply to `out` as one frame.
    pub fn encode(&self, stream: u32, out: &mut Vec<u8>) {
        let begin = |out, kind| Encoder::frame(out, kind, stream);
        let frame = match self {
            Self::Hello {
                version,
                version_min,
                boot_token,
                kernel_tree_kill,
            } => {
                let mut frame = begin(out, kind::HELLO);
                frame.rest(&MAGIC).u16(*version).u16(*version_min);
                frame.rest(boot_token).bool(*kernel_tree_kill);
                frame
            }
            Self::Pong => begin(out, kind::PING),
            Self::Status(status) => {
                let mut frame = begin(out, kind::STATUS);
                status.encode(&mut frame);
                frame
            }
            Self::Done => begin(out, kind::DONE),
            Self::Failed(failure) => {
                let mut frame = begin(out, kind::FAILED);
                frame
                    .u8(failure.kind.tag())
                    .i32(failure.errno)
                    .bytes(failure.message.as_bytes());
                frame
            }
            Self::Started(pid) => {
                let mut frame = begin(out, kind::STARTED);
                frame.u32(*pid);
                frame
            }
            Self::Data(output, data) => {
                let kind = match output {
                    Output::Stdout => kind::STDOUT,
                    Output::Stderr => kind::STDERR,
                };
                let mut frame = begin(out, kind);
                frame.rest(data);
                frame
            }
            Self::Credit(bytes) => {
                let mut frame = begin(out, kind::CREDIT);
                frame.u32(*bytes);
                frame
            }
            Self::StdinClosed => begin(out, kind::STDIN_CLOSED),
            Self::Exited {
                status,
                stdout_truncated,
                stderr_truncated,
                tree_survives,
                usage,
            } => {
                let mut frame = begin(out, kind::EXITED);
                status.encode(&mut frame);
                frame
                    .bool(*stdout_truncated)
                    .bool(*stderr_truncated)
                    .bool(*tree_survives);
                usage.encode(&mut frame);
                frame
            }
            Self::Entry { name, stat } => {
                let mut frame = begin(out, kind::ENTRY);
                frame.bytes(name);
                stat.encode(&mut frame);
                frame
            }
            Self::Closing(reason) => {
                let mut frame = begin(out, kind::CLOSING);
                frame.u8(reason.tag());
                frame
            }
        };
        frame.end();
    }

    /// Appends a [`Data`](Self::Data) to `out` as one frame, without a copy before that.
    pub fn encode_data(stream: u32, output: Output, data: &[u8], out: &mut Vec<u8>) {
        let kind = match output {
            Output::Stdout => kind::STDOUT,
            Output::Stderr => kind::STDERR,
        };
        let mut frame = Encoder::frame(out, kind, stream);
        frame.rest(data);
        frame.end();
    }

    /// The bytes of a frame that an agent sent, without a copy, if it is a [`Data`](Self::Data).
    #[must_use]
    pub const fn decode_data(kind: u8, payload: &[u8]) -> Option<(Output, &[u8])> {
        match kind {
            kind::STDOUT => Some((Output::Stdout, payload)),
            kind::STDERR => Some((Output::Stderr, payload)),
            _ => None,
        }
    }

    /// Reads the payload of a frame that an agent sent.
    ///
    /// # Errors
    /// [`DecodeError`]; the connection cannot be trusted any more.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(payload);
        let reply = match kind {
            kind::HELLO => {
                let (version, version_min) = decode_hello(&mut from)?;
                let mut boot_token = [0; 16];
                for byte in &mut boot_token {
                    *byte = from.u8()?;
                }
                Self::Hello {
                    version,
                    version_min,
                    boot_token,
                    kernel_tree_kill: from.bool()?,
                }
            }
            kind::PING => Self::Pong,
            kind::STATUS => Self::Status(AgentStatus::decode(&mut from)?),
            kind::DONE => Self::Done,
            kind::FAILED => Self::Failed(Failure {
                kind: FailureKind::from_tag(from.u8()?)?,
                errno: from.i32()?,
                message: from.string()?,
            }),
            kind::STARTED => Self::Started(from.u32()?),
            kind::STDOUT => Self::Data(Output::Stdout, from.rest().to_vec()),
            kind::STDERR => Self::Data(Output::Stderr, from.rest().to_vec()),
            kind::CREDIT => Self::Credit(from.u32()?),
            kind::STDIN_CLOSED => Self::StdinClosed,
            kind::EXITED => Self::Exited {
                status: ExecStatus::decode(&mut from)?,
                stdout_truncated: from.bool()?,
                stderr_truncated: from.bool()?,
                tree_survives: from.bool()?,
                usage: ExecUsage::decode(&mut from)?,
            },
            kind::ENTRY => Self::Entry {
                name: from.bytes()?.to_vec(),
                stat: FileStat::decode(&mut from)?,
            },
            kind::CLOSING => Self::Closing(StopReason::from_tag(from.u8()?)?),
            tag => return Err(DecodeError::Unknown(tag)),
        };
        from.finish()?;
        Ok(reply)
    }
}
