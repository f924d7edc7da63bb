//! `podkit-agent init`: PID 1 under another engine, which has made the container itself.
//!
//! ```text
//! podkit-agent init [--auto-stop MS] [--max-lifetime MS] [--user USER] [-- PROGRAM [ARGUMENT…]]
//! ```
//! The environment and the working directory are those of commands. Clients come by
//! `podkit-agent connect`, which the engine starts in the container.

use alloc::vec::Vec;
use core::ffi::CStr;

use podkit_agent::Clocks;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags, openat},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
    process::{PidfdFlags, getcwd, geteuid, pidfd_open},
    rand::{GetRandomFlags, getrandom},
    stdio::dup2_stdin,
};

use super::{Config, Listener, tree::Stat};
use crate::sys::{
    container::{exit_group, reset_signals},
    serve::{self, Peer},
    start::Start,
};

/// Name of the socket inside the container, which is no file: every image has room for it.
pub(super) const SOCKET: &[u8] = b"podkit-agent";

/// Connections that wait to be let in.
const BACKLOG: i32 = 64;

/// Serves as PID 1 of the container that this was started in.
pub(crate) fn run(start: Start) -> ! {
    let Some(options) = Options::parse(start) else {
        crate::usage();
    };
    // What the engine ignores is not ignored by commands.
    reset_signals();
    let (Ok(socket), Some(boot_token)) = (inner_socket(), token()) else {
        crate::complain(b"podkit-agent: cannot listen in this container\n");
        exit_group(1);
    };
    // What commands without input of their own get; never what the engine has given.
    let null = openat(
        CWD,
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    );
    if null.and_then(dup2_stdin).is_err() {
        crate::complain(b"podkit-agent: there is no /dev/null in this container\n");
        exit_group(1);
    }
    let cwd = getcwd(Vec::new()).map_or_else(|_| Vec::from(*b"/"), |cwd| cwd.into_bytes());
    super::run(Config {
        clocks: options.clocks,
        cwd,
        user: options.user,
        env: start
            .environment()
            .map(|entry| entry.to_bytes().to_vec())
            .collect(),
        main: options.main,
        boot_token,
        exec_filter: Vec::new(),
        listener: Some(Listener {
            socket,
            inside: true,
        }),
        exit_mark: None,
        output: None,
        unified: None,
        tasks: Vec::new(),
        oom: None,
    })
}

#[derive(Default)]
struct Options {
    clocks: Clocks,
    user: Vec<u8>,
    main: Option<Vec<Vec<u8>>>,
}

impl Options {
    fn parse(start: Start) -> Option<Self> {
        let mut options = Self::default();
        let mut places = 2..;
        let mut next = || start.argument(places.next()?).map(CStr::to_bytes);
        while let Some(word) = next() {
            match word {
                b"--" => {
                    let mut main = Vec::new();
                    while let Some(word) = next() {
                        main.push(word.to_vec());
                    }
                    options.main = (!main.is_empty()).then_some(main);
                }
                b"--auto-stop" => options.clocks.auto_stop_ms = Some(number(next()?)?),
                b"--max-lifetime" => options.clocks.max_lifetime_ms = Some(number(next()?)?),
                b"--user" => options.user = next()?.to_vec(),
                _ => return None,
            }
        }
        Some(options)
    }
}

fn number(word: &[u8]) -> Option<u64> {
    core::str::from_utf8(word).ok()?.parse().ok()
}

fn token() -> Option<[u8; 16]> {
    let mut token = [0_u8; 16];
    let count = getrandom(&mut token, GetRandomFlags::empty()).ok()?;
    (count == token.len()).then_some(token)
}

fn inner_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new_abstract_name(SOCKET)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Whether the process at the other end has the agent's own user and was started by the engine:
/// then its parent is outside of this pid namespace, which nothing inside can achieve.
pub(super) fn was_started_by_the_engine(processes: &OwnedFd, peer: Peer) -> bool {
    if peer.uid != geteuid().as_raw() {
        return false;
    }
    let Some(pid) = serve::pid(peer.pid) else {
        return false;
    };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return false;
    };
    let Some(before) = Stat::of(processes, peer.pid) else {
        return false;
    };
    // The number was the peer's when it connected. It still is, when the process that has it
    // existed before that; and what was read is of that process while it has not ended.
    let mut fds = [PollFd::new(&process, PollFlags::IN)];
    let ended = poll(&mut fds, Some(&Timespec::default())) != Ok(0);
    before.parent == 0 && !ended
}
