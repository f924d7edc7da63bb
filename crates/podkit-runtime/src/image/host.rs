//! The `host` image: the host's programs, read-only, with an `/etc` of its own.
//!
//! Programs and libraries are bound as they are, not with the container's ids: else a file that
//! only the host's root may read would open to the container's root.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use podkit_agent::plan::MountPlan;

use super::{ETC_FILES, Image, etc, layer};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    store::{Store, fnv},
    validate,
};

/// Names of layers begin with this. The number changes when what is in a layer does.
pub(super) const PREFIX: &str = "host-1-";

/// What is shown of the host.
const SHOWN: [&str; 10] = [
    "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32", "nix", "gnu",
];

/// Entries below the further paths that are looked at for sockets.
const ENTRIES_MAX: usize = 1_000_000;

pub(super) fn resolve(store: &Store, paths: &[PathBuf]) -> Result<Image> {
    let layer = layer(store)?;
    let name = layer.file_name().unwrap_or_default();
    let mut binds = Vec::new();
    for shown in SHOWN {
        let source = Path::new("/").join(shown);
        let found = fs::symlink_metadata(&source);
        if found.is_ok_and(|metadata| metadata.is_dir()) {
            binds.push(bind(&source)?);
        }
    }
    for path in paths {
        binds.push(bind(path)?);
    }
    Ok(Image {
        layer: name.to_string_lossy().into_owned(),
        lowers: vec![layer],
        binds,
        writable_etc: ETC_FILES.to_vec(),
    })
}

fn bind(source: &Path) -> Result<MountPlan> {
    let metadata = validate::look(source)?;
    let path = source.as_os_str().as_encoded_bytes().to_vec();
    Ok(MountPlan::Bind {
        identity: (metadata.dev(), metadata.ino()),
        directory: metadata.is_dir(),
        target: path.clone(),
        source: path,
        read_only: true,
        no_exec: false,
        recursive: false,
        owner: None,
    })
}

/// The layer that belongs to what the host has now.
pub(super) fn layer(store: &Store) -> Result<PathBuf> {
    super::publish(store, &layer_name(), |root| {
        layer::places(root)?;
        for shown in SHOWN {
            let source = Path::new("/").join(shown);
            let Ok(metadata) = fs::symlink_metadata(&source) else {
                continue;
            };
            if metadata.is_symlink() {
                let target =
                    fs::read_link(&source).context(|| format!("read `{}`", source.display()))?;
                layer::link(&root.join(shown), &target)?;
            } else if metadata.is_dir() {
                layer::directory(&root.join(shown), 0o755)?;
            }
        }
        etc::fill(&root.join("etc"))
    })
}

/// Named after all that it is made from, so that it is made anew when the host has changed.
pub(super) fn layer_name() -> String {
    let mut text = String::new();
    let shown = SHOWN.into_iter().map(|name| Path::new("/").join(name));
    let watched = etc::WATCHED
        .into_iter()
        .map(|name| Path::new("/etc").join(name));
    for path in shown.chain(watched) {
        use std::fmt::Write;
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        // What is bound may change as it likes; whether it is a link matters.
        let changed = if path.starts_with("/etc") {
            (metadata.mtime(), metadata.mtime_nsec())
        } else {
            (i64::from(metadata.is_symlink()), 0)
        };
        let _ = write!(text, "{} {changed:?} {} ", path.display(), metadata.ino());
    }
    format!("{PREFIX}{:016x}", fnv(text.as_bytes()))
}

/// Refuses further paths through which a container would reach more than files.
pub(super) fn check_paths(store: &Store, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        for own in [store.state_dir(), store.run_dir()] {
            if own.starts_with(path) || path.starts_with(own) {
                return Err(refuse(path, "it holds podkit's own state"));
            }
        }
        let top = path.components().nth(1);
        let taken = ["proc", "sys", "dev", "etc", "tmp", "workspace", "run"];
        if top.is_some_and(|top| taken.iter().any(|name| top.as_os_str() == *name)) {
            return Err(refuse(path, "a container has its own there"));
        }
        let mut left = ENTRIES_MAX;
        check_below(path, &mut left)?;
    }
    Ok(())
}

fn check_below(top: &Path, left: &mut usize) -> Result<()> {
    let mut open = vec![top.to_owned()];
    while let Some(directory) = open.pop() {
        // A file; or what the caller may not read, and the container even less.
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Err(refuse(top, "it has too many files to look for sockets"));
            }
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_socket() {
                return Err(refuse(
                    top,
                    &format!("`{}` is a socket", entry.path().display()),
                ));
            }
            if kind.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(())
}

fn refuse(path: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("`{}` cannot be shown: {why}", path.display()),
    )
}
