//! Copying out of a session. Names, links and modes come from the container and are not believed.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use podkit::{Error, ErrorKind, FileKind, Result};
use tokio::io::AsyncWriteExt as _;

use super::{
    Copy, MAX_DEPTH, base_name, join,
    local::{self, Directory, Link},
    local_error,
};
use crate::command::files::Counted;

/// Most entries of one copy, so that a lying agent cannot fill this machine's memory with names.
const MAX_ENTRIES: u64 = 10_000_000;

/// Copies a file or directory of the session to a local path.
pub(super) async fn download(copy: &mut Copy<'_>, from: &str, to: &Path) -> Result<()> {
    let entry = copy.files.stat(from).await?;
    let into = to.to_string_lossy().ends_with('/') || to.is_dir();
    let name = base_name(from).filter(|name| is_plain(name));
    let to = match name {
        Some(name) if into => to.join(name),
        None if entry.kind != FileKind::Directory => {
            return Err(Error::invalid_input(format!(
                "`{from}` has no name of its own"
            )));
        }
        _ => to.to_owned(),
    };
    let failed = |error| local_error("write", &to, error);
    match entry.kind {
        FileKind::Directory => {
            let root = match (to.parent(), to.file_name()) {
                (Some(parent), Some(name)) if !to.is_dir() => Directory::open(parent)
                    .and_then(|parent| parent.make_directory(name, entry.mode))
                    .map_err(failed)?,
                _ => Directory::open(&to).map_err(failed)?,
            };
            tree(copy, from, &to, root).await
        }
        FileKind::File | FileKind::Symlink => {
            let name = to.file_name().ok_or_else(|| {
                Error::invalid_input(format!("`{}` is not a name for a file", to.display()))
            })?;
            let parent = Directory::open(to.parent().unwrap_or(Path::new(""))).map_err(failed)?;
            file(copy, from, &to, &parent, name, entry.mode).await?;
            copy.entries += 1;
            Ok(())
        }
        _ => Err(Error::unsupported(format!(
            "`{from}` is neither a file nor a directory"
        ))),
    }
}

/// One directory that is still to be copied: where, and its path from the root of the copy.
struct Open {
    remote: String,
    path: PathBuf,
    depth: usize,
}

/// Copies a directory with all below it. What fails below the first directory is remembered.
async fn tree(copy: &mut Copy<'_>, from: &str, to: &Path, root: Directory) -> Result<()> {
    let mut links = Vec::new();
    let mut open = vec![Open {
        remote: from.to_owned(),
        path: PathBuf::new(),
        depth: 0,
    }];
    while let Some(at) = open.pop() {
        let entries = match copy.files.list(&at.remote).await {
            Ok(entries) => entries,
            Err(error) if at.depth == 0 || super::is_fatal(&error) => return Err(error),
            Err(error) => {
                copy.problems.push(error);
                continue;
            }
        };
        let here = match local::below(&root, &at.path) {
            Ok(here) => here,
            Err(error) => {
                copy.problems
                    .push(local_error("write", &to.join(&at.path), error));
                continue;
            }
        };
        for entry in entries {
            count(copy)?;
            match self::entry(copy, &at, to, &here, &entry).await {
                Ok(Found::Copied) => {}
                Ok(Found::Directory(below)) => open.push(below),
                Ok(Found::Link(link)) => links.push(link),
                Err(error) if super::is_fatal(&error) => return Err(error),
                Err(error) => copy.problems.push(error),
            }
        }
    }
    for (link, error) in local::make_links(&root, links) {
        let what = format!(
            "the link `{}` to `{}` was not copied",
            link.path.display(),
            link.target.display()
        );
        copy.problems
            .push(Error::new(ErrorKind::Unsupported, what).with_source(error));
    }
    Ok(())
}

fn count(copy: &mut Copy<'_>) -> Result<()> {
    copy.entries += 1;
    if copy.entries > MAX_ENTRIES {
        let what = format!("there are more than {MAX_ENTRIES} files");
        return Err(Error::new(ErrorKind::LimitExceeded, what));
    }
    Ok(())
}

enum Found {
    Copied,
    Directory(Open),
    Link(Link),
}

/// Copies one entry; a directory is made and given back, and so is a link.
async fn entry(
    copy: &mut Copy<'_>,
    at: &Open,
    to: &Path,
    here: &Directory,
    entry: &podkit::FileEntry,
) -> Result<Found> {
    let name = name_of(entry)?;
    let (remote, path) = (join(&at.remote, name), at.path.join(name));
    let local = to.join(&path);
    match entry.kind {
        FileKind::File => file(copy, &remote, &local, here, OsStr::new(name), entry.mode).await?,
        FileKind::Symlink => {
            let target = entry.link_target.clone().unwrap_or_default();
            return Ok(Found::Link(Link {
                path,
                target: target.into(),
            }));
        }
        FileKind::Directory if at.depth >= MAX_DEPTH => {
            let what = format!("`{remote}` is more than {MAX_DEPTH} directories deep");
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        FileKind::Directory => {
            here.make_directory(OsStr::new(name), entry.mode)
                .map_err(|error| local_error("write", &local, error))?;
            return Ok(Found::Directory(Open {
                remote,
                path,
                depth: at.depth + 1,
            }));
        }
        _ => {
            return Err(Error::unsupported(format!(
                "`{remote}` is neither a file, a directory nor a link"
            )));
        }
    }
    Ok(Found::Copied)
}

/// An entry's name, when it can be one: what a container says may not lead elsewhere.
fn name_of(entry: &podkit::FileEntry) -> Result<&str> {
    if is_plain(&entry.name) {
        return Ok(&entry.name);
    }
    Err(Error::invalid_input(format!(
        "{:?} is not a file name",
        entry.name
    )))
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

async fn file(
    copy: &mut Copy<'_>,
    from: &str,
    local: &Path,
    directory: &Directory,
    name: &OsStr,
    mode: u32,
) -> Result<()> {
    let failed = |error| local_error("write", local, error);
    let reader = copy.files.reader(from).await?;
    let mut source = Counted::new(reader, &mut copy.progress);
    let (target, unfinished) = directory.create(mode).map_err(failed)?;
    let mut target = tokio::fs::File::from_std(target);
    tokio::io::copy(&mut source, &mut target)
        .await
        .map_err(|error| podkit_error(error, local))?;
    // The last write goes on in a thread; its failure shows here.
    target.flush().await.map_err(failed)?;
    drop(target);
    unfinished.finish(name).map_err(failed)
}

/// The library's own error, when it came as one through the byte stream.
fn podkit_error(error: std::io::Error, local: &Path) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => local_error("write", local, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", ".", "..", "a/b", "/", "a\0b"] {
            assert!(!is_plain(name), "{name:?}");
        }
        for name in ["a", "...", ".hidden", "-rf", "a b", "é"] {
            assert!(is_plain(name), "{name:?}");
        }
    }
}
