//! Callers of the host's ports: each gets a child that passes bytes on, both ways.

use rustix::{
    fd::{AsRawFd, OwnedFd},
    io::Errno,
    net::{SocketFlags, accept_with},
};

use super::{
    Agent, child,
    clocks::now_ms,
    poll::{Source, Wants},
};
use crate::{
    ports,
    sys::container::{clone_process, close_others, exit_group, unblock_signals},
};

/// Callers that are taken at once.
const TURN: usize = 16;

/// How long nobody is let in once that was refused for want of something.
const REST_MS: u64 = 100;

/// Most callers that are passed on at the same time; others wait until one of them has ended.
const MOST_CALLERS: usize = 256;

impl Agent {
    /// Takes those who call at one of the ports.
    pub(super) fn take_callers(&mut self, place: u32) {
        for _ in 0..TURN {
            if self.bridges.len() >= MOST_CALLERS {
                return self.listen_at_ports(false);
            }
            let Some((socket, port)) = self.config.ports.get(place as usize) else {
                return;
            };
            let (caller, port) = match accept_with(socket, SocketFlags::CLOEXEC) {
                Ok(caller) => (caller, *port),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return,
                Err(_) => return self.rest_from_callers(),
            };
            // One who cannot be served is hung up on.
            let _ = self.serve_caller(&caller, port);
        }
    }

    /// Lets nobody in for a moment, clients of the agent's own neither: without a descriptor left their
    /// waiting would be told again and again.
    pub(super) fn rest_from_callers(&mut self) {
        self.resting_until = Some(now_ms() + REST_MS);
        self.listen_at_ports(false);
        if let Some(listener) = &self.config.listener {
            self.poll.remove(&listener.socket);
        }
    }

    /// Lets them in again, once that is due.
    pub(super) fn end_rest(&mut self, now: u64) {
        if self.resting_until.is_none_or(|until| until > now) {
            return;
        }
        self.resting_until = None;
        if let Some(listener) = &self.config.listener {
            let _ = self
                .poll
                .add(&listener.socket, Source::Listener, Wants::Read);
        }
        if self.bridges.len() < MOST_CALLERS {
            self.listen_at_ports(true);
        }
    }

    /// One of the callers has gone.
    pub(super) fn mind_callers(&mut self) {
        if self.bridges.len() + 1 == MOST_CALLERS && self.resting_until.is_none() {
            self.listen_at_ports(true);
        }
    }

    fn listen_at_ports(&self, wanted: bool) {
        for (place, (socket, _)) in self.config.ports.iter().enumerate() {
            let source = Source::Port(u32::try_from(place).unwrap_or(u32::MAX));
            if wanted {
                let _ = self.poll.add(socket, source, Wants::Read);
            } else {
                self.poll.remove(socket);
            }
        }
    }

    fn serve_caller(&mut self, caller: &OwnedFd, port: u16) -> rustix::io::Result<()> {
        match clone_process(0, None)? {
            Some(pid) => {
                self.bridges.push(pid.as_raw_nonzero().get());
                Ok(())
            }
            None => {
                unblock_signals();
                if child::enter_groups(&self.config).is_err() {
                    exit_group(1);
                }
                close_others(3, &[caller.as_raw_fd()]);
                ports::bridge(caller, port);
                exit_group(0)
            }
        }
    }
}
