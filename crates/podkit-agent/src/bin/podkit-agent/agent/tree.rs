//! All that a command has started: how it is found and killed.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    vec::Vec,
};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, Dir, Mode, OFlags, mkdirat, openat, unlinkat},
    io::{Errno, Result, read, write},
};

use super::{
    Agent,
    exec::{Exec, Hold},
    signals::{KILL, STOP},
};
use crate::sys::serve;

/// Looks for new processes before what was found is killed.
const ROUNDS: usize = 16;

/// A version 2 group of one command.
pub(super) struct Group {
    pub(super) id: u32,
    directory: OwnedFd,
}

fn group_name(id: u32) -> alloc::string::String {
    format!("exec-{id}")
}

impl Group {
    pub(super) fn new(parent: &OwnedFd, id: u32) -> Result<Self> {
        let name = group_name(id);
        match mkdirat(parent, &name, Mode::from_raw_mode(0o755)) {
            // Of a life of the container before this one; nothing can be in it.
            Err(Errno::EXIST) => {
                unlinkat(parent, &name, AtFlags::REMOVEDIR)?;
                mkdirat(parent, &name, Mode::from_raw_mode(0o755))?;
            }
            other => other?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(parent, &name, flags, Mode::empty())?;
        Ok(Self { id, directory })
    }

    pub(super) fn as_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Kills all that is in it; whether nothing is left.
    pub(super) fn kill(&self) -> bool {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(&self.directory, "cgroup.kill", flags, Mode::empty()) {
            Ok(kill) => {
                let _ = write(&kill, b"1");
            }
            // Before version 5.14 of the kernel. What forks meanwhile is met at the next look.
            Err(_) => {
                for pid in self.processes() {
                    let _ = serve::kill(pid, KILL);
                }
            }
        }
        self.read("cgroup.events")
            .is_some_and(|events| find(&events, b"populated ") == Some(0))
    }

    pub(super) fn processes(&self) -> Vec<i32> {
        let text = self.read("cgroup.procs").unwrap_or_default();
        text.split(|byte| *byte == b'\n')
            .filter_map(|line| core::str::from_utf8(line).ok()?.parse().ok())
            .filter(|pid| *pid > 0)
            .collect()
    }

    /// Microseconds of processor time in user mode and in the kernel, and the most memory.
    pub(super) fn usage(&self) -> (Option<(u64, u64)>, Option<u64>) {
        let cpu = self
            .read("cpu.stat")
            .and_then(|text| Some((find(&text, b"user_usec ")?, find(&text, b"system_usec ")?)));
        let peak = self.read("memory.peak").and_then(|text| find(&text, b""));
        (cpu, peak)
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.directory, name, flags, Mode::empty()).ok()?;
        read_all(&file)
    }
}

/// The number after a word at the beginning of a line.
fn find(text: &[u8], word: &[u8]) -> Option<u64> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let number = line.strip_prefix(word)?;
        core::str::from_utf8(number).ok()?.trim().parse().ok()
    })
}

