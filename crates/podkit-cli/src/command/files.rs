//! `podkit write`, `podkit read`, `podkit watch` and `podkit du`.

use std::{
    io,
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use indicatif::BinaryBytes;
use podkit::{Error, ErrorKind, FileChange, Files, Session, WriteOptions};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::{Context, progress::Progress};
use crate::{
    file_args::{DuArgs, ReadArgs, WatchArgs, WriteArgs},
    output::{Exit, Failure, printable},
    pump,
    signals::Signals,
};

/// Bytes that are read of a file at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Writes standard input to a file.
pub(super) async fn write(context: &Context, args: WriteArgs) -> Result<Exit, Failure> {
    let key = context.key(&args.session)?;
    pump::has_input(true, false)?;
    let session = context.session(&key, args.quiet).await?;
    let mut options = WriteOptions::default();
    options.mode = args.mode;
    options.append = args.append;
    let mut progress = Progress::new(context, args.quiet, None);
    let source = Counted::new(tokio::io::stdin(), &mut progress);
    let result = files(&session, args.user.as_deref())
        .write_with(&args.path, options, source)
        .await;
    progress.finish();
    result?;
    if context.output.is_json() {
        let json =
            || json!({ "session": key.to_string(), "path": args.path, "bytes": progress.bytes() });
        context.output.result(json, String::new)?;
    }
    Ok(Exit::Success)
}

/// Writes a file to standard output.
pub(super) async fn read(context: &Context, args: ReadArgs) -> Result<Exit, Failure> {
    let key = context.key(&args.session)?;
    let session = context.session(&key, args.quiet).await?;
    let files = files(&session, args.user.as_deref());
    let reader = files.reader(&args.path).await?;
    let mut progress = Progress::new(context, args.quiet, None);
    let result = copy_out(Counted::new(reader, &mut progress)).await;
    progress.finish();
    result.map(|()| Exit::Success)
}

/// Tells what happens to files, until it is interrupted.
pub(super) async fn watch(context: &Context, args: WatchArgs) -> Result<Exit, Failure> {
    let key = context.key(&args.session)?;
    let mut signals = Signals::listen()?;
    let session = context.session(&key, args.quiet).await?;
    let files = files(&session, args.user.as_deref());
    let mut watch = files.watch(&args.path, args.recursive).await?;
    loop {
        tokio::select! {
            change = watch.next() => match change {
                Some(change) => show(context, &change?)?,
                None => return Ok(Exit::Success),
            },
            _ = signals.number() => return Ok(Exit::Success),
        }
    }
}

/// One change is one line, for programs as well.
fn show(context: &Context, change: &FileChange) -> Result<(), Failure> {
    let line = if context.output.is_json() {
        json!({
            "change": change.kind.as_str(),
            "directory": change.directory,
            "path": change.path,
        })
        .to_string()
    } else {
        let slash = if change.directory { "/" } else { "" };
        let line = format!("{:10} {}{slash}", change.kind.as_str(), change.path);
        printable(&line).into_owned()
    };
    context.output.text(&format!("{line}\n"))
}

/// Shows what a file or a directory takes.
pub(super) async fn du(context: &Context, args: DuArgs) -> Result<Exit, Failure> {
    let key = context.key(&args.session)?;
    let session = context.session(&key, args.quiet).await?;
    let usage = files(&session, args.user.as_deref())
        .disk_usage(&args.path)
        .await?;
    let json = || {
        json!({
            "session": key.to_string(),
            "path": args.path,
            "disk_bytes": usage.disk_bytes,
            "size_bytes": usage.size_bytes,
            "files": usage.files,
            "directories": usage.directories,
            "unread": usage.unread,
        })
    };
    let text = || {
        let unread = match usage.unread {
            0 => String::new(),
            count => format!(", {count} directories not readable"),
        };
        format!(
            "{} on disk, {} in {} files and {} directories{unread}\n",
            BinaryBytes(usage.disk_bytes),
            BinaryBytes(usage.size_bytes),
            usage.files,
            usage.directories
        )
    };
    context.output.result(json, text)?;
    Ok(Exit::Success)
}

fn files(session: &Session, user: Option<&str>) -> Files {
    match user {
        Some(user) => session.files().user(user),
        None => session.files(),
    }
}

async fn copy_out(mut source: impl AsyncRead + Unpin) -> Result<(), Failure> {
    loop {
        let mut buffer = bytes::BytesMut::with_capacity(CHUNK_BYTES);
        let count = source.read_buf(&mut buffer).await.map_err(|error| {
            error.downcast::<Error>().unwrap_or_else(|error| {
                Error::new(
                    ErrorKind::Unexpected,
                    "the file could not be read to its end",
                )
                .with_source(error)
            })
        })?;
        if count == 0 {
            return Ok(());
        }
        pump::write_out(buffer.freeze()).await?;
    }
}

/// Counts what is read from a source.
pub(super) struct Counted<'p, R> {
    source: R,
    progress: &'p mut Progress,
}

impl<'p, R> Counted<'p, R> {
    /// Shows what is read as progress.
    pub(super) const fn new(source: R, progress: &'p mut Progress) -> Self {
        Self { source, progress }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<'_, R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.source).poll_read(context, buffer))?;
        self.progress.add(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}
