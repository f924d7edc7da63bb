//! One client's connection.

use alloc::{collections::BTreeMap, vec::Vec};

use podkit_agent::{
    DEAD_AFTER_MS, FRAME_HEADER_BYTES, FrameBuffer, MAX_DATA_BYTES, Output, PING_INTERVAL_MS,
    Reply, Request,
};
use rustix::{
    buffer::spare_capacity,
    fd::{AsFd, OwnedFd},
    io::{Errno, read},
    net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send},
};

use super::{
    Agent,
    clocks::now_ms,
    init,
    poll::{Ready, Source, Wants},
};
use crate::sys::serve;

/// Bytes that wait for the socket, above which no more output is read for it.
const FULL: usize = 256 * 1024;

/// Bytes that wait for the socket, above which the client is taken for one that does not read.
const OVERFULL: usize = 4 * 1024 * 1024;

/// Most bytes that are read at once: a message with as many data as it may have.
pub(super) const READ_BYTES: usize = MAX_DATA_BYTES + FRAME_HEADER_BYTES;

/// Bytes that came at once, below which the memory for more is given back.
const LITTLE: usize = 4096;

/// Most connections at once.
const MAX_CONNECTIONS: usize = 256;

/// What a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Exec(u32),
    File(u32),
    /// Waits for a process, or shows its terminal.
    Process(u32),
}

/// One client's connection.
pub(super) struct Connection {
    socket: OwnedFd,
    /// The process at its other end, as seen here: 0 for one outside of the container.
    pub(super) peer: i32,
    input: FrameBuffer,
    output: Vec<u8>,
    /// Bytes of `output` that are sent.
    sent: usize,
    /// Whether the socket takes no more.
    blocked: bool,
    pub(super) greeted: bool,
    pub(super) streams: BTreeMap<u32, Stream>,
    /// Whether the client is gone, or does not read.
    lost: bool,
    heard: u64,
    spoke: u64,
}

impl Connection {
    fn new(socket: OwnedFd, peer: i32) -> Self {
        let now = now_ms();
        Self {
            socket,
            peer,
            input: FrameBuffer::new(),
            output: Vec::new(),
            sent: 0,
            blocked: false,
            greeted: false,
            streams: BTreeMap::new(),
            lost: false,
            heard: now,
            spoke: now,
        }
    }

    fn waiting(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Whether output may be read for it.
    pub(super) fn has_room(&self) -> bool {
        self.waiting() < FULL
    }

    /// When it has to be looked at.
    pub(super) fn next(&self, _now: u64) -> u64 {
        if self.lost {
            return 0;
        }
        (self.spoke + PING_INTERVAL_MS).min(self.heard + DEAD_AFTER_MS)
    }

    /// Leaves time out of account.
    pub(super) fn pass_over(&mut self, milliseconds: u64, now: u64) {
        self.heard = (self.heard + milliseconds).min(now);
        self.spoke = (self.spoke + milliseconds).min(now);
    }

    /// Sends what waits: `Err` when the client is gone.
    fn flush(&mut self) -> Result<(), ()> {
        while self.sent < self.output.len() {
            let bytes = self.output.get(self.sent..).unwrap_or_default();
            match send(
                &self.socket,
                bytes,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(()),
            }
        }
        if self.sent == self.output.len() {
            self.sent = 0;
            if self.output.capacity() > MAX_DATA_BYTES / 16 {
                self.output = Vec::new();
            } else {
                self.output.clear();
            }
        } else if self.sent > FULL {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }
}

impl Agent {
    /// Lets clients in.
    pub(super) fn accept(&mut self) {
        loop {
            let Some(listener) = &self.config.listener else {
                return;
            };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match accept_with(&listener.socket, flags) {
                Ok(socket) => socket,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return,
                // Out of descriptors: those who wait get in when others leave.
                Err(_) => return self.rest_from_callers(),
            };
            let Ok(peer) = serve::peer(socket.as_fd()) else {
                continue;
            };
            let may = if listener.inside {
                init::was_started_by_the_engine(&self.processes, peer)
            } else {
                peer.pid == 0
            };
            if !may {
                continue;
            }
            self.let_in(socket, peer.pid);
        }
    }

    /// Serves a client that may be served.
    pub(super) fn let_in(&mut self, socket: OwnedFd, peer: i32) {
        if self.connections.len() >= MAX_CONNECTIONS {
            return;
        }
        let id = self.fresh_id();
        let source = Source::Connection(id);
        if self.poll.add(&socket, source, Wants::Read).is_ok() {
            self.connections.insert(id, Connection::new(socket, peer));
        }
    }

    pub(super) fn serve_connection(&mut self, id: u32, ready: Ready) {
        if ready.write {
            self.send(id);
            // What was held back by a full buffer may go on.
            self.resume_streams(id);
        }
        if ready.read && self.receive(id).is_err() {
            self.hang_up(id);
        }
    }

    /// Reads what came, and does it.
    fn receive(&mut self, id: u32) -> Result<(), ()> {
        let connection = self.connections.get_mut(&id).ok_or(())?;
        let room = spare_capacity(connection.input.tail(READ_BYTES));
        let count = match recv(&connection.socket, room, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(()),
            Ok((_, count)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return Err(()),
        };
        connection.heard = now_ms();
        // Taken out while its requests are done, since they act on everything else.
        let mut input = core::mem::take(&mut connection.input);
        while let Some((kind, stream, payload)) = input.next_frame().map_err(drop)? {
            match Request::decode_stdin(kind, payload) {
                Some(data) => self.take_stdin(id, stream, data)?,
                None => {
                    let request = Request::decode(kind, payload).map_err(drop)?;
                    self.request(id, stream, request)?;
                }
            }
            if !self.connections.contains_key(&id) {
                return Ok(());
            }
        }
        // Who has just sent much may send more; all others cost nothing while they are silent.
        if count < LITTLE {
            input.release();
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.input = input;
        }
        Ok(())
    }

    /// Says something to a client.
    pub(super) fn reply(&mut self, id: u32, stream: u32, reply: &Reply) {
        if let Some(connection) = self.connections.get_mut(&id) {
            reply.encode(stream, &mut connection.output);
            self.send(id);
        }
    }

    /// Says several things of the connection as a whole at once.
    pub(super) fn reply_all(&mut self, id: u32, replies: &[Reply]) {
        if let Some(connection) = self.connections.get_mut(&id) {
            for reply in replies {
                reply.encode(0, &mut connection.output);
            }
            self.send(id);
        }
    }

    /// Passes output on, at most [`MAX_DATA_BYTES`].
    pub(super) fn reply_data(&mut self, id: u32, stream: u32, output: Output, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id) {
            Reply::encode_data(stream, output, bytes, &mut connection.output);
            self.send(id);
        }
    }

    fn send(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.spoke = now_ms();
        if connection.flush().is_err() || connection.waiting() > OVERFULL {
            // Not here: the caller may be in the middle of something that belongs to it.
            connection.lost = true;
            return;
        }
        let blocked = connection.waiting() > 0;
        if blocked != connection.blocked {
            connection.blocked = blocked;
            let wants = if blocked { Wants::Both } else { Wants::Read };
            let source = Source::Connection(id);
            let _ = self.poll.change(&connection.socket, source, wants);
        }
    }

    /// Goes on with streams that waited for room.
    fn resume_streams(&mut self, id: u32) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        if !connection.has_room() {
            return;
        }
        let streams: Vec<Stream> = connection.streams.values().copied().collect();
        for stream in streams {
            match stream {
                Stream::Exec(exec) => self.resume_output(exec),
                Stream::File(file) => self.relay_file(file),
                Stream::Process(process) => self.show_on(process),
            }
        }
    }

    /// Forgets a client; what it has begun ends.
    pub(super) fn hang_up(&mut self, id: u32) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        self.poll.remove(&connection.socket);
        for (number, stream) in &connection.streams {
            match stream {
                Stream::Exec(exec) => self.exec_lost_its_client(*exec),
                Stream::File(file) => self.end_file(*file),
                Stream::Process(process) => self.leave_process(*process, id, *number),
            }
        }
    }

