//! Trees that come out of a container, and the links in them.
#![expect(
    clippy::missing_panics_doc,
    reason = "a panic is how a fuzzer is told of what does not hold"
)]

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use podkit_agent::archive::{ARCHIVE_END, BLOCK_BYTES, Member, MemberKind};
use tokio::sync::mpsc;

use super::{
    Counts, download,
    local::{Link, stays_inside},
};
use crate::fuzzing::{Choices, remove};

/// Names are few, so that members meet each other.
const NAMES: &[&str] = &[
    "a", "b", "c", "..", ".", "", "outside", "to", "a/b", "b/a", "../..", "c/",
];

/// Most members of one archive.
const MOST: u8 = 4;

/// What a container has sent.
#[derive(Default)]
struct Sent {
    wire: Vec<u8>,
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Whether there are files beside those.
    is_raw: bool,
}

/// Two archives that a container sends one after the other to the same directory: nothing is made or
/// changed outside of it, and nothing in it leads out.
pub fn tree(input: &[u8], scratch: &Path) {
    let (to, outside) = (scratch.join("to"), scratch.join("outside"));
    if !outside.exists() {
        drop(fs::write(&outside, "mine"));
    }
    let before =
        fs::symlink_metadata(&outside).map(|facts| (facts.ino(), facts.mode(), facts.mtime()));
    let mut choices = Choices::new(input);
    let mut sent = Sent::default();
    for _ in 0..2 {
        let archive = if choices.below(8) == 7 {
            sent.is_raw = true;
            choices.rest().to_vec()
        } else {
            archive(&mut choices, &mut sent.files)
        };
        sent.wire.extend_from_slice(&archive);
        let (sender, receiver) = mpsc::channel(super::WAITING_CHUNKS);
        let cut = usize::from(choices.u8()) * 8;
        let (first, last) = archive.split_at(cut.min(archive.len()));
        for part in [first, last] {
            drop(sender.try_send(bytes::Bytes::copy_from_slice(part)));
        }
        drop(sender);
        drop(download::make(&to, 0o755, receiver, &Counts::default()));
    }
    assert_inside(&to, Path::new(""), &sent);
    let after =
        fs::symlink_metadata(&outside).map(|facts| (facts.ino(), facts.mode(), facts.mtime()));
    assert_eq!(before.ok(), after.ok());
    assert!(
        fs::read(&outside).is_ok_and(|bytes| bytes == b"mine"),
        "it was written"
    );
    let names = fs::read_dir(scratch).map(|names| names.flatten().count());
    assert!(names.is_ok_and(|count| count <= 2), "something is outside");
    remove(&to);
}

/// An archive of any members; keeps what was sent.
fn archive(choices: &mut Choices<'_>, sent: &mut Vec<(PathBuf, Vec<u8>)>) -> Vec<u8> {
    let mut wire = Vec::new();
    for _ in 0..=choices.below(MOST) {
        let kind = match choices.below(8) {
            0 | 1 => MemberKind::File,
            2 | 3 => MemberKind::Directory,
            4..=6 => MemberKind::Symlink,
            _ => MemberKind::HardLink,
        };
        let data = match kind {
            MemberKind::File => choices.take(2).to_vec(),
            _ => Vec::new(),
        };
        let member = Member {
            path: path(choices),
            kind,
            mode: u32::from(choices.u16()) & 0o7777,
            uid: choices.u32(),
            gid: 0,
            size: data.len() as u64,
            modified_s: choices.u64().cast_signed() >> choices.below(64),
            target: path(choices),
        };
        member.encode(&mut wire);
        wire.extend_from_slice(&data);
        wire.resize(wire.len().next_multiple_of(BLOCK_BYTES), 0);
        if kind == MemberKind::File {
            let path = Path::new(OsStr::from_bytes(&member.path)).components();
            let names = path.filter(|part| matches!(part, Component::Normal(_)));
            sent.push((names.collect(), data));
        }
    }
    if !choices.bool() {
        wire.extend_from_slice(&ARCHIVE_END);
    }
    wire
}

/// Some names, with a slash before them or without, or bytes of any kind.
fn path(choices: &mut Choices<'_>) -> Vec<u8> {
    let how = choices.u8();
    if how >= 0xf0 {
        let bytes = choices.bytes().iter().copied();
        return bytes.filter(|byte| *byte != 0).collect();
    }
    let names = (0..how % 5).map(|_| {
        let at = usize::from(choices.u8()) % NAMES.len();
        NAMES.get(at).copied().unwrap_or_default()
    });
    let path = names.collect::<Vec<_>>().join("/");
    match how & 0xe0 {
        0x20 => format!("/{path}").into_bytes(),
        _ => path.into_bytes(),
    }
}

