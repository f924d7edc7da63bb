//! One command in a throw-away container, with files of its own.

use std::time::Duration;

use bytes::Bytes;

use super::{files::WriteOptions, manager::SessionManager};
use crate::{
    config::SessionSpec,
    error::{Error, Result},
    exec::{ExecOutput, ExecRequest, Stdin},
};

/// A command, and the files that it finds: a submission and its tests, say.
///
/// # Examples
/// ```no_run
/// # async fn example(podkit: podkit::Podkit) -> podkit::Result<()> {
/// use std::time::Duration;
/// use podkit::{Image, RunOnce};
///
/// let once = RunOnce::new(["python3", "main.py"])
///     .file("main.py", "print(6 * 7)")
///     .timeout(Duration::from_secs(10));
/// let output = podkit.run_once(Image::host(), once).await?;
/// assert_eq!(output.stdout, b"42\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `Podkit::run_once`"]
pub struct RunOnce {
    request: ExecRequest,
    files: Vec<(String, Bytes, Option<u32>)>,
}

impl RunOnce {
    /// Runs a program, without a shell.
    pub fn new(argv: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self::of(ExecRequest::new(argv))
    }

    /// Runs `text` with `/bin/sh -c`.
    pub fn shell(text: impl Into<Vec<u8>>) -> Self {
        Self::of(ExecRequest::shell(text))
    }

    /// Runs a request, for all that a command can have: variables, input, a user. Its input cannot be a
    /// stream.
    pub const fn of(request: ExecRequest) -> Self {
        Self {
            request,
            files: Vec::new(),
        }
    }

    /// Puts a file in the container before, with the directories above it; a relative path is in
    /// `/workspace`.
    pub fn file(self, path: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        self.file_with(path, bytes, None)
    }

    /// As [`file`](Self::file), with these permission bits.
    pub fn file_with(
        mut self,
        path: impl Into<String>,
        bytes: impl Into<Bytes>,
        mode: Option<u32>,
    ) -> Self {
        self.files.push((path.into(), bytes.into(), mode));
        self
    }

    /// Kills it with all that it started after this long.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    fn check(&self) -> Result<()> {
        self.request.check()?;
        if matches!(self.request.stdin, Stdin::Stream) {
            return Err(
                Error::invalid_input("the input of a command that runs once is no stream")
                    .with_hint("use `Podkit::scoped` for that"),
            );
        }
        match self.files.iter().find(|(path, _, _)| path.is_empty()) {
            Some(_) => Err(Error::invalid_input("the path of a file is empty")),
            None => Ok(()),
        }
    }
}

impl SessionManager {
    pub(crate) async fn run_once(&self, spec: SessionSpec, once: RunOnce) -> Result<ExecOutput> {
        once.check()?;
        self.scoped(spec, async move |session| {
            let files = session.files();
            for (path, bytes, mode) in once.files {
                let options = WriteOptions {
                    mode,
                    ..WriteOptions::new()
                };
                files.write_with(&path, options, &*bytes).await?;
            }
            session.execute(once.request).await
        })
        .await
    }
}
