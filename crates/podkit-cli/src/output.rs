//! The only printer: results to standard output, all else to standard error, exit codes.

use std::{
    borrow::Cow,
    error::Error as _,
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    os::fd::BorrowedFd,
    process::ExitCode,
    time::{Duration, SystemTime},
};

pub(crate) use podkit::rfc3339 as time_text;
use podkit::{Error, ErrorKind, Outcome};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::Format;

/// Every way in which podkit exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Success,
    /// 1: `doctor` found that the engine cannot work, or does not hold what it promises.
    Unhealthy,
    /// 2: a mistake on the command line or in the configuration.
    Usage,
    /// 125: podkit or the engine failed.
    Podkit,
    /// 128 + n: signal n ended podkit before a command ran.
    Signal(u8),
    /// 141: nobody reads the output any more, as if SIGPIPE had ended podkit.
    BrokenPipe,
    /// The command's own code, 126 and 127 when it could not be started; see [`Outcome::code`].
    Command(u8),
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Unhealthy => 1,
            Self::Usage => 2,
            Self::Podkit => 125,
            Self::Signal(number) => 128_u8.saturating_add(number),
            Self::BrokenPipe => 141,
            Self::Command(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command line ends early: an error to show, if any, and the code to exit with.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What is shown.
    pub(crate) error: Option<Error>,
    /// What podkit exits with.
    pub(crate) exit: Exit,
}

impl Failure {
    /// A mistake of the caller's, found before anything was done.
    pub(crate) const fn usage(error: Error) -> Self {
        Self {
            error: Some(error),
            exit: Exit::Usage,
        }
    }

    /// Nothing to show.
    pub(crate) const fn quiet(exit: Exit) -> Self {
        Self { error: None, exit }
    }

    /// A failure to write results.
    pub(crate) fn writing(stream: Stream, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::quiet(Exit::BrokenPipe);
        }
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::LimitExceeded,
            _ => ErrorKind::Unexpected,
        };
        Error::new(kind, format!("failed to write {}", stream.name()))
            .with_source(error)
            .into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error: Some(error),
            exit: Exit::Podkit,
        }
    }
}

/// One of podkit's own output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "standard output",
            Self::Stderr => "standard error",
        }
    }

    fn fd(self) -> BorrowedFd<'static> {
        match self {
            Self::Stdout => rustix::stdio::stdout(),
            Self::Stderr => rustix::stdio::stderr(),
        }
    }

    /// Writes what can be written without waiting, which may be nothing.
    ///
    /// # Errors
    /// Whatever the kernel says, but that it would have to wait.
    pub(crate) fn write_now(self, bytes: &[u8]) -> io::Result<usize> {
        match write_now(self.fd(), bytes) {
            Ok(count) => Ok(count),
            // A terminal, an old kernel: not every file can be asked this way.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => {
                Ok(0)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes everything, however long that takes.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub(crate) fn write_all(self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(self.fd(), bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                // Somebody who shares the file has made it non-blocking.
                Err(Errno::AGAIN) => wait_writable(self.fd())?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<usize> {
    use rustix::io::{ReadWriteFlags, pwritev2};
    // An offset of -1 stands for the file's own position.
    pwritev2(
        fd,
        &[io::IoSlice::new(bytes)],
        u64::MAX,
        ReadWriteFlags::NOWAIT,
    )
}

#[cfg(not(target_os = "linux"))]
fn write_now(_: BorrowedFd<'_>, _: &[u8]) -> rustix::io::Result<usize> {
    Err(Errno::OPNOTSUPP)
}

fn wait_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// How results, notes and errors are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    color: bool,
}

impl Output {
    /// Colours only what goes to a terminal, and only when that is not refused.
    pub(crate) fn new(format: Format, no_color: bool) -> Self {
        Self {
            format,
            color: !no_color && io::stderr().is_terminal(),
        }
    }

    /// Whether results are for programs.
    pub(crate) const fn is_json(self) -> bool {
        matches!(self.format, Format::Json)
    }

    /// Writes a result: as JSON, or as text.
    ///
    /// # Errors
    /// See [`Failure::writing`].
    pub(crate) fn result(
        self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let text = if self.is_json() {
            format!("{:#}\n", json())
        } else {
            text()
        };
        self.text(&text)
    }

    /// Writes text to standard output as it is.
    ///
    /// # Errors
    /// See [`Failure::writing`].
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        Stream::Stdout
            .write_all(text.as_bytes())
            .map_err(|error| Failure::writing(Stream::Stdout, error))
    }

    /// Says something on standard error that is no error.
    pub(crate) fn note(self, text: &str) {
        stderr_line(&format!("podkit: {}\n", printable(text)));
    }

    /// Says on standard error how a command ended, when its code alone does not tell.
    pub(crate) fn outcome(self, outcome: Outcome) {
        match outcome {
            Outcome::Exited(_) | Outcome::Signaled(_) => {}
            _ => self.note(&format!("the command {outcome}")),
        }
    }

    /// Shows an error on standard error: what failed, why, what to do.
    pub(crate) fn error(self, error: &Error) {
        if self.is_json() {
            stderr_line(&format!("{:#}\n", json!({ "error": error_json(error) })));
        } else {
            stderr_line(&self.error_text(error));
        }
    }

    /// Shows something wrong that does not end the work.
    pub(crate) fn warning(self, error: &Error) {
        if self.is_json() {
            stderr_line(&format!("{:#}\n", json!({ "warning": error_json(error) })));
        } else {
            stderr_line(&format!(
                "{} {}\n",
                self.paint("warning:", "1;33"),
                printable(&error.to_string())
            ));
        }
    }

    /// Shows what clap has to say: help on standard output, mistakes on standard error.
    pub(crate) fn clap(self, error: &clap::Error) -> Exit {
        if !error.use_stderr() {
            return if error.print().is_ok() {
                Exit::Success
            } else {
                Exit::BrokenPipe
            };
        }
        if self.is_json() {
            let text = error.to_string();
            let message = text.strip_prefix("error: ").unwrap_or(&text).lines().next();
            self.error(&Error::invalid_input(message.unwrap_or_default()));
        } else {
            // With its own colours; that standard error cannot be written can be told to nobody.
            error.print().unwrap_or_default();
        }
        Exit::Usage
    }

    fn error_text(self, error: &Error) -> String {
        let mut text = format!(
            "{} {}\n",
            self.paint("error:", "1;31"),
            printable(&error.to_string())
        );
        let causes = causes(error).into_iter().chain(
            error
                .cleanup()
                .iter()
                .map(|error| format!("while cleaning up: {error}")),
        );
        for cause in causes {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "  {} {}",
                self.paint("caused by:", "1"),
                printable(&cause)
            );
        }
        if let Some(hint) = error.hint() {
            let _ = writeln!(
                text,
                "\n{} {}",
                self.paint("hint:", "1;36"),
                printable(hint)
            );
        }
        text
    }

    fn paint<'t>(self, text: &'t str, code: &str) -> Cow<'t, str> {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m").into()
        } else {
            text.into()
        }
    }
}

