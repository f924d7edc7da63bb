//! The one error type of the library.

use std::{error, fmt};

use crate::id::ContainerId;

/// Result of everything that can fail in podkit.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can decide on; every backend maps its own failures to one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The container, image, session or file does not exist.
    NotFound,
    /// The engine does not have the image.
    ImageNotFound,
    /// Something of this name is already there.
    AlreadyExists,
    /// An argument cannot be used; nothing was created.
    InvalidInput,
    /// What is there stands in the way: a container with another configuration, a port that is
    /// taken.
    Conflict,
    /// This engine, or this machine, cannot do it.
    Unsupported,
    /// The engine, the kernel or the container's user may not.
    PermissionDenied,
    /// A limit is reached: memory, processes, disk, sessions, sizes.
    LimitExceeded,
    /// The engine cannot be reached.
    Unavailable,
    /// The container runs, but its agent does not answer.
    AgentUnreachable,
    /// The container went away during the call.
    ContainerGone,
    /// No answer in time. A command that runs too long is an outcome, not an error.
    TimedOut,
    /// Anything else: a bug in podkit or in the engine.
    Unexpected,
}

impl ErrorKind {
    /// Every kind, for tables and tests.
    pub const ALL: &[Self] = &[
        Self::NotFound,
        Self::ImageNotFound,
        Self::AlreadyExists,
        Self::InvalidInput,
        Self::Conflict,
        Self::Unsupported,
        Self::PermissionDenied,
        Self::LimitExceeded,
        Self::Unavailable,
        Self::AgentUnreachable,
        Self::ContainerGone,
        Self::TimedOut,
        Self::Unexpected,
    ];

    /// Stable lower-case name, as in JSON output: `not_found`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::ImageNotFound => "image_not_found",
            Self::AlreadyExists => "already_exists",
            Self::InvalidInput => "invalid_input",
            Self::Conflict => "conflict",
            Self::Unsupported => "unsupported",
            Self::PermissionDenied => "permission_denied",
            Self::LimitExceeded => "limit_exceeded",
            Self::Unavailable => "unavailable",
            Self::AgentUnreachable => "agent_unreachable",
            Self::ContainerGone => "container_gone",
            Self::TimedOut => "timed_out",
            Self::Unexpected => "unexpected",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an operation failed: what failed, on what, and what to do about it.
///
/// Decide on [`kind`](Self::kind) alone; the texts are for people and may change.
pub struct Error(Box<Inner>); // Boxed, so that `Result<(), Error>` is one word.

struct Inner {
    kind: ErrorKind,
    operation: Option<&'static str>,
    container: Option<ContainerId>,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn error::Error + Send + Sync>>,
    cleanup: Vec<Error>,
    /// Whether what was asked for cannot have begun.
    refused: bool,
}

impl Error {
    /// Makes an error of a kind with a message: lower case, no full stop, values in backticks.
    ///
    /// The operation and the container are added once, above, by the container manager.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation: None,
            container: None,
            message: message.into(),
            hint: None,
            source: None,
            cleanup: Vec::new(),
            refused: false,
        }))
    }

    /// Shorthand for [`ErrorKind::InvalidInput`].
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// Shorthand for [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// Adds the next step, when there is one that the user can do: one sentence.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause; [`Display`](fmt::Display) does not repeat it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Names the operation, such as `create container`, unless one is named already.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the container, unless one is named already.
    #[must_use]
    pub fn with_container(mut self, container: &ContainerId) -> Self {
        self.0.container.get_or_insert_with(|| container.clone());
        self
    }

    /// Adds what failed while undoing; it never replaces the first failure.
    #[must_use]
    pub fn with_cleanup(mut self, failure: Self) -> Self {
        self.0.cleanup.push(failure);
        self
    }

    /// Says that what was asked for cannot have begun, so that it may be asked for again.
    pub(crate) fn refused(mut self) -> Self {
        self.0.refused = true;
        self
    }

    /// Whether what was asked for cannot have begun.
    pub(crate) fn is_refused(&self) -> bool {
        self.0.refused
    }

    /// What a caller can decide on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        self.0.operation
    }

    /// The container it failed on.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerId> {
        self.0.container.as_ref()
    }

    /// What failed, without the operation and the container.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// What failed while cleaning up after this failure.
    #[must_use]
    pub fn cleanup(&self) -> &[Self] {
        &self.0.cleanup
    }

    /// Whether the same call may succeed when it is repeated a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::TimedOut)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug
            .field("kind", &self.0.kind)
            .field("message", &self.to_string());
        if let Some(hint) = &self.0.hint {
            debug.field("hint", hint);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        if !self.0.cleanup.is_empty() {
            debug.field("cleanup", &self.0.cleanup);
        }
        debug.finish()
    }
}

/// Prints this level only; walk [`source`](error::Error::source) for the causes.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(operation) = self.0.operation {
            write!(f, "failed to {operation}")?;
            if let Some(container) = &self.0.container {
                write!(f, " in `{container}`")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_display_names_operation_and_container_once() {
        let id = ContainerId::new("podkit-x").unwrap();
        let error = Error::new(ErrorKind::NotFound, "no such container")
            .with_operation("start container")
            .with_operation("open session")
            .with_container(&id);
        assert_eq!(
            error.to_string(),
            "failed to start container in `podkit-x`: no such container"
        );
    }
}
