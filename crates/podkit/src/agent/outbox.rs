//! What waits for the socket: one queue of whole frames.

use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use podkit_agent::Request;
use tokio::{io::AsyncWrite, sync::Semaphore};

use super::OUTBOX_HARD_BYTES;

/// A buffer larger than this is given back once it is empty.
const KEPT_BYTES: usize = 256 * 1024;

type Sink = Box<dyn AsyncWrite + Send + Unpin>;

/// The writing half of a connection and the frames that it has not taken yet.
pub(super) struct Outbox {
    sink: Option<Sink>,
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that are written.
    start: usize,
    /// Bytes written and dropped from `buffer` since the beginning.
    passed: u64,
    /// Where reserved room is given back: position in the stream of bytes, and how much.
    marks: VecDeque<(u64, usize)>,
    /// Wakes the writing task; also used when a caller writes, so that the task is woken when the
    /// socket takes more.
    waker: Option<Waker>,
    /// Whether something was written since the last look of the pulse.
    sent: bool,
}

impl Outbox {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink: Some(sink),
            buffer: Vec::new(),
            start: 0,
            passed: 0,
            marks: VecDeque::new(),
            waker: None,
            sent: false,
        }
    }

    /// Appends a frame; `reserved` bytes of room are given back once it is written.
    ///
    /// Returns whether nothing was waiting before.
    ///
    /// # Errors
    /// `BrokenPipe` after [`close`](Self::close), `WouldBlock` when too much waits already.
    pub(super) fn push(
        &mut self,
        stream: u32,
        request: &Request,
        reserved: usize,
    ) -> io::Result<bool> {
        if self.sink.is_none() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.waiting() > OUTBOX_HARD_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "the agent does not read",
            ));
        }
        let was_empty = self.waiting() == 0;
        request.encode(stream, &mut self.buffer);
        if reserved > 0 {
            let end = self.passed + self.buffer.len() as u64;
            self.marks.push_back((end, reserved));
        }
        Ok(was_empty)
    }

    fn waiting(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Writes as a caller: what the socket takes at once. The writing task does the rest.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn write_now(&mut self, room: &Semaphore) -> io::Result<()> {
        let Some(waker) = self.waker.clone() else {
            return Ok(()); // The writing task has not begun; it will find the frame.
        };
        match self.poll_write(&mut Context::from_waker(&waker), room) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Writes as the writing task: ready when nothing waits.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn poll_task(
        &mut self,
        context: &mut Context<'_>,
        room: &Semaphore,
    ) -> Poll<io::Result<()>> {
        if !self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            self.waker = Some(context.waker().clone());
        }
        self.poll_write(context, room)
    }

    fn poll_write(&mut self, context: &mut Context<'_>, room: &Semaphore) -> Poll<io::Result<()>> {
        let Some(sink) = self.sink.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        while let Some(rest) = self
            .buffer
            .get(self.start..)
            .filter(|rest| !rest.is_empty())
        {
            let count = ready!(Pin::new(&mut *sink).poll_write(context, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += count;
            self.sent = true;
            while let Some(&(end, reserved)) = self.marks.front()
                && end <= self.passed + self.start as u64
            {
                self.marks.pop_front();
                room.add_permits(reserved);
            }
        }
        self.passed += self.start as u64;
        self.start = 0;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        Pin::new(sink).poll_flush(context)
    }

    /// Wakes the writing task.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Whether something was written since the last call.
    pub(super) const fn take_sent(&mut self) -> bool {
        std::mem::replace(&mut self.sent, false)
    }

    /// Drops the writing half and all that waits for it.
    pub(super) fn close(&mut self) {
        self.sink = None;
        self.buffer = Vec::new();
        self.start = 0;
        self.marks.clear();
        self.wake();
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}