fn read_all(file: &OwnedFd) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut buffer = [0_u8; 1024];
    loop {
        match read(file, &mut buffer) {
            Ok(0) => return Some(text),
            Ok(count) => text.extend_from_slice(buffer.get(..count)?),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// A search for processes that are to be killed: those that are stopped already.
#[derive(Default)]
pub(super) struct Hunt {
    stopped: BTreeSet<i32>,
}

/// A process, as `/proc` tells.
struct Process {
    pid: i32,
    parent: i32,
}

impl Agent {
    /// Whether the group is gone now.
    pub(super) fn remove_group(&self, group: &Group) -> bool {
        self.remove_group_of(group.id)
    }

    pub(super) fn remove_group_of(&self, id: u32) -> bool {
        let Some(unified) = &self.config.unified else {
            return true;
        };
        !matches!(
            unlinkat(unified, group_name(id), AtFlags::REMOVEDIR),
            Err(Errno::BUSY)
        )
    }

    /// Kills what a supervisor has below it, and then it; without one, all processes that have lost
    /// theirs. Whether nothing is left.
    pub(super) fn hunt(&self, hunt: &mut Hunt, supervisor: Option<i32>) -> bool {
        for _ in 0..ROUNDS {
            let found = self.below(supervisor);
            let new: Vec<i32> = found
                .iter()
                .copied()
                .filter(|pid| !hunt.stopped.contains(pid))
                .collect();
            // Stopped first, so that nothing forks while others are looked for.
            for pid in &new {
                let _ = serve::kill(*pid, STOP);
            }
            hunt.stopped.extend(&new);
            if new.is_empty() {
                break;
            }
        }
        let left = self.below(supervisor);
        for pid in &left {
            let _ = serve::kill(*pid, KILL);
        }
        // A number may be given again.
        hunt.stopped.retain(|pid| left.contains(pid));
        if !left.is_empty() {
            return false;
        }
        match supervisor {
            Some(pid) => {
                let _ = serve::kill(pid, KILL);
                false
            }
            None => true,
        }
    }

    /// Goes on with killing what lost its supervisor.
    pub(super) fn hunt_orphans(&mut self) {
        let Some(mut hunt) = self.orphans.take() else {
            return;
        };
        if !self.hunt(&mut hunt, None) {
            self.orphans = Some(hunt);
            return;
        }
        self.reap();
    }

    /// Every process but this one and those that clients came by.
    pub(super) fn everybody(&self) -> Vec<i32> {
        let peers: BTreeSet<i32> = self.connections.values().map(|one| one.peer).collect();
        let all = self.processes().into_iter().map(|process| process.pid);
        all.filter(|pid| !peers.contains(pid)).collect()
    }

    /// Every process of a command.
    pub(super) fn tree_of(&self, exec: &Exec) -> Vec<i32> {
        match &exec.hold {
            Hold::Group(group) => group.processes(),
            Hold::Supervisor { pid, ended, .. } => self.below((!ended).then_some(*pid)),
        }
    }

    /// Everything below a supervisor; without one, below this process but for its own children.
    fn below(&self, supervisor: Option<i32>) -> Vec<i32> {
        let processes = self.processes();
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for process in &processes {
            children
                .entry(process.parent)
                .or_default()
                .push(process.pid);
        }
        let mut open = match supervisor {
            Some(pid) => children.remove(&pid).unwrap_or_default(),
            None => {
                let own = self.own_children();
                let mut all = children.remove(&1).unwrap_or_default();
                all.retain(|pid| !own.contains(pid));
                all
            }
        };
        let mut found = Vec::new();
        while let Some(pid) = open.pop() {
            open.extend(children.remove(&pid).unwrap_or_default());
            found.push(pid);
        }
        found
    }

    fn own_children(&self) -> BTreeSet<i32> {
        let execs = self.execs.values().filter_map(|exec| match &exec.hold {
            Hold::Supervisor {
                pid, ended: false, ..
            } => Some(*pid),
            Hold::Supervisor { .. } => None,
            Hold::Group(_) => exec.pid,
        });
        let files = self.files.values().map(|job| job.pid);
        let lingering = self.lingering.iter().map(|(pid, _)| *pid);
        execs
            .chain(files)
            .chain(lingering)
            .chain(self.remnants.iter().copied())
            .chain(self.background.values().filter_map(super::Process::logger))
            .collect()
    }

    /// Every living process of this pid namespace.
    fn processes(&self) -> Vec<Process> {
        let Ok(directory) = Dir::read_from(&self.processes) else {
            return Vec::new();
        };
        let entries = directory.filter_map(core::result::Result::ok);
        let numbers = entries.filter_map(|entry| {
            core::str::from_utf8(entry.file_name().to_bytes())
                .ok()?
                .parse::<i32>()
                .ok()
        });
        numbers
            .filter(|pid| *pid > 1)
            .filter_map(|pid| {
                let stat = Stat::of(&self.processes, pid)?;
                (!stat.dead).then_some(Process {
                    pid,
                    parent: stat.parent,
                })
            })
            .collect()
    }
}

/// What `/proc/<pid>/stat` tells.
pub(super) struct Stat {
    pub(super) parent: i32,
    dead: bool,
}

impl Stat {
    pub(super) fn of(processes: &OwnedFd, pid: i32) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(processes, format!("{pid}/stat"), flags, Mode::empty()).ok()?;
        let mut buffer = [0_u8; 512];
        let count = read(&file, &mut buffer).ok()?;
        Self::parse(buffer.get(..count)?)
    }

    /// The name in the middle may hold anything, so what counts comes after its last bracket.
    fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let mut words = text.get(end + 1..)?.split(|byte| *byte == b' ').skip(1);
        let state = words.next()?;
        let parent = core::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        Some(Self {
            parent,
            dead: matches!(state, b"Z" | b"X" | b"x"),
        })
    }
}
