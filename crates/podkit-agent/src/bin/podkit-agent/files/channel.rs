//! The two pipes between a file call and PID 1.

use alloc::vec::Vec;

use podkit_agent::{Failure, FileStat, FrameBuffer, Output, Reply, Request};
use rustix::{
    buffer::spare_capacity,
    fd::BorrowedFd,
    io::{Errno, read, write},
};

/// Frames are gathered up to this size.
const BATCH_BYTES: usize = 64 * 1024;

/// Why a call ends without an answer, or with which.
pub(crate) enum Stop {
    /// The answer is this failure.
    Failed(Failure),
    /// PID 1 has given the call up, so nobody waits for an answer.
    CutOff,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What a call says to PID 1.
pub(crate) struct Answers<'a> {
    to: BorrowedFd<'a>,
    frames: Vec<u8>,
}

impl<'a> Answers<'a> {
    pub(super) const fn new(to: BorrowedFd<'a>) -> Self {
        Self {
            to,
            frames: Vec::new(),
        }
    }

    /// Sends bytes of a file, and gives the memory back for the next.
    pub(super) fn data(&mut self, data: Vec<u8>) -> Result<Vec<u8>, Stop> {
        let reply = Reply::Data(Output::Stdout, data);
        reply.encode(0, &mut self.frames);
        self.flush()?;
        match reply {
            Reply::Data(_, data) => Ok(data),
            _ => Ok(Vec::new()),
        }
    }

    /// Sends bytes that something has written.
    pub(crate) fn data_of(&mut self, output: Output, data: Vec<u8>) -> Result<(), Stop> {
        Reply::Data(output, data).encode(0, &mut self.frames);
        if self.frames.len() < BATCH_BYTES {
            return Ok(());
        }
        self.flush()
    }

    /// Tells of something that failed, while the call goes on.
    pub(super) fn failure(&mut self, output: Output, failure: Failure) -> Result<(), Stop> {
        let mut frame = Vec::new();
        Reply::Failed(failure).encode(0, &mut frame);
        self.data_of(output, frame)
    }

    /// Sends one entry, some time before the end.
    pub(super) fn entry(&mut self, name: &[u8], stat: FileStat) -> Result<(), Stop> {
        let name = name.to_vec();
        Reply::Entry { name, stat }.encode(0, &mut self.frames);
        if self.frames.len() < BATCH_BYTES {
            return Ok(());
        }
        self.flush()
    }

    /// Sends the last message.
    pub(super) fn end(mut self, result: Result<(), Stop>) {
        match result {
            Ok(()) => Reply::Done.encode(0, &mut self.frames),
            Err(Stop::Failed(failure)) => Reply::Failed(failure).encode(0, &mut self.frames),
            Err(Stop::CutOff) => return,
        }
        // When this fails nobody listens any more.
        let _ = self.flush();
    }

    /// Sends what has been gathered.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        write_all(self.to, &self.frames).map_err(|_| Stop::CutOff)?;
        self.frames.clear();
        Ok(())
    }
}

/// What PID 1 passes on of the caller's input.
pub(super) struct Input<'a> {
    from: BorrowedFd<'a>,
    frames: FrameBuffer,
}

impl<'a> Input<'a> {
    pub(super) const fn new(from: BorrowedFd<'a>) -> Self {
        Self {
            from,
            frames: FrameBuffer::new(),
        }
    }

    /// The next bytes; `None` at the end that the caller has said.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, Stop> {
        while !self.frames.has_frame() {
            match read(self.from, spare_capacity(self.frames.tail(BATCH_BYTES))) {
                Ok(0) => return Err(Stop::CutOff),
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return Err(Stop::CutOff),
            }
        }
        let Ok(Some((kind, _, payload))) = self.frames.next_frame() else {
            return Err(Stop::CutOff);
        };
        if let Some(data) = Request::decode_stdin(kind, payload) {
            return Ok(Some(data));
        }
        match Request::decode(kind, payload) {
            Ok(Request::StdinEnd) => Ok(None),
            _ => Err(Stop::CutOff),
        }
    }
}

/// Writes everything to a descriptor that blocks.
pub(crate) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
