//! Moves bytes between podkit's own streams and a command's, as they are and no faster than both
//! sides take them. Only bytes cross: the caller's files and terminal never enter the container.

use std::{future::Future, io, pin::pin};

use bytes::{Bytes, BytesMut};
use podkit::{Error, ErrorKind, ExecEvent, ExecHandle, ExecResult, ExecStdin};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FileType, OFlags, fcntl_getfl, fstat},
    io::Errno,
};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::{
    output::{Exit, Failure, Stream},
    signals::{Signals, Wish},
};

/// Most bytes of standard input that are read at once, and so at most read in vain when the command
/// ends without reading them, besides what is on its way.
const CHUNK_BYTES: usize = 64 << 10;

/// Where a command's output goes.
#[derive(Debug)]
pub(crate) enum Sink {
    /// To podkit's own standard output and standard error, at once.
    Streams,
    /// Into memory; the exec's own limit bounds it.
    Memory {
        /// Standard output so far.
        stdout: Vec<u8>,
        /// Standard error so far.
        stderr: Vec<u8>,
    },
}

/// Whether podkit's standard input is passed on.
///
/// A terminal is not read unless that is asked for: a command in a script would take the lines that
/// its caller types for itself.
///
/// # Errors
/// `InvalidInput` for a directory.
pub(crate) fn has_input(asked: bool, refused: bool) -> Result<bool, Error> {
    let stdin = rustix::stdio::stdin();
    if refused {
        return Ok(false);
    }
    let Ok(stat) = fstat(stdin) else {
        return Ok(false);
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Directory {
        return Err(
            Error::invalid_input("standard input cannot be read: is a directory")
                .with_hint("redirect a file, or pass `-n` to give the command no input"),
        );
    }
    // `nohup` leaves a standard input that can only be written.
    let write_only = fcntl_getfl(stdin).is_ok_and(|flags| {
        flags & OFlags::ACCMODE == OFlags::WRONLY || flags.contains(OFlags::PATH)
    });
    if write_only || is_null_device(&stat) {
        return Ok(false);
    }
    Ok(asked || !rustix::termios::isatty(stdin))
}

/// Whether it is `/dev/null`, which needs no copying.
fn is_null_device(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && rustix::fs::stat("/dev/null").is_ok_and(|null| null.st_rdev == stat.st_rdev)
}

/// Carries a command to its end: its output to `sink`, podkit's standard input to `input`, signals to
/// its process group.
///
/// # Errors
/// Whatever the command's connection says, and failures to read or write podkit's own streams; the
/// command is killed then, because its handle is dropped.
pub(crate) async fn run(
    mut input: Option<ExecStdin>,
    mut handle: ExecHandle,
    sink: &mut Sink,
    signals: &mut Signals,
) -> Result<ExecResult, Failure> {
    let mut feeding = pin!(feed(&mut input));
    let mut fed = false;
    let mut writing: Option<Writing> = None;
    loop {
        tokio::select! {
            biased;
            wish = signals.next() => match wish {
                // A command that has just ended takes no signal; its result follows.
                Wish::Forward(number) => drop(handle.signal(number).await),
                Wish::Kill => drop(handle.kill().await),
            },
            written = finished(&mut writing) => {
                writing = None;
                written?;
            }
            event = handle.next(), if writing.is_none() => match event {
                Some(Ok(ExecEvent::Exited(result))) => return Ok(result),
                Some(Ok(event)) => writing = sink.take(event)?,
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Error::new(
                    ErrorKind::AgentUnreachable,
                    "the command's result did not arrive",
                ).into()),
            },
            result = &mut feeding, if !fed => {
                fed = true;
                result?;
            }
        }
    }
}

/// Waits for the open of a session or the like, unless a signal comes first.
///
/// # Errors
/// The future's own, and a quiet one with 128 + n when signal n came.
pub(crate) async fn unless_signalled<T>(
    signals: &mut Signals,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    tokio::select! {
        result = work => Ok(result?),
        number = signals.number() => {
            Err(Failure::quiet(Exit::Signal(u8::try_from(number).unwrap_or(u8::MAX))))
        }
    }
}

