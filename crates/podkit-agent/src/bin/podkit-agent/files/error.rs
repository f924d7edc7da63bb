//! What the kernel says about a file, in words and in kinds that a caller can decide on.

use alloc::{format, string::String};

use podkit_agent::{Failure, FailureKind};
use rustix::io::Errno;

/// Most bytes of a path that are shown.
const MAX_SHOWN_BYTES: usize = 512;

/// A failure that names the path.
pub(crate) fn failure(path: &[u8], kind: FailureKind, errno: i32, why: &str) -> Failure {
    let shown = String::from_utf8_lossy(path.get(..MAX_SHOWN_BYTES).unwrap_or(path));
    Failure {
        kind,
        errno,
        message: format!("`{shown}`: {why}"),
    }
}

/// A path or option that cannot be meant.
pub(super) fn invalid(path: &[u8], why: &str) -> Failure {
    failure(path, FailureKind::InvalidInput, 0, why)
}

/// What the kernel refused.
pub(crate) fn refused(path: &[u8], errno: Errno) -> Failure {
    let number = errno.raw_os_error();
    match words(errno) {
        Some((kind, why)) => failure(path, kind, number, why),
        None => {
            let why = format!("the kernel refused (error {number})");
            failure(path, FailureKind::Unexpected, number, &why)
        }
    }
}

fn words(errno: Errno) -> Option<(FailureKind, &'static str)> {
    use FailureKind::{
        AlreadyExists, InvalidInput, LimitExceeded, NotFound, PermissionDenied, Unexpected,
        Unsupported,
    };
    Some(match errno {
        Errno::NOENT => (NotFound, "no such file or directory"),
        Errno::EXIST => (AlreadyExists, "it exists already"),
        Errno::ACCESS => (PermissionDenied, "the user may not do this"),
        Errno::PERM => (PermissionDenied, "this is not permitted"),
        Errno::ROFS => (PermissionDenied, "the file system is read-only"),
        Errno::NOSPC => (LimitExceeded, "no space is left"),
        Errno::DQUOT => (LimitExceeded, "the quota is used up"),
        Errno::FBIG => (LimitExceeded, "the file would be too large"),
        Errno::MFILE | Errno::NFILE => (LimitExceeded, "too many files are open"),
        Errno::NOMEM => (LimitExceeded, "out of memory"),
        Errno::MLINK => (LimitExceeded, "too many links"),
        Errno::NOTDIR => (
            InvalidInput,
            "it, or a part of its path, is not a directory",
        ),
        Errno::ISDIR => (InvalidInput, "it is a directory"),
        Errno::NOTEMPTY => (InvalidInput, "the directory is not empty"),
        Errno::NAMETOOLONG => (InvalidInput, "the name is too long"),
        Errno::LOOP => (InvalidInput, "too many symbolic links"),
        Errno::INVAL => (InvalidInput, "the kernel does not take this"),
        Errno::NXIO => (InvalidInput, "it is not a regular file"),
        Errno::XDEV => (Unsupported, "the target is on another file system"),
        Errno::OPNOTSUPP => (Unsupported, "the file system cannot do this"),
        Errno::BUSY => (Unexpected, "it is in use, as by a mount"),
        Errno::TXTBSY => (Unexpected, "it is a program that runs"),
        Errno::IO => (Unexpected, "input or output error"),
        _ => return None,
    })
}
