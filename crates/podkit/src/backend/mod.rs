//! Engines: each translates complete requests to one engine. No policy, retry or deadline here.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    config::{
        Device, Gpus, Image, Isolation, Mount, Network, Port, PublishedPort, PullPolicy, Ulimit,
    },
    error::Result,
    id::ContainerId,
};

#[cfg(any(feature = "docker", all(feature = "embedded", target_os = "linux")))]
mod admission;
pub mod connect;
#[cfg(feature = "docker")]
pub mod docker;
#[cfg(all(feature = "embedded", target_os = "linux"))]
pub mod embedded;
pub mod events;
pub mod images;
pub mod memory;
pub mod parent;
#[cfg(any(feature = "docker", all(feature = "embedded", target_os = "linux")))]
mod ports;
pub mod stats;

/// A shared backend.
pub type BackendRef = Arc<dyn Backend>;

/// Runs containers on one engine.
///
/// # Contract
/// - Arguments are complete: `ContainerManager` has filled in every default and limit.
/// - All methods but `create` are idempotent; the manager may repeat them.
/// - No method retries, logs above `debug`, or sets a deadline: the manager does all three.
/// - A dropped call leaves nothing half made, or a container that carries its labels.
/// - A call outside [`Capabilities`] returns [`ErrorKind::Unsupported`](crate::ErrorKind) and has
///   no effect.
/// - `create` fetches no image: it is `ImageNotFound` then, and the manager has it fetched.
/// - There are no default bodies, so that a wrapper which forgets a method does not compile.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Stable lower-case name, such as `docker`; used in errors, logs and configuration.
    fn name(&self) -> &'static str;

    /// What this engine can do, here and now.
    fn capabilities(&self) -> Capabilities;

    /// Asks the engine whether it is there.
    async fn ping(&self) -> Result<()>;

    /// Creates a stopped container that carries `spec.labels` from its first instant.
    ///
    /// `AlreadyExists` when the name is taken: of two callers exactly one succeeds.
    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId>;

    /// Starts a created or exited container; succeeds when it runs already.
    ///
    /// `NotFound` when there is none, or something that it needs is gone; `ContainerGone` while
    /// somebody removes it.
    async fn start(&self, id: &ContainerId) -> Result<()>;

    /// Asks the container to stop, and kills it once `grace` has passed. Succeeds when it does not
    /// run.
    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()>;

    /// Freezes every process of a running container.
    async fn pause(&self, id: &ContainerId) -> Result<()>;

    /// Thaws a paused container.
    async fn resume(&self, id: &ContainerId) -> Result<()>;

    /// Changes the limits that are set here, of this life and those that follow; the others stay.
    ///
    /// `ContainerGone` while it is being removed; `LimitExceeded` when it uses more memory than that.
    async fn set_limits(&self, id: &ContainerId, limits: Limits) -> Result<()>;

    /// What a running container uses; `ContainerGone` when it does not run.
    async fn stats(&self, id: &ContainerId) -> Result<stats::ContainerStats>;

    /// Kills the container and deletes it with its storage; succeeds if it is already gone.
    async fn remove(&self, id: &ContainerId) -> Result<()>;

    /// Looks one container up by name or id; `NotFound` when there is none.
    async fn inspect(&self, id: &ContainerId) -> Result<ContainerInfo>;

    /// Lists the containers that carry all of `labels`, in any state.
    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerInfo>>;

    /// Opens a byte stream to the agent of a running container.
    ///
    /// `ContainerGone` when it does not run.
    async fn connect(&self, id: &ContainerId) -> Result<AgentStream>;

    /// The last bytes that the container's own program wrote, at most `tail_bytes`.
    async fn logs(&self, id: &ContainerId, tail_bytes: u64) -> Result<Vec<u8>>;

    /// Removes what crashed callers left: half-made containers older than `min_age`, storage,
    /// cgroups, sockets. Never touches a live container.
    async fn sweep(&self, min_age: Duration) -> Result<SweepReport>;

    /// The images that this engine keeps by name; `None` for one that keeps none.
    fn images(&self) -> Option<&dyn images::Images>;

    /// What happens to containers, told by the engine; `None` for one that does not tell.
    fn events(&self) -> Option<&dyn events::Events>;

    /// Which of its containers the client runs in; `None` for an engine that cannot tell.
    fn parents(&self) -> Option<&dyn parent::Parents>;
}

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// One line each, for people.
    pub removed: Vec<String>,
    /// What could not be removed, and why.
    pub failed: Vec<String>,
}

