//! Trees of files: what the library asks an agent about them.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use podkit_agent::{FileCall, FileUsage, FrameBuffer, MAX_DATA_BYTES, Output, Reply};
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    client::{AgentClient, Guard, error_of},
    exec::Input,
    failure::failed,
    file::{pass_on, to_io},
    stream::{Call, End, Item, Stream},
};
use crate::error::{Error, ErrorKind, Result};

/// The version of the protocol that knows trees.
const VERSION: u16 = 2;

/// Most failures of one transfer that are kept; of the others the number is.
const KEPT_FAILURES: usize = 1000;

/// Kind of a [`FileChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileChangeKind {
    /// It is new.
    Created,
    /// Its bytes changed.
    Modified,
    /// Its permissions, owner or times changed.
    Attributes,
    /// It was removed.
    Removed,
    /// It went away by being renamed.
    MovedFrom,
    /// It came by being renamed.
    MovedTo,
    /// Changes were missed, since too many came at once: look at the tree again. The path is empty.
    Missed,
}

impl FileChangeKind {
    /// Stable lower-case name: `moved_from`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Modified => "modified",
            Self::Attributes => "attributes",
            Self::Removed => "removed",
            Self::MovedFrom => "moved_from",
            Self::MovedTo => "moved_to",
            Self::Missed => "missed",
        }
    }
}

/// Something happened to a file of a container.
///
/// It comes from the container: the path may be anything, and is not safe to print or to use here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileChange {
    /// What happened.
    pub kind: FileChangeKind,
    /// Whether it happened to a directory.
    pub directory: bool,
    /// Where, from the directory that is watched; empty for that one. What is not UTF-8 in it is
    /// replaced.
    pub path: String,
}

impl FileChange {
    fn new(change: &podkit_agent::FileChange) -> Option<Self> {
        use podkit_agent::FileChangeKind as Wire;
        let kind = match change.kind {
            Wire::Watching => return None,
            Wire::Created => FileChangeKind::Created,
            Wire::Modified => FileChangeKind::Modified,
            Wire::Attributes => FileChangeKind::Attributes,
            Wire::Removed => FileChangeKind::Removed,
            Wire::MovedFrom => FileChangeKind::MovedFrom,
            Wire::MovedTo => FileChangeKind::MovedTo,
            Wire::Missed => FileChangeKind::Missed,
        };
        Some(Self {
            kind,
            directory: change.directory,
            path: String::from_utf8_lossy(&change.path).into_owned(),
        })
    }
}

/// What a file, or a directory with all below it, takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskUsage {
    /// Bytes on the disk. A file of several names counts for each of them with its part.
    pub disk_bytes: u64,
    /// Bytes of all files, as long as they are.
    pub size_bytes: u64,
    /// Files, links and all else that is no directory.
    pub files: u64,
    /// Directories, with the first.
    pub directories: u64,
    /// Directories that could not be read, and are not in the figures.
    pub unread: u64,
}

/// What could not be done of a transfer that went on.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    frames: FrameBuffer,
    /// The first of them.
    pub(crate) kept: Vec<Error>,
    /// How many more there were.
    pub(crate) more: u64,
}

impl Failures {
    pub(crate) fn add(&mut self, error: Error) {
        if self.kept.len() < KEPT_FAILURES {
            self.kept.push(error);
        } else {
            self.more += 1;
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.frames.push(bytes);
        loop {
            let reply = match self.frames.next_frame() {
                Ok(None) => return Ok(()),
                Ok(Some((kind, _, payload))) => Reply::decode(kind, payload),
                Err(error) => Err(error),
            };
            let Ok(Reply::Failed(failure)) = reply else {
                return Err(disturbed("a failure"));
            };
            self.add(failed(&failure));
        }
    }
}

fn disturbed(what: &str) -> Error {
    let message = format!("the agent broke the protocol: {what} cannot be read");
    Error::new(ErrorKind::AgentUnreachable, message)
}

impl AgentClient {
    /// Begins to read a file, or a directory with all below it, as an archive.
    pub(crate) async fn archive(&self, path: &str, user: &str) -> Result<TreeReader> {
        self.require(VERSION, "archives")?;
        let stream = self
            .begin_file(Call::Archive, FileCall::Archive, path, user)
            .await?;
        let guard = Guard::new(self, stream, true);
        let end = poll_fn(|context| guard.stream.poll_ready(context)).await;
        let stream = guard.disarm();
        match end {
            Some(End::Done) | None => Ok(TreeReader {
                client: self.clone(),
                stream,
                failures: Failures::default(),
            }),
            Some(end) => Err(error_of(end)),
        }
    }

