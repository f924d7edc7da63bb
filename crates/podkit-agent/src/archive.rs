//! Trees of files as one stream of bytes: the tar format.
//!
//! Written as ustar, with pax records for what does not fit; read as that and as GNU tar writes it.
//! No IO, and no panics on hostile input.

use alloc::{format, vec::Vec};
use core::ops::Range;

/// What headers and contents are padded to.
pub const BLOCK_BYTES: usize = 512;

/// What ends an archive.
pub const ARCHIVE_END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// Most bytes of the records before one member.
const MAX_RECORD_BYTES: u64 = 64 * 1024;

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

impl Member {
    /// Appends its header to `out`; the bytes and their [`padding`] are the caller's affair.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            MemberKind::File | MemberKind::Other => b'0',
            MemberKind::HardLink => b'1',
            MemberKind::Symlink => b'2',
            MemberKind::Directory => b'5',
        };
        let mut records = Vec::new();
        let mut header = [0; BLOCK_BYTES];
        text(&mut header, field::NAME, &self.path, ("path", &mut records));
        let target = &self.target;
        text(
            &mut header,
            field::TARGET,
            target,
            ("linkpath", &mut records),
        );
        let modified = u64::try_from(self.modified_s);
        for (range, value, name) in [
            (field::MODE, Ok(u64::from(self.mode & 0o7777)), "mode"),
            (field::UID, Ok(u64::from(self.uid)), "uid"),
            (field::GID, Ok(u64::from(self.gid)), "gid"),
            (field::SIZE, Ok(self.size), "size"),
            (field::MODIFIED, modified, "mtime"),
        ] {
            if let Ok(value) = value
                && octal(&mut header, range, value)
            {
                continue;
            }
            let value = match value {
                Ok(value) => i64::try_from(value).unwrap_or(i64::MAX),
                Err(_) => self.modified_s,
            };
            let value = format!("{value}");
            record(&mut records, name, value.as_bytes());
        }
        if !records.is_empty() {
            let mut before = [0; BLOCK_BYTES];
            put(&mut before, field::NAME, b"pax");
            octal(&mut before, field::MODE, 0o644);
            octal(&mut before, field::SIZE, records.len() as u64);
            seal(&mut before, b'x');
            out.extend_from_slice(&before);
            out.extend_from_slice(&records);
            out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        seal(&mut header, kind);
        out.extend_from_slice(&header);
    }
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

fn put(header: &mut [u8; BLOCK_BYTES], range: Range<usize>, bytes: &[u8]) {
    if let Some(field) = header.get_mut(range)
        && let Some(field) = field.get_mut(..bytes.len())
    {
        field.copy_from_slice(bytes);
    }
}

/// Writes a text, as a record where it is too long.
fn text(
    header: &mut [u8; BLOCK_BYTES],
    range: Range<usize>,
    value: &[u8],
    (name, records): (&str, &mut Vec<u8>),
) {
    let room = range.len();
    if value.len() > room {
        record(records, name, value);
    }
    put(header, range, value.get(..room).unwrap_or(value));
}

/// Writes a number, unless it is too large.
fn octal(header: &mut [u8; BLOCK_BYTES], range: Range<usize>, mut value: u64) -> bool {
    let Some((_, digits)) = header
        .get_mut(range)
        .and_then(|field| field.split_last_mut())
    else {
        return false;
    };
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    value == 0
}