/// A byte stream to an agent.
pub struct AgentStream(Box<dyn Duplex>);

/// Both directions of a byte stream.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl AgentStream {
    /// Wraps a stream.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(stream))
    }

    /// Splits it into what is read and what is written.
    #[must_use]
    pub fn split(
        self,
    ) -> (
        impl AsyncRead + Send + Unpin,
        impl AsyncWrite + Send + Unpin,
    ) {
        tokio::io::split(self.0)
    }
}

impl fmt::Debug for AgentStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentStream")
    }
}

/// How well a tree of processes is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TreeKill {
    /// By the kernel, at once.
    Kernel,
    /// By looking for descendants until none is new.
    BestEffort,
}

/// What an engine can do. `false` means that asking for it is `Unsupported`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Image of a session that names none.
    pub default_image: Image,
    /// Whether the `host`, directory and tar images work.
    pub local_images: bool,
    /// Whether images are known by reference.
    pub image_references: bool,
    /// Whether memory can be limited.
    pub memory_limit: bool,
    /// Whether swap can be limited.
    pub swap_limit: bool,
    /// Whether processor time can be limited.
    pub cpu_limit: bool,
    /// Whether the number of processes can be limited.
    pub pids_limit: bool,
    /// Whether containers can be paused.
    pub pause: bool,
    /// Whether limits can be changed while a container runs.
    pub live_limits: bool,
    /// Whether the engine tells what a container uses.
    pub stats: bool,
    /// Whether host directories can be bound.
    pub bind_mounts: bool,
    /// Whether bound directories can be written by the container.
    pub writable_binds: bool,
    /// Whether there are named volumes.
    pub volumes: bool,
    /// Whether `Network::Default` reaches the outside, and `Network::Outbound` works.
    pub outbound: bool,
    /// Whether containers on `Network::Default` cannot reach each other.
    pub parts_sessions: bool,
    /// Whether named networks exist.
    pub named_networks: bool,
    /// Whether the host can offer a container's ports.
    pub ports: bool,
    /// Whether name servers can be chosen.
    pub dns: bool,
    /// Whether limits of single processes can be set.
    pub ulimits: bool,
    /// Whether devices can be shown.
    pub devices: bool,
    /// Whether graphics processors can be shown.
    pub gpus: bool,
    /// Names of the runtimes to choose among; none where there is no choice.
    pub runtimes: Vec<String>,
    /// Whether an image's platform can be chosen.
    pub platforms: bool,
    /// Whether a client that runs in one of the engine's containers can have its networks and image
    /// for sessions.
    pub inherit: bool,
    /// Whether a container can go as soon as it stops.
    pub auto_remove: bool,
    /// Whether what is bound is `nosuid` and `nodev` in the container.
    pub bind_flags: bool,
    /// Whether a stopped container keeps its files.
    pub stop_keeps_files: bool,
    /// Whether containers live on when the client's service is stopped.
    pub outlives_client: bool,
    /// How well trees are killed.
    pub tree_kill: TreeKill,
    /// How containers' user ids are kept apart, where the engine says.
    pub isolation: Option<Isolation>,
    /// What holds only partly here, for people: one sentence each.
    pub limitations: Vec<String>,
}

