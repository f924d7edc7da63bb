//! Bytes between a caller from outside and a port of the container, both ways at once.

use alloc::{vec, vec::Vec};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::{Errno, ioctl_fionbio, read},
    net::{SendFlags, Shutdown, send, shutdown},
};

/// Bytes that wait in each direction.
const CHUNK: usize = 64 * 1024;

/// One direction.
struct Flow<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    buffer: Vec<u8>,
    /// What of the buffer waits to be sent.
    begin: usize,
    end: usize,
    over: bool,
}

/// Passes bytes on until both sides have ended, or one is gone.
pub(crate) fn bridge(caller: &OwnedFd, port: u16) {
    let Ok(socket) = super::dial::reach(port) else {
        return;
    };
    for socket in [caller, &socket] {
        if ioctl_fionbio(socket, true).is_err() {
            return;
        }
    }
    let mut inward = Flow::new(caller.as_fd(), socket.as_fd());
    let mut outward = Flow::new(socket.as_fd(), caller.as_fd());
    while !(inward.over && outward.over) {
        let at_caller = inward.wants_input() | outward.wants_output();
        let at_socket = outward.wants_input() | inward.wants_output();
        let mut fds = Vec::with_capacity(2);
        // A side that nothing is wanted of would tell its end again and again.
        if !at_caller.is_empty() {
            fds.push(PollFd::new(caller, at_caller));
        }
        if !at_socket.is_empty() {
            fds.push(PollFd::new(&socket, at_socket));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        if inward.go_on().is_err() || outward.go_on().is_err() {
            return;
        }
    }
}

impl<'a> Flow<'a> {
    fn new(from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Self {
        Self {
            from,
            to,
            buffer: vec![0; CHUNK],
            begin: 0,
            end: 0,
            over: false,
        }
    }

    fn wants_input(&self) -> PollFlags {
        if !self.over && self.begin == self.end {
            PollFlags::IN
        } else {
            PollFlags::empty()
        }
    }

    fn wants_output(&self) -> PollFlags {
        if self.begin < self.end {
            PollFlags::OUT
        } else {
            PollFlags::empty()
        }
    }

    /// Moves what can be moved: an error when one of the sides is gone.
    fn go_on(&mut self) -> Result<(), Errno> {
        while !self.over {
            if self.begin == self.end {
                match read(self.from, &mut self.buffer) {
                    Ok(0) => {
                        self.over = true;
                        // A side that is gone needs no end.
                        let _ = shutdown(self.to, Shutdown::Write);
                        return Ok(());
                    }
                    Ok(count) => (self.begin, self.end) = (0, count),
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
            let waiting = self.buffer.get(self.begin..self.end).unwrap_or_default();
            match send(self.to, waiting, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => self.begin += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}
