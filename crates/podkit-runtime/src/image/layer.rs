//! Directories, files and links of a layer that the engine makes itself.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Result},
    store::Store,
};

/// What is below every image, so that no place of a mount has to be made in each container.
const PLACES: [(&str, u32); 10] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("workspace", 0o755),
];

/// The layer below every image that is not the host's.
pub(super) fn base(store: &Store) -> Result<PathBuf> {
    super::publish(store, "base-1", places)
}

/// Makes what every root has.
pub(super) fn places(root: &Path) -> Result<()> {
    for (name, mode) in PLACES {
        directory(&root.join(name), mode)?;
    }
    directory(&root.join("var/tmp"), 0o1777)?;
    directory(&root.join("var/lib"), 0o755)?;
    link(&root.join("var/run"), Path::new("/run"))
}

/// Makes a directory with exactly this mode.
pub(super) fn directory(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .context(|| format!("make `{}`", path.display()))
}

/// Makes a directory with those above it, up to one that exists.
pub(super) fn directories(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        directories(parent)?;
    }
    directory(path, 0o755)
}

/// Writes a file with exactly this mode.
pub(super) fn file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.set_permissions(Permissions::from_mode(mode))
        })
        .context(|| format!("write `{}`", path.display()))
}

/// Makes a link.
pub(super) fn link(path: &Path, target: &Path) -> Result<()> {
    symlink(target, path).context(|| format!("make `{}`", path.display()))
}
