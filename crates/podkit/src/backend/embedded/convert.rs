//! Between the library's words and the runtime's. Pure functions.

use std::time::{Duration, SystemTime};

use podkit_runtime as runtime;

use super::super::{
    Capabilities, ContainerInfo, ContainerSpec, ContainerState, Limits, MainCommand, StopCause,
    TreeKill, ports, stats::ContainerStats,
};
use crate::{
    config::{Image, Isolation, Mount, MountSource, Network, Port, Protocol, PublishedPort},
    error::{Error, ErrorKind, Result},
    id::ContainerId,
};

/// Permission bits of a tmpfs: everybody's, as `/tmp` has them.
const TMPFS_MODE: u32 = 0o1777;

/// What the engine can do with these facts about the machine.
pub(super) fn capabilities(facts: &runtime::Facts) -> Capabilities {
    Capabilities {
        default_image: Image::host(),
        local_images: true,
        image_references: false,
        memory_limit: facts.memory_limit,
        swap_limit: facts.swap_limit,
        cpu_limit: facts.cpu_limit,
        pids_limit: facts.pids_limit,
        pause: facts.pause,
        live_limits: facts.memory_limit || facts.cpu_limit || facts.pids_limit,
        stats: facts.cgroups != runtime::Cgroups::None,
        bind_mounts: true,
        writable_binds: facts.idmapped_binds || facts.isolation == runtime::Isolation::CallerUid,
        volumes: false,
        outbound: false,
        parts_sessions: true,
        named_networks: false,
        ports: true,
        dns: false,
        ulimits: false,
        devices: false,
        gpus: false,
        runtimes: Vec::new(),
        platforms: false,
        inherit: false,
        auto_remove: false,
        bind_flags: true,
        stop_keeps_files: facts.lasting_root,
        outlives_client: facts.outlives_client,
        tree_kill: if facts.kernel_tree_kill {
            TreeKill::Kernel
        } else {
            TreeKill::BestEffort
        },
        isolation: from_isolation(facts.isolation),
        limitations: facts.limitations.clone(),
    }
}

/// A complete order in the runtime's words.
///
/// # Errors
/// `Unsupported` for what this engine does not have.
pub(super) fn spec(spec: &ContainerSpec) -> Result<runtime::ContainerSpec> {
    let mut order = runtime::ContainerSpec::new(spec.name.as_str());
    order.labels.clone_from(&spec.labels);
    order.rootfs = rootfs(spec)?;
    order.hostname.clone_from(&spec.hostname);
    order.env = spec
        .env
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    order.cwd.clone_from(&spec.cwd);
    order.user.clone_from(&spec.user);
    order.main = main(&spec.main);
    order.mounts = spec.mounts.iter().map(mount).collect::<Result<_>>()?;
    order.network = network(&spec.network)?;
    let ports = spec.ports.iter().map(|one| port(&spec.name, one));
    order.ports = ports.collect::<Result<_>>()?;
    order.hosts.clone_from(&spec.hosts);
    order.memory_bytes = spec.limits.memory_bytes;
    order.swap_bytes = spec.limits.swap_bytes;
    order.cpu_millis = spec.limits.cpu_millis;
    order.pids_max = spec.limits.pids_max;
    // What cannot be enforced and was not asked for is left out already.
    order.limits_required = true;
    order.shm_bytes = spec.shm_bytes;
    order.read_only_root = spec.read_only_root;
    order.capabilities.clone_from(&spec.capabilities);
    order.seccomp = if spec.seccomp {
        runtime::Seccomp::Default
    } else {
        runtime::Seccomp::Unconfined
    };
    order.no_new_privileges = spec.no_new_privileges;
    order.isolation = spec.isolation.map(to_isolation);
    order.auto_stop = spec.auto_stop;
    order.max_lifetime = spec.max_lifetime;
    Ok(order)
}

/// A change of limits in the runtime's words.
pub(super) fn limits(limits: Limits) -> runtime::LimitChange {
    let mut change = runtime::LimitChange::default();
    change.memory_bytes = limits.memory_bytes;
    change.swap_bytes = limits.swap_bytes;
    change.cpu_millis = limits.cpu_millis;
    change.pids_max = limits.pids_max;
    change
}

/// What a container uses in the library's words.
pub(super) fn stats(at: SystemTime, usage: runtime::Usage) -> ContainerStats {
    ContainerStats {
        cpu_time: usage.cpu_us.map(Duration::from_micros),
        memory_bytes: usage.memory_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        pids: usage.pids,
        pids_limit: usage.pids_limit.map(u64::from),
        ..ContainerStats::new(at)
    }
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("the embedded engine has no {what}"))
}

fn rootfs(spec: &ContainerSpec) -> Result<runtime::Rootfs> {
    match &spec.image {
        Image::Host { .. } => Ok(runtime::Rootfs::Host {
            paths: spec.host_paths.clone(),
        }),
        Image::Directory(path) => Ok(runtime::Rootfs::Directory(path.clone())),
        Image::Tar(path) => Ok(runtime::Rootfs::Tar(path.clone())),
        Image::Reference(name) => Err(unsupported(&format!("images by name, as `{name}`"))),
    }
}

/// Local images say nothing of what they run, so only the caller's words count.
fn main(main: &MainCommand) -> Option<Vec<String>> {
    match main {
        MainCommand::None | MainCommand::ImageDefaults { .. } => None,
        MainCommand::Command {
            entrypoint,
            command,
        } => {
            let words = [entrypoint, command].into_iter().flatten().flatten();
            let argv: Vec<String> = words.cloned().collect();
            (!argv.is_empty()).then_some(argv)
        }
    }
}

