//! What a session's container should be like: the caller's wish. Plain data and its parsing.

mod amount;
mod device;
mod image;
mod limits;
mod mount;
mod port;

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    amount::{Bytes, Limit, parse_bytes, parse_duration},
    device::{Device, Gpus, Ulimit},
    image::{Image, PullPolicy},
    limits::LimitChange,
    mount::{Mount, MountSource},
    port::{HostPort, Port, Protocol, PublishedPort},
};
use crate::error::{Error, Result};

/// Memory of a container that asks for none: 512 MiB, swap included.
pub const DEFAULT_MEMORY_BYTES: u64 = 512 << 20;
/// Processor time of a container that asks for none: one core.
pub const DEFAULT_CPU_MILLIS: u32 = 1000;
/// Processes and threads of a container that asks for none.
pub const DEFAULT_PIDS_MAX: u32 = 512;
/// `auto_stop` of a container that runs nothing of its own.
pub const DEFAULT_AUTO_STOP: Duration = Duration::from_secs(60);
/// Size of `/dev/shm`; never more than a quarter of the memory.
pub const DEFAULT_SHM_BYTES: u64 = 64 << 20;
/// Working directory, and where the workspace is mounted.
pub const WORKSPACE_PATH: &str = "/workspace";
/// User that commands run as.
pub const DEFAULT_USER: &str = "root";

/// What a container's network reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Network {
    /// The best ordinary network of the engine; loopback only where the engine has no outbound
    /// (`Capabilities::outbound`).
    #[default]
    Default,
    /// Outbound, or an error.
    Outbound,
    /// Loopback only.
    None,
    /// The host's own network: no isolation at all.
    Host,
    /// These networks of the engine's, which must exist.
    Named(Vec<String>),
}

impl Network {
    /// Parses `default`, `outbound`, `none`, `host`, or names separated by commas.
    ///
    /// # Errors
    /// `InvalidInput` for an empty name.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "default" => Self::Default,
            "outbound" => Self::Outbound,
            "none" => Self::None,
            "host" => Self::Host,
            names => {
                let names: Vec<String> = names.split(',').map(str::to_owned).collect();
                if names.iter().any(String::is_empty) {
                    return Err(Error::invalid_input(format!("{text:?} is not a network")));
                }
                Self::Named(names)
            }
        })
    }
}

/// How far a container's user ids are kept apart from others' (embedded engine).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Isolation {
    /// Container root is the calling user on the host.
    CallerUid,
    /// All containers of this user share one range of 65 536 ids.
    SharedRange,
    /// Every container has its own 65 536 ids.
    OwnRange,
}

impl Isolation {
    /// As in JSON: `own_range`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CallerUid => "caller_uid",
            Self::SharedRange => "shared_range",
            Self::OwnRange => "own_range",
        }
    }
}

/// Which directory of the host is a session's lasting workspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Workspace {
    /// Base directory as this process sees it; `workspaces/<user>/<session>/` is made in it.
    pub base: PathBuf,
    /// The same directory as the engine sees it; `base` without.
    pub host_base: Option<PathBuf>,
}

impl Workspace {
    /// Workspaces under `base`, which this process and the engine see at the same path.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self {
            base: base.into(),
            host_base: None,
        }
    }

    /// Says where the engine sees the base directory.
    #[must_use]
    pub fn with_host_base(mut self, host_base: impl Into<PathBuf>) -> Self {
        self.host_base = Some(host_base.into());
        self
    }
}

/// A relaxation or tightening of the default hardening. Every field is one named change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Security {
    /// Capabilities beyond the default set, as `NET_RAW`.
    pub add_capabilities: Vec<String>,
    /// Capabilities of the default set that are not wanted; `ALL` drops every one.
    pub drop_capabilities: Vec<String>,
    /// Runs without the system call filter.
    pub seccomp_unconfined: bool,
    /// Allows programs to gain rights by set-id bits.
    pub allow_new_privileges: bool,
    /// The least isolation of user ids that is accepted, and the one that is used; the best that
    /// can be had without.
    pub isolation: Option<Isolation>,
}

