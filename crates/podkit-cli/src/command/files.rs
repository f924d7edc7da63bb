//! `podkit write` and `podkit read`.

use std::{
    io,
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use podkit::{Error, ErrorKind, Files, Session, WriteOptions};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::{Context, progress::Progress};
use crate::{
    args::{ReadArgs, WriteArgs},
    output::{Exit, Failure},
    pump,
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
