//! Why an operation failed.

use std::{error, fmt, io};

use rustix::io::Errno;

/// What a caller can decide on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The container does not exist, or does not run.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// What is there stands in the way: a port that is taken.
    Conflict,
    /// A bad argument.
    InvalidInput,
    /// This machine, or this user on it, cannot do this.
    Unsupported,
    /// The calling user may not.
    PermissionDenied,
    /// Disk, ids, processes or another bounded thing ran out.
    LimitExceeded,
    /// The engine cannot work here at the moment.
    Unavailable,
    /// It took too long.
    TimedOut,
    /// Anything else.
    Unexpected,
}

/// What failed, on what, and what to do about it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<io::Error>,
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of a kind.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// Says what the user can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<io::Error>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What a caller can decide on.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What failed, on what, and why.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the user can do, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// The kind that an error of the kernel has.
pub(crate) fn kind_of(error: &io::Error) -> ErrorKind {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
            ErrorKind::LimitExceeded
        }
        Some(Errno::ACCESS | Errno::PERM) => ErrorKind::PermissionDenied,
        Some(Errno::ROFS) => ErrorKind::Unavailable,
        Some(Errno::OPNOTSUPP | Errno::NOSYS) => ErrorKind::Unsupported,
        _ => ErrorKind::Unexpected,
    }
}

/// Says what was tried when a call fails.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| {
            let source = source.into();
            let kind = kind_of(&source);
            let error = Error::new(kind, format!("{}: {source}", what()));
            match source.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::ROFS) => {
                    error.with_hint("the state directory is read-only; name another one")
                }
                Some(Errno::NOSPC) => error.with_hint("free space where the state directory is"),
                _ => error,
            }
            .with_source(source)
        })
    }
}
