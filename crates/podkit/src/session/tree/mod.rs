//! Trees of files: into a session's container and out of it, watched, and measured.

mod download;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod local;
mod upload;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use futures::future::join;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
    task::spawn_blocking,
};

use super::{
    files::{Files, failed_io},
    open::Effort,
    slot::Live,
};
use crate::{
    agent::{
        AgentClient, ArchiveReader, DiskUsage, Failures, FileEntry, FileKind, FileWatch, printable,
    },
    error::{Error, ErrorKind, Result},
};

/// Chunks that wait between the container and this machine's file system.
const WAITING_CHUNKS: usize = 16;

/// Bytes of one chunk.
const CHUNK_BYTES: usize = 64 * 1024;

/// Most directories that a file may be deep in.
const MAX_DEPTH: usize = 512;

/// Most entries of one transfer.
const MAX_ENTRIES: u64 = 10_000_000;

/// Most bytes of names and links that are kept until the end of one transfer, so that a lying agent
/// cannot fill this machine's memory with them.
const MAX_KEPT_BYTES: u64 = 256 << 20;

/// What is counted of an entry that is kept, beside its names.
const KEPT_ENTRY_BYTES: u64 = 128;

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferProgress {
    /// Files, directories and links so far.
    pub entries: u64,
    /// Bytes of files so far.
    pub bytes: u64,
}

/// What was transferred.
#[derive(Debug, Default)]
#[non_exhaustive]
#[must_use = "parts may not have been transferred: see `check`"]
pub struct TransferReport {
    /// Files, directories and links that were met.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// What was not transferred, one error for each entry: the first thousand.
    pub failed: Vec<Error>,
    /// How many more there were.
    pub failed_more: u64,
}

impl TransferReport {
    fn new(progress: TransferProgress, failures: Failures) -> Self {
        Self {
            entries: progress.entries,
            bytes: progress.bytes,
            failed: failures.kept,
            failed_more: failures.more,
        }
    }

    /// How much was transferred, if all was.
    ///
    /// # Errors
    /// The first of what was not, with how many there are.
    pub fn check(mut self) -> Result<TransferProgress> {
        let count = self.failed.len() as u64 + self.failed_more;
        if self.failed.is_empty() {
            return Ok(TransferProgress {
                entries: self.entries,
                bytes: self.bytes,
            });
        }
        let first = self.failed.swap_remove(0);
        let message = format!("{count} entries were not transferred; the first of them");
        Err(Error::new(first.kind(), message).with_source(first))
    }
}

/// What the two sides of a transfer count.
#[derive(Debug, Default)]
struct Counts {
    entries: AtomicU64,
    bytes: AtomicU64,
    /// Bytes of what is kept until the end.
    kept: AtomicU64,
}

