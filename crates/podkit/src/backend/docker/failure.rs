//! An engine's refusals in podkit's words.

use bollard::errors::Error as EngineError;

use crate::error::{Error, ErrorKind};

/// Longest part of an engine's own text that is shown, in characters.
const MAX_TEXT: usize = 500;

/// The status and the text of a refusal.
pub(super) fn refusal(error: &EngineError) -> Option<(u16, &str)> {
    match error {
        EngineError::DockerResponseServerError {
            status_code,
            message,
        } => Some((*status_code, message)),
        _ => None,
    }
}

/// What engines say of a container that is not there, with whatever status.
const NO_CONTAINER: &[&str] = &["no such container", "does not exist in database"];

/// Whether the engine says that what was named is not there.
pub(super) fn is_missing(error: &EngineError) -> bool {
    matches!(refusal(error), Some((404, _))) || says(error, NO_CONTAINER)
}

/// Whether a text of the engine's contains one of these.
pub(super) fn says(error: &EngineError, words: &[&str]) -> bool {
    let Some((_, text)) = refusal(error) else {
        return false;
    };
    let text = text.to_lowercase();
    words.iter().any(|word| text.contains(word))
}

/// Whether the container was met in the middle of its end, which Podman does in two steps and shows
/// in a word of its own. It is over in a moment.
pub(super) fn is_between(error: &EngineError) -> bool {
    match error {
        EngineError::JsonDataError { message, .. } => message.contains("unknown variant `stop"),
        _ => says(error, &["could not be stopped", "container state improper"]),
    }
}

/// A refusal, or a failure to reach the engine.
pub(super) fn error(error: EngineError) -> Error {
    let (kind, message) = match &error {
        EngineError::DockerResponseServerError {
            status_code,
            message,
        } => (
            kind(*status_code, message),
            format!("the engine says: {}", shown(message)),
        ),
        EngineError::RequestTimeoutError => (
            ErrorKind::TimedOut,
            "the engine did not answer in time".to_owned(),
        ),
        _ if is_between(&error) && refusal(&error).is_none() => (
            ErrorKind::Unavailable,
            "the engine does not finish the end of the container".to_owned(),
        ),
        EngineError::JsonDataError { .. }
        | EngineError::JsonSerdeError { .. }
        | EngineError::StrParseError { .. } => (
            ErrorKind::Unexpected,
            format!("the engine's answer cannot be understood: {error}"),
        ),
        EngineError::DockerStreamError { error } => (
            ErrorKind::Unexpected,
            format!("the engine says: {}", shown(error)),
        ),
        EngineError::IOError { err } if err.kind() == std::io::ErrorKind::PermissionDenied => (
            ErrorKind::PermissionDenied,
            format!("the engine's socket may not be used: {err}"),
        ),
        _ => (
            ErrorKind::Unavailable,
            format!("the engine cannot be reached: {}", deepest(&error)),
        ),
    };
    match error {
        // The message says all that it says.
        EngineError::DockerResponseServerError { .. } | EngineError::DockerStreamError { .. } => {
            Error::new(kind, message)
        }
        error => Error::new(kind, message).with_source(error),
    }
}

/// The text of the innermost cause: the outer ones say only that something failed.
fn deepest(error: &EngineError) -> String {
    let mut at: &dyn std::error::Error = error;
    while let Some(next) = at.source() {
        at = next;
    }
    shown(&at.to_string())
}

fn kind(status: u16, text: &str) -> ErrorKind {
    let text = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&[
        "no space left",
        "quota exceeded",
        "too many open files",
        "cannot allocate memory",
    ]) {
        return ErrorKind::LimitExceeded;
    }
    if says(&["is already in use by", "name is in use", "already exists"]) && !says(&["port"]) {
        return ErrorKind::AlreadyExists;
    }
    if says(&[
        "port is already allocated",
        "address already in use",
        "address is already in use",
    ]) {
        return ErrorKind::Conflict;
    }
    if says(&[
        "is not running",
        "container not running",
        "cannot update a stopped container",
        "container state improper",
        "can only create exec sessions",
    ]) {
        return ErrorKind::ContainerGone;
    }
    // Podman looked at a process that ended meanwhile: the next answer is right.
    if says(&["/cgroup: no such process"]) {
        return ErrorKind::Unavailable;
    }
    if says(&["error processing tar file"]) {
        return ErrorKind::InvalidInput;
    }
    if says(&["could not select device driver"]) {
        return ErrorKind::Unsupported;
    }
    if says(NO_CONTAINER) {
        return ErrorKind::NotFound;
    }
    match status {
        400 => ErrorKind::InvalidInput,
        401 | 403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        501 => ErrorKind::Unsupported,
        502..=504 => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    }
}

/// A text of the engine's on one line, without what could move a terminal's cursor.
pub(super) fn shown(text: &str) -> String {
    let line = text.trim().trim_end_matches('.').replace('\n', "; ");
    let mut shown: String = line
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_TEXT)
        .collect();
    if line.chars().count() > MAX_TEXT {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status_code: u16, message: &str) -> Error {
        error(EngineError::DockerResponseServerError {
            status_code,
            message: message.to_owned(),
        })
    }

    #[test]
    fn refusals_have_the_kind_that_their_text_means() {
        let table = [
            (
                409,
                "Conflict. The container name \"/x\" is already in use by container \"y\".",
                ErrorKind::AlreadyExists,
            ),
            (
                500,
                "driver failed: Bind for 127.0.0.1:80 failed: port is already allocated",
                ErrorKind::Conflict,
            ),
            (409, "Container x is not running", ErrorKind::ContainerGone),
            (
                500,
                "Cannot update container x: cannot update a stopped container: unknown",
                ErrorKind::ContainerGone,
            ),
            // As the engine's runtime says it of one that ends meanwhile.
            (
                500,
                "Cannot update container x: runc did not terminate successfully: exit status 1: container not running",
                ErrorKind::ContainerGone,
            ),
            (
                500,
                "read /proc/2482/cgroup: no such process",
                ErrorKind::Unavailable,
            ),
            (404, "No such container: x", ErrorKind::NotFound),
            (400, "invalid mount config", ErrorKind::InvalidInput),
            (
                500,
                "Error processing tar file(exit status 1): archive/tar: invalid tar header",
                ErrorKind::InvalidInput,
            ),
            (
                500,
                "write /x: no space left on device",
                ErrorKind::LimitExceeded,
            ),
            (500, "what", ErrorKind::Unexpected),
        ];
        for (status, text, kind) in table {
            assert_eq!(of(status, text).kind(), kind, "{text}");
        }
    }

    #[test]
    fn refusals_show_one_short_harmless_line() {
        let error = of(500, &format!("a\u{1b}[2J\nb.{}", "x".repeat(2000)));
        let message = error.message();
        assert!(
            message.starts_with("the engine says: a[2J; b."),
            "{message}"
        );
        assert!(message.chars().count() < 600 && !message.contains('\u{1b}'));
    }
}
