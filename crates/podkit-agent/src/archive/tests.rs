//! What is written is read, and what others write; nothing else does harm.

use alloc::{format, vec, vec::Vec};

use super::{read::number, *};

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
