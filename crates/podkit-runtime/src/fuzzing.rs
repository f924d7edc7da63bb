//! What the fuzzers run: each function takes any bytes, and panics where what is promised of them does
//! not hold. For `fuzz/` and the test that replays its corpus; no part of the interface.

#[path = "../../podkit-agent/src/fuzzing/choices.rs"]
mod choices;
#[path = "../../podkit-agent/src/fuzzing/on_disk.rs"]
mod on_disk;

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use tar::{EntryType, Header};

pub use self::on_disk::Target;
use self::{choices::Choices, on_disk::remove};
use crate::{
    image,
    store::{Config, Record},
    sys, validate,
};

/// All of this crate.
pub const TARGETS: &[Target] = &[("image", image), ("records", |input, _| records(input))];

/// Names are few, so that members meet each other.
const NAMES: &[&str] = &[
    "a", "b", "c", "..", ".", "", "outside", "root", "a/b", "b/a", "../..", "/",
];

/// Most bytes of a file whose bytes are not all in the archive: what is written is as much as is said.
const SPARSE_MOST: u64 = 64 * 1024;

/// An archive of any bytes or members as an image: nothing is made or changed outside of its directory.
pub fn image(input: &[u8], scratch: &Path) {
    let (root, outside) = (scratch.join("root"), scratch.join("outside"));
    if !outside.exists() {
        drop(fs::write(&outside, "mine"));
    }
    if fs::create_dir(&root).is_err() {
        return;
    }
    let facts = |path: &Path| {
        let facts = fs::symlink_metadata(path).ok()?;
        Some((
            facts.ino(),
            facts.mode(),
            facts.uid(),
            facts.nlink(),
            facts.mtime(),
        ))
    };
    let before = facts(&outside);
    let mut choices = Choices::new(input);
    let archive = match choices.below(8) {
        0 => choices.rest().to_vec(),
        1 => sealed(choices.rest()),
        _ => archive(&mut choices),
    };
    if !is_sparse(&archive) {
        drop(image::unpack(&archive[..], Path::new("/a.tar"), &root));
    }
    assert_eq!(before, facts(&outside));
    assert!(
        fs::read(&outside).is_ok_and(|bytes| bytes == b"mine"),
        "it was written"
    );
    let names = fs::read_dir(scratch).map(|names| names.flatten().count());
    assert!(names.is_ok_and(|count| count == 2), "something is outside");
    assert_plain(&root);
    remove(&root);
}

/// Whether a header says that a file has more bytes than the archive.
fn is_sparse(archive: &[u8]) -> bool {
    archive.chunks(512).any(|block| {
        let kind = block.get(156).copied().unwrap_or_default();
        let size = block.get(483..495).unwrap_or_default();
        let digits = std::str::from_utf8(size)
            .unwrap_or("x")
            .trim_matches(['\0', ' ']);
        kind == b'S' && !u64::from_str_radix(digits, 8).is_ok_and(|size| size <= SPARSE_MOST)
    })
}

/// Below a directory there are files, directories and links, of a container's ids.
fn assert_plain(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(facts) = fs::symlink_metadata(entry.path()) else {
            continue;
        };
        let kind = facts.file_type();
        let special = kind.is_block_device() || kind.is_char_device() || kind.is_fifo();
        assert!(!special && !kind.is_socket(), "{entry:?} is a device");
        // Who is not root owns all that is made.
        let own = |id: u32| id < 65_536 || id == sys::uid();
        assert!(own(facts.uid()), "{entry:?} is somebody else's");
        if kind.is_dir() {
            assert_plain(&entry.path());
        }
    }
}

/// An archive of any members.
fn archive(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut wire = Vec::new();
    for _ in 0..6 {
        if choices.is_empty() {
            break;
        }
        let kind = match choices.below(16) {
            0..=2 => EntryType::Regular,
            3..=5 => EntryType::Directory,
            6..=8 => EntryType::Symlink,
            9..=10 => EntryType::Link,
            11 => EntryType::Char,
            12 => EntryType::Fifo,
            13 => EntryType::GNULongName,
            14 => EntryType::GNULongLink,
            _ => EntryType::new(choices.u8()),
        };
        let (name, link) = (path(choices), path(choices));
        let data = match kind {
            EntryType::Regular => choices.take(3),
            EntryType::GNULongName | EntryType::GNULongLink => &path(choices),
            EntryType::Directory | EntryType::Symlink | EntryType::Link => &[],
            _ => choices.bytes(),
        };
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(u32::from(choices.u16()));
        header.set_uid(match choices.bool() {
            true => choices.u64(),
            false => choices.u32().into(),
        });
        header.set_gid(choices.u8().into());
        header.set_size(data.len() as u64);
        if let Some(header) = header.as_gnu_mut() {
            for (field, text) in [(&mut header.name, &name), (&mut header.linkname, &link)] {
                for (byte, letter) in field.iter_mut().zip(text) {
                    *byte = *letter;
                }
            }
        }
        header.set_cksum();
        wire.extend_from_slice(header.as_bytes());
        wire.extend_from_slice(data);
        wire.resize(wire.len().next_multiple_of(512), 0);
    }
    wire
}

/// Some names, with a slash before them or without, or bytes of any kind.
fn path(choices: &mut Choices<'_>) -> Vec<u8> {
    let how = choices.u8();
    if how >= 0xf0 {
        return choices.bytes().to_vec();
    }
    let names = (0..how % 5).map(|_| {
        let at = usize::from(choices.u8()) % NAMES.len();
        NAMES.get(at).copied().unwrap_or_default()
    });
    names.collect::<Vec<_>>().join("/").into_bytes()
}

/// The bytes, with right checksums wherever a header may be: no mutation finds those by itself.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        let mut header = Header::from_byte_slice(block).clone();
        if block.iter().any(|byte| *byte != 0) {
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    bytes
}

/// What is on disk of a container: what is read can be written and read again, and judged.
pub fn records(input: &[u8]) {
    if let Ok(config) = serde_json::from_slice::<Config>(input) {
        let written = serde_json::to_vec(&config).unwrap_or_default();
        let again = serde_json::from_slice::<Config>(&written);
        assert!(again.is_ok_and(|again| {
            again.spec == config.spec && serde_json::to_vec(&again).ok() == Some(written)
        }));
        if validate::order(&config.spec).is_ok() {
            let name = &config.spec.name;
            assert!(!name.contains('/') && !name.starts_with('.') && !name.is_empty());
            let mounts = config.spec.mounts.iter();
            let mut targets = mounts.map(crate::spec::Mount::target);
            assert!(targets.all(|target| target.is_absolute() && !target.starts_with("/proc")));
            assert!(config.spec.shm_bytes >= 4096 && validate::shm_bytes(&config.spec) >= 4096);
        }
    }
    if let Ok(record) = serde_json::from_slice::<Record>(input) {
        let again = serde_json::from_slice::<Record>(&record.bytes());
        assert_eq!(again.ok().as_ref(), Some(&record));
        if record.sequence < u64::MAX {
            assert_eq!(record.next().sequence, record.next().sequence_again);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpus_of_the_fuzzers_holds() {
        on_disk::replay(TARGETS);
    }
}
