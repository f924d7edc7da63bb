//! What containers leave on the host: processes, mounts, cgroups, namespaces, uid ranges, files.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{entries, wait_for};

/// Everything that a container may leave, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks at the host, and at the state below `place`.
    pub fn take(place: &Path) -> Self {
        let mut found = BTreeSet::new();
        found.extend(mounts(place));
        found.extend(namespaces());
        found.extend(cgroups());
        found.extend(ranges());
        let mut open = vec![place.join("state"), place.join("run")];
        while let Some(directory) = open.pop() {
            for path in entries(&directory) {
                if path.is_dir() && !path.is_symlink() {
                    open.push(path.clone());
                }
                found.insert(format!("file {}", path.display()));
            }
        }
        Self(found)
    }

    /// Waits until nothing is there that was not there before. Namespaces go a moment after the
    /// last process in them.
    pub fn assert_same(&self, place: &Path, about: &str) {
        wait_for(Duration::from_secs(15), || {
            let new: Vec<_> = Self::take(place).0.difference(&self.0).cloned().collect();
            if new.is_empty() {
                Ok(())
            } else {
                Err(format!("{about}: left behind: {new:#?}"))
            }
        });
    }
}

/// Mounts of this namespace below a place.
fn mounts(place: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = place.to_str().unwrap();
    let ours = text.lines().filter(|line| line.contains(place));
    ours.map(|line| format!("mount {line}")).collect()
}

/// Namespaces of every process, but the host's own.
fn namespaces() -> BTreeSet<String> {
    let own: BTreeSet<_> = links(Path::new("/proc/self/ns")).into_iter().collect();
    let mut found = BTreeSet::new();
    for process in entries(Path::new("/proc")) {
        let is_process = process
            .file_name()
            .unwrap()
            .as_encoded_bytes()
            .iter()
            .all(u8::is_ascii_digit);
        if is_process {
            found.extend(
                links(&process.join("ns"))
                    .into_iter()
                    .filter(|link| !own.contains(link)),
            );
        }
    }
    found
}

fn links(directory: &Path) -> Vec<String> {
    ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup"]
        .iter()
        .filter_map(|kind| fs::read_link(directory.join(kind)).ok())
        .map(|link| format!("namespace {}", link.display()))
        .collect()
}

fn cgroups() -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((directory, depth)) = open.pop() {
        for path in entries(&directory).into_iter().filter(|path| path.is_dir()) {
            if path.to_string_lossy().contains("podkit") {
                found.push(format!("cgroup {}", path.display()));
            }
            if depth < 6 {
                open.push((path, depth + 1));
            }
        }
    }
    found
}

/// Ranges of user ids that are taken, on this host.
fn ranges() -> Vec<String> {
    let taken = entries(Path::new("/var/lib/podkit/uid-ranges"));
    taken
        .iter()
        .map(|path| format!("uid range {}", path.display()))
        .collect()
}

/// Pids, on the host, of every process in the pid namespace of `init`.
pub fn processes_of(init: u32) -> Vec<u32> {
    let inode = |pid: u32| {
        fs::metadata(format!("/proc/{pid}/ns/pid"))
            .map(|m| m.ino())
            .ok()
    };
    let Some(namespace) = inode(init) else {
        return Vec::new();
    };
    entries(Path::new("/proc"))
        .iter()
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .filter(|&pid| inode(pid) == Some(namespace) && !is_zombie(pid))
        .collect()
}

fn is_zombie(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Most memory that a process ever held, in bytes.
pub fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}
