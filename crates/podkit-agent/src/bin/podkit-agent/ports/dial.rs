//! Bytes to and from a port of the container. Neither direction waits for the other.

use alloc::{vec, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use podkit_agent::{FrameBuffer, MAX_DATA_BYTES, Output, Reply, Request};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, read, write},
    net::{
        AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, connect, send, shutdown,
        socket_with,
    },
};

use super::{listening, nobody_listens};
use crate::files::Stop;

/// Bytes that are read at once, and that may wait in each direction.
const CHUNK: usize = 32 * 1024;

/// Said beside the port's bytes: it is connected to; it sends no more.
const CONNECTED: u8 = b'c';
const ENDED: u8 = b'e';

struct Bridge<'a> {
    socket: OwnedFd,
    from_parent: BorrowedFd<'a>,
    to_parent: BorrowedFd<'a>,
    frames: FrameBuffer,
    /// Bytes for the port, and frames for PID 1.
    inward: Vec<u8>,
    outward: Vec<u8>,
    /// Whether the client has said that it sends no more, and the port has.
    input_ended: bool,
    output_ended: bool,
    /// Whether the port takes no more.
    shut: bool,
}

pub(super) fn dial(
    port: u16,
    from_parent: BorrowedFd<'_>,
    to_parent: BorrowedFd<'_>,
) -> Result<(), Stop> {
    let socket = reach(port)?;
    for fd in [socket.as_fd(), to_parent] {
        let flags = fcntl_getfl(fd).map_err(|_| Stop::CutOff)?;
        fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(|_| Stop::CutOff)?;
    }
    let mut bridge = Bridge {
        socket,
        from_parent,
        to_parent,
        frames: FrameBuffer::new(),
        inward: Vec::new(),
        outward: Vec::new(),
        input_ended: false,
        output_ended: false,
        shut: false,
    };
    bridge.say(Output::Stderr, vec![CONNECTED]);
    while !bridge.is_over() {
        bridge.turn()?;
    }
    // The last message is written by whoever called, in one piece.
    let flags = fcntl_getfl(to_parent).map_err(|_| Stop::CutOff)?;
    fcntl_setfl(to_parent, flags - OFlags::NONBLOCK).map_err(|_| Stop::CutOff)
}

/// Connects to whoever listens: on loopback, or at the address that he chose.
pub(super) fn reach(port: u16) -> Result<OwnedFd, Stop> {
    let mut last = Errno::CONNREFUSED;
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    for address in loopback {
        match try_address(address, port) {
            Ok(socket) => return Ok(socket),
            Err(errno) => last = errno,
        }
    }
    for one in listening::listeners() {
        if one.port == port
            && !one.address.is_loopback()
            && !one.address.is_unspecified()
            && let Ok(socket) = try_address(one.address, port)
        {
            return Ok(socket);
        }
    }
    Err(nobody_listens(port, last.raw_os_error()))
}

fn try_address(address: IpAddr, port: u16) -> Result<OwnedFd, Errno> {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddr::new(address, port))?;
    Ok(socket)
}

impl Bridge<'_> {
    fn is_over(&self) -> bool {
        let input_over = self.shut || self.input_ended && self.inward.is_empty();
        input_over && self.output_ended && self.outward.is_empty()
    }

    fn say(&mut self, output: Output, data: Vec<u8>) {
        Reply::Data(output, data).encode(0, &mut self.outward);
    }

    fn turn(&mut self) -> Result<(), Stop> {
        let mut socket = PollFlags::empty();
        if !self.output_ended && self.outward.is_empty() {
            socket |= PollFlags::IN;
        }
        if !self.inward.is_empty() && !self.shut {
            socket |= PollFlags::OUT;
        }
        // What the client still says is read also when the port takes no more.
        let takes = self.inward.is_empty() || self.shut;
        let from = if takes {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let to = if self.outward.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::OUT
        };
        let mut fds = Vec::with_capacity(3);
        fds.push(PollFd::from_borrowed_fd(self.to_parent, to));
        // What is not waited for would tell its end again and again.
        if !self.input_ended {
            fds.push(PollFd::from_borrowed_fd(self.from_parent, from));
        }
        if !socket.is_empty() {
            fds.push(PollFd::new(&self.socket, socket));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(_) => return Err(Stop::CutOff),
        }
        let mut ready = fds.iter().map(PollFd::revents);
        let mut next = |there: bool| there.then(|| ready.next()).flatten();
        let none = PollFlags::empty();
        let to = next(true).unwrap_or(none);
        let from = next(!self.input_ended).unwrap_or(none);
        let socket = next(!socket.is_empty()).unwrap_or(none);
        drop(fds);
        if to.intersects(PollFlags::ERR | PollFlags::HUP) {
            return Err(Stop::CutOff);
        }
        if !to.is_empty() {
            self.pass_out()?;
        }
        if !from.is_empty() {
            self.hear()?;
        }
        let gone = PollFlags::ERR | PollFlags::HUP;
        if socket.intersects(PollFlags::OUT | gone) {
            self.pass_in();
        }
        if socket.intersects(PollFlags::IN | gone) {
            self.listen();
        }
        Ok(())
    }

    /// Takes in what the client says.
    fn hear(&mut self) -> Result<(), Stop> {
        let mut buffer = vec![0_u8; CHUNK];
        match read(self.from_parent, &mut buffer) {
            // PID 1 has let the call go.
            Ok(0) => return Err(Stop::CutOff),
            Ok(count) => self.frames.push(buffer.get(..count).unwrap_or_default()),
            Err(Errno::INTR | Errno::AGAIN) => return Ok(()),
            Err(_) => return Err(Stop::CutOff),
        }
        loop {
            match self.frames.next_frame() {
                Ok(None) => break,
                Ok(Some((kind, _, payload))) => match Request::decode(kind, payload) {
                    Ok(Request::Stdin(data)) if !self.shut => self.inward.extend(data),
                    Ok(Request::Stdin(_)) => {}
                    Ok(Request::StdinEnd) => self.input_ended = true,
                    _ => return Err(Stop::CutOff),
                },
                Err(_) => return Err(Stop::CutOff),
            }
        }
        self.pass_in();
        Ok(())
    }

    /// Sends to the port what waits for it, and its end.
    fn pass_in(&mut self) {
        while !self.inward.is_empty() && !self.shut {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(&self.socket, &self.inward, flags) {
                Ok(count) => drop(self.inward.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.shut = true,
            }
        }
        if self.input_ended && !self.shut {
            self.shut = true;
            // A port that is gone needs no end.
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
        if self.shut {
            self.inward.clear();
        }
    }

    /// Sends to PID 1 what waits for it.
    fn pass_out(&mut self) -> Result<(), Stop> {
        while !self.outward.is_empty() {
            match write(self.to_parent, &self.outward) {
                Ok(count) => drop(self.outward.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Stop::CutOff),
            }
        }
        Ok(())
    }

    /// Takes in what the port says.
    fn listen(&mut self) {
        if self.output_ended || !self.outward.is_empty() {
            return;
        }
        let mut buffer = vec![0_u8; CHUNK.min(MAX_DATA_BYTES)];
        match read(&self.socket, &mut buffer) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Its end, or the connection's.
            Ok(0) | Err(_) => {
                self.output_ended = true;
                self.say(Output::Stderr, vec![ENDED]);
            }
            Ok(count) => {
                buffer.truncate(count);
                self.say(Output::Stdout, buffer);
            }
        }
    }
}