/// A complete order for one container: no defaults are left open.
#[derive(Clone)]
#[non_exhaustive]
pub struct ContainerSpec {
    /// Name; also the lock among several creators.
    pub name: ContainerId,
    /// Labels that the container carries from its first instant.
    pub labels: BTreeMap<String, String>,
    /// Root file system.
    pub image: Image,
    /// What runs besides the agent.
    pub main: MainCommand,
    /// Environment of every command.
    pub env: BTreeMap<String, String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// User of every command.
    pub user: String,
    /// Mounts, the workspace's among them; sources as the engine sees them.
    pub mounts: Vec<Mount>,
    /// Network.
    pub network: Network,
    /// Further names of the container's on its named networks.
    pub aliases: Vec<String>,
    /// Ports that the host offers.
    pub ports: Vec<Port>,
    /// Name servers; the engine's choice when empty.
    pub dns: Vec<IpAddr>,
    /// Host name.
    pub hostname: String,
    /// Further names and addresses of `/etc/hosts`.
    pub hosts: Vec<(String, IpAddr)>,
    /// Further host directories for the `host` image.
    pub host_paths: Vec<PathBuf>,
    /// Limits; `None` where the engine cannot and the caller did not ask.
    pub limits: Limits,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
    /// Limits of each process, by name.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Devices of the host's.
    pub devices: Vec<Device>,
    /// Graphics processors.
    pub gpus: Option<Gpus>,
    /// The engine's runtime; `None` for its default one.
    pub runtime: Option<String>,
    /// Platform of the image; `None` for the engine's own.
    pub platform: Option<String>,
    /// When the image is fetched.
    pub pull: PullPolicy,
    /// Whether the container goes as soon as it stops.
    pub auto_remove: bool,
    /// Whether the root file system is read-only.
    pub read_only_root: bool,
    /// Capabilities that commands may hold, as `CHOWN`.
    pub capabilities: Vec<String>,
    /// Whether the system call filter is on.
    pub seccomp: bool,
    /// Whether `no_new_privs` is set.
    pub no_new_privileges: bool,
    /// Isolation that was asked for.
    pub isolation: Option<Isolation>,
    /// Time from the last activity to the stop.
    pub auto_stop: Option<Duration>,
    /// Time from the creation to the stop.
    pub max_lifetime: Option<Duration>,
}

/// Shows names, never environment values.
impl fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSpec")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("mounts", &self.mounts)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What a container runs of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MainCommand {
    /// Only the agent, which waits for commands.
    None,
    /// This command line; `None` keeps what the image says.
    Command {
        /// Program; empty clears the image's.
        entrypoint: Option<Vec<String>>,
        /// Arguments.
        command: Option<Vec<String>>,
    },
    /// What the image says.
    ImageDefaults {
        /// User of the image's program; the image's without.
        user: Option<String>,
        /// Its working directory, absolute; the image's without.
        cwd: Option<String>,
    },
}

/// Limits of a container's workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Swap in bytes on top of the memory.
    pub swap_bytes: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids_max: Option<u32>,
}

/// State of a container, in the same words on every engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended; it can be started again.
    Exited,
    /// Being removed.
    Removing,
    /// Broken; only removal helps.
    Dead,
}

impl ContainerState {
    /// Stable lower-case name: `running`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }
}

/// Why a container does not run, where the engine knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopCause {
    /// Somebody asked.
    Requested,
    /// The `auto_stop` clock.
    AutoStop,
    /// The `max_lifetime` clock.
    MaxLifetime,
    /// Its own program ended.
    MainExited,
    /// It was killed, or the machine went down.
    Killed,
}

impl StopCause {
    /// Stable lower-case name: `auto_stop`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::AutoStop => "auto_stop",
            Self::MaxLifetime => "max_lifetime",
            Self::MainExited => "main_exited",
            Self::Killed => "killed",
        }
    }
}

/// What an engine knows of a container.
#[derive(Clone)]
#[non_exhaustive]
pub struct ContainerInfo {
    /// The engine's handle.
    pub id: ContainerId,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Environment as the engine recorded it.
    pub env: BTreeMap<String, String>,
    /// State.
    pub state: ContainerState,
    /// Why it stopped.
    pub stop_cause: Option<StopCause>,
    /// Exit code of its own program.
    pub exit_code: Option<i32>,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it was last started.
    pub started_at: Option<SystemTime>,
    /// When it stopped.
    pub finished_at: Option<SystemTime>,
    /// Last activity that is known without asking the agent.
    pub last_active_at: Option<SystemTime>,
    /// Pid of the agent on the host, where there is one.
    pub pid: Option<u32>,
    /// Isolation that this container has, where the engine says.
    pub isolation: Option<Isolation>,
    /// Ports that the host offers, while it runs.
    pub ports: Vec<PublishedPort>,
}

/// Shows names, never environment values.
impl fmt::Debug for ContainerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerInfo")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("state", &self.state)
            .field("stop_cause", &self.stop_cause)
            .finish_non_exhaustive()
    }
}
