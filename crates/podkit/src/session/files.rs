//! The files of a session's container, through its agent.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use podkit_agent::FileCall;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{handle::Session, slot::Live};
use crate::{
    agent::{AgentClient, FileEntry, FileReader, FileWriter},
    error::{Error, ErrorKind, Result},
};

/// Makes a call on the session's container; when that turned out to be gone before the call had
/// begun, on the one that takes its place.
macro_rules! unless_refused {
    ($files:expr, |$live:ident| $call:expr) => {{
        let mut refused = 0;
        loop {
            let $live = $files.session.usable().await?;
            let result = $call.await;
            match result {
                Err(error) if error.is_refused() && refused < super::exec::REOPENINGS => {
                    refused += 1;
                    $files.session.slot().unset_live(&$live);
                }
                result => break ($live, result),
            }
        }
    }};
}

/// Most bytes that [`Files::read`] holds in memory; [`Files::reader`] has no limit.
const READ_LIMIT_BYTES: u64 = 1 << 30;

/// Bytes that are read from the caller's source at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// The container's files, as the session's user sees them. Relative paths are in `/workspace`.
///
/// Paths are resolved inside the container: a link that was made there leads nowhere else.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> podkit::Result<()> {
/// # let podkit = podkit::Podkit::connect("memory").await?;
/// let session = podkit.session("bob", "123").await?;
/// session.files().write("notes/a.bin", vec![0, 159, 146]).await?;
/// assert_eq!(session.files().read("/workspace/notes/a.bin").await?, [0, 159, 146]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Files {
    pub(super) session: Session,
    pub(super) user: String,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteOptions {
    /// Permission bits of a file that is made; the container's usual ones without.
    pub mode: Option<u32>,
    /// Whether missing parent directories are made: yes, unless set otherwise.
    pub parents: bool,
    /// Whether the bytes go to the end of the file, instead of replacing it.
    pub append: bool,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            mode: None,
            parents: true,
            append: false,
        }
    }
}

impl WriteOptions {
    /// Replaces the file, making missing parents.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`mode`](Self::mode).
    #[must_use]
    pub const fn with_mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets [`parents`](Self::parents).
    #[must_use]
    pub const fn with_parents(mut self, parents: bool) -> Self {
        self.parents = parents;
        self
    }

    /// Sets [`append`](Self::append).
    #[must_use]
    pub const fn with_append(mut self, append: bool) -> Self {
        self.append = append;
        self
    }
}

impl Files {
    pub(super) const fn new(session: Session) -> Self {
        Self {
            session,
            user: String::new(),
        }
    }

