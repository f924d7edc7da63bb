//! What the attacks aim at on the host: files, sockets, processes.

use std::{
    fs,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::attacks::{Attack, Control};

/// Aims for [`ATTACKS`](super::ATTACKS) on the host; all of it goes with this value.
#[derive(Debug)]
pub struct Stage {
    directory: PathBuf,
    root_only: PathBuf,
    abstract_name: String,
    tcp: TcpListener,
    _unix: [UnixListener; 2],
}

impl Stage {
    /// Sets the aims up in a directory; needs root.
    ///
    /// # Panics
    /// When the host does not allow it.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        let name = format!("podkit-attack-{}", std::process::id());
        for part in ["jail", "data"] {
            fs::create_dir_all(directory.join(part)).unwrap();
        }
        fs::write(directory.join("marker"), "of the host").unwrap();
        fs::write(directory.join("data/file"), "read-only").unwrap();
        // So that nothing but the read-only mount keeps it from being written.
        fs::set_permissions(
            directory.join("data/file"),
            fs::Permissions::from_mode(0o666),
        )
        .unwrap();
        fs::copy("/usr/bin/tail", directory.join("victim")).unwrap();
        let root_only = PathBuf::from("/usr/local/share").join(&name);
        fs::write(&root_only, "root only").expect("the isolation theme needs root");
        fs::set_permissions(&root_only, fs::Permissions::from_mode(0o600)).unwrap();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let unix = [
            UnixListener::bind_addr(&address).unwrap(),
            UnixListener::bind(directory.join("socket")).unwrap(),
        ];
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            directory: directory.to_owned(),
            root_only,
            abstract_name: name,
            tcp,
            _unix: unix,
        }
    }

    /// The directory to bind read-only at `/data`.
    #[must_use]
    pub fn read_only(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// A process of the host's that waits to be attacked.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn victim(&self) -> Victim {
        let child = Command::new(self.directory.join("victim"))
            .args(["-f", "/dev/null"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Victim(child.unwrap())
    }

    /// An argument as it is for the control run.
    #[must_use]
    pub fn outside(&self, argument: &str, victim: &Victim) -> String {
        let directory = self.directory.display().to_string();
        self.anywhere(argument, victim)
            .replace("{tmp}", &directory)
            .replace("{read_only}", &format!("{directory}/data/file"))
            .replace("{program}", &victim.0.id().to_string())
            .replace("{init}", &format!("/proc/{}/root", victim.0.id()))
    }

    /// An argument as it is inside.
    #[must_use]
    pub fn inside(&self, argument: &str, victim: &Victim) -> String {
        self.anywhere(argument, victim)
            .replace("{tmp}", "/tmp")
            .replace("{read_only}", "/data/file")
            .replace("{program}", "1")
            .replace("{init}", "/proc/1/root")
    }

    fn anywhere(&self, argument: &str, victim: &Victim) -> String {
        let directory = self.directory.display();
        let port = self.tcp.local_addr().map_or(0, |address| address.port());
        argument
            .replace("{victim}", &victim.0.id().to_string())
            .replace("{marker}", &format!("{directory}/marker"))
            .replace("{socket}", &format!("{directory}/socket"))
            .replace("{abstract}", &self.abstract_name)
            .replace("{port}", &port.to_string())
            .replace("{root_only}", &self.root_only.display().to_string())
            .replace("{core_pattern}", "/proc/sys/kernel/core_pattern")
            .replace("{sysrq}", "/proc/sysrq-trigger")
            .replace("{cgroup}", first_of(CGROUP_TOPS))
            .replace("{sysfs}", first_of(SYSFS_FILES))
    }

    /// Runs the control of an attack, and returns the word that it says.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn control(&self, attack: &Attack, programs: &Path) -> String {
        let victim = self.victim();
        let mut argv: Vec<String> = attack
            .argv
            .iter()
            .map(|word| self.outside(word, &victim))
            .collect();
        if let Some(program) = argv.first_mut() {
            *program = programs.join(&program).display().to_string();
        }
        let mut command = match attack.control {
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
        last_word(&command.stdin(Stdio::null()).output().unwrap().stdout)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.root_only);
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
