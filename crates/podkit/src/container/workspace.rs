//! Makes the directories of a workspace without following a link.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// Makes `base` and the directories `parts` below it where they are missing. All but the last are
/// for their owner only; the last is what the container sees. Blocks.
///
/// # Errors
/// `PermissionDenied` when one of the parts is a symbolic link; what the kernel says.
#[cfg(target_os = "linux")]
pub(super) fn make(base: &Path, parts: [&str; 3]) -> Result<()> {
    use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt};

    use rustix::{
        fs::{CWD, Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat, openat2},
        io::Errno,
    };

    let failed = |path: &Path, error: std::io::Error| {
        let kind = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::LOOP) => {
                ErrorKind::PermissionDenied
            }
            Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE) => {
                ErrorKind::LimitExceeded
            }
            Some(Errno::NOSYS) => ErrorKind::Unsupported,
            Some(Errno::NOTDIR | Errno::NAMETOOLONG) => ErrorKind::InvalidInput,
            _ => ErrorKind::Unexpected,
        };
        let what = match kind {
            ErrorKind::PermissionDenied
                if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) =>
            {
                "is a symbolic link, which a workspace never follows"
            }
            ErrorKind::Unsupported => "needs openat2(2), which this kernel or its filter lacks",
            _ => "cannot be made",
        };
        Error::new(
            kind,
            format!("the workspace directory `{}` {what}", path.display()),
        )
        .with_source(error)
    };

    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(base)
        .map_err(|error| failed(base, error))?;
    let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut path = base.to_owned();
    let mut at =
        openat(CWD, base, open, Mode::empty()).map_err(|error| failed(base, error.into()))?;
    let last = parts.len() - 1;
    for (index, part) in parts.into_iter().enumerate() {
        path.push(part);
        let made = match mkdirat(&at, part, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(failed(&path, error.into())),
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        at = openat2(&at, part, open, Mode::empty(), resolve)
            .map_err(|error| failed(&path, error.into()))?;
        if made && index == last {
            // Whatever the umask is: the container's other users enter it too.
            fchmod(&at, Mode::from_raw_mode(0o755)).map_err(|error| failed(&path, error.into()))?;
        }
    }
    Ok(())
}

/// Workspaces need `openat2(2)`, so that a link never leads out of them.
///
/// # Errors
/// `Unsupported`, always.
#[cfg(not(target_os = "linux"))]
pub(super) fn make(base: &Path, _parts: [&str; 3]) -> Result<()> {
    let _ = ErrorKind::Unsupported;
    Err(Error::unsupported(format!(
        "the workspace `{}` needs openat2(2), which only Linux has",
        base.display()
    )))
}
