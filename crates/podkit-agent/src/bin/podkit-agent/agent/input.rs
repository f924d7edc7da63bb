//! A command's input: what came is kept until the pipe takes it.

use alloc::vec::Vec;

use podkit_agent::{INITIAL_WINDOW_BYTES, Reply, Request};
use rustix::{
    fd::OwnedFd,
    io::{Errno, write},
};

use super::{
    Agent,
    exec::Owner,
    poll::{Poll, Ready, Source, Wants},
    terminal,
};

/// Bytes that went on before the client is told that it may send as many more.
const GRANT: u32 = 32 * 1024;

/// Input of a command or of a file call.
pub(super) struct Input {
    fd: OwnedFd,
    pending: Vec<u8>,
    written: usize,
    /// Whether no more comes.
    ended: bool,
    /// Bytes that the client may send.
    window: u32,
    /// Bytes that went on, and that the client does not know of.
    owed: u32,
    /// Whether it is a terminal, which nobody closes for good while its program runs.
    terminal: bool,
    /// Whether its descriptor is waited for.
    registered: bool,
}

/// What became of the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It takes more.
    Open,
    /// All is written, and that was the end.
    Ended,
    /// Nobody reads.
    Broken,
}

impl Input {
    /// Takes the end of a pipe that does not block, and waits for whoever closes the other.
    pub(super) fn new(fd: OwnedFd, poll: &Poll, source: Source) -> rustix::io::Result<Self> {
        poll.add(&fd, source, Wants::End)?;
        Ok(Self {
            terminal: false,
            registered: true,
            ..Self::of_terminal(fd)
        })
    }

    /// Takes another descriptor of a terminal.
    pub(super) const fn of_terminal(fd: OwnedFd) -> Self {
        Self {
            fd,
            pending: Vec::new(),
            written: 0,
            ended: false,
            window: INITIAL_WINDOW_BYTES,
            owed: 0,
            terminal: true,
            registered: false,
        }
    }

    /// Forgets what was typed on a terminal that nobody has open.
    fn drop_typed(&mut self) {
        self.written = self.pending.len();
    }

    /// Takes what a client sent: `Err` when it was not allowed to send so much.
    pub(super) fn take(&mut self, data: &[u8]) -> Result<(), ()> {
        let count = u32::try_from(data.len()).map_err(drop)?;
        if self.ended {
            return Err(());
        }
        self.window = self.window.checked_sub(count).ok_or(())?;
        self.pending.extend_from_slice(data);
        Ok(())
    }

    /// Takes bytes that are not the client's.
    pub(super) fn take_own(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Takes what a client sent, as a frame.
    pub(super) fn take_framed(&mut self, data: &[u8]) -> Result<(), ()> {
        let count = u32::try_from(data.len()).map_err(drop)?;
        if self.ended {
            return Err(());
        }
        self.window = self.window.checked_sub(count).ok_or(())?;
        self.owed = self.owed.saturating_add(count);
        Request::encode_stdin(0, data, &mut self.pending);
        Ok(())
    }

    pub(super) const fn end(&mut self) {
        self.ended = true;
    }

    /// Writes what the pipe takes. `framed` input is granted again when all of it is written.
    pub(super) fn write(&mut self, poll: &Poll, source: Source, framed: bool) -> Flow {
        while self.written < self.pending.len() {
            match write(
                &self.fd,
                self.pending.get(self.written..).unwrap_or_default(),
            ) {
                Ok(count) => {
                    self.written += count;
                    if !framed {
                        self.owed += u32::try_from(count).unwrap_or(0);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Flow::Broken,
            }
        }
        let done = self.written == self.pending.len();
        if done {
            // A call that is sent a file takes as much again at once; a command may never.
            if framed {
                self.pending.clear();
            } else {
                self.pending = Vec::new();
            }
            self.written = 0;
            if self.ended && !self.terminal {
                return Flow::Ended;
            }
        }
        if !self.terminal {
            let wants = if done { Wants::End } else { Wants::Write };
            let _ = poll.change(&self.fd, source, wants);
        } else if done && self.registered {
            poll.remove(&self.fd);
            self.registered = false;
        } else if !done && !self.registered {
            self.registered = poll.add(&self.fd, source, Wants::Write).is_ok();
        }
        Flow::Open
    }

    /// Bytes that the client may be granted again.
    pub(super) fn grant(&mut self, framed: bool) -> Option<u32> {
        let due = self.pending.is_empty() || (!framed && self.owed >= GRANT);
        if self.owed == 0 || !due {
            return None;
        }
        let owed = core::mem::take(&mut self.owed);
        self.window += owed;
        Some(owed)
    }

    /// Closes the pipe.
    pub(super) fn leave(self, poll: &Poll) {
        if self.registered {
            poll.remove(&self.fd);
        }
    }
}

impl Agent {
    pub(super) fn take_input(&mut self, id: u32, data: &[u8]) -> Result<(), ()> {
        let Some(exec) = self.execs.get_mut(&id) else {
            return Ok(());
        };
        // What was on its way when the command closed its input.
        let Some(input) = &mut exec.input else {
            return Ok(());
        };
        input.take(data)?;
        self.write_input(id);
        Ok(())
    }

    pub(super) fn end_input(&mut self, id: u32) {
        if let Some(exec) = self.execs.get_mut(&id)
            && let Some(input) = &mut exec.input
        {
            if exec.terminal {
                let typed = terminal::end_of_input(&input.fd);
                input.take_own(&typed);
            }
            input.end();
            self.write_input(id);
        }
    }

    /// The pipe takes more, or nobody reads it any more.
    pub(super) fn feed(&mut self, id: u32, ready: Ready) {
        let terminal = self.execs.get_mut(&id).filter(|exec| exec.terminal);
        if let (Some(exec), true) = (terminal, ready.ended) {
            if let Some(input) = &mut exec.input {
                input.drop_typed();
            }
            self.write_input(id);
        } else if ready.ended {
            self.input_is_over(id, true);
        } else {
            self.write_input(id);
        }
    }

    /// Takes what somebody types on a process's terminal: whether there is one that takes it.
    pub(super) fn take_typed(&mut self, id: u32, data: &[u8]) -> bool {
        let input = self.execs.get_mut(&id).and_then(|exec| exec.input.as_mut());
        let Some(input) = input else {
            return false;
        };
        input.take_own(data);
        self.write_input(id);
        true
    }

    fn write_input(&mut self, id: u32) {
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        let (owner, process) = (exec.owner, exec.process);
        let Some(input) = &mut exec.input else {
            return;
        };
        let flow = input.write(&self.poll, Source::Stdin(id), false);
        let grant = input.grant(false);
        let drained = input.pending.is_empty();
        match flow {
            Flow::Open => {
                if let (Some(process), true) = (process, drained) {
                    self.grant_typed(process);
                }
                if let (Some(Owner { connection, stream }), Some(bytes)) = (owner, grant) {
                    self.reply(connection, stream, &Reply::Credit(bytes));
                }
            }
            Flow::Ended => self.input_is_over(id, false),
            Flow::Broken => self.input_is_over(id, true),
        }
    }

    fn input_is_over(&mut self, id: u32, tell: bool) {
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        if let Some(input) = exec.input.take() {
            input.leave(&self.poll);
        }
        if let Some(owner) = exec.owner
            && tell
        {
            self.reply(owner.connection, owner.stream, &Reply::StdinClosed);
        }
    }
}
