//! What a container is to be.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A complete order for one container.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ContainerSpec {
    /// Name: 1–128 bytes of `[A-Za-z0-9._-]`, not beginning with a dot.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Root file system.
    pub rootfs: Rootfs,
    /// Host name.
    pub hostname: String,
    /// Environment of every command.
    pub env: Vec<(String, String)>,
    /// Working directory of every command; made when it is missing.
    pub cwd: String,
    /// User of every command.
    pub user: String,
    /// The container's own program, with which it ends.
    pub main: Option<Vec<String>>,
    /// Further mounts, in order.
    pub mounts: Vec<Mount>,
    /// Network.
    pub network: Network,
    /// TCP ports that the host offers; needs a network of the container's own.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Further names of `/etc/hosts`.
    pub hosts: Vec<(String, IpAddr)>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Swap in bytes on top of the memory.
    pub swap_bytes: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids_max: Option<u32>,
    /// Whether a limit that cannot be enforced is an error; otherwise it is left out.
    pub limits_required: bool,
    /// Bytes of `/dev/shm`.
    pub shm_bytes: u64,
    /// Whether the root file system cannot be written.
    pub read_only_root: bool,
    /// Capabilities that commands hold, as `CHOWN`.
    pub capabilities: Vec<String>,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Whether executing a file never gives privileges.
    pub no_new_privileges: bool,
    /// Isolation that is asked for; the best one without.
    pub isolation: Option<Isolation>,
    /// Time from the last activity to the stop.
    pub auto_stop: Option<Duration>,
    /// Time from the creation to the stop.
    pub max_lifetime: Option<Duration>,
}

/// Capabilities of a container that names none: Docker's, less NET_RAW, MKNOD and AUDIT_WRITE.
pub const DEFAULT_CAPABILITIES: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "SETFCAP",
];

/// Size of `/dev/shm` in a container that names none.
pub const DEFAULT_SHM_BYTES: u64 = 64 * 1024 * 1024;

impl ContainerSpec {
    /// A container with the `host` image, loopback only, hardened, without limits.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            hostname: name.chars().take(63).collect(),
            name,
            labels: BTreeMap::new(),
            rootfs: Rootfs::Host { paths: Vec::new() },
            env: Vec::new(),
            cwd: "/workspace".to_owned(),
            user: "root".to_owned(),
            main: None,
            mounts: Vec::new(),
            network: Network::None,
            ports: Vec::new(),
            hosts: Vec::new(),
            memory_bytes: None,
            swap_bytes: None,
            cpu_millis: None,
            pids_max: None,
            limits_required: true,
            shm_bytes: DEFAULT_SHM_BYTES,
            read_only_root: false,
            capabilities: DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
            seccomp: Seccomp::Default,
            no_new_privileges: true,
            isolation: None,
            auto_stop: None,
            max_lifetime: None,
        }
    }
}

/// Shows names, never environment values.
impl fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSpec")
            .field("name", &self.name)
            .field("rootfs", &self.rootfs)
            .field(
                "env",
                &self.env.iter().map(|(key, _)| key).collect::<Vec<_>>(),
            )
            .field("mounts", &self.mounts)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Rootfs {
    /// The host's programs with a generated `/etc`.
    Host {
        /// Further host directories that are shown, read-only.
        paths: Vec<PathBuf>,
    },
    /// A directory, which stays as it is.
    Directory(PathBuf),
    /// A tar file, imported once.
    Tar(PathBuf),
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Mount {
    /// A file or directory of the host.
    Bind {
        /// Host path; it must exist.
        source: PathBuf,
        /// Absolute path inside.
        target: PathBuf,
        /// Whether it cannot be written.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Absolute path inside.
        target: PathBuf,
        /// Size in bytes.
        size_bytes: u64,
        /// Permission bits of its root.
        mode: u32,
    },
}

impl Mount {
    pub(crate) const fn is_writable_bind(&self) -> bool {
        matches!(
            self,
            Self::Bind {
                read_only: false,
                ..
            }
        )
    }

    /// Where it is mounted.
    #[must_use]
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// Network of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Network {
    /// A network namespace with nothing but loopback.
    None,
    /// The host's network.
    Host,
}

/// A TCP port of a container's at an address of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Port {
    /// Port in the container.
    pub container: u16,
    /// Address of the host.
    pub address: IpAddr,
    /// Port of the host; any free one without, which stays the same as long as it is free.
    pub host: Option<u16>,
    /// Those to take where any will do, the first that is free.
    #[serde(default)]
    pub preferred: Vec<u16>,
    /// The one that was chosen; the engine's own.
    #[serde(default)]
    pub(crate) chosen: Option<u16>,
}

impl Port {
    /// A port of the container's at this port of the host's, or at any that is free.
    #[must_use]
    pub const fn new(container: u16, address: IpAddr, host: Option<u16>) -> Self {
        Self {
            container,
            address,
            host,
            preferred: Vec::new(),
            chosen: None,
        }
    }

    /// Takes the first of these numbers that is free where any will do.
    #[must_use]
    pub fn prefer(mut self, numbers: impl IntoIterator<Item = u16>) -> Self {
        self.preferred = numbers.into_iter().collect();
        self
    }
}

/// System call filter of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Seccomp {
    /// What ordinary programs need.
    Default,
    /// None.
    Unconfined,
}

/// How far a container's user ids are kept apart from others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Isolation {
    /// Container root is the calling user.
    CallerUid,
    /// All containers of this user share one range of 65 536 ids.
    SharedRange,
    /// Every container has its own 65 536 ids.
    OwnRange,
}

impl Isolation {
    /// Stable name: `own-range`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CallerUid => "caller-uid",
            Self::SharedRange => "shared-range",
            Self::OwnRange => "own-range",
        }
    }
}
