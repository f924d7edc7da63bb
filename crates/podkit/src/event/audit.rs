//! A record of commands: one line of JSON for each.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use serde_json::{Map, Value, json};
use tracing::error;

use super::{CommandEnd, CommandInfo, Event, EventKind, time::rfc3339};
use crate::error::{Error, ErrorKind, Result};

/// Writes each command with how it ended as one line of JSON: `time`, `user`, `session`, `container`,
/// `argv`, `as`, `cwd`, `outcome`, `code`, `wall_ms`, `cpu_ms`, `peak_memory_bytes`, and `error` for
/// one that podkit could not run. Never environment or input.
///
/// Lines are written by a thread of its own, each in one piece. No command fails for a line that cannot
/// be written; see [`on_failure`](Self::on_failure). What a full disk has cut off stays a line by itself.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> podkit::Result<()> {
/// use podkit::{AuditLog, Podkit};
///
/// let path = std::env::temp_dir().join(format!("audit-{}", std::process::id()));
/// let audit = AuditLog::append(&path)?;
/// let podkit = Podkit::builder().backend("memory").audit(audit).build().await?;
/// podkit.session("bob", "123").await?.exec(["true"]).await?;
/// podkit.shutdown().await;
/// # let text = std::fs::read_to_string(&path).unwrap();
/// # std::fs::remove_file(&path).unwrap();
/// assert!(text.contains(r#""argv":["true"]"#) && text.contains(r#""code":0"#));
/// # Ok(())
/// # }
/// ```
pub struct AuditLog {
    to: Box<dyn Write + Send>,
    arguments: bool,
    /// Whether the end of the last line is missing.
    cut: bool,
    failed: Box<dyn Fn(&Error) + Send>,
}

impl AuditLog {
    /// Appends to a file, which is made for its owner alone. Several processes may share it.
    ///
    /// # Errors
    /// `InvalidInput`, `PermissionDenied` or `NotFound` when it cannot be opened.
    pub fn append(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| {
                let kind = match error.kind() {
                    io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                    io::ErrorKind::NotFound => ErrorKind::NotFound,
                    _ => ErrorKind::InvalidInput,
                };
                let text = format!("the audit file `{}` cannot be opened", path.display());
                Error::new(kind, text).with_source(error)
            })?;
        Ok(Self::new(file))
    }

    /// Writes to anything.
    #[must_use]
    pub fn new(to: impl Write + Send + 'static) -> Self {
        Self {
            to: Box::new(to),
            arguments: true,
            cut: false,
            failed: Box::new(|error| error!(%error, "a command is not in the audit")),
        }
    }

    /// Leaves arguments out, which may hold secrets: only the program is written.
    #[must_use]
    pub fn without_arguments(mut self) -> Self {
        self.arguments = false;
        self
    }

    /// Says who hears of a line that could not be written, from the thread that writes; it is logged
    /// without.
    #[must_use]
    pub fn on_failure(mut self, tell: impl Fn(&Error) + Send + 'static) -> Self {
        self.failed = Box::new(tell);
        self
    }

    /// Writes an event's line, if it has one.
    pub(super) fn write(&mut self, event: &Event) {
        let EventKind::ExecEnded(command, end) = &event.kind else {
            return;
        };
        let before = if self.cut { "\n" } else { "" };
        let line = self.line(event, command, end);
        let line = format!("{before}{line}\n");
        let mut rest = line.as_bytes();
        let written = put(&mut *self.to, &mut rest);
        // What comes next begins a line of its own, so that it can be read.
        self.cut = match rest.len() {
            0 => false,
            left if left == line.len() => self.cut,
            _ => true,
        };
        if let Err(error) = written {
            let kind = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    ErrorKind::LimitExceeded
                }
                _ => ErrorKind::Unexpected,
            };
            let text = "a command is not in the audit, which cannot be written";
            (self.failed)(&Error::new(kind, text).with_source(error));
        }
    }

    fn line(&self, event: &Event, command: &CommandInfo, end: &CommandEnd) -> Value {
        let mut line = Map::new();
        let mut put = |name: &str, value: Value| line.insert(name.to_owned(), value);
        put("time", json!(rfc3339(event.at)));
        if let Some(key) = &event.key {
            put("user", json!(key.user().as_str()));
            put("session", json!(key.session().as_str()));
        }
        let container = event.container.as_ref().map(|one| one.as_str());
        put("container", json!(container));
        let words = if self.arguments {
            command.argv.as_slice()
        } else {
            command.argv.get(..1).unwrap_or_default()
        };
        put("argv", json!(words));
        put("as", json!(command.user));
        put("cwd", json!(command.cwd));
        match end {
            CommandEnd::Ended(outcome, usage) => {
                put("outcome", json!(outcome.as_str()));
                put("code", json!(outcome.code()));
                put("wall_ms", json!(usage.wall.as_millis()));
                let cpu = usage.cpu_user + usage.cpu_system;
                put("cpu_ms", json!(cpu.as_millis()));
                put("peak_memory_bytes", json!(usage.peak_memory_bytes));
            }
            CommandEnd::Failed(reason) => {
                put("outcome", json!("failed"));
                put(
                    "error",
                    json!({ "kind": reason.kind.as_str(), "message": reason.message }),
                );
            }
            CommandEnd::LetGo => {
                put("outcome", json!("let_go"));
            }
        }
        Value::Object(line)
    }
}

/// Writes bytes, and leaves in `rest` those that were not.
fn put(to: &mut dyn Write, rest: &mut &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => *rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditLog")
    }
}
