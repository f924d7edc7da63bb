//! `podkit-agent connect`: started by an engine in the container, passes bytes between its standard
//! streams and the agent.

use alloc::vec;

use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, BorrowedFd},
    io::{Errno, read, write},
    net::{
        AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown,
        socket_with,
    },
    process::{DumpableBehavior, set_dumpable_behavior},
};

use super::init::socket_name;
use crate::sys::{
    container::exit_group,
    serve::{block_signals, peer, standard},
};

/// Bytes that are passed on at once.
const BUFFER: usize = 64 * 1024;

/// Passes bytes until either side ends.
pub(crate) fn run() -> ! {
    // Before a byte is read: nothing inside may look at what passes.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // What ends the container's programs must not end the way on which its end is told.
    block_signals();
    let opened = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .and_then(|socket| {
        connect(
            &socket,
            &SocketAddrUnix::new_abstract_name(&socket_name()?)?,
        )?;
        // Where the network is the host's, anybody there may have taken the name.
        match peer(socket.as_fd()) {
            Ok(peer) if peer.pid == 1 => Ok(socket),
            _ => Err(Errno::CONNREFUSED),
        }
    });
    let Ok(socket) = opened else {
        crate::complain(b"podkit-agent: there is no agent in this container\n");
        exit_group(1);
    };
    let mut buffer = vec![0_u8; BUFFER];
    let mut answered = false;
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(standard(0), PollFlags::IN),
            PollFd::new(&socket, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => exit_group(1),
        }
        let (from_client, from_agent) =
            (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if from_agent && !pass(socket.as_fd(), standard(1), &mut buffer) {
            // An agent that hangs up before a word does not let this one in.
            exit_group(u8::from(!answered));
        }
        answered |= from_agent;
        if from_client && !pass(standard(0), socket.as_fd(), &mut buffer) {
            let _ = shutdown(&socket, Shutdown::Both);
            exit_group(u8::from(!answered));
        }
    }
}

/// Passes on what is there: `false` at the end.
fn pass(from: BorrowedFd<'_>, to: BorrowedFd<'_>, buffer: &mut [u8]) -> bool {
    let count = match read(from, &mut *buffer) {
        Ok(0) => return false,
        Ok(count) => count,
        Err(Errno::INTR | Errno::AGAIN) => return true,
        Err(_) => return false,
    };
    let mut rest = buffer.get(..count).unwrap_or_default();
    while !rest.is_empty() {
        match write(to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
