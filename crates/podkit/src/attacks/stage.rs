//! What the attacks aim at on the host: files, sockets, processes.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::{Control, Exhaustion, How, Run};
use crate::error::{Error, ErrorKind, Result};

/// Aims for the [`attacks`](super::attacks) on the host; all of it goes with this value.
#[derive(Debug)]
pub struct Stage {
    directory: PathBuf,
    programs: PathBuf,
    root_only: RootOnly,
    name: String,
    loopback: TcpListener,
    open: TcpListener,
    _unix: [UnixListener; 2],
    _offer: Offer,
    is_root: bool,
}

impl Stage {
    /// Sets the aims up in a directory, for programs that are [built](super::build_programs). What
    /// takes root is left out for others.
    ///
    /// # Errors
    /// Whatever the host does not allow.
    pub fn new(directory: &Path, programs: &Path) -> Result<Self> {
        Self::set_up(directory, programs).map_err(|error| {
            Error::new(
                ErrorKind::Unexpected,
                "the aims of the attacks cannot be set up",
            )
            .with_source(error)
        })
    }

    fn set_up(directory: &Path, programs: &Path) -> io::Result<Self> {
        let name = format!("podkit-attack-{}", std::process::id());
        let is_root = rustix::process::geteuid().is_root();
        for part in ["jail", "data"] {
            fs::create_dir_all(directory.join(part))?;
        }
        fs::write(directory.join("marker"), "of the host")?;
        let file = directory.join("data/file");
        fs::write(&file, "read-only")?;
        // So that nothing but the read-only mount keeps it from being written.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666))?;
        fs::copy("/usr/bin/tail", directory.join("victim"))?;
        let set_id = directory.join("data/set-id");
        fs::copy(programs.join("became"), &set_id)?;
        fs::set_permissions(&set_id, fs::Permissions::from_mode(0o4755))?;
        let root_only = RootOnly::new(is_root, &name)?;
        if is_root {
            // The kernel's log.
            let (device, mode) = (directory.join("data/device"), Mode::from_raw_mode(0o666));
            mknodat(CWD, device, FileType::CharacterDevice, mode, makedev(1, 11))?;
        }
        let address = SocketAddr::from_abstract_name(&name)?;
        let unix = [
            UnixListener::bind_addr(&address)?,
            UnixListener::bind(directory.join("socket"))?,
        ];
        Ok(Self {
            directory: directory.to_owned(),
            programs: programs.to_owned(),
            root_only,
            loopback: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            open: TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?,
            _unix: unix,
            _offer: Offer::new(&programs.join("reach"), &name)?,
            is_root,
            name,
        })
    }

    /// The directory to bind read-only at `/data`.
    #[must_use]
    pub fn read_only(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The directory of its own.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the programs are, to bind read-only at `/attacks`.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Whether control runs can be made as root.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.is_root
    }

