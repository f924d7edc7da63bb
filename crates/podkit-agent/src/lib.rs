//! The wire protocol between podkit and its agent, and the agent binaries themselves.
//!
//! One agent is PID 1 of every container. A client opens a byte stream to it (how, is the
//! engine's affair), sends [`Request::Hello`], and from then on both sides exchange frames:
//!
//! ```text
//! u32 LE length of what follows | u8 kind | u32 LE stream | payload
//! ```
//!
//! `stream` is a number chosen by the client, unique among its open streams on this connection,
//! and never 0; stream 0 carries what belongs to the connection as a whole. One exec or one file
//! call is one stream. All integers are little-endian; strings are length-prefixed bytes.
//!
//! # Flow control
//! Each direction of a stream has a window of its own. The sender may have at most the granted
//! number of data bytes on their way; the receiver grants more with `Credit` once it has passed
//! the data on. A sender that exceeds its window is cut off. So one slow reader never delays
//! another stream of the same connection, and neither side holds more than the windows.
//!
//! # Contract
//! Neither side trusts the other: a frame over [`MAX_FRAME_BYTES`], an unknown kind, or a
//! payload that does not parse exactly ends the connection; so does a reply on a stream that is not
//! open. What a client still says to a stream that has just ended is passed over.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod archive;
mod codec;
mod exit;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod message;
pub mod passwd;
pub mod plan;
pub mod replay;
pub mod seccomp;

pub use codec::{DecodeError, Decoder, Encoder, FRAME_HEADER_BYTES, Frame, FrameBuffer};
pub use exit::{ExitCause, exit_cause, exit_code};
pub use message::{
    AgentStatus, Clocks, ExecSpec, ExecStatus, ExecUsage, Failure, FailureKind, FileCall,
    FileChange, FileChangeKind, FileKind, FileStat, FileUsage, LogQuery, MemorySource, Output,
    PortCall, ProcessCall, ProcessInfo, ProcessSpec, ProcessState, Reply, Request, RestartPolicy,
    StopReason, Target, TerminalSize, compatible,
};

/// Protocol version spoken by this crate. What only some of the versions have says since which.
pub const PROTOCOL_VERSION: u16 = 2;

/// Oldest version of the other side that this crate still works with.
pub const PROTOCOL_VERSION_MIN: u16 = 1;

/// First bytes of the payload of a hello, in both directions.
pub const MAGIC: [u8; 8] = *b"podkit\0\x01";

/// Most data bytes that one data frame carries.
pub const MAX_DATA_BYTES: usize = 64 * 1024;

/// Most bytes that a frame may claim after its length field; a larger frame ends the connection.
/// Large enough for an exec request with [`MAX_EXEC_BYTES`] of arguments and environment.
pub const MAX_FRAME_BYTES: usize = MAX_EXEC_BYTES + 64 * 1024;

/// Most bytes of arguments plus environment of one exec; beyond it a call is `LimitExceeded`.
pub const MAX_EXEC_BYTES: usize = 1024 * 1024;

/// Most bytes of a process's id, and of its name.
pub const MAX_PROCESS_ID_BYTES: usize = 64;
/// See [`MAX_PROCESS_ID_BYTES`].
pub const MAX_PROCESS_NAME_BYTES: usize = 128;

/// Window of each direction of a stream before any `Credit`.
pub const INITIAL_WINDOW_BYTES: u32 = 256 * 1024;

/// How long the agent reads on after a command's end while others hold its output open.
/// What is in the pipe at that moment is still delivered.
pub const DRAIN_MS: u64 = 250;

/// Both sides send `Ping` when they have sent nothing for this long.
pub const PING_INTERVAL_MS: u64 = 10_000;

/// A connection on which nothing was received for this long is dead.
pub const DEAD_AFTER_MS: u64 = 30_000;

/// The agent binary for one architecture, as built by `just agent`.
#[derive(Clone, Copy, Debug)]
pub struct AgentBinary {
    /// Architecture in Rust's words, such as `x86_64`.
    pub arch: &'static str,
    /// The static ELF file.
    pub bytes: &'static [u8],
    /// SHA-256 of `bytes` in lower-case hexadecimal digits.
    pub sha256: &'static str,
}

/// The binaries shipped with this package. An engine of another architecture is unsupported.
#[cfg(not(feature = "bin"))]
pub const BINARIES: &[AgentBinary] = &[AgentBinary {
    arch: "x86_64",
    bytes: include_bytes!("../prebuilt/podkit-agent-x86_64"),
    sha256: include_str!("../prebuilt/podkit-agent-x86_64.sha256"),
}];

/// The binary for `arch` (`x86_64`), when this package ships one.
#[cfg(not(feature = "bin"))]
#[must_use]
pub fn binary(arch: &str) -> Option<&'static AgentBinary> {
    BINARIES.iter().find(|binary| binary.arch == arch)
}
