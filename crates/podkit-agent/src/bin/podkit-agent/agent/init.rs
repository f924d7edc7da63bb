//! `podkit-agent init`: PID 1 under another engine, which has made the container itself.
//!
//! ```text
//! podkit-agent init [OPTION…] [-- PROGRAM [ARGUMENT…]]
//! ```
//! The environment is that of commands, and so is the working directory unless `--cwd` names
//! another. Clients come by `podkit-agent connect`, which the engine starts in the container, or
//! wait in the directory `--dial` for the agent to connect.

use alloc::vec::Vec;
use core::ffi::CStr;

use podkit_agent::{
    Clocks,
    seccomp::{Passes, filter},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags, openat, readlink},
    io::fcntl_dupfd_cloexec,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
    process::{PidfdFlags, getcwd, geteuid, pidfd_open},
    rand::{GetRandomFlags, getrandom},
    stdio::dup2_stdin,
    time::{ClockId, clock_gettime},
};

use super::{Config, Listener, Written, dial::Dial, ending::oom_kills, tree::Stat};
use crate::sys::{
    container::{exit_group, reset_signals},
    serve::{self, Peer},
    start::Start,
};

/// Begins the name of the socket inside the container, which is no file: every image has room for
/// it.
const SOCKET: &[u8] = b"podkit-agent-";

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
    let cwd = match options.cwd {
        cwd if cwd.is_empty() => {
            getcwd(Vec::new()).map_or_else(|_| Vec::from(*b"/"), |cwd| cwd.into_bytes())
        }
        cwd => cwd,
    };
    super::run(Config {
        clocks: options.clocks,
        cwd,
        user: options.user,
        env: environment(start),
        main: options.main,
        main_user: options.main_user,
        main_cwd: options.main_cwd,
        capabilities: options.capabilities,
        boot_token,
        exec_filter: options.filter.map(filter).unwrap_or_default(),
        listener: Some(Listener {
            socket,
            inside: true,
        }),
        // One that is not there is nothing to wait for: the other way stays open.
        dial: options.dial.and_then(|path| Dial::new(&path).ok()),
        exit_mark: None,
        output: own_output(),
        unified: None,
        tasks: Vec::new(),
        oom: oom_counter(),
        ports: Vec::new(),
    })
}

/// The environment of commands. Engines give PID 1 the home of its own user, which is not that of
/// every command.
fn environment(start: Start) -> Vec<Vec<u8>> {
    let entries = start.environment().map(CStr::to_bytes);
    entries
        .filter(|entry| !matches!(*entry, b"HOME=/root" | b"HOME=/"))
        .map(<[u8]>::to_vec)
        .collect()
}

/// The engine's log.
fn own_output() -> Written {
    match fcntl_dupfd_cloexec(serve::standard(1), 3) {
        Ok(fd) => Written::Stream(fd),
        Err(_) => Written::Dropped,
    }
}

/// What counts the processes of this container that the kernel has killed for memory.
fn oom_counter() -> Option<OwnedFd> {
    let places = [
        "/sys/fs/cgroup/memory.events",
        "/sys/fs/cgroup/memory/memory.oom_control",
    ];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    places.into_iter().find_map(|path| {
        let counter = openat(CWD, path, flags, Mode::empty()).ok();
        // Not every kernel's file of that name has the number.
        counter.filter(|counter| oom_kills(counter).is_some())
    })
}

#[derive(Default)]
struct Options {
    clocks: Clocks,
    user: Vec<u8>,
    cwd: Vec<u8>,
    main: Option<Vec<Vec<u8>>>,
    main_user: Vec<u8>,
    main_cwd: Vec<u8>,
    capabilities: Option<u64>,
    dial: Option<Vec<u8>>,
    filter: Option<Passes>,
}

impl Options {
    fn parse(start: Start) -> Option<Self> {
        let mut options = Self::default();
        let mut born_ms = None;
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
                b"--born" => born_ms = Some(number(next()?)?),
                b"--user" => options.user = next()?.to_vec(),
                b"--cwd" => options.cwd = next()?.to_vec(),
                b"--main-user" => options.main_user = next()?.to_vec(),
                b"--main-cwd" => options.main_cwd = next()?.to_vec(),
                b"--dial" => options.dial = Some(next()?.to_vec()),
                b"--filter" => options.filter = Some(Passes::default()),
                b"--filter-but-set-ids" => {
                    options.filter = Some(Passes {
                        set_ids: true,
                        ..Passes::default()
                    });
                }
                b"--capabilities" => {
                    let text = core::str::from_utf8(next()?).ok()?;
                    options.capabilities = Some(u64::from_str_radix(text, 16).ok()?);
                }
                _ => return None,
            }
        }
        // The container may have lived before this start.
        if let (Some(most), Some(born_ms)) = (&mut options.clocks.max_lifetime_ms, born_ms) {
            *most = most.saturating_sub(wall_ms().saturating_sub(born_ms));
        }
        Some(options)
    }
}

fn number(word: &[u8]) -> Option<u64> {
    core::str::from_utf8(word).ok()?.parse().ok()
}

/// Milliseconds since 1970.
fn wall_ms() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    let ms = time.tv_sec.saturating_mul(1000) + time.tv_nsec / 1_000_000;
    u64::try_from(ms).unwrap_or(0)
}

fn token() -> Option<[u8; 16]> {
    let mut token = [0_u8; 16];
    let count = getrandom(&mut token, GetRandomFlags::empty()).ok()?;
    (count == token.len()).then_some(token)
}

/// The name of the socket. Containers that share a network share these names, so the number of the
/// pid namespace is in it.
pub(super) fn socket_name() -> rustix::io::Result<Vec<u8>> {
    // `pid:[4026531836]`
    let link = readlink("/proc/self/ns/pid", Vec::new())?;
    let digits = link.to_bytes().iter().filter(|byte| byte.is_ascii_digit());
    Ok(SOCKET.iter().chain(digits).copied().collect())
}

fn inner_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(
        &socket,
        &SocketAddrUnix::new_abstract_name(&socket_name()?)?,
    )?;
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