    /// A process of the host's that waits to be attacked.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn victim(&self) -> io::Result<Victim> {
        // It reads to the end, which comes with the end of this process, however that ends.
        let child = Command::new(self.directory.join("victim"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        child.map(Victim)
    }

    /// An argument as it is for the control run.
    #[must_use]
    pub fn outside(&self, argument: &str, victim: &Victim) -> String {
        let directory = self.directory.display().to_string();
        self.anywhere(argument, victim)
            .replace("{tmp}", &directory)
            .replace("{read_only}", &format!("{directory}/data/file"))
            .replace("{device}", &format!("{directory}/data/device"))
            .replace("{set_id}", &format!("{directory}/data/set-id"))
            .replace("{program}", &victim.0.id().to_string())
            .replace("{init}", &format!("/proc/{}/root", victim.0.id()))
            .replace("{answering}", &format!("{}-answers", self.name))
            .replace("{neighbour}", "127.0.0.1")
            .replace("{neighbour_port}", &port(&self.loopback))
    }

    /// An argument as it is inside, where another container has the address `neighbour`.
    #[must_use]
    pub fn inside(&self, argument: &str, victim: &Victim, neighbour: &str) -> String {
        self.anywhere(argument, victim)
            .replace("{tmp}", "/tmp")
            .replace("{read_only}", "/data/file")
            .replace("{device}", "/data/device")
            .replace("{set_id}", "/data/set-id")
            .replace("{program}", "1")
            .replace("{init}", "/proc/1/root")
            .replace("{answering}", "podkit-agent-")
            .replace("{neighbour}", neighbour)
            .replace("{neighbour_port}", NEIGHBOUR_PORT)
    }

    fn anywhere(&self, argument: &str, victim: &Victim) -> String {
        let directory = self.directory.display();
        argument
            .replace("{victim}", &victim.0.id().to_string())
            .replace("{marker}", &format!("{directory}/marker"))
            .replace("{socket}", &format!("{directory}/socket"))
            .replace("{abstract}", &self.name)
            .replace("{key}", &key())
            .replace("{shared}", &format!("/{}", self.name))
            .replace("{port}", &port(&self.loopback))
            .replace("{open_port}", &port(&self.open))
            .replace("{host_address}", &own_address().to_string())
            .replace("{root_only}", &self.root_only.path().display().to_string())
            .replace("{core_pattern}", "/proc/sys/kernel/core_pattern")
            .replace("{sysrq}", "/proc/sysrq-trigger")
            .replace("{cgroup}", first_of(CGROUP_TOPS))
            .replace("{release_agent}", first_of(RELEASE_AGENTS))
            .replace("{sysfs}", first_of(SYSFS_FILES))
    }

    /// Whether everything is there that an argument names.
    pub(super) fn has(&self, argument: &str) -> bool {
        self.is_root || !(argument.contains("{device}") || argument.contains("{set_id}"))
    }

    /// Runs the control of an attack that is one of a program.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn control(&self, how: &How) -> io::Result<Run> {
        if !self.is_root {
            return Ok(Run::not_run("needs root"));
        }
        match how {
            How::Program { argv, control } => self.control_program(argv, *control),
            How::Exhaustion(what) => self.control_exhaustion(what),
            How::Deed(_) => Ok(Run::not_run("belongs to the run inside")),
        }
    }

    fn control_program(&self, argv: &[&str], control: Control) -> io::Result<Run> {
        let victim = self.victim()?;
        let mut argv: Vec<String> = argv
            .iter()
            .map(|word| self.outside(word, &victim))
            .collect();
        if let Some(program) = argv.first_mut() {
            *program = self.programs.join(&program).display().to_string();
        }
        let mut command = match control {
            Control::Host => {
                let mut command = Command::new("env");
                command.args(&argv);
                command
            }
            Control::Mounts(setup) => {
                let mut command = Command::new("unshare");
                let run = format!("{setup}; exec \"$@\"");
                command
                    .args(["--mount", "sh", "-c", &run, "sh"])
                    .args(&argv);
                command
            }
            Control::Terminal => {
                let mut command = Command::new("script");
                command.args(["-qec", &argv.join(" "), "/dev/null"]);
                command
            }
        };
        let output = command.stdin(Stdio::null()).output()?;
        Ok(Run::Said(last_word(&output.stdout)))
    }

    /// Takes a lot on the host, which has it; or all of what an ordinary user may have, and looks
    /// whether that user gets more.
    fn control_exhaustion(&self, what: &Exhaustion) -> io::Result<Run> {
        let place = what
            .place
            .replace("{tmp}", &self.directory.display().to_string());
        let program = self.programs.join("exhaust").display().to_string();
        let mut command = Command::new(&program);
        if what.as_nobody {
            command = as_nobody(&program);
        }
        command.args([what.kind, what.amount, "hold", &place]);
        let mut taker = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = taker.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let others = if what.as_nobody {
            as_nobody(&program).args([what.kind, what.little]).output()
        } else {
            Command::new("true").output()
        };
        drop(taker.stdin.take());
        taker.wait()?;
        let said = last_word(line.as_bytes());
        Ok(Run::said(
            match (what.as_nobody, others?.status.success()) {
                (true, false) => "ok",
                (true, true) => "others have some",
                (false, _) => &said,
            },
        ))
    }

    /// Whether the host still gets a little of what somebody else takes.
    pub(super) fn host_gets(&self, what: &Exhaustion) -> io::Result<bool> {
        let place = self.directory.join("probe").display().to_string();
        let output = Command::new(self.programs.join("exhaust"))
            .args([what.kind, what.little, "go", &place])
            .stdin(Stdio::null())
            .output()?;
        let word = last_word(&output.stdout);
        // A share of a busy host's processors may be small.
        Ok(word == "ok" || (what.kind == "processors" && word == "ETIME"))
    }