/// What a session's container should be like. What is not set has the documented default when the
/// container is made, and matches anything when it exists already.
///
/// # Examples
/// ```
/// use podkit::{Mount, Network, SessionSpec};
///
/// let spec = SessionSpec::new()
///     .image("python:3.12")
///     .cpus(2.0)
///     .memory("1g")
///     .mount(Mount::bind("/data", "/data").read_only())
///     .env("A", "1")
///     .network(Network::None);
/// assert_eq!(spec.cpus, Some(2.0));
/// ```
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SessionSpec {
    /// Image as [`Image::parse`] reads it; the engine's default without.
    pub image: Option<String>,
    /// Takes the image of the container that this process runs in, by its id, where `image` names none
    /// (Docker and Podman).
    pub inherit_image: bool,
    /// Further host directories for the `host` image.
    pub host_paths: Vec<PathBuf>,
    /// Processor cores, at least 0.01; one without. The agent lives on the same share: what a command
    /// has the kernel do in one piece, such as freeing all of its memory, is paid back by the whole
    /// container standing still, and one that does so for 9 s counts as
    /// [`AgentUnreachable`](crate::ErrorKind::AgentUnreachable). Below a tenth of a core, expect that.
    pub cpus: Option<f64>,
    /// Memory including tmpfs and, unless `swap` is set, with no swap on top; 512 MiB without, at
    /// least 6 MiB.
    pub memory: Option<Bytes>,
    /// Swap on top of the memory; none without.
    pub swap: Option<Bytes>,
    /// Processes and threads; 512 without.
    pub pids_max: Option<u32>,
    /// Size of `/dev/shm`; 64 MiB without.
    pub shm: Option<Bytes>,
    /// Environment of every command. Values are never shown.
    pub env: BTreeMap<String, String>,
    /// Working directory; `/workspace` without.
    pub cwd: Option<PathBuf>,
    /// User of every command, as `name`, `uid`, `name:group` or `uid:gid`; root without.
    pub user: Option<String>,
    /// Program that runs as the container's own; none without, and then the container waits for
    /// commands.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments of the entrypoint, or the whole command line.
    pub command: Option<Vec<String>>,
    /// Runs the image's own entrypoint and command.
    pub image_defaults: bool,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Network; [`Network::Default`] without.
    pub network: Option<Network>,
    /// Takes the named networks of the container that this process runs in, where `network` says
    /// nothing (Docker and Podman).
    pub inherit_networks: bool,
    /// Further names of the container's on its named networks.
    pub aliases: Vec<String>,
    /// Ports that the host offers.
    pub ports: Vec<Port>,
    /// Addresses of name servers; the engine's choice without.
    pub dns: Vec<IpAddr>,
    /// Host name; the container's name without.
    pub hostname: Option<String>,
    /// Further lines of `/etc/hosts`: name to address.
    pub hosts: BTreeMap<String, String>,
    /// The caller's own labels; keys that begin with `podkit.` are refused.
    pub labels: BTreeMap<String, String>,
    /// Makes the root file system read-only.
    pub read_only_root: Option<bool>,
    /// Limits of each process, by their names in getrlimit(2): `nofile`.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Devices of the host's.
    pub devices: Vec<Device>,
    /// Graphics processors; none without.
    pub gpus: Option<Gpus>,
    /// The engine's runtime, as `runsc` or `kata`; its default one without.
    pub runtime: Option<String>,
    /// Platform of the image, as `linux/amd64`; the engine's own without.
    pub platform: Option<String>,
    /// When the image is fetched; when it is missing without.
    pub pull: Option<PullPolicy>,
    /// Whether the engine removes the container as soon as it stops.
    pub auto_remove: Option<bool>,
    /// Hardening other than the default.
    pub security: Security,
    /// Lasting workspace, mounted at `/workspace`; without it `/workspace` lives and goes with
    /// the container.
    pub workspace: Option<Workspace>,
    /// Stops the container this long after the last activity; 60 s without, off with an
    /// entrypoint, a command or image defaults.
    pub auto_stop: Option<Limit>,
    /// Ends the session this long after the last activity, where a manager or `gc` watches.
    pub idle_timeout: Option<Limit>,
    /// Stops everything this long after creation.
    pub max_lifetime: Option<Limit>,
    /// Timeout of an exec that has none of its own.
    pub exec_timeout: Option<Limit>,
}

/// Shows names, never environment values.
impl fmt::Debug for SessionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSpec")
            .field("image", &self.image)
            .field("cpus", &self.cpus)
            .field("memory", &self.memory)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("mounts", &self.mounts)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => |$this:ident, $value:ident| $set:expr;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $value: $type) -> Self {
            let $this = &mut self;
            $set;
            self
        }
    )*};
}