fn mount(mount: &Mount) -> Result<runtime::Mount> {
    match &mount.source {
        MountSource::Bind(source) => Ok(runtime::Mount::Bind {
            source: source.clone(),
            target: mount.target.clone(),
            read_only: mount.read_only,
        }),
        MountSource::Tmpfs {
            size_bytes: Some(size_bytes),
        } => Ok(runtime::Mount::Tmpfs {
            target: mount.target.clone(),
            size_bytes: *size_bytes,
            mode: TMPFS_MODE,
        }),
        MountSource::Tmpfs { size_bytes: None } => Err(Error::invalid_input(format!(
            "the tmpfs at `{}` has no size",
            mount.target.display()
        ))),
        MountSource::Volume(name) => Err(unsupported(&format!("volumes, as `{name}`"))),
    }
}

fn network(network: &Network) -> Result<runtime::Network> {
    match network {
        Network::Default | Network::None => Ok(runtime::Network::None),
        Network::Host => Ok(runtime::Network::Host),
        Network::Outbound => Err(unsupported("outbound network")),
        Network::Named(_) => Err(unsupported("networks by name")),
    }
}

const fn to_isolation(isolation: Isolation) -> runtime::Isolation {
    match isolation {
        Isolation::CallerUid => runtime::Isolation::CallerUid,
        Isolation::SharedRange => runtime::Isolation::SharedRange,
        Isolation::OwnRange => runtime::Isolation::OwnRange,
    }
}

/// `None` for a class that is newer than this code.
const fn from_isolation(isolation: runtime::Isolation) -> Option<Isolation> {
    match isolation {
        runtime::Isolation::CallerUid => Some(Isolation::CallerUid),
        runtime::Isolation::SharedRange => Some(Isolation::SharedRange),
        runtime::Isolation::OwnRange => Some(Isolation::OwnRange),
        _ => None,
    }
}

/// What the runtime knows of a container.
///
/// # Errors
/// `Unexpected` for a name that is no id.
pub(super) fn info(info: runtime::ContainerInfo) -> Result<ContainerInfo> {
    let id = ContainerId::new(&*info.name).map_err(|error| {
        Error::new(
            ErrorKind::Unexpected,
            "the engine has a container without a usable name",
        )
        .with_source(error)
    })?;
    Ok(ContainerInfo {
        id,
        name: info.name,
        labels: info.labels,
        env: info.env.into_iter().collect(),
        state: state(info.state),
        stop_cause: info.stop_cause.and_then(stop_cause),
        exit_code: info.exit_code,
        created_at: info.created_at,
        started_at: info.started_at,
        finished_at: info.finished_at,
        last_active_at: info.last_active_at,
        pid: info.pid,
        isolation: info.isolation.and_then(from_isolation),
        ports: info.ports.iter().filter_map(published).collect(),
    })
}

fn published(port: &runtime::Port) -> Option<PublishedPort> {
    let host = port.host_port()?;
    let (container, tcp) = (port.container, Protocol::Tcp);
    Some(PublishedPort::new(container, tcp, port.address, host))
}

fn port(name: &ContainerId, port: &Port) -> Result<runtime::Port> {
    if port.protocol != Protocol::Tcp {
        return Err(unsupported("ports of UDP"));
    }
    let host = port.host_number();
    let wanted = runtime::Port::new(port.container, port.address, host);
    Ok(match host {
        Some(_) => wanted,
        None => wanted.prefer(ports::candidates(name, port)),
    })
}

const fn state(state: runtime::ContainerState) -> ContainerState {
    match state {
        runtime::ContainerState::Created => ContainerState::Created,
        runtime::ContainerState::Running => ContainerState::Running,
        runtime::ContainerState::Paused => ContainerState::Paused,
        runtime::ContainerState::Exited => ContainerState::Exited,
        // Also whatever is newer than this code.
        _ => ContainerState::Dead,
    }
}

const fn stop_cause(cause: runtime::StopCause) -> Option<StopCause> {
    match cause {
        runtime::StopCause::Requested => Some(StopCause::Requested),
        runtime::StopCause::AutoStop => Some(StopCause::AutoStop),
        runtime::StopCause::MaxLifetime => Some(StopCause::MaxLifetime),
        runtime::StopCause::MainExited => Some(StopCause::MainExited),
        runtime::StopCause::Killed => Some(StopCause::Killed),
        _ => None,
    }
}

/// A failure of the runtime's, with its hint.
pub(super) fn error(failure: &runtime::Error) -> Error {
    let kind = match failure.kind() {
        runtime::ErrorKind::NotFound => ErrorKind::NotFound,
        runtime::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        runtime::ErrorKind::Conflict => ErrorKind::Conflict,
        runtime::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
        runtime::ErrorKind::Unsupported => ErrorKind::Unsupported,
        runtime::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        runtime::ErrorKind::LimitExceeded => ErrorKind::LimitExceeded,
        runtime::ErrorKind::Unavailable => ErrorKind::Unavailable,
        runtime::ErrorKind::TimedOut => ErrorKind::TimedOut,
        _ => ErrorKind::Unexpected,
    };
    // Without the source: the message says all that it says.
    let error = Error::new(kind, failure.message());
    match failure.hint() {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