    /// Runs a shell text on the host, in this stage's directory; `root` when it takes that.
    pub(super) fn shell(&self, text: &str, root: bool) -> Result<Run> {
        if root && !self.is_root {
            return Ok(Run::not_run("needs root"));
        }
        let output = Command::new("sh")
            .args(["-c", text])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| {
                Error::new(ErrorKind::Unexpected, "a control run cannot be started")
                    .with_source(error)
            })?;
        Ok(Run::Said(last_word(&output.stdout)))
    }
}

/// A file that only the host's root may read.
#[derive(Debug)]
enum RootOnly {
    /// One that is on every host.
    Found,
    /// Goes with this value.
    Made(PathBuf),
}

impl RootOnly {
    fn new(is_root: bool, name: &str) -> io::Result<Self> {
        if !is_root {
            return Ok(Self::Found);
        }
        let made = Self::Made(Path::new("/usr/local/share").join(name));
        fs::write(made.path(), "root only")?;
        fs::set_permissions(made.path(), fs::Permissions::from_mode(0o600))?;
        Ok(made)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Found => Path::new("/etc/shadow"),
            Self::Made(path) => path,
        }
    }
}

impl Drop for RootOnly {
    fn drop(&mut self) {
        if let Self::Made(path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

/// A process of the host's that an attack aims at; it ends with this value.
#[derive(Debug)]
pub struct Victim(Child);

impl Victim {
    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What processes share by name, held by a program that undoes it at its input's end.
#[derive(Debug)]
struct Offer(Child, Option<ChildStdin>);

impl Offer {
    fn new(reach: &Path, name: &str) -> io::Result<Self> {
        let mut child = Command::new(reach)
            .args([
                "offer",
                &key(),
                &format!("/{name}"),
                &format!("{name}-answers"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let output = child.stdout.take().map(BufReader::new);
        let mut offer = Self(child, stdin);
        let mut line = String::new();
        if let Some(mut output) = output {
            output.read_line(&mut line)?;
        }
        if line == "ready\n" {
            return Ok(offer);
        }
        offer.end();
        Err(io::Error::other(format!(
            "the aims are not offered: {line}"
        )))
    }

    fn end(&mut self) {
        drop(self.1.take());
        let _ = self.0.wait();
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Where the neighbour listens.
pub(super) const NEIGHBOUR_PORT: &str = "45678";

fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
    command
}

fn key() -> String {
    format!("{:#x}", 0x706b_0000 | (std::process::id() & 0xffff))
}

fn port(listener: &TcpListener) -> String {
    let number = listener.local_addr().map_or(0, |address| address.port());
    number.to_string()
}

/// An address of this machine's that is not loopback's, or that where there is no other.
fn own_address() -> Ipv4Addr {
    let table = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut last = Ipv4Addr::LOCALHOST;
    for line in table.lines() {
        if let Some(address) = line.trim().strip_prefix("|-- ") {
            last = address.parse().unwrap_or(last);
        } else if line.ends_with("host LOCAL") && !last.is_loopback() {
            return last;
        }
    }
    Ipv4Addr::LOCALHOST
}

/// The last word that a program said.
pub(super) fn last_word(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    text.split_whitespace()
        .next_back()
        .unwrap_or("nothing")
        .to_owned()
}

const CGROUP_TOPS: &[&str] = &[
    "/sys/fs/cgroup/memory/cgroup.procs",
    "/sys/fs/cgroup/cgroup.procs",
];

const RELEASE_AGENTS: &[&str] = &[
    "/sys/fs/cgroup/memory/release_agent",
    "/sys/fs/cgroup/systemd/release_agent",
];

const SYSFS_FILES: &[&str] = &[
    "/sys/kernel/mm/ksm/run",
    "/sys/module/printk/parameters/time",
    "/sys/kernel/profiling",
];

fn first_of(paths: &[&'static str]) -> &'static str {
    paths
        .iter()
        .find(|path| Path::new(path).exists())
        .copied()
        .unwrap_or("/nowhere")
}