    /// Acts as another user than the session's.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// `LimitExceeded` for more than 1 GiB; `NotFound`, `PermissionDenied`.
    pub async fn read(&self, path: &str) -> Result<Vec<u8>> {
        let reader = self.reader(path).await?;
        let mut bytes = Vec::new();
        let mut reader = reader.take(READ_LIMIT_BYTES + 1);
        let read = reader.read_to_end(&mut bytes).await;
        read.map_err(|error| failed_io("read file", path, error))?;
        if bytes.len() as u64 > READ_LIMIT_BYTES {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("{path:?} has more than 1 GiB"),
            )
            .with_operation("read file")
            .with_hint("read it through `reader`, which has no limit"));
        }
        Ok(bytes)
    }

    /// Reads a file of any size as it is read from.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`.
    pub async fn reader(&self, path: &str) -> Result<FileReader> {
        self.read_range(path, 0, None).await
    }

    /// Reads a part of a file, from the byte `offset` on, at most `limit` bytes.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`.
    pub async fn read_range(
        &self,
        path: &str,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<FileReader> {
        let (path, user) = (&Live::path(path)?, &self.user);
        let read =
            |client: AgentClient| async move { client.read(path, user, offset, limit).await };
        self.session.ask("read file", read).await
    }

    /// Replaces a file at once with these bytes: a reader sees the old ones or the new ones.
    /// Missing parent directories are made.
    ///
    /// # Errors
    /// `PermissionDenied`, `LimitExceeded` for a full disk.
    ///
    /// # Cancel safety
    /// The file is unchanged when the future is dropped before its end.
    pub async fn write(&self, path: &str, bytes: impl Into<Bytes>) -> Result<()> {
        self.put(path, WriteOptions::new(), bytes.into()).await
    }

    /// Appends these bytes to a file, which is made if it is missing.
    ///
    /// # Errors
    /// `PermissionDenied`, `LimitExceeded` for a full disk.
    pub async fn append(&self, path: &str, bytes: impl Into<Bytes>) -> Result<()> {
        self.put(path, WriteOptions::new().with_append(true), bytes.into())
            .await
    }

    /// Writes what `source` gives, of any size; returns the number of bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write); `Unexpected` when the source fails, and then a file that was to
    /// be replaced is unchanged.
    pub async fn write_with(
        &self,
        path: &str,
        options: WriteOptions,
        source: impl AsyncRead + Send,
    ) -> Result<u64> {
        let (live, mut writer) = self.writer(path, options).await?;
        let mut source = std::pin::pin!(source);
        let mut written = 0;
        let mut chunk = BytesMut::new();
        loop {
            chunk.reserve(CHUNK_BYTES);
            // A source may be silent for ever, and the container gone meanwhile.
            let read = tokio::select! {
                biased;
                error = writer.broken() => return Err(named(error, "write file", &live)),
                read = source.read_buf(&mut chunk) => read,
            };
            let read = read.map_err(|error| failed_io("write file", path, error))?;
            if read == 0 {
                break;
            }
            written += read as u64;
            let sent = writer.write_all(chunk.split().freeze()).await;
            sent.map_err(|error| named(error, "write file", &live))?;
        }
        writer
            .finish()
            .await
            .map_err(|error| named(error, "write file", &live))?;
        Ok(written)
    }

    /// The entries of a directory, by name.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`; `InvalidInput` for a file.
    pub async fn list(&self, path: &str) -> Result<Vec<FileEntry>> {
        let (path, user) = (&Live::path(path)?, &self.user);
        let list = |client: AgentClient| async move { client.list(path, user).await };
        let mut entries = self.session.ask("list directory", list).await?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Facts about a file; a link at the end of the path is not followed.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`.
    pub async fn stat(&self, path: &str) -> Result<FileEntry> {
        let (path, user) = (&Live::path(path)?, &self.user);
        let stat = |client: AgentClient| async move { client.stat(path, user, false).await };
        self.session.ask("stat file", stat).await
    }

    /// Whether there is something at a path; a link counts, wherever it leads.
    ///
    /// # Errors
    /// `PermissionDenied`, when the answer may not be known.
    pub async fn exists(&self, path: &str) -> Result<bool> {
        match self.stat(path).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` for its parent, `PermissionDenied`.
    pub async fn make_dir(&self, path: &str) -> Result<()> {
        self.make(path, false).await
    }

    /// Makes a directory with its parents; one that exists is fine.
    ///
    /// # Errors
    /// `PermissionDenied`; `AlreadyExists` when a file is there.
    pub async fn make_dir_all(&self, path: &str) -> Result<()> {
        self.make(path, true).await
    }

    /// Renames a file or directory; a file at the target is replaced.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `AlreadyExists` for a directory that is not empty; `Conflict` for
    /// what is in use, as a mount is; `Unsupported` from one file system to another.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (Live::path(from)?, Live::path(to)?);
        let (live, renamed) =
            unless_refused!(self, |live| live.client.rename(&from, &to, &self.user));
        renamed.map_err(|error| named(error, "rename file", &live))
    }

    /// Removes a file, a link, or an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `InvalidInput` for a directory that is not empty; `Conflict` for
    /// what is in use, as a mount is.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.take_away(path, false).await
    }

    /// Removes a directory with all that is in it; links are not followed.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`.
    pub async fn remove_all(&self, path: &str) -> Result<()> {
        self.take_away(path, true).await
    }

    async fn make(&self, path: &str, parents: bool) -> Result<()> {
        let path = Live::path(path)?;
        let (live, made) = unless_refused!(self, |live| live
            .client
            .make_dir(&path, &self.user, None, parents));
        made.map_err(|error| named(error, "make directory", &live))
    }

    async fn take_away(&self, path: &str, recursive: bool) -> Result<()> {
        let path = Live::path(path)?;
        let (live, removed) = unless_refused!(self, |live| live
            .client
            .remove(&path, &self.user, recursive));
        removed.map_err(|error| named(error, "remove file", &live))
    }

    async fn put(&self, path: &str, options: WriteOptions, bytes: Bytes) -> Result<()> {
        let (live, mut writer) = self.writer(path, options).await?;
        let write = async {
            if !bytes.is_empty() {
                writer.write_all(bytes).await?;
            }
            writer.finish().await
        };
        write
            .await
            .map_err(|error| named(error, "write file", &live))
    }

    async fn writer(&self, path: &str, options: WriteOptions) -> Result<(Arc<Live>, FileWriter)> {
        let (path, user) = (Live::path(path)?, &self.user);
        let (mode, parents) = (options.mode.map(|mode| mode & 0o7777), options.parents);
        let call = if options.append {
            FileCall::Append { mode, parents }
        } else {
            FileCall::Write { mode, parents }
        };
        let (live, writer) =
            unless_refused!(self, |live| live.client.write(call.clone(), &path, user));
        let writer = writer.map_err(|error| named(error, "write file", &live))?;
        Ok((live, writer))
    }
}

fn named(error: Error, operation: &'static str, live: &Live) -> Error {
    error
        .with_operation(operation)
        .with_container(&live.container)
}

/// An error of a stream: the agent's own where it is one.
pub(super) fn failed_io(operation: &'static str, path: &str, error: std::io::Error) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => {
            let message = format!("the bytes of {path:?} stopped coming");
            Error::new(ErrorKind::Unexpected, message).with_source(error)
        }
    };
    error.with_operation(operation)
}
