//! `podkit cp`.

use std::path::{Path, PathBuf};

use podkit::{
    Error, ErrorKind, FileKind, Files, Result, SessionKey, TransferProgress, TransferReport,
};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::{Context, progress::Progress};
use crate::{
    file_args::CpArgs,
    output::{Exit, Failure, error_json},
    pump,
};

/// Bytes that are read of an archive at once.
const CHUNK_BYTES: usize = 64 << 10;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A path on this machine.
    Local(PathBuf),
    /// Standard input or output, as an archive.
    Stream,
    /// A path in a session's container.
    Remote(SessionKey, String),
}

/// Copies into or out of a session.
pub(super) async fn cp(context: &Context, args: CpArgs) -> std::result::Result<Exit, Failure> {
    let place = |text: &str| place(context, text).map_err(Failure::usage);
    let (from, to) = (place(&args.from)?, place(&args.to)?);
    let ((Place::Local(_) | Place::Stream, Place::Remote(key, _))
    | (Place::Remote(key, _), Place::Local(_) | Place::Stream)) = (&from, &to)
    else {
        return Err(Failure::usage(
            Error::invalid_input("one of the two places must be in a session, the other here")
                .with_hint("write the one in the session as `USER/SESSION:PATH`"),
        ));
    };
    if from == Place::Stream {
        pump::has_input(true, false)?;
    }
    let session = context.session(key, args.quiet).await?;
    let files = match &args.user {
        Some(user) => session.files().user(user),
        None => session.files(),
    };
    let mut progress = Progress::new(context, args.quiet, None);
    let shown = &mut progress;
    let show = |now: TransferProgress| shown.set(now.bytes);
    let result = match (&from, &to) {
        (Place::Local(from), Place::Remote(_, to)) => {
            let to = target(&files, from, to).await?;
            files.upload_with(from, &to, show).await
        }
        (Place::Remote(_, from), Place::Local(to)) => {
            let to = local_target(&files, from, to).await?;
            files.download_with(from, to, show).await
        }
        (Place::Remote(_, from), _) => {
            let written = write_archive(&files, from).await;
            progress.finish();
            return written.map(|()| Exit::Success);
        }
        (_, Place::Remote(_, to)) => files.extract(to, tokio::io::stdin()).await,
        _ => return Ok(Exit::Success),
    };
    progress.finish();
    report(context, &session.key().to_string(), &result?)
}

fn report(
    context: &Context,
    session: &str,
    report: &TransferReport,
) -> std::result::Result<Exit, Failure> {
    let json = || {
        json!({
            "session": session,
            "entries": report.entries,
            "bytes": report.bytes,
            "failed": report.failed.iter().map(error_json).collect::<Vec<_>>(),
            "failed_more": report.failed_more,
        })
    };
    if context.output.is_json() {
        context.output.result(json, String::new)?;
    } else {
        report
            .failed
            .iter()
            .for_each(|problem| context.output.error(problem));
        if report.failed_more > 0 {
            let more = format!("{} more entries were not copied", report.failed_more);
            context
                .output
                .error(&Error::new(ErrorKind::Unexpected, more));
        }
    }
    Ok(if report.failed.is_empty() {
        Exit::Success
    } else {
        Exit::Podkit
    })
}

/// Where in the session something goes: into a directory that is there, under its own name.
async fn target(files: &Files, from: &Path, to: &str) -> Result<String> {
    let into = to.ends_with('/')
        || match files.stat(to).await {
            Ok(entry) => entry.kind == FileKind::Directory,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
    Ok(match base_name(&from.to_string_lossy()) {
        Some(name) if into => join(to.trim_end_matches('/'), &name),
        _ => to.to_owned(),
    })
}

/// Where on this machine something goes.
async fn local_target(files: &Files, from: &str, to: &Path) -> Result<PathBuf> {
    let into = to.to_string_lossy().ends_with('/') || to.is_dir();
    match base_name(from) {
        Some(name) if into => Ok(to.join(name)),
        None if files.stat(from).await?.kind != FileKind::Directory => Err(Error::invalid_input(
            format!("`{from}` has no name of its own"),
        )),
        _ => Ok(to.to_owned()),
    }
}

async fn write_archive(files: &Files, from: &str) -> std::result::Result<(), Failure> {
    let mut archive = files.archive(from).await?;
    loop {
        let mut buffer = bytes::BytesMut::with_capacity(CHUNK_BYTES);
        let count = archive.read_buf(&mut buffer).await.map_err(|error| {
            error.downcast::<Error>().unwrap_or_else(|error| {
                Error::new(ErrorKind::Unexpected, "the archive stopped coming").with_source(error)
            })
        })?;
        if count == 0 {
            return Ok(());
        }
        pump::write_out(buffer.freeze()).await?;
    }
}

/// Reads `[USER/]SESSION:PATH`, `-`, or a local path: one without a colon, or that begins with `/`
/// or `.`, as scp has it.
fn place(context: &Context, text: &str) -> Result<Place> {
    if text.is_empty() {
        return Err(Error::invalid_input("a path is empty"));
    }
    if text == "-" {
        return Ok(Place::Stream);
    }
    match text.split_once(':') {
        Some((session, path)) if !text.starts_with(['/', '.']) => {
            let path = if path.is_empty() { "." } else { path };
            Ok(Place::Remote(
                context.settings.key(session)?,
                path.to_owned(),
            ))
        }
        _ => Ok(Place::Local(PathBuf::from(text))),
    }
}

/// Under what name something is copied into a directory; `None` for `.`, `..`, `/` and the like,
/// whose content is meant.
fn base_name(path: &str) -> Option<String> {
    if path.ends_with("/.") {
        return None;
    }
    Path::new(path)
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
}

/// A path in the container below another.
fn join(directory: &str, name: &str) -> String {
    if directory.ends_with('/') {
        format!("{directory}{name}")
    } else {
        format!("{directory}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_name_of_a_directory_itself_is_none() {
        let names = ["a", "/a/b/", ".", "..", "/", "a/.", "a/.."].map(base_name);
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(names, [some("a"), some("b"), None, None, None, None, None]);
    }

    #[test]
    fn join_adds_one_slash() {
        assert_eq!([join("a", "b"), join("/", "b")], ["a/b", "/b"]);
    }
}
