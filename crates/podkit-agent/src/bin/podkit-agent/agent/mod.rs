//! The agent: PID 1 of a container.
//!
//! One thread waits for sockets, pipes and children, and never on any one of them. Everything that
//! could be held up by what is in the container – looking users up, files, starting programs – is
//! done by short-lived children.

mod child;
pub(crate) mod clocks;
mod closing;
pub(crate) mod connect;
mod connection;
pub(crate) mod dial;
mod ending;
mod exec;
mod file_call;
pub(crate) mod init;
mod input;
mod log;
mod main_command;
mod output;
mod poll;
mod process;
mod published;
mod reap;
mod requests;
mod signals;
mod start;
mod supervisor;
mod terminal;
mod tree;

use alloc::{collections::BTreeMap, vec::Vec};

use podkit_agent::Clocks;
use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags, openat},
    io::ioctl_fionbio,
    process::{DumpableBehavior, set_dumpable_behavior},
};

pub(crate) use self::log::Written;
use self::{
    clocks::ClockState,
    closing::Closing,
    connection::Connection,
    exec::Exec,
    file_call::FileJob,
    log::Log,
    poll::{Poll, Source, Wants},
    process::Process,
    terminal::Terminals,
};
use crate::sys::{container::exit_group, serve};

/// What the agent is told before it serves.
pub(crate) struct Config {
    /// When the container stops by itself.
    pub(crate) clocks: Clocks,
    /// Working directory of commands that name none.
    pub(crate) cwd: Vec<u8>,
    /// User of commands that name none.
    pub(crate) user: Vec<u8>,
    /// Environment of every command, as `KEY=VALUE`.
    pub(crate) env: Vec<Vec<u8>>,
    /// The container's own program, with which it ends.
    pub(crate) main: Option<Vec<Vec<u8>>>,
    /// Its user and its working directory, where they are not those of commands.
    pub(crate) main_user: Vec<u8>,
    pub(crate) main_cwd: Vec<u8>,
    /// Capabilities that commands hold at most, where they are fewer than the agent's own.
    pub(crate) capabilities: Option<u64>,
    /// Tells this life of the container from others.
    pub(crate) boot_token: [u8; 16],
    /// Further system call filter of every command, or empty.
    pub(crate) exec_filter: Vec<u8>,
    /// Where clients connect.
    pub(crate) listener: Option<Listener>,
    /// Where clients wait for the agent to connect.
    pub(crate) dial: Option<dial::Dial>,
    /// The mark that says why the container stopped; without, the exit code says it.
    pub(crate) exit_mark: Option<OwnedFd>,
    /// Where what the container's own program writes goes.
    pub(crate) output: Written,
    /// Version 2 group in which every command gets one of its own.
    pub(crate) unified: Option<OwnedFd>,
    /// `tasks` files of the version 1 groups that commands enter.
    pub(crate) tasks: Vec<OwnedFd>,
    /// Counts what the kernel killed for memory.
    pub(crate) oom: Option<OwnedFd>,
    /// Sockets of the host's network, and the ports that their callers are passed on to.
    pub(crate) ports: Vec<(OwnedFd, u16)>,
}

/// A socket, and who may be at its other end.
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    /// Whether it is inside the container, where everybody may find it. Then only a process that
    /// the engine has started here is let in; otherwise only one outside the container.
    pub(crate) inside: bool,
}

/// All that is going on.
struct Agent {
    config: Config,
    poll: Poll,
    signals: OwnedFd,
    /// `/proc` as it was before anything else ran here.
    processes: OwnedFd,
    connections: BTreeMap<u32, Connection>,
    execs: BTreeMap<u32, Exec>,
    files: BTreeMap<u32, FileJob>,
    /// Processes, by numbers of their own.
    background: BTreeMap<u32, Process>,
    terminals: Terminals,
    /// Children of file calls whose answer nobody waits for, and when they are killed.
    lingering: Vec<(i32, u64)>,
    /// Supervisors of commands that ended and left others behind.
    remnants: Vec<i32>,
    /// Children that pass on what comes to the host's ports.
    bridges: Vec<i32>,
    /// Until when nobody is let in.
    resting_until: Option<u64>,
    /// Groups of such commands.
    remnant_groups: Vec<u32>,
    /// The exec that is the container's own program.
    main: Option<u32>,
    log: Log,
    /// Whether a supervisor was killed, so that its orphans have to be.
    orphans: Option<tree::Hunt>,
    next_id: u32,
    clocks: ClockState,
    closing: Option<Closing>,
}

