//! Archives.

use alloc::{format, vec, vec::Vec};
use core::ops::Range;

use super::{Choices, pieces};
use crate::archive::{
    ARCHIVE_END, BLOCK_BYTES, Member, MemberKind, Step, Unpacker, padding, parts,
};

/// Where a header has its checksum.
const CHECKSUM: Range<usize> = 148..156;

/// What comes of an archive: members, their bytes, and whether all of them came.
type Unpacked = (Vec<(Member, Vec<u8>, bool)>, Result<bool, &'static str>);

/// An archive of any bytes, and one that was written from any members.
pub fn archive(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.below(3) {
        0 => drop(any(choices.rest())),
        1 => drop(any(&sealed(choices.rest()))),
        _ => {
            let members = members(&mut choices);
            let mut wire = Vec::new();
            for (member, data) in &members {
                member.encode(&mut wire);
                wire.extend_from_slice(data);
                wire.resize(wire.len().next_multiple_of(BLOCK_BYTES), 0);
            }
            wire.extend_from_slice(&ARCHIVE_END);
            let (read, end) = any(&wire);
            assert_eq!(end, Ok(true));
            assert_eq!(read.len(), members.len());
            for ((one, data, whole), (other, bytes)) in read.iter().zip(&members) {
                assert!(*whole);
                assert_eq!((one, data), (other, bytes), "written and read");
            }
        }
    }
}

/// Members as they can be written and read again.
fn members(choices: &mut Choices<'_>) -> Vec<(Member, Vec<u8>)> {
    let mut members = Vec::new();
    while !choices.is_empty() && members.len() < 8 {
        let kind = match choices.below(4) {
            0 => MemberKind::File,
            1 => MemberKind::Directory,
            2 => MemberKind::Symlink,
            _ => MemberKind::HardLink,
        };
        let text = |choices: &mut Choices<'_>| {
            let (times, text) = (usize::from(choices.u8() >> 5), choices.bytes());
            // Longer than what a header holds now and then.
            let text = text.repeat(1 + times);
            text.into_iter()
                .filter(|byte| *byte != 0)
                .collect::<Vec<u8>>()
        };
        let mut path = text(choices);
        let target = text(choices);
        if kind == MemberKind::File && path.ends_with(b"/") {
            path.push(b'x');
        }
        let data = match kind {
            MemberKind::File => choices.bytes().repeat(usize::from(choices.u8() >> 6)),
            _ => Vec::new(),
        };
        members.push((
            Member {
                path,
                kind,
                mode: u32::from(choices.u16()) & 0o7777,
                uid: choices.u32(),
                gid: u32::from(choices.u8()),
                size: data.len() as u64,
                modified_s: i64::from_le_bytes(choices.u64().to_le_bytes()) >> choices.below(64),
                target,
            },
            data,
        ));
    }
    members
}

/// Any bytes, read whole and in pieces.
fn any(wire: &[u8]) -> Unpacked {
    let whole = unpack(&[wire]);
    assert_eq!(
        unpack(&pieces(wire)),
        whole,
        "where it is cut does not matter"
    );
    let mut bytes = 0;
    for (member, data, complete) in &whole.0 {
        bytes += data.len();
        assert!(data.len() as u64 <= member.size);
        assert_eq!(*complete, data.len() as u64 == member.size);
        let bodiless = !matches!(member.kind, MemberKind::File | MemberKind::Other);
        assert!(!bodiless || member.size == 0);
        assert!(member.mode <= 0o7777);
        assert!(padding(member.size) < BLOCK_BYTES as u64);
        let Ok(names) = parts(&member.path) else {
            continue;
        };
        assert!(!member.path.starts_with(b"/"));
        for name in names {
            assert!(!matches!(name, b"" | b"." | b".."), "{name:?}");
            assert!(!name.contains(&b'/') && !name.contains(&0), "{name:?}");
        }
    }
    assert!(bytes <= wire.len(), "bytes that never came");
    whole
}

fn unpack(pieces: &[&[u8]]) -> Unpacked {
    let (mut unpacker, mut found) = (Unpacker::default(), Vec::<(Member, Vec<u8>, bool)>::new());
    for piece in pieces {
        unpacker.push(piece);
        loop {
            match (unpacker.step(), found.last_mut()) {
                (Ok(Step::More), _) => break,
                (Ok(Step::End), _) => return (found, Ok(unpacker.is_over())),
                (Ok(Step::Member(member)), _) => {
                    // Without bytes it is complete at once, as far as anybody can tell.
                    let whole = member.size == 0;
                    found.push((member, vec![], whole));
                }
                (Ok(Step::Data), Some((member, bytes, whole))) => {
                    bytes.extend_from_slice(unpacker.data());
                    *whole = bytes.len() as u64 == member.size;
                }
                (Ok(Step::MemberEnd), Some((_, _, whole))) => assert!(*whole),
                (Ok(_), None) => assert_eq!(found.len(), usize::MAX, "bytes of no member"),
                (Err(why), _) => return (found, Err(why)),
            }
        }
    }
    (found, Ok(false))
}

/// The bytes, with right checksums wherever a header may be: no mutation finds those by itself.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK_BYTES) {
        if block.iter().any(|byte| *byte != 0) {
            let (before, rest) = block.split_at_mut(CHECKSUM.start);
            let (field, after) = rest.split_at_mut(CHECKSUM.len());
            let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
            let sum = sum(before) + sum(after) + sum(&[b' '; 8]);
            field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}
