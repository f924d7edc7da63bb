//! Headers, as they are written.

use alloc::{format, vec::Vec};
use core::ops::Range;

use super::{BLOCK_BYTES, MAGIC, Member, MemberKind, checksum, field};

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
