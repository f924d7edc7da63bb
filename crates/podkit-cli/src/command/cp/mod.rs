//! `podkit cp`.

mod download;
mod local;
mod upload;

use std::{
    io,
    path::{Path, PathBuf},
};

use podkit::{Error, ErrorKind, Files, Result, Session, SessionKey};
use serde_json::json;

use super::{Context, progress::Progress};
use crate::{
    args::CpArgs,
    output::{Exit, Failure, error_json},
};

/// Deepest directory that is copied, below the first.
const MAX_DEPTH: usize = 200;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A path on this machine.
    Local(PathBuf),
    /// A path in a session's container.
    Remote(SessionKey, String),
}

/// A copy under way.
struct Copy<'a> {
    session: &'a Session,
    user: Option<String>,
    files: Files,
    progress: Progress,
    entries: u64,
    /// What was not copied; the rest was.
    problems: Vec<Error>,
}

/// Copies into or out of a session.
pub(super) async fn cp(context: &Context, args: CpArgs) -> std::result::Result<Exit, Failure> {
    let place = |text: &str| place(context, text).map_err(Failure::usage);
    let (from, to) = (place(&args.from)?, place(&args.to)?);
    let ((Place::Local(_), Place::Remote(key, _)) | (Place::Remote(key, _), Place::Local(_))) =
        (&from, &to)
    else {
        return Err(Failure::usage(
            Error::invalid_input("one of the two places must be in a session, the other here")
                .with_hint("write the one in the session as `USER/SESSION:PATH`"),
        ));
    };
    let session = context.session(key, args.quiet).await?;
    let files = match &args.user {
        Some(user) => session.files().user(user),
        None => session.files(),
    };
    let mut copy = Copy {
        session: &session,
        user: args.user,
        files,
        progress: Progress::new(context, args.quiet, None),
        entries: 0,
        problems: Vec::new(),
    };
    let result = match (&from, &to) {
        (Place::Local(from), Place::Remote(_, to)) => upload::upload(&mut copy, from, to).await,
        (Place::Remote(_, from), Place::Local(to)) => download::download(&mut copy, from, to).await,
        _ => Ok(()),
    };
    copy.progress.finish();
    result?;
    let json = || {
        json!({
            "session": session.key().to_string(),
            "entries": copy.entries,
            "bytes": copy.progress.bytes(),
            "failed": copy.problems.iter().map(error_json).collect::<Vec<_>>(),
        })
    };
    if context.output.is_json() {
        context.output.result(json, String::new)?;
    } else {
        copy.problems
            .iter()
            .for_each(|problem| context.output.error(problem));
    }
    Ok(if copy.problems.is_empty() {
        Exit::Success
    } else {
        Exit::Podkit
    })
}

/// Reads `[USER/]SESSION:PATH`, or a local path: one without a colon, or that begins with `/` or
/// `.`, as scp has it.
fn place(context: &Context, text: &str) -> Result<Place> {
    if text.is_empty() {
        return Err(Error::invalid_input("a path is empty"));
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

/// Whether going on with the copy is in vain.
fn is_fatal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ContainerGone | ErrorKind::AgentUnreachable | ErrorKind::Unavailable
    )
}

/// A failure of this machine's file system.
fn local_error(verb: &str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::LimitExceeded,
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => ErrorKind::InvalidInput,
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, format!("failed to {verb} `{}`", path.display())).with_source(error)
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