fn stderr_line(text: &str) {
    // A failure to write to standard error can be told to nobody.
    io::stderr()
        .lock()
        .write_all(text.as_bytes())
        .unwrap_or_default();
}

fn causes(error: &Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes
}

/// An error as JSON; the field names are API.
pub(crate) fn error_json(error: &Error) -> Value {
    json!({
        "kind": error.kind().as_str(),
        "message": error.to_string(),
        "operation": error.operation(),
        "container": error.container().map(podkit::ContainerId::as_str),
        "causes": causes(error),
        "hint": error.hint(),
        "cleanup": error.cleanup().iter().map(error_json).collect::<Vec<_>>(),
    })
}

/// Text with control characters made visible: what comes out of a container may not steer the
/// caller's terminal, nor look like lines of podkit's own.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() || c == '\t';
    if text.chars().all(harmless) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if harmless(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    shown.into()
}

/// Bytes as JSON: text, and base64 beside it when they are not UTF-8.
#[derive(Debug, Serialize)]
pub(crate) struct BytesJson {
    /// As text; what is not UTF-8 is replaced.
    text: String,
    /// The exact bytes, when the text is not.
    base64: Option<String>,
}

impl From<&[u8]> for BytesJson {
    fn from(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let base64 = matches!(text, Cow::Owned(_)).then(|| data_encoding::BASE64.encode(bytes));
        Self {
            text: text.into_owned(),
            base64,
        }
    }
}

impl BytesJson {
    /// Adds `name`, and `name_base64` when the text is not exact, to a JSON object.
    pub(crate) fn put(self, name: &str, object: &mut serde_json::Map<String, Value>) {
        object.insert(name.to_owned(), self.text.into());
        if let Some(base64) = self.base64 {
            object.insert(format!("{name}_base64"), base64.into());
        }
    }
}

/// Rows as text in columns; no row is cut.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|&word| word.to_owned()).collect();
    let mut widths: Vec<usize> = header.iter().map(String::len).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            // Writing to a string does not fail.
            let _ = write!(line, "{:width$}  ", printable(cell));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A length of time in its two largest units: `1h 5m`.
pub(crate) fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 && !duration.is_zero() {
        return format!("{}ms", duration.subsec_millis());
    }
    let units = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let largest = units.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown: Vec<String> = units
        .iter()
        .skip(largest)
        .take(2)
        .filter(|(count, unit)| *count > 0 || (*unit == "s" && seconds == 0))
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    shown.join(" ")
}

/// How long ago, for people.
pub(crate) fn ago(time: SystemTime) -> String {
    // A clock that was set back shows as just now.
    let age = time.elapsed().unwrap_or_default();
    if age < Duration::from_secs(1) {
        "now".to_owned()
    } else {
        format!("{} ago", duration_text(age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_text_shows_two_units() {
        let text = |seconds| duration_text(Duration::from_secs(seconds));
        assert_eq!(
            [text(0), text(59), text(60), text(3700)],
            ["0s", "59s", "1m", "1h 1m"]
        );
        assert_eq!(text(90_061), "1d 1h");
        assert_eq!(duration_text(Duration::from_millis(20)), "20ms");
    }

    #[test]
    fn printable_shows_control_characters() {
        assert_eq!(printable("a\x1b[31mb\r\n"), "a\\u{1b}[31mb\\r\\n");
    }

    #[test]
    fn error_text_has_causes_hint_and_nothing_else() {
        let output = Output {
            format: Format::Text,
            color: false,
        };
        let error = Error::new(ErrorKind::Unavailable, "the engine cannot be reached")
            .with_operation("open session")
            .with_source(io::Error::other("no such file"))
            .with_hint("start it");
        assert_eq!(
            output.error_text(&error),
            "error: failed to open session: the engine cannot be reached\n  caused by: no such file\n\nhint: start it\n"
        );
    }

    #[test]
    fn exit_codes_are_as_documented() {
        let codes = [Exit::Success, Exit::Unhealthy, Exit::Usage, Exit::Podkit].map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 125]);
        assert_eq!(
            [Exit::Signal(2), Exit::BrokenPipe, Exit::Command(7)].map(Exit::code),
            [130, 141, 7]
        );
    }
}