/// All below a directory is what a transfer may make there.
fn assert_inside(to: &Path, below: &Path, sent: &Sent) {
    for entry in fs::read_dir(to.join(below)).into_iter().flatten().flatten() {
        let path = below.join(entry.file_name());
        let Ok(facts) = fs::symlink_metadata(to.join(&path)) else {
            continue;
        };
        let name = entry.file_name();
        let mut said = sent.wire.windows(name.len());
        assert!(
            said.any(|said| said == name.as_bytes()),
            "nobody has named {path:?}"
        );
        let kind = facts.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(to.join(&path)).unwrap_or_default();
            assert_stays(&path, &target);
            if let (Ok(end), Ok(top)) = (fs::canonicalize(to.join(&path)), fs::canonicalize(to)) {
                assert!(end.starts_with(top), "{path:?} leads to {end:?}");
            }
            continue;
        }
        assert_eq!(
            facts.mode() & 0o7000,
            0,
            "{path:?} has bits for others' rights"
        );
        assert!(kind.is_dir() || kind.is_file(), "{path:?} is neither");
        if kind.is_dir() {
            assert_inside(to, &path, sent);
        } else if let Ok(bytes) = fs::read(to.join(&path)) {
            let whole = |(name, data): &(PathBuf, Vec<u8>)| *name == path && *data == bytes;
            assert!(
                sent.is_raw || sent.files.iter().any(whole),
                "{path:?} is not as it was sent"
            );
        }
    }
}

/// A link that stays inside, whatever the names on its way become: read here byte by byte.
fn assert_stays(path: &Path, target: &Path) {
    let mut above = path.components().count() - 1;
    let (mut is_down, bytes) = (false, target.as_os_str().as_bytes());
    assert!(
        !bytes.is_empty() && !bytes.starts_with(b"/"),
        "{target:?} is no link"
    );
    for part in bytes.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                assert!(!is_down && above > 0, "{path:?} to {target:?} leads out");
                above -= 1;
            }
            _ => is_down = true,
        }
    }
}

/// What a name of a made-up tree is.
#[derive(Debug)]
enum Node {
    Directory,
    Link(PathBuf),
}

/// Any links that are let into a tree, and any directories: none of the names leads above the top,
/// followed as a kernel does.
pub fn links(input: &[u8]) {
    let mut choices = Choices::new(input);
    let mut nodes: BTreeMap<PathBuf, Node> = BTreeMap::new();
    for _ in 0..16 {
        if choices.is_empty() {
            break;
        }
        let mut place = PathBuf::new();
        for _ in 0..=choices.below(3) {
            place.push(["a", "b", "c", "d"][usize::from(choices.below(4))]);
        }
        let target = PathBuf::from(OsStr::from_bytes(&path(&mut choices)));
        let link = Link {
            path: place.clone(),
            target: target.clone(),
        };
        let is_link = choices.bool() && stays_inside(&link);
        if is_link {
            assert_stays(&place, &target);
        }
        // What comes later replaces what was there: also a directory that others were found by.
        let node = match is_link {
            true => Node::Link(target),
            false => Node::Directory,
        };
        nodes.insert(place, node);
    }
    for name in nodes.keys() {
        assert!(follow(&nodes, name), "{name:?} leads out of {nodes:?}");
    }
}

/// Whether a walk along a name stays below the top, to its end or as far as it comes.
fn follow(nodes: &BTreeMap<PathBuf, Node>, name: &Path) -> bool {
    let mut to_go: Vec<PathBuf> = name.iter().rev().map(PathBuf::from).collect();
    let (mut at, mut links) = (PathBuf::new(), 0);
    while let Some(part) = to_go.pop() {
        match part.components().next() {
            Some(Component::ParentDir) if at.pop() => {}
            Some(Component::ParentDir | Component::RootDir) => return false,
            Some(Component::Normal(name)) => {
                at.push(name);
                if let Some(Node::Link(target)) = nodes.get(&at) {
                    links += 1;
                    if links > 40 {
                        return true;
                    }
                    at.pop();
                    to_go.extend(target.iter().rev().map(PathBuf::from));
                }
            }
            _ => {}
        }
    }
    true
}
