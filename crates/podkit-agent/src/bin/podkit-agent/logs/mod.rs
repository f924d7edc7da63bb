//! Logs of background processes: files in the container, written and read by short-lived children
//! of PID 1.
//!
//! A log is three files in one directory: `<id>.out.log` and `<id>.err.log` hold what was written,
//! as it was, and `<id>.idx` says in records of 16 bytes when, on which of them, and how much. Once
//! they are large enough all three are renamed to end in `.1`, in the place of older ones, and begun
//! anew. The index is renamed first and made last, so that whoever finds the same one before and
//! after opening the others has a set that belongs together.

pub(crate) mod read;
pub(crate) mod write;

use alloc::{ffi::CString, vec::Vec};

use podkit_agent::{Failure, Output};
use rustix::{fs::Mode, process::umask};

use crate::users;

/// Bytes of a record of the index.
const RECORD: usize = 16;

/// Bytes that are read and written at once.
const CHUNK: usize = 64 * 1024;

/// The three files of a log, by what their names end in.
#[derive(Clone, Copy)]
enum Part {
    Stdout,
    Stderr,
    Index,
}

const PARTS: [Part; 3] = [Part::Stdout, Part::Stderr, Part::Index];

/// Name of a file of a log; `old` for the one that was put aside.
fn name(id: &[u8], part: Part, old: bool) -> CString {
    let end: &[u8] = match part {
        Part::Stdout => b".out.log",
        Part::Stderr => b".err.log",
        Part::Index => b".idx",
    };
    let aside: &[u8] = if old { b".1" } else { b"" };
    // The id has been checked.
    CString::new([id, end, aside].concat()).unwrap_or_default()
}

/// So many bytes on one of the outputs, at a time.
#[derive(Clone, Copy)]
struct Record {
    unix_ms: u64,
    output: Output,
    count: u32,
}

impl Record {
    fn encode(self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        let stream = match self.output {
            Output::Stdout => 1_u32,
            Output::Stderr => 2,
        };
        bytes[..8].copy_from_slice(&self.unix_ms.to_le_bytes());
        bytes[8..12].copy_from_slice(&stream.to_le_bytes());
        bytes[12..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    /// `None` for bytes that no logger has written.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let record = Self {
            unix_ms: u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?),
            output: match u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?) {
                1 => Output::Stdout,
                2 => Output::Stderr,
                _ => return None,
            },
            count: u32::from_le_bytes(bytes.get(12..16)?.try_into().ok()?),
        };
        (1..=CHUNK)
            .contains(&(record.count as usize))
            .then_some(record)
    }
}

/// Whose rights a log is written and read with: the agent's own where the agent has chosen its
/// place, else the user's.
fn become_owner(user: Option<&[u8]>) -> Result<(), Failure> {
    if let Some(user) = user {
        users::become_user(&users::resolve(user)?)?;
    }
    umask(Mode::empty());
    Ok(())
}

/// Where a log is that its process has no place for: below the first of these that can be written, in
/// a directory for this life of the container.
const DIRECTORIES: [&[u8]; 3] = [b"/var/log/podkit", b"/run/podkit", b"/tmp/podkit"];

/// A vector without its first bytes.
fn without(mut bytes: Vec<u8>, count: usize) -> Vec<u8> {
    bytes.drain(..count.min(bytes.len()));
    bytes
}