/// Serves until the container stops.
pub(crate) fn run(config: Config) -> ! {
    // Nothing inside may trace this process or look at its memory; its own descriptors are out of
    // reach then, too.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    match Agent::new(config) {
        Ok(mut agent) => agent.serve(),
        Err(_) => exit_group(1),
    }
}

impl Agent {
    fn new(mut config: Config) -> rustix::io::Result<Self> {
        let signals = serve::signals(signals::TAKEN)?;
        let processes = openat(
            CWD,
            "/proc",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let poll = Poll::new()?;
        poll.add(&signals, Source::Signals, Wants::Read)?;
        if let Some(listener) = &config.listener {
            // Whoever made it may have wanted to wait; this one never does.
            ioctl_fionbio(&listener.socket, true)?;
            poll.add(&listener.socket, Source::Listener, Wants::Read)?;
        }
        for (place, (socket, _)) in config.ports.iter().enumerate() {
            ioctl_fionbio(socket, true)?;
            let source = Source::Port(u32::try_from(place).unwrap_or(u32::MAX));
            poll.add(socket, source, Wants::Read)?;
        }
        let log = Log::new(core::mem::take(&mut config.output));
        Ok(Self {
            clocks: ClockState::new(config.clocks),
            config,
            poll,
            signals,
            processes,
            connections: BTreeMap::new(),
            execs: BTreeMap::new(),
            files: BTreeMap::new(),
            background: BTreeMap::new(),
            terminals: Terminals::new(),
            lingering: Vec::new(),
            remnants: Vec::new(),
            bridges: Vec::new(),
            resting_until: None,
            remnant_groups: Vec::new(),
            main: None,
            log,
            orphans: None,
            next_id: 1,
            closing: None,
        })
    }

    fn serve(&mut self) -> ! {
        self.start_main();
        self.start_dialling();
        loop {
            let (wake, before) = (self.next_wake(), clocks::awake_ms());
            let events = self.poll.wait(wake);
            let waited = clocks::awake_ms().saturating_sub(before);
            if wake.is_some_and(|wake| waited >= wake.saturating_add(clocks::FROZEN_MS)) {
                self.was_frozen(waited);
            }
            for (source, ready) in events {
                self.handle(source, ready);
            }
            self.pass_time();
        }
    }

    fn handle(&mut self, source: Source, ready: poll::Ready) {
        match source {
            Source::Listener => self.accept(),
            Source::Port(place) => self.take_callers(place),
            Source::Signals => self.take_signals(),
            Source::Dial => self.hear_of_clients(),
            Source::Log => self.go_on_logging(),
            Source::Connection(id) => self.serve_connection(id, ready),
            Source::Stdin(id) => self.feed(id, ready),
            Source::Stdout(id) => self.relay(id, podkit_agent::Output::Stdout),
            Source::Stderr(id) => self.relay(id, podkit_agent::Output::Stderr),
            Source::Report(id) => self.hear_report(id),
            Source::Supervisor(id) => self.hear_supervisor(id),
            Source::Logger(id) => self.hear_logger(id),
            Source::FromFile(id) => self.relay_file(id),
            Source::ToFile(id) => self.feed_file(id, ready.ended),
        }
    }

    /// A number that nothing has.
    fn fresh_id(&mut self) -> u32 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1).max(1);
            let taken = self.connections.contains_key(&id)
                || self.execs.contains_key(&id)
                || self.files.contains_key(&id)
                || self.background.contains_key(&id)
                || self.remnant_groups.contains(&id);
            if !taken {
                return id;
            }
        }
    }
}