/// One pax record: its own length in digits, a name, a value.
fn record(records: &mut Vec<u8>, name: &str, value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while format!("{length}").len() + rest > length {
        length += 1;
    }
    records.extend_from_slice(format!("{length} {name}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Writes kind, magic and checksum.
fn seal(header: &mut [u8; BLOCK_BYTES], kind: u8) {
    header[field::KIND] = kind;
    put(header, field::MAGIC, MAGIC);
    let sum = checksum(header);
    put(header, field::CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
}

/// The sum of all bytes, with the field for it as blanks.
fn checksum(header: &[u8]) -> u64 {
    let bytes = header.iter().enumerate();
    let bytes = bytes.map(|(at, byte)| match field::CHECKSUM.contains(&at) {
        true => u64::from(b' '),
        false => u64::from(*byte),
    });
    bytes.sum()
}

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
        if header.iter().all(|byte| *byte == 0) {
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
fn number(bytes: Option<&[u8]>) -> Result<u64, &'static str> {
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

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn member(path: &[u8], kind: MemberKind) -> Member {
        Member {
            path: path.to_vec(),
            kind,
            mode: 0o640,
            uid: 1000,
            gid: 100,
            size: 0,
            modified_s: 1_700_000_000,
            target: Vec::new(),
        }
    }

    /// All members with their bytes, given to the unpacker in pieces of `size`.
    fn unpack(bytes: &[u8], size: usize) -> Result<Vec<(Member, Vec<u8>)>, &'static str> {
        let (mut unpacker, mut found) = (Unpacker::default(), Vec::new());
        for piece in bytes.chunks(size) {
            unpacker.push(piece);
            loop {
                match unpacker.step()? {
                    Step::More | Step::End => break,
                    Step::Member(member) => found.push((member, Vec::new())),
                    Step::Data => {
                        let (_, bytes) = found.last_mut().ok_or("data without a member")?;
                        bytes.extend_from_slice(unpacker.data());
                    }
                    Step::MemberEnd => {}
                }
            }
        }
        match unpacker.is_over() {
            true => Ok(found),
            false => Err("cut off"),
        }
    }

    #[test]
    fn archive_is_read_as_it_was_written() {
        let long = [b"long/".repeat(60), b"name".to_vec()].concat();
        let mut members = vec![
            (member(b".", MemberKind::Directory), vec![]),
            (member(b"a", MemberKind::File), b"hello".to_vec()),
            (member(b"full", MemberKind::File), vec![7; 1024]),
            (member(&long, MemberKind::File), vec![1; 513]),
            (member(b"link", MemberKind::Symlink), vec![]),
            (member(b"old", MemberKind::Directory), vec![]),
            (member(b"other", MemberKind::HardLink), vec![]),
        ];
        members[4].0.target = long.clone();
        members[5].0.modified_s = -5;
        members[5].0.uid = u32::MAX - 1;
        members[6].0.target = b"a".to_vec();
        let mut bytes = Vec::new();
        for (member, data) in &mut members {
            member.size = data.len() as u64;
            member.encode(&mut bytes);
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        bytes.extend_from_slice(&ARCHIVE_END);
        for size in [1, 7, 512, 1000, bytes.len()] {
            assert_eq!(unpack(&bytes, size).unwrap(), members, "{size}");
        }
        assert_eq!(bytes.len() % BLOCK_BYTES, 0);
        let cut = bytes.len() - 1024;
        assert_eq!(unpack(bytes.get(..cut).unwrap(), 512), Err("cut off"));
    }

    #[test]
    fn archive_of_any_bytes_is_refused_or_read() {
        let mut good = Vec::new();
        let mut file = member(b"a/b", MemberKind::File);
        file.size = 600;
        file.encode(&mut good);
        good.resize(good.len() + 1024, 5);
        let long = member(&b"x".repeat(300), MemberKind::Directory);
        long.encode(&mut good);
        good.extend_from_slice(&ARCHIVE_END);
        let mut state: u32 = 1;
        for _ in 0..2000 {
            let mut bad = good.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (state >> 8) as usize % bad.len();
                bad[at] = state.to_le_bytes()[1];
            }
            // What the checksum would catch is let through.
            for block in bad.chunks_mut(BLOCK_BYTES).step_by(1) {
                let sum = checksum(block);
                block[field::CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let _ = unpack(&bad, 700);
        }
    }

    #[test]
    fn parts_refuse_what_leads_elsewhere() {
        let names = parts(b"./a//b/").unwrap();
        assert_eq!(names, [b"a", b"b"]);
        assert!(parts(b"./").unwrap().is_empty());
        for bad in [&b"/etc"[..], b"..", b"a/../b", b"a/..", b"a\0b"] {
            assert!(parts(bad).is_err(), "{bad:?}");
        }
        assert!(parts(&b"a/".repeat(600)).is_err());
    }

    #[test]
    fn numbers_are_read_as_all_tars_write_them() {
        let read = |bytes: &[u8]| number(Some(bytes));
        assert_eq!(read(b"0000644\0"), Ok(0o644));
        assert_eq!(read(b"   644 \0"), Ok(0o644));
        assert_eq!(read(b"\0\0\0"), Ok(0));
        assert_eq!(read(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Ok(2 << 32));
        assert!(read(b"12x").is_err());
        assert!(read(b"777777777777777777777777").is_err());
    }
}
