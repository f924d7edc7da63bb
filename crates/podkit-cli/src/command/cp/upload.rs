//! Copying into a session.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use podkit::{Error, ErrorKind, FileKind, Result, WriteOptions};

use super::{
    Copy, MAX_DEPTH, base_name, is_fatal, join,
    local::{Directory, Entry},
};
use crate::command::files::Counted;

/// Bits of a directory that the file calls make.
const USUAL_MODE: u32 = 0o755;

/// Copies a local file or directory to a path in the session.
pub(super) async fn upload(copy: &mut Copy<'_>, from: &Path, to: &str) -> Result<()> {
    let name = base_name(&from.to_string_lossy());
    let into = to.ends_with('/') || is_directory(copy, to).await?;
    let to = match &name {
        Some(name) if into => join(to.trim_end_matches('/'), name),
        _ => to.to_owned(),
    };
    let failed = |error| local_error(from, error);
    // What the caller names may be a link of the caller's.
    let entry = match (from.parent(), from.file_name()) {
        (Some(parent), Some(name)) => Directory::open(parent)
            .and_then(|parent| parent.entry(name, true))
            .map_err(failed)?,
        _ => Entry::Directory(Directory::open(from).map_err(failed)?, 0o755),
    };
    match entry {
        Entry::Directory(directory, mode) => tree(copy, from, directory, mode, to).await,
        Entry::File(file, mode) => {
            self::file(copy, file, mode, &to).await?;
            copy.entries += 1;
            Ok(())
        }
        Entry::Link(_) | Entry::Other => Err(Error::unsupported(format!(
            "`{}` is neither a file nor a directory",
            from.display()
        ))),
    }
}

async fn is_directory(copy: &Copy<'_>, path: &str) -> Result<bool> {
    match copy.files.stat(path).await {
        Ok(entry) => Ok(entry.kind == FileKind::Directory),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// One directory that is still to be copied.
struct Open {
    directory: Directory,
    local: PathBuf,
    remote: String,
    depth: usize,
}

/// Copies a directory with all below it. What fails below the first directory is remembered.
async fn tree(
    copy: &mut Copy<'_>,
    from: &Path,
    directory: Directory,
    mode: u32,
    to: String,
) -> Result<()> {
    make_directory(copy, &to, mode).await?;
    let mut open = vec![Open {
        directory,
        local: from.to_owned(),
        remote: to,
        depth: 0,
    }];
    while let Some(at) = open.pop() {
        let names = match at.directory.names() {
            Ok(names) => names,
            Err(error) => {
                copy.problems.push(local_error(&at.local, error));
                continue;
            }
        };
        for name in names {
            let name = OsStr::from_bytes(name.to_bytes());
            match entry(copy, &at, name).await {
                Ok(below) => open.extend(below),
                Err(error) if is_fatal(&error) => return Err(error),
                Err(error) => copy.problems.push(error),
            }
        }
    }
    Ok(())
}

/// Copies one entry; a directory is made and given back.
async fn entry(copy: &mut Copy<'_>, at: &Open, name: &OsStr) -> Result<Option<Open>> {
    let local = at.local.join(name);
    let Some(text) = name.to_str() else {
        return Err(Error::unsupported(format!(
            "the name of `{}` is not UTF-8",
            local.display()
        )));
    };
    let remote = join(&at.remote, text);
    copy.entries += 1;
    match at
        .directory
        .entry(name, false)
        .map_err(|error| local_error(&local, error))?
    {
        Entry::File(file, mode) => self::file(copy, file, mode, &remote).await?,
        Entry::Link(target) => link(copy, &local, target, remote).await?,
        Entry::Directory(..) if at.depth >= MAX_DEPTH => {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "`{}` is more than {MAX_DEPTH} directories deep",
                    local.display()
                ),
            ));
        }
        Entry::Directory(directory, mode) => {
            make_directory(copy, &remote, mode).await?;
            return Ok(Some(Open {
                directory,
                local,
                remote,
                depth: at.depth + 1,
            }));
        }
        Entry::Other => {
            return Err(Error::unsupported(format!(
                "`{}` is neither a file, a directory nor a link",
                local.display()
            )));
        }
    }
    Ok(None)
}

/// Makes a directory. Its bits are set by the image's own `chmod`, when they are not the usual ones:
/// the file calls know no bits of directories.
async fn make_directory(copy: &Copy<'_>, path: &str, mode: u32) -> Result<()> {
    copy.files.make_dir_all(path).await?;
    if mode == USUAL_MODE {
        return Ok(());
    }
    let argv = ["chmod", "--", &format!("{mode:o}"), path];
    run(copy, argv).await.map_err(|error| {
        Error::new(
            error.kind(),
            format!("the permissions of `{path}` were not copied"),
        )
        .with_source(error)
    })
}

/// Runs a program of the image's as the user of the copy.
async fn run<W: Into<Vec<u8>>>(copy: &Copy<'_>, argv: impl IntoIterator<Item = W>) -> Result<()> {
    let mut exec = copy.session.exec(argv);
    if let Some(user) = &copy.user {
        exec = exec.user(user);
    }
    exec.await.and_then(podkit::ExecOutput::check).map(drop)
}

async fn file(copy: &mut Copy<'_>, file: fs::File, mode: u32, to: &str) -> Result<()> {
    let mut options = WriteOptions::default();
    options.mode = Some(mode);
    let source = Counted::new(tokio::fs::File::from_std(file), &mut copy.progress);
    copy.files.write_with(to, options, source).await.map(drop)
}

/// Makes a link with the image's own `ln`: the file calls know none.
async fn link(copy: &Copy<'_>, local: &Path, target: Vec<u8>, path: String) -> Result<()> {
    let argv = [
        b"ln".to_vec(),
        b"-sfn".to_vec(),
        b"--".to_vec(),
        target,
        path.into_bytes(),
    ];
    run(copy, argv).await.map_err(|error| {
        Error::new(
            error.kind(),
            format!("the link `{}` was not copied", local.display()),
        )
        .with_source(error)
    })
}

fn local_error(path: &Path, error: io::Error) -> Error {
    super::local_error("read", path, error)
}