impl SessionSpec {
    /// A spec that sets nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Sets [`image`](Self::image): `host`, `dir:/path`, `tar:/path` or a reference.
        image: impl Into<String> => |this, image| this.image = Some(image.into());
        /// Sets [`inherit_image`](Self::inherit_image).
        inherit_image: bool => |this, on| this.inherit_image = on;
        /// Adds to [`host_paths`](Self::host_paths).
        host_path: impl Into<PathBuf> => |this, path| this.host_paths.push(path.into());
        /// Sets [`cpus`](Self::cpus).
        cpus: f64 => |this, cpus| this.cpus = Some(cpus);
        /// Sets [`memory`](Self::memory), as `"1g"` or a number of bytes.
        memory: impl Into<Bytes> => |this, memory| this.memory = Some(memory.into());
        /// Sets [`swap`](Self::swap).
        swap: impl Into<Bytes> => |this, swap| this.swap = Some(swap.into());
        /// Sets [`pids_max`](Self::pids_max).
        pids_max: u32 => |this, pids| this.pids_max = Some(pids);
        /// Sets [`shm`](Self::shm).
        shm: impl Into<Bytes> => |this, shm| this.shm = Some(shm.into());
        /// Sets [`cwd`](Self::cwd).
        cwd: impl Into<PathBuf> => |this, cwd| this.cwd = Some(cwd.into());
        /// Sets [`user`](Self::user).
        user: impl Into<String> => |this, user| this.user = Some(user.into());
        /// Sets [`image_defaults`](Self::image_defaults).
        image_defaults: bool => |this, on| this.image_defaults = on;
        /// Adds to [`mounts`](Self::mounts).
        mount: Mount => |this, mount| this.mounts.push(mount);
        /// Sets [`network`](Self::network).
        network: Network => |this, network| this.network = Some(network);
        /// Sets [`inherit_networks`](Self::inherit_networks).
        inherit_networks: bool => |this, on| this.inherit_networks = on;
        /// Adds to [`aliases`](Self::aliases).
        alias: impl Into<String> => |this, name| this.aliases.push(name.into());
        /// Adds to [`ports`](Self::ports).
        port: impl Into<Port> => |this, port| this.ports.push(port.into());
        /// Adds to [`dns`](Self::dns).
        dns: IpAddr => |this, address| this.dns.push(address);
        /// Adds to [`devices`](Self::devices).
        device: Device => |this, device| this.devices.push(device);
        /// Sets [`gpus`](Self::gpus).
        gpus: Gpus => |this, gpus| this.gpus = Some(gpus);
        /// Sets [`runtime`](Self::runtime).
        runtime: impl Into<String> => |this, name| this.runtime = Some(name.into());
        /// Sets [`platform`](Self::platform).
        platform: impl Into<String> => |this, name| this.platform = Some(name.into());
        /// Sets [`pull`](Self::pull).
        pull: PullPolicy => |this, policy| this.pull = Some(policy);
        /// Sets [`auto_remove`](Self::auto_remove).
        auto_remove: bool => |this, on| this.auto_remove = Some(on);
        /// Sets [`hostname`](Self::hostname).
        hostname: impl Into<String> => |this, name| this.hostname = Some(name.into());
        /// Sets [`read_only_root`](Self::read_only_root).
        read_only_root: bool => |this, on| this.read_only_root = Some(on);
        /// Sets [`security`](Self::security).
        security: Security => |this, security| this.security = security;
        /// Sets [`workspace`](Self::workspace).
        workspace: Workspace => |this, workspace| this.workspace = Some(workspace);
        /// Sets [`auto_stop`](Self::auto_stop).
        auto_stop: Limit => |this, limit| this.auto_stop = Some(limit);
        /// Sets [`idle_timeout`](Self::idle_timeout).
        idle_timeout: Limit => |this, limit| this.idle_timeout = Some(limit);
        /// Sets [`max_lifetime`](Self::max_lifetime).
        max_lifetime: Limit => |this, limit| this.max_lifetime = Some(limit);
        /// Sets [`exec_timeout`](Self::exec_timeout).
        exec_timeout: Limit => |this, limit| this.exec_timeout = Some(limit);
    }

    /// Adds to [`env`](Self::env).
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Adds to [`labels`](Self::labels).
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Adds to [`hosts`](Self::hosts).
    #[must_use]
    pub fn host(mut self, name: impl Into<String>, address: impl Into<String>) -> Self {
        self.hosts.insert(name.into(), address.into());
        self
    }

    /// Adds to [`ulimits`](Self::ulimits).
    #[must_use]
    pub fn ulimit(mut self, name: impl Into<String>, limit: Ulimit) -> Self {
        self.ulimits.insert(name.into(), limit);
        self
    }

    /// Sets [`entrypoint`](Self::entrypoint); empty clears the image's.
    #[must_use]
    pub fn entrypoint(mut self, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.entrypoint = Some(argv.into_iter().map(Into::into).collect());
        self
    }

    /// Sets [`command`](Self::command).
    #[must_use]
    pub fn command(mut self, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.command = Some(argv.into_iter().map(Into::into).collect());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_spec_debug_hides_environment_values() {
        let spec = SessionSpec::new().env("TOKEN", "hunter2");
        assert!(!format!("{spec:?}").contains("hunter2"));
    }
}