    /// Sends pings, and gives up who is silent.
    pub(super) fn beat(&mut self, now: u64) {
        let mut dead = Vec::new();
        let mut silent = Vec::new();
        for (id, connection) in &self.connections {
            if connection.lost || connection.heard + DEAD_AFTER_MS <= now {
                dead.push(*id);
            } else if connection.greeted && connection.spoke + PING_INTERVAL_MS <= now {
                silent.push(*id);
            }
        }
        for id in dead {
            self.hang_up(id);
        }
        for id in silent {
            self.reply(id, 0, &Reply::Pong);
        }
    }

    /// Sends all that waits for its clients, at most until `until`.
    pub(super) fn flush_all(&mut self, until: u64) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        loop {
            let waiting: Vec<u32> = self
                .connections
                .iter_mut()
                .filter_map(|(id, connection)| {
                    (connection.flush().is_ok() && connection.waiting() > 0).then_some(*id)
                })
                .collect();
            let left = until.saturating_sub(now_ms());
            if waiting.is_empty() || left == 0 {
                return;
            }
            let mut fds: Vec<PollFd<'_>> = waiting
                .iter()
                .filter_map(|id| self.connections.get(id))
                .map(|connection| PollFd::new(&connection.socket, PollFlags::OUT))
                .collect();
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: i64::try_from(left.min(100) * 1_000_000).unwrap_or(0),
            };
            let _ = poll(&mut fds, Some(&timeout));
        }
    }
}

impl Agent {
    /// Lets clients inside pass on what they got, at most until `until`: they would be killed with
    /// PID 1.
    pub(super) fn see_clients_out(&mut self, until: u64) {
        use rustix::{
            event::{PollFd, PollFlags, Timespec, poll},
            net::{Shutdown, shutdown},
        };
        self.connections
            .retain(|_, connection| connection.peer != 0);
        for connection in self.connections.values() {
            let _ = shutdown(&connection.socket, Shutdown::Write);
        }
        let mut byte = [0_u8; 4096];
        while !self.connections.is_empty() && now_ms() < until {
            let mut fds: Vec<PollFd<'_>> = self
                .connections
                .values()
                .map(|connection| PollFd::new(&connection.socket, PollFlags::IN))
                .collect();
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: 50_000_000,
            };
            let _ = poll(&mut fds, Some(&timeout));
            drop(fds);
            self.connections.retain(|_, connection| {
                let got = recv(&connection.socket, &mut byte, RecvFlags::DONTWAIT);
                matches!(got, Ok((_, 1..)) | Err(Errno::AGAIN | Errno::INTR))
            });
        }
    }
}

/// Reads a pipe that does not block: `None` when nothing is there, no bytes at the end.
pub(super) fn read_some(fd: &OwnedFd, buffer: &mut [u8]) -> Option<usize> {
    read_with(|| read(fd, &mut *buffer))
}

/// Reads a pipe as [`read_some`] does, to the end of a buffer as far as it has room.
pub(super) fn read_more(fd: &OwnedFd, buffer: &mut Vec<u8>) -> Option<usize> {
    read_with(|| read(fd, spare_capacity(buffer)))
}

fn read_with(mut read: impl FnMut() -> rustix::io::Result<usize>) -> Option<usize> {
    loop {
        match read() {
            Ok(count) => return Some(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return None,
            Err(_) => return Some(0),
        }
    }
}
