//! A command's output: read as far as its client can take it.

use podkit_agent::{INITIAL_WINDOW_BYTES, MAX_DATA_BYTES, Output};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::ioctl_fionread,
};

use super::{
    Agent,
    clocks::now_ms,
    connection::read_some,
    poll::{Source, Wants},
};

/// Reads of one pipe before others get their turn.
const TURN: usize = 8;

/// How soon a terminal that nobody has open is looked at again.
const LOOK_MS: u64 = 20;

/// One output of a command.
pub(super) struct Out {
    fd: OwnedFd,
    registered: bool,
    /// Bytes that the client can take.
    window: u32,
    /// Bytes until the limit.
    left: Option<u64>,
    /// Bytes that are still read although others hold the pipe open.
    last: Option<u64>,
    /// When a terminal that nobody has open just now is looked at again.
    pub(super) look_at: Option<u64>,
}

/// What a turn of reading came to.
enum Turn {
    /// There may be more.
    More,
    /// Nothing is there now.
    Empty,
    /// The client cannot take more now.
    Held,
    /// The end.
    End,
}

impl Out {
    pub(super) const fn new(fd: OwnedFd, limit: Option<u64>) -> Self {
        Self {
            fd,
            registered: false,
            window: INITIAL_WINDOW_BYTES,
            left: limit,
            last: None,
            look_at: None,
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) const fn is_open_ended(&self) -> bool {
        self.last.is_none()
    }

    /// What others write from now on is not read any more.
    pub(super) fn end_after_what_is_there(&mut self) {
        if self.last.is_none() {
            self.last = Some(ioctl_fionread(&self.fd).unwrap_or(0));
        }
    }
}

pub(super) const fn place(output: Output) -> usize {
    match output {
        Output::Stdout => 0,
        Output::Stderr => 1,
    }
}

impl Agent {
    /// Passes on what a command has written.
    pub(super) fn relay(&mut self, id: u32, output: Output) {
        let mut turn = Turn::More;
        for _ in 0..TURN {
            turn = self.relay_once(id, output);
            if !matches!(turn, Turn::More) {
                break;
            }
        }
        let source = match output {
            Output::Stdout => Source::Stdout(id),
            Output::Stderr => Source::Stderr(id),
        };
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        let slot = &mut exec.outs[place(output)];
        let Some(out) = slot else {
            return;
        };
        out.look_at = None;
        if let Turn::End = turn {
            if out.registered {
                self.poll.remove(&out.fd);
                out.registered = false;
            }
            // A program may close its terminal before it ends, and open it again. It must not be
            // hung up on.
            if exec.terminal && exec.ended.is_none() && out.is_open_ended() {
                out.look_at = Some(now_ms() + LOOK_MS);
                return;
            }
            *slot = None;
            return self.settle(id);
        }
        let wanted = !matches!(turn, Turn::Held);
        if wanted && !out.registered {
            out.registered = self.poll.add(&out.fd, source, Wants::Read).is_ok();
        } else if !wanted && out.registered {
            self.poll.remove(&out.fd);
            out.registered = false;
        }
    }

    fn relay_once(&mut self, id: u32, output: Output) -> Turn {
        let Some(exec) = self.execs.get_mut(&id) else {
            return Turn::End;
        };
        let Some(out) = &mut exec.outs[place(output)] else {
            return Turn::End;
        };
        if out.last == Some(0) {
            return Turn::End;
        }
        let held = exec.owner.is_some() && !exec.started
            || exec.main && !self.log.has_room()
            || exec
                .process
                .and_then(|process| self.background.get(&process))
                .is_some_and(|process| !process.takes_output());
        if held {
            return Turn::Held;
        }
        let mut most = MAX_DATA_BYTES as u64;
        if let Some(owner) = exec.owner
            && out.left != Some(0)
        {
            let connection = self.connections.get(&owner.connection);
            if out.window == 0 || !connection.is_some_and(super::Connection::has_room) {
                return Turn::Held;
            }
            most = most.min(u64::from(out.window));
        }
        most = most.min(out.last.unwrap_or(u64::MAX));
        let mut buffer = alloc::vec![0_u8; usize::try_from(most).unwrap_or(MAX_DATA_BYTES)];
        let bytes = match read_some(&out.fd, &mut buffer) {
            None => {
                return if out.last.is_some() {
                    Turn::End
                } else {
                    Turn::Empty
                };
            }
            Some(0) => return Turn::End,
            Some(count) => buffer.get(..count).unwrap_or_default(),
        };
        let count = bytes.len() as u64;
        out.last = out.last.map(|last| last.saturating_sub(count));
        let (main, owner, process) = (exec.main, exec.owner, exec.process);
        if main {
            self.log(bytes);
        }
        if let Some(process) = process {
            self.show(process, bytes);
        }
        let Some(owner) = owner else {
            return Turn::More;
        };
        let Some(exec) = self.execs.get_mut(&id) else {
            return Turn::End;
        };
        let Some(out) = &mut exec.outs[place(output)] else {
            return Turn::End;
        };
        let passed = count.min(out.left.unwrap_or(count));
        if passed < count {
            exec.truncated[place(output)] = true;
        }
        out.left = out.left.map(|left| left - passed);
        let passed = u32::try_from(passed).unwrap_or(0);
        out.window = out.window.saturating_sub(passed);
        if passed > 0 {
            let bytes = bytes.get(..passed as usize).unwrap_or_default();
            self.reply_data(owner.connection, owner.stream, output, bytes);
        }
        Turn::More
    }

    /// Both outputs of a command, as far as possible.
    pub(super) fn resume_output(&mut self, id: u32) {
        self.relay(id, Output::Stdout);
        self.relay(id, Output::Stderr);
    }

    /// The client can take more.
    pub(super) fn grant(&mut self, id: u32, output: Output, bytes: u32) {
        if let Some(exec) = self.execs.get_mut(&id)
            && let Some(out) = &mut exec.outs[place(output)]
        {
            out.window = out.window.saturating_add(bytes);
            self.relay(id, output);
        }
    }
}
