//! What agents and lost connections say, as errors of the library.

use podkit_agent::{Failure, FailureKind, StopReason};

use crate::error::{Error, ErrorKind};

/// EBUSY and ETXTBSY, as every Linux numbers them: a mount, a root, a program that runs.
const IN_USE: [i32; 2] = [16, 26];

/// Most characters of an agent's text that are passed on.
const MAX_TEXT_CHARS: usize = 1000;

/// Why a connection ended.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    /// The other side closed it, or the kernel did.
    Lost(String),
    /// Nothing was heard for too long.
    Silent,
    /// What came was not the protocol.
    Protocol(String),
    /// Its last user went away.
    Dropped,
    /// Nothing was under way on it, and its descriptor was needed.
    Unused,
}

/// Whether a request had been sent when the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was; what it asks for may have begun.
    Yes,
    /// It was not, so it may be asked for again.
    No,
}

impl Ended {
    /// The error of a call on this connection.
    pub(super) fn error(&self, closing: Option<StopReason>, sent: Sent) -> Error {
        if let Some(reason) = closing {
            let error = stopped(reason);
            return if sent == Sent::No {
                error.refused()
            } else {
                error
            };
        }
        let unreachable = |message: String| Error::new(ErrorKind::AgentUnreachable, message);
        match self {
            Self::Lost(why) if sent == Sent::No => Error::new(
                ErrorKind::ContainerGone,
                format!("the connection to the agent had ended before: {why}"),
            )
            .refused(),
            Self::Lost(why) => unreachable(format!("the connection to the agent ended: {why}")),
            Self::Silent => unreachable("the agent does not answer".to_owned()),
            Self::Protocol(what) => unreachable(format!("the agent broke the protocol: {what}")),
            Self::Unused => Error::new(
                ErrorKind::ContainerGone,
                "the connection to the agent was closed, as it was not used",
            )
            .refused(),
            Self::Dropped => unreachable("the connection to the agent was closed".to_owned()),
        }
    }
}

/// The error of a call that a stopping container takes no more.
pub(super) fn stopped(reason: StopReason) -> Error {
    let why = match reason {
        StopReason::Requested => "somebody stopped it",
        StopReason::AutoStop => "nothing had used it for its `auto_stop` time",
        StopReason::MaxLifetime => "its `max_lifetime` was over",
        StopReason::MainExited => "its own program ended",
    };
    Error::new(
        ErrorKind::ContainerGone,
        format!("the container stopped: {why}"),
    )
}

/// The error of a call that the agent refused or could not do.
pub(super) fn failed(failure: &Failure) -> Error {
    let kind = match failure.kind {
        FailureKind::InvalidInput => ErrorKind::InvalidInput,
        FailureKind::NotFound => ErrorKind::NotFound,
        FailureKind::AlreadyExists => ErrorKind::AlreadyExists,
        FailureKind::PermissionDenied => ErrorKind::PermissionDenied,
        FailureKind::LimitExceeded => ErrorKind::LimitExceeded,
        FailureKind::Unsupported => ErrorKind::Unsupported,
        FailureKind::TimedOut => ErrorKind::TimedOut,
        FailureKind::Closing => ErrorKind::ContainerGone,
        FailureKind::Unexpected if IN_USE.contains(&failure.errno) => ErrorKind::Conflict,
        FailureKind::Cancelled | FailureKind::Unexpected => ErrorKind::Unexpected,
    };
    let text = printable(&failure.message);
    let text = if text.is_empty() {
        format!("the agent said `{kind}`")
    } else {
        text
    };
    let error = Error::new(kind, text);
    match failure.kind {
        FailureKind::Closing => error.refused(),
        _ => error,
    }
}

/// Text of a container's for people: no control characters, which would drive a terminal, none
/// that turn the direction of what follows, and not too much of it.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |c: char| {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            '\u{fffd}'
        } else {
            c
        }
    };
    let mut printable: String = text.chars().take(MAX_TEXT_CHARS).map(harmless).collect();
    if text.chars().nth(MAX_TEXT_CHARS).is_some() {
        printable.push('…');
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_text_is_sanitised_and_cut() {
        let failure = Failure {
            kind: FailureKind::NotFound,
            errno: 2,
            message: "`a\x1b[2J\u{202e}\n`".to_owned() + &"x".repeat(5000),
        };
        let error = failed(&failure);
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(
            error
                .message()
                .starts_with("`a\u{fffd}[2J\u{fffd}\u{fffd}`xxx"),
            "{error}"
        );
        assert!(error.message().chars().count() <= MAX_TEXT_CHARS + 1);
    }
}
