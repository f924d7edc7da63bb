//! Client of the agent: one connection, many commands and file calls at once.
//!
//! What comes from the agent comes from a container and may be hostile. Every frame is checked
//! against what was asked for and granted; the first one that does not fit ends the connection
//! with a typed error. Memory per stream is bounded by its windows, per connection by the limits
//! below.
//!
//! Each connection has a task that reads and one that writes what could not be written at once and
//! keeps the pulse. They end with the last [`AgentClient`] and the last handle made by it.

mod client;
mod connection;
mod exec;
mod failure;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod inbox;
mod outbox;
mod port;
mod process;
mod pulse;
mod stream;
mod tree;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    client::AgentClient,
    exec::check_signal,
    failure::printable,
    file::FileWriter,
    process::LogReader,
    tree::{Extraction, Failures, TreeReader, TreeWriter},
};
pub use self::{
    exec::{ExecHandle, ExecStdin},
    file::{FileEntry, FileKind, FileReader},
    port::{ListeningPort, PortStream},
    tree::{ArchiveReader, DiskUsage, FileChange, FileChangeKind, FileWatch},
};

/// Bytes of requests and input that wait for the socket, all streams together. Senders wait for
/// room in the order of their coming.
const OUTBOX_BYTES: usize = 256 * 1024;

/// Most bytes that may wait for the socket, with all the small messages that wait for nobody. An
/// agent that lets more pile up does not read.
const OUTBOX_HARD_BYTES: usize = 4 * 1024 * 1024;

/// Most commands and file calls that are under way on one connection.
const MAX_STREAMS: usize = 4096;

/// Most questions without an answer on one connection.
const MAX_QUESTIONS: usize = 4096;

/// Most entries of a directory that one call lists.
const MAX_ENTRIES: usize = 1 << 20;

/// Most processes that one call tells of.
const MAX_PROCESSES: usize = 4096;

/// Most bytes that the entries of one call may be on the wire.
const MAX_ENTRY_BYTES: usize = 64 << 20;
