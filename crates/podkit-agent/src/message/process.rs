//! Processes: commands that outlive the connection of whoever began them.

use alloc::vec::Vec;

use super::{ExecSpec, ExecStatus, ExecUsage, Output, Target, TerminalSize};
use crate::codec::{DecodeError, Decoder, Encoder};

/// When a process that has ended is begun again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    Never,
    /// When it failed; at most so many times, without end for `None`.
    OnFailure(Option<u32>),
    /// Whenever it ended by itself.
    Always,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Chosen by the client; no other process in this life of the container has it.
    pub id: Vec<u8>,
    /// Name for people, or empty. No running process has the same.
    pub name: Vec<u8>,
    /// Directory of the logs; the agent's choice when empty.
    pub log_directory: Vec<u8>,
    /// Bytes of the log that are kept at least; at most twice as many are on disk.
    pub log_limit_bytes: u64,
    /// When it is begun again.
    pub restart: RestartPolicy,
    /// What runs. Its `detached` and `output_limit_bytes` mean nothing; with `stdin` it reads what
    /// is attached to it, with a terminal what is typed there.
    pub exec: ExecSpec,
}

/// What is done with a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessCall {
    /// Answered by `Process` and `Done`. No activity.
    Inspect,
    /// Answered by `Process` and `Done` once it has ended and is not begun again. No activity.
    Wait,
    /// Sends a signal; answered by `Done`.
    Signal(Target, i32),
    /// Sends TERM to all that it has started, and kills what is left after the grace; it is not
    /// begun again. Answered by `Process` and `Done` once it has ended.
    Stop {
        /// Milliseconds between TERM and KILL.
        grace_ms: u64,
    },
    /// Forgets a process that has ended, and removes its log; answered by `Done`.
    Forget,
    /// Says whether it keeps the container from stopping by itself; answered by `Done`.
    KeepAlive(bool),
    /// Sends the log as `Data`, oldest first, then `Done`. No activity.
    Logs(LogQuery),
    /// Joins in with a process that has a terminal: what it has written last, then what it writes,
    /// as `Data`; takes `Stdin` and `Resize`. Answered by `Started` first, and last by `Exited`, or
    /// by `Done` after a `Cancel`, which leaves the process as it is. Holds off `auto_stop`.
    Attach {
        /// New size of the terminal.
        size: Option<TerminalSize>,
    },
}

/// What of a log is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// One of the streams only.
    pub only: Option<Output>,
    /// So many lines from the end.
    pub tail_lines: Option<u64>,
    /// Nothing from before, in milliseconds since 1970.
    pub since_unix_ms: Option<u64>,
    /// Whether what is written from now on is sent, until the process ends.
    pub follow: bool,
}

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It has ended, and is begun again soon.
    Restarting,
    /// It has ended.
    Ended(ExecStatus),
}

/// What is known of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Id.
    pub id: Vec<u8>,
    /// Name, or empty.
    pub name: Vec<u8>,
    /// Program and arguments, as far as they are less than 4 KiB.
    pub argv: Vec<Vec<u8>>,
    /// Directory of its logs; empty for one with a terminal.
    pub log_directory: Vec<u8>,
    /// Its pid in the container, while it runs.
    pub pid: Option<u32>,
    /// How it is.
    pub state: ProcessState,
    /// How often it was begun again.
    pub restarts: u32,
    /// When it was begun last, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// When it ended last, in milliseconds since 1970.
    pub ended_unix_ms: Option<u64>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether it keeps the container from stopping.
    pub keep_alive: bool,
    /// What it has used since it was begun last.
    pub usage: ExecUsage,
}

impl TerminalSize {
    pub(super) fn encode(self, frame: &mut Encoder<'_>) {
        frame.u16(self.rows).u16(self.columns);
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            rows: from.u16()?,
            columns: from.u16()?,
        })
    }
}

impl RestartPolicy {
    fn encode(self, frame: &mut Encoder<'_>) {
        match self {
            Self::Never => frame.u8(1),
            Self::OnFailure(most) => frame.u8(2).option_u64(most.map(u64::from)),
            Self::Always => frame.u8(3),
        };
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Never,
            2 => Self::OnFailure(super::wire::option_u32(from.option_u64()?)?),
            3 => Self::Always,
            tag => return Err(DecodeError::Unknown(tag)),
        })
    }
}

