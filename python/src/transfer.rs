//! Bytes that come and go piece by piece, in as much memory as a few pieces take.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use podkit::{Error, ErrorKind, Result};
use pyo3::{prelude::*, types::PyBytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    sync::{Mutex, mpsc},
    task::JoinHandle,
};

use crate::{
    call::{Call, Owned, runtime},
    failure::raised,
};

/// Most bytes of one piece.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// Pieces that wait to be taken.
const WAITING: usize = 4;

/// Makes a result an object of Python's.
pub(crate) type Answer = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// Bytes that come.
#[pyclass(frozen)]
pub(crate) struct Source(Owned<Arc<Mutex<Reader>>>);

impl Source {
    pub(crate) fn new(reader: impl AsyncRead + Send + 'static) -> Self {
        Self(Owned::new(Arc::new(Mutex::new(Box::pin(reader)))))
    }
}

#[pymethods]
impl Source {
    /// The next bytes; `None` at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Call> {
        let reader = Arc::clone(self.0.get(py)?);
        let work = async move {
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            let mut reader = reader.lock().await;
            let read = reader.read_buf(&mut chunk).await;
            read.map_err(stopped)?;
            Ok(chunk)
        };
        Ok(Call::new(work, |py, chunk| {
            Ok(if chunk.is_empty() {
                py.None()
            } else {
                PyBytes::new(py, &chunk).into_any().unbind()
            })
        }))
    }
}

/// An error of a stream: the library's own where it is one.
pub(crate) fn stopped(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => {
            Error::new(ErrorKind::Unexpected, "the bytes stopped coming").with_source(error)
        }
    }
}

/// Bytes that go. When the object goes before its end, what they are for fails, and is not half done.
#[pyclass(frozen)]
pub(crate) struct Sink(Owned<Parts>);

struct Parts {
    /// `None` in it says that this was all; there is none when it was given up.
    pieces: std::sync::Mutex<Option<Pieces>>,
    task: Arc<Mutex<Option<JoinHandle<Result<Answer>>>>>,
}

type Pieces = mpsc::Sender<Option<Bytes>>;

impl Parts {
    fn pieces(&self) -> Option<Pieces> {
        let pieces = self.pieces.lock();
        pieces
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

impl Sink {
    /// Begins what takes the bytes.
    pub(crate) fn new<F>(py: Python<'_>, begin: impl FnOnce(Fed) -> F) -> PyResult<Self>
    where
        F: Future<Output = Result<Answer>> + Send + 'static,
    {
        let runtime = runtime(py).map_err(|error| raised(py, &error))?;
        let (pieces, receiver) = mpsc::channel(WAITING);
        let task = runtime.spawn(begin(Fed {
            receiver,
            chunk: Bytes::new(),
            over: false,
        }));
        Ok(Self(Owned::new(Parts {
            pieces: std::sync::Mutex::new(Some(pieces)),
            task: Arc::new(Mutex::new(Some(task))),
        })))
    }
}

#[pymethods]
impl Sink {
    /// Sends bytes as fast as they are taken; gives whether more are wanted.
    fn write(&self, py: Python<'_>, content: &[u8]) -> PyResult<Call> {
        let pieces = self.0.get(py)?.pieces();
        let content = Bytes::copy_from_slice(content);
        let work = async move {
            Ok(match pieces {
                Some(pieces) => pieces.send(Some(content)).await.is_ok(),
                None => false,
            })
        };
        Ok(Call::new(work, |py, more| {
            Ok(more.into_pyobject(py)?.to_owned().into_any().unbind())
        }))
    }

    /// Says that this was all, and waits for what becomes of it.
    fn finish(&self, py: Python<'_>) -> PyResult<Call> {
        let parts = self.0.get(py)?;
        let (pieces, task) = (parts.pieces(), Arc::clone(&parts.task));
        let work = async move {
            // Who wants no more says why.
            if let Some(pieces) = pieces {
                let _ = pieces.send(None).await;
            }
            let Some(task) = task.lock().await.take() else {
                return Err(Error::invalid_input("this was finished before"));
            };
            task.await.unwrap_or_else(|error| {
                let text = "what took the bytes has broken off";
                Err(Error::new(ErrorKind::Unexpected, text).with_source(error))
            })
        };
        Ok(Call::new(work, |py, answer| answer(py)))
    }

    /// Gives it up: what the bytes are for fails, and is not half done.
    fn give_up(&self, py: Python<'_>) -> PyResult<()> {
        let pieces = self.0.get(py)?.pieces.lock();
        pieces
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        Ok(())
    }
}

/// What Python writes to a [`Sink`], to be read.
pub(crate) struct Fed {
    receiver: mpsc::Receiver<Option<Bytes>>,
    chunk: Bytes,
    over: bool,
}

impl AsyncRead for Fed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.chunk.is_empty() && !this.over {
            match ready!(this.receiver.poll_recv(context)) {
                Some(Some(bytes)) => this.chunk = bytes,
                Some(None) => this.over = true,
                None => {
                    this.over = true;
                    let given_up = Error::new(ErrorKind::Unexpected, "its source was given up");
                    return Poll::Ready(Err(io::Error::other(given_up)));
                }
            }
        }
        let count = this.chunk.len().min(buffer.remaining());
        let (taken, _) = this.chunk.split_at(count);
        buffer.put_slice(taken);
        this.chunk.advance(count);
        Poll::Ready(Ok(()))
    }
}