    /// Begins to make in a directory what an archive holds.
    pub(crate) async fn extract(&self, path: &str, user: &str) -> Result<(TreeWriter, Extraction)> {
        self.require(VERSION, "archives")?;
        let stream = self
            .begin_file(Call::Extract, FileCall::Extract, path, user)
            .await?;
        let extraction = Extraction {
            client: self.clone(),
            stream: Arc::clone(&stream),
        };
        Ok((TreeWriter(Input::new(self.clone(), stream)), extraction))
    }

    /// Begins to watch a directory; returns once no change is missed any more.
    pub(crate) async fn watch(&self, path: &str, user: &str, recursive: bool) -> Result<FileWatch> {
        self.require(VERSION, "watching of files")?;
        let call = FileCall::Watch { recursive };
        let stream = self.begin_file(Call::Read, call, path, user).await?;
        let mut watch = FileWatch {
            client: self.clone(),
            stream,
            frames: FrameBuffer::new(),
            over: false,
        };
        match watch.next_change().await {
            Some(Ok(change)) if FileChange::new(&change).is_none() => Ok(watch),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Err(disturbed("the beginning of a watch")),
        }
    }

    /// What a tree takes.
    pub(crate) async fn usage(&self, path: &str, user: &str) -> Result<DiskUsage> {
        self.require(VERSION, "disk usage")?;
        let stream = self
            .begin_file(Call::Read, FileCall::Usage, path, user)
            .await?;
        let guard = Guard::new(self, stream, true);
        let mut frames = FrameBuffer::new();
        let mut came = 0;
        let end = loop {
            match poll_fn(|context| guard.stream.poll_item(context)).await {
                Item::Data(_, bytes, credit) => {
                    came += bytes.len();
                    if came > MAX_DATA_BYTES {
                        return Err(disturbed("disk usage"));
                    }
                    self.connection().grant(guard.stream.id, credit);
                    frames.push(&bytes);
                }
                Item::End(end) => break end,
            }
        };
        drop(guard.disarm());
        if !matches!(end, End::Done) {
            return Err(error_of(end));
        }
        let usage = match frames.next_frame() {
            Ok(Some((_, _, payload))) => FileUsage::decode(payload).ok(),
            _ => None,
        };
        let usage = usage.ok_or_else(|| disturbed("disk usage"))?;
        Ok(DiskUsage {
            disk_bytes: usage.disk_bytes,
            size_bytes: usage.size_bytes,
            files: usage.files,
            directories: usage.directories,
            unread: usage.unread,
        })
    }
}

/// An archive as it comes. Dropping it ends the reading.
#[derive(Debug)]
pub(crate) struct TreeReader {
    client: AgentClient,
    stream: Arc<Stream>,
    pub(crate) failures: Failures,
}

impl TreeReader {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            match ready!(self.stream.poll_item(context)) {
                Item::Data(output, bytes, credit) => {
                    self.client.connection().grant(self.stream.id, credit);
                    if output == Output::Stdout {
                        return Poll::Ready(Ok(Some(bytes)));
                    }
                    self.failures.push(&bytes)?;
                }
                Item::End(End::Done) => return Poll::Ready(Ok(None)),
                Item::End(end) => return Poll::Ready(Err(error_of(end))),
            }
        }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|context| self.poll_next(context)).await
    }
}

impl Drop for TreeReader {
    fn drop(&mut self) {
        self.client.connection().abandon(&self.stream, true);
    }
}

/// A tree of a container as a tar archive, as it comes. Dropping it ends the reading.
///
/// A failure on the way is an [`io::Error`] that holds the library's [`Error`]. What could not be read
/// is left out, and is an error at the end, after all bytes.
#[derive(Debug)]
pub struct ArchiveReader {
    reader: TreeReader,
    chunk: Bytes,
    over: bool,
}

