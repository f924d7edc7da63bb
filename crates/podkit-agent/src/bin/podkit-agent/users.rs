//! Who a command runs as. Only for short-lived children: what is read belongs to the container.

use alloc::{format, vec::Vec};

pub(crate) use podkit_agent::passwd::Identity;
use podkit_agent::{Failure, FailureKind};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, fstat, openat},
    io::{Errno, read},
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// Bytes of `/etc/passwd` and `/etc/group` that are looked at.
const MOST: usize = 1024 * 1024;

/// Looks a user up: `user`, `uid`, `user:group`, `uid:gid`; root when it is empty.
pub(crate) fn resolve(spec: &[u8]) -> Result<Identity, Failure> {
    Identity::resolve(spec, &contents("/etc/passwd"), &contents("/etc/group"))
}

/// A regular file, up to [`MOST`] bytes; nothing for what is missing or something else. A FIFO in
/// its place must not hold this up.
fn contents(path: &str) -> Vec<u8> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = openat(CWD, path, flags, Mode::empty()) else {
        return Vec::new();
    };
    let is_file = fstat(&file)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    let mut bytes = Vec::new();
    let mut buffer = alloc::vec![0_u8; 16 * 1024];
    while is_file && bytes.len() < MOST {
        match read(&file, buffer.as_mut_slice()) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    bytes.truncate(MOST);
    bytes
}

/// Becomes that user for good. Root keeps its capabilities; others lose them by the kernel's rule.
pub(crate) fn become_user(identity: &Identity) -> Result<(), Failure> {
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    match set_thread_groups(&groups) {
        // In a user namespace with one id nobody may change them, and there are none to have.
        Err(Errno::PERM) => {}
        other => other.map_err(|errno| refused(errno, "supplementary groups", identity.gid))?,
    }
    set_thread_res_gid(gid, gid, gid).map_err(|errno| refused(errno, "group", identity.gid))?;
    set_thread_res_uid(uid, uid, uid).map_err(|errno| refused(errno, "user", identity.uid))
}

fn refused(errno: Errno, what: &str, id: u32) -> Failure {
    let (kind, why) = match errno {
        Errno::INVAL => (FailureKind::InvalidInput, "this container has no such id"),
        Errno::AGAIN => (
            FailureKind::LimitExceeded,
            "its limit of processes is reached",
        ),
        _ => (FailureKind::PermissionDenied, "the kernel refused"),
    };
    Failure {
        kind,
        errno: errno.raw_os_error(),
        message: format!("become {what} {id}: {why}"),
    }
}