impl ProcessSpec {
    pub(super) fn encode(&self, frame: &mut Encoder<'_>) {
        frame
            .bytes(&self.id)
            .bytes(&self.name)
            .bytes(&self.log_directory)
            .u64(self.log_limit_bytes);
        self.restart.encode(frame);
        self.exec.encode(frame);
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: from.bytes()?.to_vec(),
            name: from.bytes()?.to_vec(),
            log_directory: from.bytes()?.to_vec(),
            log_limit_bytes: from.u64()?,
            restart: RestartPolicy::decode(from)?,
            exec: ExecSpec::decode(from)?,
        })
    }
}

impl ProcessCall {
    pub(super) fn encode(self, frame: &mut Encoder<'_>) {
        match self {
            Self::Inspect => {
                frame.u8(1);
            }
            Self::Wait => {
                frame.u8(2);
            }
            Self::Signal(target, number) => {
                frame.u8(3).u8(target.tag()).i32(number);
            }
            Self::Stop { grace_ms } => {
                frame.u8(4).u64(grace_ms);
            }
            Self::Forget => {
                frame.u8(5);
            }
            Self::Logs(query) => {
                frame.u8(6).u8(query.only.map_or(0, Output::tag));
                frame
                    .option_u64(query.tail_lines)
                    .option_u64(query.since_unix_ms)
                    .bool(query.follow);
            }
            Self::KeepAlive(keep) => {
                frame.u8(8).bool(keep);
            }
            Self::Attach { size } => {
                frame.u8(7).bool(size.is_some());
                if let Some(size) = size {
                    size.encode(frame);
                }
            }
        }
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Inspect,
            2 => Self::Wait,
            3 => Self::Signal(Target::from_tag(from.u8()?)?, from.i32()?),
            4 => Self::Stop {
                grace_ms: from.u64()?,
            },
            5 => Self::Forget,
            6 => Self::Logs(LogQuery {
                only: match from.u8()? {
                    0 => None,
                    tag => Some(Output::from_tag(tag)?),
                },
                tail_lines: from.option_u64()?,
                since_unix_ms: from.option_u64()?,
                follow: from.bool()?,
            }),
            7 => Self::Attach {
                size: match from.bool()? {
                    true => Some(TerminalSize::decode(from)?),
                    false => None,
                },
            },
            8 => Self::KeepAlive(from.bool()?),
            tag => return Err(DecodeError::Unknown(tag)),
        })
    }
}

impl ProcessState {
    fn encode(self, frame: &mut Encoder<'_>) {
        match self {
            Self::Running => {
                frame.u8(1);
            }
            Self::Restarting => {
                frame.u8(2);
            }
            Self::Ended(status) => {
                frame.u8(3);
                status.encode(frame);
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Running,
            2 => Self::Restarting,
            3 => Self::Ended(ExecStatus::decode(from)?),
            tag => return Err(DecodeError::Unknown(tag)),
        })
    }
}

impl ProcessInfo {
    pub(super) fn encode(&self, frame: &mut Encoder<'_>) {
        frame
            .bytes(&self.id)
            .bytes(&self.name)
            .list(&self.argv)
            .bytes(&self.log_directory)
            .option_u64(self.pid.map(u64::from));
        self.state.encode(frame);
        frame
            .u32(self.restarts)
            .u64(self.started_unix_ms)
            .option_u64(self.ended_unix_ms)
            .bool(self.terminal)
            .bool(self.keep_alive);
        self.usage.encode(frame);
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: from.bytes()?.to_vec(),
            name: from.bytes()?.to_vec(),
            argv: from.list()?,
            log_directory: from.bytes()?.to_vec(),
            pid: super::wire::option_u32(from.option_u64()?)?,
            state: ProcessState::decode(from)?,
            restarts: from.u32()?,
            started_unix_ms: from.u64()?,
            ended_unix_ms: from.option_u64()?,
            terminal: from.bool()?,
            keep_alive: from.bool()?,
            usage: ExecUsage::decode(from)?,
        })
    }
}
