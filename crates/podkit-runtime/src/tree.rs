//! Removing trees of files that somebody hostile made.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    ffi::CString,
    fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, openat, renameat, unlinkat},
    io::Errno,
};

use crate::error::{Context, Result};

/// Directories that are open at once. What lies deeper is moved up first, so a tree of any depth
/// costs neither stack nor descriptors.
const DEPTH_MAX: u32 = 48;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Removes a tree. Succeeds when there is none. Never follows a link.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let done = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => remove_directory(path).map_err(std::io::Error::from),
        Ok(_) => fs::remove_file(path),
    };
    match done {
        // Somebody else removes it as well.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("remove `{}`", path.display())),
    }
}

fn remove_directory(path: &Path) -> std::result::Result<(), Errno> {
    let top = open(CWD, path)?;
    let mut moved = 0_u64;
    loop {
        let before = moved;
        clear(top.as_fd(), top.as_fd(), 0, &mut moved)?;
        // What was moved up while the top was read may not have been seen.
        if moved == before {
            break;
        }
    }
    drop(top);
    unlinkat(CWD, path, AtFlags::REMOVEDIR)
}

fn open(
    parent: BorrowedFd<'_>,
    name: impl rustix::path::Arg + Copy,
) -> std::result::Result<OwnedFd, Errno> {
    match openat(parent, name, DIRECTORY, Mode::empty()) {
        // Its owner took the right to read it away.
        Err(Errno::ACCESS) => {
            chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(parent, name, DIRECTORY, Mode::empty())
        }
        other => other,
    }
}

/// Empties a directory; moves what is too deep to `top`.
fn clear(
    directory: BorrowedFd<'_>,
    top: BorrowedFd<'_>,
    depth: u32,
    moved: &mut u64,
) -> std::result::Result<(), Errno> {
    let names = names(directory)?;
    for name in &names {
        let name = name.as_c_str();
        let kind = unlink(directory, name)?;
        if kind == Kind::Gone {
            continue;
        }
        if depth >= DEPTH_MAX {
            *moved += 1;
            // The top is the engine's own directory, in which no container makes names.
            let target = format!(".deep-{}-{moved}", std::process::id());
            renameat(directory, name, top, target)?;
            continue;
        }
        let below = match open(directory, name) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        clear(below.as_fd(), top, depth + 1, moved)?;
        drop(below);
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Kind {
    Gone,
    Directory,
}

fn unlink(directory: BorrowedFd<'_>, name: &std::ffi::CStr) -> std::result::Result<Kind, Errno> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Kind::Gone),
        // Linux says the former, POSIX the latter.
        Err(Errno::ISDIR | Errno::PERM) => Ok(Kind::Directory),
        // Its owner took the right to write the directory away.
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(directory, Mode::RWXU)?;
            match unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(Kind::Gone),
                Err(Errno::ISDIR | Errno::PERM) => Ok(Kind::Directory),
                Err(errno) => Err(errno),
            }
        }
        Err(errno) => Err(errno),
    }
}

fn names(directory: BorrowedFd<'_>) -> std::result::Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn links_are_removed_and_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let kept = place.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        let tree = place.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        symlink(&kept, tree.join("a/link")).unwrap();
        fs::set_permissions(tree.join("a"), fs::Permissions::from_mode(0o0)).unwrap();
        remove(&tree).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(kept.join("file").is_file());
    }

    #[test]
    fn trees_of_any_depth_are_removed() {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = open(CWD, &tree).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open(at.as_fd(), "d").unwrap();
        }
        drop(at);
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
