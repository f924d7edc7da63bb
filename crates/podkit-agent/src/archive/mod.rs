//! Trees of files as one stream of bytes: the tar format.
//!
//! Written as ustar, with pax records for what does not fit; read as that and as GNU tar writes it.
//! No IO, and no panics on hostile input.

use alloc::vec::Vec;

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use self::read::{Step, Unpacker};

/// What headers and contents are padded to.
pub const BLOCK_BYTES: usize = 512;

/// What ends an archive.
pub const ARCHIVE_END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// Longest path of a directory whose entries are members: with its records a member stays below what
/// is read of them, and a change to it below what one frame carries.
pub const MAX_PATH_BYTES: usize = 16 * 1024;

/// Most directories that a member may be deep in.
const MAX_PARTS: usize = 512;

/// Where the fields of a header are.
mod field {
    use core::ops::Range;

    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const UID: Range<usize> = 108..116;
    pub(super) const GID: Range<usize> = 116..124;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MODIFIED: Range<usize> = 136..148;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const KIND: usize = 156;
    pub(super) const TARGET: Range<usize> = 157..257;
    pub(super) const MAGIC: Range<usize> = 257..265;
    pub(super) const PREFIX: Range<usize> = 345..500;
}

const MAGIC: &[u8] = b"ustar\x0000";

/// Kind of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// Regular file; its bytes follow.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Another name of an earlier member.
    HardLink,
    /// Device, FIFO, or what only some know.
    Other,
}

/// One member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Path, as the archive has it: nothing is checked. See [`parts`].
    pub path: Vec<u8>,
    /// Kind.
    pub kind: MemberKind,
    /// Permission bits: 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes that follow.
    pub size: u64,
    /// Seconds since 1970 of the last change.
    pub modified_s: i64,
    /// What a link says.
    pub target: Vec<u8>,
}

/// How many bytes fill the last block up after so many.
#[must_use]
pub const fn padding(size: u64) -> u64 {
    match size.checked_next_multiple_of(BLOCK_BYTES as u64) {
        Some(whole) => whole - size,
        None => 0,
    }
}

/// The names on the way to a member, from the top of its tree; none for the top itself.
///
/// # Errors
/// Why the path may lead elsewhere.
pub fn parts(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.starts_with(b"/") {
        return Err("its path is absolute");
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its path has `..`"),
            part if part.contains(&0) => return Err("its path has a NUL byte"),
            part => parts.push(part),
        }
    }
    if parts.len() > MAX_PARTS {
        return Err("it is more than 512 directories deep");
    }
    Ok(parts)
}

/// The sum of all bytes, with the field for it as blanks.
fn checksum(header: &[u8]) -> u64 {
    let sum = |bytes: Option<&[u8]>| {
        let bytes = bytes.unwrap_or_default().iter();
        bytes.map(|byte| u64::from(*byte)).sum::<u64>()
    };
    let blanks = field::CHECKSUM.len() as u64 * u64::from(b' ');
    sum(header.get(..field::CHECKSUM.start)) + blanks + sum(header.get(field::CHECKSUM.end..))
}