impl ArchiveReader {
    pub(crate) const fn new(reader: TreeReader) -> Self {
        Self {
            reader,
            chunk: Bytes::new(),
            over: false,
        }
    }

    fn left_out(&mut self) -> Option<Error> {
        let failures = &mut self.reader.failures;
        let count = failures.kept.len() as u64 + failures.more;
        let first = failures.kept.drain(..).next()?;
        let message = format!("{count} files are not in the archive; the first of them");
        Some(Error::new(first.kind(), message).with_source(first))
    }
}

impl AsyncRead for ArchiveReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.chunk.is_empty() && !this.over {
            match ready!(this.reader.poll_next(context)) {
                Ok(Some(bytes)) => this.chunk = bytes,
                Ok(None) => {
                    this.over = true;
                    if let Some(error) = this.left_out() {
                        return Poll::Ready(Err(to_io(error)));
                    }
                }
                Err(error) => {
                    this.over = true;
                    return Poll::Ready(Err(to_io(error)));
                }
            }
        }
        pass_on(&mut this.chunk, buffer);
        Poll::Ready(Ok(()))
    }
}

/// Where an archive goes.
#[derive(Debug)]
pub(crate) struct TreeWriter(Input);

impl TreeWriter {
    /// Sends bytes as fast as the agent takes them; `false` when it wants no more.
    pub(crate) async fn write_all(&mut self, bytes: Bytes) -> bool {
        self.0.write_all(bytes).await
    }

    /// Says that this was all.
    pub(crate) fn end(&self) {
        self.0.end();
    }
}

/// What becomes of an archive. It has to be waited for while the archive is written; dropping it ends
/// the call, and what is made stays.
#[derive(Debug)]
pub(crate) struct Extraction {
    client: AgentClient,
    stream: Arc<Stream>,
}

impl Extraction {
    /// Waits for the end.
    ///
    /// # Errors
    /// What ended it all.
    pub(crate) async fn finish(self) -> Result<Failures> {
        let mut failures = Failures::default();
        loop {
            match poll_fn(|context| self.stream.poll_item(context)).await {
                Item::Data(_, bytes, credit) => {
                    self.client.connection().grant(self.stream.id, credit);
                    failures.push(&bytes)?;
                }
                Item::End(End::Done) => return Ok(failures),
                Item::End(end) => return Err(error_of(end)),
            }
        }
    }
}

impl Drop for Extraction {
    fn drop(&mut self) {
        self.client.connection().abandon(&self.stream, true);
    }
}

/// Changes below a directory of a container, as they happen. Dropping it ends the watch.
#[derive(Debug)]
pub struct FileWatch {
    client: AgentClient,
    stream: Arc<Stream>,
    frames: FrameBuffer,
    /// Whether the end, or an error, has been told.
    over: bool,
}

impl FileWatch {
    /// The next change; `None` once the directory is gone, and after an error.
    ///
    /// # Errors
    /// What ended the watch: `ContainerGone`, `AgentUnreachable`, or `LimitExceeded` when more
    /// directories came than the kernel watches.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<FileChange>> {
        while !self.over {
            match self.next_change().await {
                Some(Ok(change)) => {
                    if let Some(change) = FileChange::new(&change) {
                        return Some(Ok(change));
                    }
                }
                end => {
                    self.over = true;
                    let error = end?.err()?;
                    return Some(Err(error.with_operation("watch files")));
                }
            }
        }
        None
    }

    async fn next_change(&mut self) -> Option<Result<podkit_agent::FileChange>> {
        loop {
            match self.frames.next_frame() {
                Ok(None) => {}
                Ok(Some((kind, _, payload))) => {
                    let change = podkit_agent::FileChange::decode(kind, payload);
                    return Some(change.map_err(|_| disturbed("a change")));
                }
                Err(_) => return Some(Err(disturbed("a change"))),
            }
            match poll_fn(|context| self.stream.poll_item(context)).await {
                Item::Data(_, bytes, credit) => {
                    self.client.connection().grant(self.stream.id, credit);
                    self.frames.push(&bytes);
                }
                Item::End(End::Done) => return None,
                Item::End(end) => return Some(Err(error_of(end))),
            }
        }
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        self.client.connection().abandon(&self.stream, true);
    }
}
