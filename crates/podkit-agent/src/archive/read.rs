//! An archive, taken apart as it comes.

use alloc::vec::Vec;
use core::ops::Range;

use super::{BLOCK_BYTES, MAGIC, Member, MemberKind, checksum, field, padding};

/// Most bytes of the records before one member.
const MAX_RECORD_BYTES: u64 = 64 * 1024;

/// What comes next of an archive.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, before more is [pushed](Unpacker::push).
    More,
    /// A member begins.
    Member(Member),
    /// Bytes of a file: see [`Unpacker::data`].
    Data,
    /// All bytes of the member have come.
    MemberEnd,
    /// The archive has ended; what follows is padding.
    End,
}

/// Takes an archive apart as it comes.
#[derive(Debug, Default)]
pub struct Unpacker {
    buffer: Vec<u8>,
    /// Bytes of the buffer that have been taken.
    taken: usize,
    /// The last of them.
    data: Range<usize>,
    state: State,
    records: Records,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Header,
    /// Bytes of a file that are to come, and those that fill its last block up.
    Data(u64, u64),
    /// Bytes of a record of this kind, and those that fill its last block up.
    Record(u8, u64, u64),
    Padding(u64),
    End,
}

/// What records say of the next member.
#[derive(Debug, Default)]
struct Records {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    modified_s: Option<i64>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Unpacker {
    /// Takes in more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        (self.taken, self.data) = (0, 0..0);
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the archive has ended: one that stops before was cut off.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// What comes next.
    ///
    /// # Errors
    /// Why the bytes are not an archive.
    pub fn step(&mut self) -> Result<Step, &'static str> {
        loop {
            let there = self.buffer.len() - self.taken;
            match self.state {
                State::End => return Ok(Step::End),
                State::Header if there < BLOCK_BYTES => return Ok(Step::More),
                State::Header => {
                    let header: [u8; BLOCK_BYTES] = self
                        .take(BLOCK_BYTES)
                        .try_into()
                        .map_err(|_| "a header is cut short")?;
                    if let Some(member) = self.header(&header)? {
                        return Ok(Step::Member(member));
                    }
                }
                State::Data(0, padding) => {
                    self.state = State::Padding(padding);
                    return Ok(Step::MemberEnd);
                }
                State::Data(_, _) if there == 0 => return Ok(Step::More),
                State::Data(left, padding) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(there);
                    self.state = State::Data(left - count as u64, padding);
                    self.take(count);
                    return Ok(Step::Data);
                }
                State::Padding(0) => self.state = State::Header,
                State::Padding(_) if there == 0 => return Ok(Step::More),
                State::Padding(left) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(there);
                    self.take(count);
                    self.state = State::Padding(left - count as u64);
                }
                State::Record(kind, size, padding) => {
                    let size = usize::try_from(size).unwrap_or(usize::MAX);
                    if there < size {
                        return Ok(Step::More);
                    }
                    let bytes = self.take(size).to_vec();
                    self.records.read(kind, &bytes)?;
                    self.state = State::Padding(padding);
                }
            }
        }
    }

    /// The bytes that the last [step](Self::step) told of.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.buffer.get(self.data.clone()).unwrap_or_default()
    }

    fn take(&mut self, count: usize) -> &[u8] {
        let begin = self.taken;
        self.taken = (begin + count).min(self.buffer.len());
        self.data = begin..self.taken;
        self.data()
    }

    /// Reads one header; a member, unless it only announces one.
    fn header(&mut self, header: &[u8; BLOCK_BYTES]) -> Result<Option<Member>, &'static str> {
        if *header == [0; BLOCK_BYTES] {
            self.state = State::End;
            return Ok(None);
        }
        let number = |range| number(header.get::<Range<usize>>(range));
        if number(field::CHECKSUM)? != checksum(header) {
            return Err("a header is damaged, or this is no tar archive");
        }
        let size = number(field::SIZE)?;
        let kind = header[field::KIND];
        if matches!(kind, b'x' | b'g' | b'L' | b'K') {
            if size > MAX_RECORD_BYTES {
                return Err("a record before a member is too long");
            }
            self.state = State::Record(kind, size, padding(size));
            return Ok(None);
        }
        let records = core::mem::take(&mut self.records);
        let path = records.path.unwrap_or_else(|| path(header));
        let kind = match kind {
            0 | b'0' | b'7' if path.ends_with(b"/") => MemberKind::Directory,
            0 | b'0' | b'7' => MemberKind::File,
            b'1' => MemberKind::HardLink,
            b'2' => MemberKind::Symlink,
            b'5' => MemberKind::Directory,
            _ => MemberKind::Other,
        };
        // Of all others the size has no meaning, but that it is skipped.
        let size = match kind {
            MemberKind::File | MemberKind::Other => records.size.unwrap_or(size),
            _ => 0,
        };
        self.state = State::Data(size, padding(size));
        let low = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Some(Member {
            path,
            kind,
            mode: low(number(field::MODE)?) & 0o7777,
            uid: records.uid.unwrap_or(low(number(field::UID)?)),
            gid: records.gid.unwrap_or(low(number(field::GID)?)),
            size,
            modified_s: match records.modified_s {
                Some(seconds) => seconds,
                None => i64::try_from(number(field::MODIFIED)?).unwrap_or(0),
            },
            target: records
                .target
                .unwrap_or_else(|| until_nul(header.get(field::TARGET)).to_vec()),
        }))
    }
}

