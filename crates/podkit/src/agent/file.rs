//! Files of a container: what is known of them, reading and writing.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::{Buf, Bytes};
use podkit_agent::FileStat;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    client::{AgentClient, error_of},
    exec::Input,
    stream::{End, Item, Stream},
};
use crate::error::{Error, ErrorKind, Result};

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Device, FIFO or socket.
    Other,
}

impl FileKind {
    /// Stable lower-case name: `directory`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Other => "other",
        }
    }
}

/// Facts about a file of a container.
///
/// They come from the container: a name may be anything but a path, and is not safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileEntry {
    /// Name without directories; what is not UTF-8 in it is replaced.
    pub name: String,
    /// Kind.
    pub kind: FileKind,
    /// Permission bits, with set-id and sticky: `0o7777`.
    pub mode: u32,
    /// Owner, as the container sees it.
    pub uid: u32,
    /// Group, as the container sees it.
    pub gid: u32,
    /// Size in bytes.
    pub size_bytes: u64,
    /// When its contents last changed.
    pub modified: SystemTime,
    /// Where a link leads; what is not UTF-8 in it is replaced.
    pub link_target: Option<String>,
}

impl FileEntry {
    pub(super) fn new(name: &[u8], stat: &FileStat) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let kind = match stat.kind {
            podkit_agent::FileKind::File => FileKind::File,
            podkit_agent::FileKind::Directory => FileKind::Directory,
            podkit_agent::FileKind::Symlink => FileKind::Symlink,
            podkit_agent::FileKind::Other => FileKind::Other,
        };
        Self {
            name: text(name),
            kind,
            mode: stat.mode & 0o7777,
            uid: stat.uid,
            gid: stat.gid,
            size_bytes: stat.size_bytes,
            modified: since_epoch(stat.modified_ns),
            link_target: (kind == FileKind::Symlink).then(|| text(&stat.link_target)),
        }
    }
}

fn since_epoch(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    let time = if nanoseconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The bytes of a file, as they come. Dropping it ends the reading.
///
/// A failure on the way is an [`io::Error`] that holds the library's [`Error`].
pub struct FileReader {
    client: AgentClient,
    stream: Arc<Stream>,
    chunk: Bytes,
    over: bool,
}

impl FileReader {
    pub(super) const fn new(client: AgentClient, stream: Arc<Stream>) -> Self {
        Self {
            client,
            stream,
            chunk: Bytes::new(),
            over: false,
        }
    }
}

impl AsyncRead for FileReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.chunk.is_empty() && !this.over {
            match ready!(this.stream.poll_item(context)) {
                Item::Data(_, bytes, credit) => {
                    this.chunk = bytes;
                    this.client.connection().grant(this.stream.id, credit);
                }
                Item::End(End::Done) => this.over = true,
                Item::End(end) => return Poll::Ready(Err(to_io(error_of(end)))),
            }
        }
        pass_on(&mut this.chunk, buffer);
        Poll::Ready(Ok(()))
    }
}

impl Drop for FileReader {
    fn drop(&mut self) {
        self.client.connection().abandon(&self.stream, true);
    }
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader")
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// Gives out as much of a chunk as there is room for.
pub(super) fn pass_on(chunk: &mut Bytes, buffer: &mut ReadBuf<'_>) {
    let count = chunk.len().min(buffer.remaining());
    buffer.put_slice(chunk.get(..count).unwrap_or_default());
    chunk.advance(count);
}

pub(super) fn to_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
        ErrorKind::TimedOut => io::ErrorKind::TimedOut,
        ErrorKind::ContainerGone | ErrorKind::AgentUnreachable => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// Takes the bytes of a file. Nothing has happened to a file that was to be replaced until
/// [`finish`](Self::finish) succeeds; dropping it before changes nothing.
#[derive(Debug)]
pub(crate) struct FileWriter {
    input: Input,
    finished: bool,
}

impl FileWriter {
    pub(super) const fn new(client: AgentClient, stream: Arc<Stream>) -> Self {
        Self {
            input: Input::new(client, stream),
            finished: false,
        }
    }

    /// Sends bytes as fast as the agent takes them.
    ///
    /// # Errors
    /// What keeps the agent from writing.
    pub(crate) async fn write_all(&mut self, bytes: Bytes) -> Result<()> {
        if self.input.write_all(bytes).await {
            return Ok(());
        }
        self.end().await
    }

    /// Waits for what ends the file before all of it was sent. Nothing is lost when the future is
    /// dropped.
    pub(crate) async fn broken(&mut self) -> Error {
        match self.end().await {
            Err(error) => error,
            Ok(()) => Error::new(ErrorKind::Unexpected, "the file ended before its bytes did"),
        }
    }

    /// Ends the file and waits until it is in its place.
    ///
    /// # Errors
    /// What kept the agent from writing.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.input.end();
        self.end().await
    }

    /// Waits for the agent's last word.
    async fn end(&mut self) -> Result<()> {
        let end = poll_fn(|context| self.input.stream().poll_end(context)).await;
        self.finished = true;
        match end {
            End::Done => Ok(()),
            end => Err(error_of(end)),
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if !self.finished {
            self.input
                .client()
                .connection()
                .abandon(self.input.stream(), true);
        }
    }
}
