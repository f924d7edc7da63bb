//! How messages are written as bytes.

use alloc::vec::Vec;

use super::{
    AgentStatus, Clocks, ExecSpec, ExecStatus, ExecUsage, Failure, FailureKind, FileCall,
    FileChangeKind, FileKind, FileStat, MemorySource, Output, PortCall, ProcessCall, ProcessInfo,
    ProcessSpec, Reply, Request, StopReason, Target, TerminalSize,
};
use crate::{
    MAGIC,
    codec::{DecodeError, Decoder, Encoder},
};

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
    pub(super) const RESIZE: u8 = 14;
    pub(super) const SPAWN: u8 = 15;
    pub(super) const PROCESSES: u8 = 16;
    pub(super) const PROCESS: u8 = 17;
    pub(super) const PORT: u8 = 20;
    pub(super) const DONE: u8 = 64;
    pub(super) const FAILED: u8 = 65;
    pub(super) const STARTED: u8 = 66;
    pub(super) const STDOUT: u8 = 67;
    pub(super) const STDERR: u8 = 68;
    pub(super) const STDIN_CLOSED: u8 = 69;
    pub(super) const EXITED: u8 = 70;
    pub(super) const ENTRY: u8 = 71;
    pub(super) const CLOSING: u8 = 72;
    pub(super) const PROCESS_INFO: u8 = 73;
}

/// Field-less enums as one byte.
macro_rules! tags {
    ($type:ident { $($tag:literal => $variant:ident),* $(,)? }) => {
        impl $type {
            pub(super) const fn tag(self) -> u8 {
                match self { $(Self::$variant => $tag),* }
            }
            pub(super) const fn from_tag(tag: u8) -> Result<Self, DecodeError> {
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
tags!(FileChangeKind {
    1 => Watching, 2 => Created, 3 => Modified, 4 => Attributes, 5 => Removed, 6 => MovedFrom,
    7 => MovedTo, 8 => Missed,
});
tags!(FileKind { 1 => File, 2 => Directory, 3 => Symlink, 4 => Other });
tags!(StopReason { 1 => Requested, 2 => AutoStop, 3 => MaxLifetime, 4 => MainExited });
tags!(FailureKind {
    1 => InvalidInput, 2 => NotFound, 3 => AlreadyExists, 4 => PermissionDenied,
    5 => LimitExceeded, 6 => Unsupported, 7 => TimedOut, 8 => Cancelled, 9 => Closing,
    10 => Unexpected,
});

pub(super) fn option_u32(value: Option<u64>) -> Result<Option<u32>, DecodeError> {
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

impl ExecSpec {
    pub(super) fn encode(&self, frame: &mut Encoder<'_>) {
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
        // Last, and only where it is, so that version 1 understands all else.
        if let Some(size) = self.terminal {
            size.encode(frame);
        }
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
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
            terminal: match from.is_empty() {
                true => None,
                false => Some(TerminalSize::decode(from)?),
            },
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
            Self::Resize(size) => {
                let mut frame = begin(out, kind::RESIZE);
                size.encode(&mut frame);
                frame
            }
            Self::Spawn(spec) => {
                let mut frame = begin(out, kind::SPAWN);
                spec.encode(&mut frame);
                frame
            }
            Self::Processes => begin(out, kind::PROCESSES),
            Self::Process { id, call } => {
                let mut frame = begin(out, kind::PROCESS);
                frame.bytes(id);
                call.encode(&mut frame);
                frame
            }
            Self::Port {
                call,
                port,
                timeout_ms,
            } => {
                let mut frame = begin(out, kind::PORT);
                frame.u8(call.tag()).u16(*port).option_u64(*timeout_ms);
                frame
            }
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

    /// Appends a [`Stdin`](Self::Stdin) to `out` as one frame, without a copy before that.
    pub fn encode_stdin(stream: u32, data: &[u8], out: &mut Vec<u8>) {
        let mut frame = Encoder::frame(out, kind::STDIN, stream);
        frame.rest(data);
        frame.end();
    }

    /// The bytes of a frame that a client sent, without a copy, if it is a [`Stdin`](Self::Stdin).
    #[must_use]
    pub const fn decode_stdin(kind: u8, payload: &[u8]) -> Option<&[u8]> {
        match kind {
            kind::STDIN => Some(payload),
            _ => None,
        }
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
            kind::RESIZE => Self::Resize(TerminalSize::decode(&mut from)?),
            kind::SPAWN => Self::Spawn(ProcessSpec::decode(&mut from)?),
            kind::PROCESSES => Self::Processes,
            kind::PROCESS => Self::Process {
                id: from.bytes()?.to_vec(),
                call: ProcessCall::decode(&mut from)?,
            },
            kind::PORT => Self::Port {
                call: PortCall::decode(&mut from)?,
                port: from.u16()?,
                timeout_ms: from.option_u64()?,
            },
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

impl ExecStatus {
    pub(super) fn encode(self, frame: &mut Encoder<'_>) {
        let (tag, value) = match self {
            Self::Exited(code) => (1, code),
            Self::Signaled(number) => (2, number),
            Self::TimedOut => (3, 0),
            Self::OutOfMemory => (4, 0),
            Self::SessionClosed => (5, 0),
        };
        frame.u8(tag).u8(value);
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
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
    pub(super) fn encode(self, frame: &mut Encoder<'_>) {
        frame
            .u64(self.wall_us)
            .u64(self.user_us)
            .u64(self.system_us);
        frame
            .u64(self.peak_memory_bytes)
            .u8(self.peak_memory_source.tag());
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            wall_us: from.u64()?,
            user_us: from.u64()?,
            system_us: from.u64()?,
            peak_memory_bytes: from.u64()?,
            peak_memory_source: MemorySource::from_tag(from.u8()?)?,
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
            Self::Process(info) => {
                let mut frame = begin(out, kind::PROCESS_INFO);
                info.encode(&mut frame);
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
            kind::PROCESS_INFO => Self::Process(ProcessInfo::decode(&mut from)?),
            kind::CLOSING => Self::Closing(StopReason::from_tag(from.u8()?)?),
            tag => return Err(DecodeError::Unknown(tag)),
        };
        from.finish()?;
        Ok(reply)
    }
}