impl Records {
    fn read(&mut self, kind: u8, bytes: &[u8]) -> Result<(), &'static str> {
        match kind {
            b'L' => self.path = Some(until_nul(Some(bytes)).to_vec()),
            b'K' => self.target = Some(until_nul(Some(bytes)).to_vec()),
            b'x' => return self.pax(bytes),
            // What holds for all members is nothing that is looked at.
            _ => {}
        }
        Ok(())
    }

    fn pax(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "a pax record is malformed";
        while !bytes.is_empty() {
            let blank = bytes.iter().position(|byte| *byte == b' ').ok_or(BAD)?;
            let length = decimal(bytes.get(..blank).unwrap_or_default());
            let length = length.and_then(|length| usize::try_from(length).ok());
            let length = length.ok_or(BAD)?;
            let record = bytes.get(blank + 1..length).ok_or(BAD)?;
            let record = record.strip_suffix(b"\n").ok_or(BAD)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(BAD)?;
            let (name, value) = record.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            match name {
                // What follows is not the file's bytes then.
                name if name.starts_with(b"GNU.sparse") => {
                    return Err("it has a sparse file: make it without `--sparse`");
                }
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => {
                    let size = decimal(value).and_then(|size| u64::try_from(size).ok());
                    self.size = Some(size.ok_or(BAD)?);
                }
                b"uid" => self.uid = decimal(value).and_then(|uid| u32::try_from(uid).ok()),
                b"gid" => self.gid = decimal(value).and_then(|gid| u32::try_from(gid).ok()),
                b"mtime" => {
                    let whole = value.split(|byte| *byte == b'.').next();
                    self.modified_s = decimal(whole.unwrap_or_default());
                }
                _ => {}
            }
            bytes = bytes.get(length..).unwrap_or_default();
        }
        Ok(())
    }
}

fn path(header: &[u8; BLOCK_BYTES]) -> Vec<u8> {
    let name = until_nul(header.get(field::NAME));
    let prefix = until_nul(header.get(field::PREFIX));
    // GNU tar has other things at that place.
    let posix = header.get(field::MAGIC) == Some(MAGIC);
    if prefix.is_empty() || !posix {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

fn until_nul(bytes: Option<&[u8]>) -> &[u8] {
    let bytes = bytes.unwrap_or_default();
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn decimal(bytes: &[u8]) -> Option<i64> {
    core::str::from_utf8(bytes).ok()?.parse().ok()
}

/// A number of a header: octal, or binary with the highest bit set, as GNU tar writes large ones.
pub(super) fn number(bytes: Option<&[u8]>) -> Result<u64, &'static str> {
    const BAD: &str = "a number in a header is malformed";
    let bytes = bytes.unwrap_or_default();
    if bytes.first().is_some_and(|first| *first == 0x80) {
        let mut value: u64 = 0;
        for byte in bytes.iter().skip(1) {
            value = value.checked_mul(256).ok_or(BAD)? | u64::from(*byte);
        }
        return Ok(value);
    }
    if bytes.first().is_some_and(|first| *first == 0xff) {
        // Below zero: a time before 1970.
        return Ok(0);
    }
    let mut value: u64 = 0;
    for byte in bytes {
        match byte {
            b'0'..=b'7' => {
                value = value.checked_mul(8).ok_or(BAD)? | u64::from(byte - b'0');
            }
            b' ' | 0 if value == 0 => {}
            b' ' | 0 => break,
            _ => return Err(BAD),
        }
    }
    Ok(value)
}