impl Counts {
    fn now(&self) -> TransferProgress {
        TransferProgress {
            entries: self.entries.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn add_bytes(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Counts an entry.
    ///
    /// # Errors
    /// `LimitExceeded` for more than there may be.
    fn add_entry(&self) -> Result<()> {
        if self.entries.fetch_add(1, Ordering::Relaxed) >= MAX_ENTRIES {
            let what = format!("there are more than {MAX_ENTRIES} files");
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        Ok(())
    }

    /// Counts an entry that is kept until the end, with so many bytes of names.
    ///
    /// # Errors
    /// `LimitExceeded` for more than there may be.
    fn keep(&self, bytes: usize) -> Result<()> {
        let bytes = KEPT_ENTRY_BYTES + bytes as u64;
        if self.kept.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_KEPT_BYTES {
            let what = "the names of directories and links are more than 256 MiB";
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        Ok(())
    }
}

impl Files {
    /// Copies a file, or a directory with all below it, to this machine. A file takes the name `to`; a
    /// directory becomes `to`, or is merged into it where that is one. Permission bits, times and
    /// links are kept.
    ///
    /// Nothing that the container says is believed: no name leads out of `to`, no link on this
    /// machine is followed below it, links that may lead out of it are not made (those that are absolute,
    /// or have `..` behind a name), and neither are devices or set-id bits. Blocks of zeros take no room.
    ///
    /// # Errors
    /// - `NotFound`, `PermissionDenied`: of `from` or `to` themselves.
    /// - `LimitExceeded` for a full disk, more than ten million entries, or more than 256 MiB of names
    ///   of directories and links.
    /// - `InvalidInput` when what comes names places outside.
    ///
    /// What cannot be copied below a directory is in the report, and the rest is copied.
    ///
    /// # Cancel safety
    /// What has been copied stays when the future is dropped; no file is half there.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let podkit = podkit::Podkit::connect("memory").await?;
    /// # let directory = tempfile::tempdir()?;
    /// let session = podkit.session("bob", "123").await?;
    /// session.files().write("results/a.txt", "42").await?;
    /// let to = directory.path().join("results");
    /// let report = session.files().download("results", &to).await?.check()?;
    /// assert_eq!(report.bytes, 2);
    /// assert_eq!(std::fs::read(to.join("a.txt"))?, b"42");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn download(&self, from: &str, to: impl AsRef<Path>) -> Result<TransferReport> {
        self.download_with(from, to, |_| ()).await
    }

    /// As [`download`](Self::download), telling how far it is.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    ///
    /// # Cancel safety
    /// As [`download`](Self::download).
    pub async fn download_with(
        &self,
        from: &str,
        to: impl AsRef<Path>,
        progress: impl FnMut(TransferProgress) + Send,
    ) -> Result<TransferReport> {
        let to = to.as_ref().to_owned();
        let entry = self.stat_followed(from).await?;
        let result = match entry.kind {
            FileKind::Directory => self.download_tree(from, to, entry.mode, progress).await,
            FileKind::File => self.download_file(from, to, &entry, progress).await,
            _ => Err(Error::unsupported(format!(
                "{from:?} is neither a file nor a directory"
            ))),
        };
        result.map_err(|error| self.named(error, "download files"))
    }

    async fn download_tree(
        &self,
        from: &str,
        to: std::path::PathBuf,
        mode: u32,
        mut progress: impl FnMut(TransferProgress) + Send,
    ) -> Result<TransferReport> {
        let mut reader = self.begin_archive(from).await?;
        let counts = Arc::new(Counts::default());
        let (sender, receiver) = mpsc::channel::<Bytes>(WAITING_CHUNKS);
        let counted = Arc::clone(&counts);
        let sink = spawn_blocking(move || download::make(&to, mode, receiver, &counted));
        let mut came = Ok(());
        loop {
            match reader.next().await {
                Ok(Some(bytes)) => {
                    // The other side says why it wants no more.
                    if sender.send(bytes).await.is_err() {
                        break;
                    }
                    progress(counts.now());
                }
                Ok(None) => break,
                Err(error) => {
                    came = Err(error);
                    break;
                }
            }
        }
        drop(sender);
        let mut failures = std::mem::take(&mut reader.failures);
        drop(reader);
        let made = joined(sink.await);
        came?;
        let here = made?;
        for error in here.kept {
            failures.add(error);
        }
        failures.more += here.more;
        progress(counts.now());
        Ok(TransferReport::new(counts.now(), failures))
    }

    async fn download_file(
        &self,
        from: &str,
        to: std::path::PathBuf,
        entry: &FileEntry,
        mut progress: impl FnMut(TransferProgress) + Send,
    ) -> Result<TransferReport> {
        let mut reader = self.reader(from).await?;
        let counts = Arc::new(Counts::default());
        counts.add_entry()?;
        let (sender, receiver) = mpsc::channel::<Bytes>(WAITING_CHUNKS);
        let (mode, modified) = (entry.mode, entry.modified);
        let sink = spawn_blocking(move || download::file(&to, mode, modified, receiver));
        let mut chunk = BytesMut::new();
        let came = loop {
            chunk.reserve(CHUNK_BYTES);
            match reader.read_buf(&mut chunk).await {
                Ok(0) => {
                    // An empty chunk says that nothing is missing.
                    let _ = sender.send(Bytes::new()).await;
                    break Ok(());
                }
                Ok(count) => {
                    counts.add_bytes(count);
                    progress(counts.now());
                    if sender.send(chunk.split().freeze()).await.is_err() {
                        break Ok(());
                    }
                }
                Err(error) => break Err(failed_io("download files", from, error)),
            }
        };
        drop(sender);
        let made = joined(sink.await);
        came?;
        made?;
        Ok(TransferReport::new(counts.now(), Failures::default()))
    }

    /// Copies a file, or a directory with all below it, from this machine into the container. A file
    /// takes the name `to`; a directory becomes `to`, or is merged into it where that is one. Missing
    /// parents are made. Permission bits, times and links are kept, but for set-id bits; the copies
    /// are the user's that this acts as.
    ///
    /// Links below `from` are copied as links and never followed.
    ///
    /// # Errors
    /// - `NotFound`, `PermissionDenied`: of `from` or `to` themselves.
    /// - `LimitExceeded` for a full disk in the container.
    ///
    /// What cannot be copied below a directory is in the report, and the rest is copied.
    ///
    /// # Cancel safety
    /// What has been copied stays when the future is dropped; no file is half there.
    pub async fn upload(&self, from: impl AsRef<Path>, to: &str) -> Result<TransferReport> {
        self.upload_with(from, to, |_| ()).await
    }

    /// As [`upload`](Self::upload), telling how far it is.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub async fn upload_with(
        &self,
        from: impl AsRef<Path>,
        to: &str,
        mut progress: impl FnMut(TransferProgress) + Send,
    ) -> Result<TransferReport> {
        let from = from.as_ref().to_owned();
        let opened = spawn_blocking(move || upload::open(&from));
        let result = match joined(opened.await)? {
            upload::Source::Tree(tree) => self.upload_tree(tree, to, progress).await,
            upload::Source::File { file, mode } => {
                let source = tokio::fs::File::from_std(file);
                let options = super::files::WriteOptions::new().with_mode(mode);
                let mut bytes = 0;
                let source = upload::Counted::new(source, |count| {
                    bytes += count as u64;
                    progress(TransferProgress { entries: 1, bytes });
                });
                let written = self.write_with(to, options, source).await;
                written.map(|bytes| {
                    let progress = TransferProgress { entries: 1, bytes };
                    TransferReport::new(progress, Failures::default())
                })
            }
        };
        result.map_err(|error| self.named(error, "upload files"))
    }

    async fn upload_tree(
        &self,
        tree: upload::Tree,
        to: &str,
        mut progress: impl FnMut(TransferProgress) + Send,
    ) -> Result<TransferReport> {
        let counts = Arc::new(Counts::default());
        let (sender, mut receiver) = mpsc::channel::<Bytes>(WAITING_CHUNKS);
        let counted = Arc::clone(&counts);
        let source = spawn_blocking(move || upload::send(tree, &sender, &counted));
        let (mut writer, extraction) = self.begin_extract(to).await?;
        let sent = async {
            while let Some(bytes) = receiver.recv().await {
                progress(counts.now());
                if !writer.write_all(bytes).await {
                    break;
                }
            }
            drop(receiver);
            let read = joined(source.await);
            // Without its end the call would wait for more, whatever has failed here.
            writer.end();
            read
        };
        let (read, made) = join(sent, extraction.finish()).await;
        let here = match (read, made) {
            // What the walk failed of is the cause.
            (Err(error), _) => return Err(error),
            (Ok(_), Err(error)) => return Err(error),
            (Ok(here), Ok(mut there)) => {
                for error in here.kept {
                    there.add(error);
                }
                there.more += here.more;
                there
            }
        };
        progress(counts.now());
        Ok(TransferReport::new(counts.now(), here))
    }

    /// Reads a file, or a directory with all below it, as a tar archive, as it is read from: `.` is
    /// the directory itself. Proc, sys and the like are left out.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`. What cannot be read below is left out, and is an error at the
    /// end of the stream.
    ///
    /// # Cancel safety
    /// Nothing is left when the future is dropped.
    pub async fn archive(&self, path: &str) -> Result<ArchiveReader> {
        let reader = self.begin_archive(path).await;
        let reader = reader.map_err(|error| self.named(error, "archive files"))?;
        Ok(ArchiveReader::new(reader))
    }

    /// Makes in the directory `to` what a tar archive holds: as ustar, pax or GNU tar write it, not
    /// compressed. The directory is made where it is missing; files that exist are replaced. All is
    /// the user's that this acts as.
    ///
    /// No link is followed below `to`, and no set-id bit is taken over.
    ///
    /// # Errors
    /// - `InvalidInput` when it is no archive, or a member has an absolute path or `..` in it: what
    ///   came before that one is made.
    /// - `PermissionDenied`; `LimitExceeded` for a full disk; `Unexpected` when the source fails.
    ///
    /// What cannot be made below `to` is in the report, and the rest is made.
    ///
    /// # Cancel safety
    /// What is made stays when the future is dropped; no file is half there.
    pub async fn extract(&self, to: &str, source: impl AsyncRead + Send) -> Result<TransferReport> {
        let named = |error| self.named(error, "extract files");
        let (mut writer, extraction) = self.begin_extract(to).await.map_err(named)?;
        let mut source = std::pin::pin!(source);
        let sent = async {
            let mut progress = TransferProgress::default();
            let mut chunk = BytesMut::new();
            loop {
                chunk.reserve(CHUNK_BYTES);
                let count = match source.read_buf(&mut chunk).await {
                    Ok(count) => count,
                    Err(error) => {
                        writer.end();
                        return Err(failed_io("extract files", to, error));
                    }
                };
                progress.bytes += count as u64;
                if count == 0 || !writer.write_all(chunk.split().freeze()).await {
                    writer.end();
                    return Ok(progress);
                }
            }
        };
        let (mut sent, mut made) = (std::pin::pin!(sent), std::pin::pin!(extraction.finish()));
        let (sent, made) = tokio::select! {
            made = &mut made => {
                // A source may be silent for ever, and the container gone meanwhile.
                let made = made.map_err(named)?;
                (sent.await, Ok(made))
            }
            sent = &mut sent => (sent, made.await),
        };
        let progress = sent?;
        Ok(TransferReport::new(progress, made.map_err(named)?))
    }

    /// Watches a directory; with `recursive` also all below it, as far as the user may read it.
    /// Returns once no change is missed any more. No activity: a session that is only watched stops
    /// and expires.
    ///
    /// A directory that is new, or was moved in, is watched a moment later: what is found in it then is
    /// `Created`, and may be told twice. After [`Missed`](crate::FileChangeKind::Missed) everything is
    /// watched that is there then.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`; `LimitExceeded` when there are more directories than the kernel
    /// watches (`fs.inotify.max_user_watches`), or more watches of one user, in all containers together
    /// where they share their ids (`fs.inotify.max_user_instances`, often 128).
    ///
    /// # Cancel safety
    /// Nothing is left when the future is dropped.
    ///
    /// # Examples
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> podkit::Result<()> {
    /// # let podkit = podkit::Podkit::connect("auto").await?;
    /// let session = podkit.session("bob", "123").await?;
    /// let mut watch = session.files().watch("/workspace", true).await?;
    /// session.files().write("a/b.txt", "42").await?;
    /// while let Some(change) = watch.next().await {
    ///     let change = change?;
    ///     if change.path == "a/b.txt" {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn watch(&self, path: &str, recursive: bool) -> Result<FileWatch> {
        let (path, user) = (&Live::path(path)?, &self.user);
        let watch = |client: AgentClient| async move { client.watch(path, user, recursive).await };
        self.session.ask("watch files", watch).await
    }

    /// What a file, or a directory with all below it, takes. Links are not followed.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`. Directories that cannot be read are counted.
    ///
    /// # Cancel safety
    /// Nothing is left when the future is dropped.
    pub async fn disk_usage(&self, path: &str) -> Result<DiskUsage> {
        let (path, user) = (&Live::path(path)?, &self.user);
        let usage = |client: AgentClient| async move { client.usage(path, user).await };
        self.session.ask("measure files", usage).await
    }

    async fn stat_followed(&self, path: &str) -> Result<FileEntry> {
        let (path, user) = (&Live::path(path)?, &self.user);
        let stat = |client: AgentClient| async move { client.stat(path, user, true).await };
        self.session.ask("stat file", stat).await
    }

    async fn begin_archive(&self, path: &str) -> Result<crate::agent::TreeReader> {
        let (path, user) = (&Live::path(path)?, &self.user);
        let begin = |client: AgentClient| async move { client.archive(path, user).await };
        self.session.ask("archive files", begin).await
    }

    async fn begin_extract(
        &self,
        path: &str,
    ) -> Result<(crate::agent::TreeWriter, crate::agent::Extraction)> {
        let (path, user) = (Live::path(path)?, self.user.clone());
        self.session
            .on_live("extract files", Effort::Create, move |live| {
                let (path, user) = (path.clone(), user.clone());
                async move { live.client.extract(&path, &user).await }
            })
            .await
    }

    fn named(&self, error: Error, operation: &'static str) -> Error {
        error
            .with_operation(operation)
            .with_container(self.session.container())
    }
}

/// What a thread of ours came to.
fn joined<T>(result: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    result.unwrap_or_else(|error| {
        let message = "the work on this machine's files was broken off";
        Err(Error::new(ErrorKind::Unexpected, message).with_source(error))
    })
}

/// A failure of this machine's file system. The path may come from a container.
fn local_error(verb: &str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::LimitExceeded,
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => ErrorKind::InvalidInput,
        _ => ErrorKind::Unexpected,
    };
    let what = format!("failed to {verb} `{}`", shown(path));
    Error::new(kind, what).with_source(error)
}

/// A path for people, who are not to see what a container makes of their terminal.
fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}