/// A write that would have to wait, done by a thread of its own.
struct Writing {
    stream: Stream,
    task: JoinHandle<io::Result<()>>,
}

async fn finished(writing: &mut Option<Writing>) -> Result<(), Failure> {
    match writing {
        Some(Writing { stream, task }) => {
            let result = task
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error)));
            result.map_err(|error| Failure::writing(*stream, error))
        }
        None => std::future::pending().await,
    }
}

impl Sink {
    /// Takes output in; the rest of a write that would have to wait is returned.
    fn take(&mut self, event: ExecEvent) -> Result<Option<Writing>, Failure> {
        let (stream, bytes) = match event {
            ExecEvent::Stdout(bytes) => (Stream::Stdout, bytes),
            ExecEvent::Stderr(bytes) => (Stream::Stderr, bytes),
            _ => return Ok(None),
        };
        match self {
            Self::Memory { stdout, stderr } => {
                let kept = if stream == Stream::Stdout {
                    stdout
                } else {
                    stderr
                };
                kept.extend_from_slice(&bytes);
                Ok(None)
            }
            Self::Streams => write(stream, bytes),
        }
    }
}

/// Writes at once what can be, and hands the rest to a thread: a reader that pauses may not keep
/// podkit from passing signals on or from telling the agent that it lives.
fn write(stream: Stream, mut bytes: Bytes) -> Result<Option<Writing>, Failure> {
    let count = stream
        .write_now(&bytes)
        .map_err(|error| Failure::writing(stream, error))?;
    let rest = bytes.split_off(count.min(bytes.len()));
    if rest.is_empty() {
        return Ok(None);
    }
    let task = spawn_blocking(move || stream.write_all(&rest));
    Ok(Some(Writing { stream, task }))
}

/// Passes standard input on to its end, a chunk at a time and only as fast as it is taken.
///
/// When standard input cannot be read, `place` keeps the command's input open: the command may not
/// take what it has for the whole. It is killed first, because its handle is dropped before.
async fn feed(place: &mut Option<ExecStdin>) -> Result<(), Failure> {
    let Some(input) = place else { return Ok(()) };
    while let Some(chunk) = next_chunk().await? {
        if input.write_all(chunk).await.is_err() {
            // The command has closed its input or has ended; what matters comes as an event.
            return Ok(());
        }
    }
    if let Some(input) = place.take() {
        // As above.
        drop(input.close().await);
    }
    Ok(())
}

/// Reads the next bytes of standard input; `None` at its end.
///
/// # Errors
/// `Unexpected` with the kernel's words.
pub(crate) async fn next_chunk() -> Result<Option<Bytes>, Error> {
    let read = spawn_blocking(read_chunk)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)));
    match read {
        Ok(chunk) if chunk.is_empty() => Ok(None),
        Ok(chunk) => Ok(Some(chunk)),
        Err(error) => Err(
            Error::new(ErrorKind::Unexpected, "standard input cannot be read").with_source(error),
        ),
    }
}

fn read_chunk() -> io::Result<Bytes> {
    let stdin = rustix::stdio::stdin();
    let mut buffer = BytesMut::zeroed(CHUNK_BYTES);
    loop {
        match rustix::io::read(stdin, &mut buffer[..]) {
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer.freeze());
            }
            Err(Errno::INTR) => {}
            // Somebody who shares the file has made it non-blocking.
            Err(Errno::AGAIN) => {
                match poll(&mut [PollFd::from_borrowed_fd(stdin, PollFlags::IN)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Writes bytes to standard output, however long that takes.
///
/// # Errors
/// See [`Failure::writing`].
pub(crate) async fn write_out(bytes: Bytes) -> Result<(), Failure> {
    let mut writing = write(Stream::Stdout, bytes)?;
    if writing.is_some() {
        finished(&mut writing).await
    } else {
        Ok(())
    }
}
