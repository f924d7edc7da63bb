//! The agent: PID 1 of a container.

use alloc::vec::Vec;

use podkit_agent::Clocks;
use rustix::fd::OwnedFd;

/// What the agent is told by those who made its container.
pub(crate) struct Config {
    /// When it stops by itself.
    pub(crate) clocks: Clocks,
    /// Working directory of commands; `/` when it is empty.
    pub(crate) cwd: Vec<u8>,
    /// User of commands; root when it is empty.
    pub(crate) user: Vec<u8>,
    /// Environment of commands, `KEY=VALUE`.
    pub(crate) env: Vec<Vec<u8>>,
    /// The container's own program.
    pub(crate) main: Option<Vec<Vec<u8>>>,
    /// Tells this start from others.
    pub(crate) boot_token: [u8; 16],
    /// System call filter of every command, or empty.
    pub(crate) exec_filter: Vec<u8>,
    /// Socket made outside of the container: peers come from outside of the pid namespace.
    pub(crate) listener: Option<OwnedFd>,
    /// Socket made inside the container, where only `podkit-agent connect` is let in.
    pub(crate) inner: Option<OwnedFd>,
    /// File of the mark that is left at the end.
    pub(crate) exit_mark: Option<OwnedFd>,
    /// File that the main command writes to.
    pub(crate) output: Option<OwnedFd>,
    /// Version 2 group below which each command gets a group of its own.
    pub(crate) unified: Option<OwnedFd>,
    /// `tasks` files of version 1 groups that commands enter.
    pub(crate) tasks: Vec<OwnedFd>,
    /// File that counts kills for memory.
    pub(crate) oom: Option<OwnedFd>,
}

/// Serves clients until the container ends.
pub(crate) fn run(_config: Config) -> ! {
    crate::sys::container::exit_group(0)
}
