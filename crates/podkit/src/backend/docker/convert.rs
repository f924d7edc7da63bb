//! A complete order in the engine's words. Pure functions.

use std::{collections::HashMap, path::Path, time::SystemTime};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointSettings, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, ImageConfig, Mount as EngineMount,
    MountBindOptions, MountType, MountVolumeOptions, NetworkingConfig, PortBinding, PortMap,
    ResourcesUlimits,
};

use super::{Flavor, agent_volume, facts::Facts, link, networks};
use crate::{
    backend::{ContainerSpec, MainCommand},
    config::{Gpus, Image, Mount, MountSource, Network, WORKSPACE_PATH},
    error::{Error, Result},
};

/// Microseconds of a period of processor time.
pub(super) const CPU_PERIOD_US: i64 = 100_000;

/// What the agent needs beside the capabilities of commands: to become other users, to kill what
/// is theirs, and to give up what commands do not have.
const AGENTS_OWN: &[&str] = &["KILL", "SETGID", "SETPCAP", "SETUID"];

/// Bytes of a container's log, of which the engine keeps two pieces.
const LOG_BYTES: &str = "1m";

/// The image's name.
///
/// # Errors
/// `Unsupported` for an image of another kind.
pub(super) fn image(spec: &ContainerSpec) -> Result<&str> {
    match &spec.image {
        Image::Reference(name) => Ok(name),
        Image::Host { .. } | Image::Directory(_) | Image::Tar(_) => Err(Error::unsupported(
            format!("this engine has no local image, as `{}`", spec.image),
        )),
    }
}

/// Whether what the image says has to be known before a container can be made from it.
pub(super) const fn needs_image(main: &MainCommand) -> bool {
    match main {
        MainCommand::None => false,
        MainCommand::Command {
            entrypoint,
            command,
        } => entrypoint.is_none() && command.is_some(),
        MainCommand::ImageDefaults { .. } => true,
    }
}

/// What goes into an order beside the order itself.
pub(super) struct Circumstances<'a> {
    pub(super) facts: &'a Facts,
    /// Volume that holds the agent.
    pub(super) agent: &'a str,
    pub(super) agent_labels: HashMap<String, String>,
    /// Directory in which clients of this machine wait for the agent.
    pub(super) link: Option<&'a Path>,
    /// When the container is made.
    pub(super) now: SystemTime,
    /// What the image says, where that matters.
    pub(super) image: Option<&'a ImageConfig>,
}

/// The engine's order.
///
/// # Errors
/// `InvalidInput` for an image that has nothing to run, where that was asked for.
pub(super) fn body(
    spec: &ContainerSpec,
    around: &Circumstances<'_>,
) -> Result<ContainerCreateBody> {
    let mut exposed: Vec<String> = spec.ports.iter().map(port_name).collect();
    exposed.dedup();
    Ok(ContainerCreateBody {
        hostname: Some(spec.hostname.clone()),
        // The agent becomes whoever a command runs as.
        user: Some("0:0".to_owned()),
        env: Some(
            spec.env
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        ),
        entrypoint: Some(vec![agent_volume::PROGRAM.to_owned()]),
        cmd: Some(arguments(spec, around)?),
        // What the image would have run could speak to the agent as the engine does.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        image: Some(image(spec)?.to_owned()),
        // Made by the engine where it is missing.
        working_dir: Some(WORKSPACE_PATH.to_owned()),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        labels: Some(labels(spec, around.facts)),
        stop_signal: Some("SIGTERM".to_owned()),
        host_config: Some(host(spec, around)),
        networking_config: networking(spec, around.facts),
        ..ContainerCreateBody::default()
    })
}

/// Label with the named networks that the order could not hold, so that whoever starts the container
/// connects it to them: its maker may be dead.
pub(super) const NETWORKS: &str = "podkit.networks";

/// Label with its names on them.
pub(super) const ALIASES: &str = "podkit.aliases";

/// Whether a label is one of this backend's that is there only so that no image's stands in for it.
pub(super) fn says_nothing(name: &str, value: &str) -> bool {
    value.is_empty() && [NETWORKS, ALIASES].contains(&name)
}

fn labels(spec: &ContainerSpec, facts: &Facts) -> HashMap<String, String> {
    let mut labels: HashMap<_, _> = spec.labels.clone().into_iter().collect();
    let further = further_networks(&spec.network, facts);
    let aliases = if further.is_empty() {
        String::new()
    } else {
        spec.aliases.join(",")
    };
    // Also where there are none: the image's own labels would be taken for them.
    labels.insert(NETWORKS.to_owned(), further.join(","));
    labels.insert(ALIASES.to_owned(), aliases);
    labels
}

/// The agent's command line.
fn arguments(spec: &ContainerSpec, around: &Circumstances<'_>) -> Result<Vec<String>> {
    let mut words = vec!["init".to_owned()];
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("--user", spec.user.clone());
    option("--cwd", spec.cwd.clone());
    option("--capabilities", format!("{:x}", mask(&spec.capabilities)));
    if let Some(time) = spec.auto_stop {
        option("--auto-stop", time.as_millis().to_string());
    }
    if let Some(time) = spec.max_lifetime {
        option("--max-lifetime", time.as_millis().to_string());
        let born = around.now.duration_since(SystemTime::UNIX_EPOCH);
        option("--born", born.unwrap_or_default().as_millis().to_string());
    }
    if let Some(filter) = filter(spec) {
        words.push(filter.to_owned());
    }
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    if around.link.is_some() {
        option("--dial", link::TARGET.to_owned());
    }
    let image = around.image.cloned().unwrap_or_default();
    let main = match &spec.main {
        MainCommand::None => Vec::new(),
        MainCommand::Command {
            entrypoint,
            command,
        } => {
            let first = match (entrypoint, command) {
                (Some(entrypoint), _) => entrypoint.clone(),
                (None, Some(_)) => image.entrypoint.unwrap_or_default(),
                (None, None) => Vec::new(),
            };
            [first, command.clone().unwrap_or_default()].concat()
        }
        MainCommand::ImageDefaults { user, cwd } => {
            let main = [image.entrypoint, image.cmd]
                .into_iter()
                .flatten()
                .flatten()
                .collect::<Vec<_>>();
            if main.is_empty() {
                return Err(Error::invalid_input(format!(
                    "the image `{}` names nothing to run",
                    spec.image
                ))
                .with_hint("leave `image_defaults` out, or give a `command`"));
            }
            let named = |own: &Option<String>, image: Option<String>| {
                let image = image.filter(|text| !text.is_empty());
                own.clone().or(image)
            };
            if let Some(user) = named(user, image.user) {
                option("--main-user", user);
            }
            option(
                "--main-cwd",
                named(cwd, image.working_dir).unwrap_or_else(|| "/".to_owned()),
            );
            main
        }
    };
    if !main.is_empty() {
        words.push("--".to_owned());
        words.extend(main);
    }
    Ok(words)
}

/// The agent's filter of system calls, on top of the engine's. A filter can be loaded only by what
/// cannot gain privileges.
fn filter(spec: &ContainerSpec) -> Option<&'static str> {
    let writable_bind =
        |mount: &Mount| !mount.read_only && matches!(mount.source, MountSource::Bind(_));
    if !spec.seccomp || !spec.no_new_privileges {
        None
    } else if spec.mounts.iter().any(writable_bind) {
        Some("--filter")
    } else {
        Some("--filter-but-set-ids")
    }
}

fn host(spec: &ContainerSpec, around: &Circumstances<'_>) -> HostConfig {
    let limits = spec.limits;
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let swap = limits
        .memory_bytes
        .zip(limits.swap_bytes)
        .map(|(memory, swap)| signed(memory.saturating_add(swap)));
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    HostConfig {
        memory: limits.memory_bytes.map(signed),
        memory_swap: swap,
        cpu_period: limits.cpu_millis.map(|_| CPU_PERIOD_US),
        cpu_quota: limits
            .cpu_millis
            .map(|millis| i64::from(millis) * (CPU_PERIOD_US / 1000)),
        pids_limit: limits.pids_max.map(i64::from),
        ulimits: ulimits(spec),
        devices: devices(spec),
        device_requests: spec.gpus.as_ref().map(|gpus| vec![gpu_request(gpus)]),
        mounts: Some(mounts(spec, around)),
        tmpfs: tmpfs(spec),
        network_mode: Some(network_mode(&spec.network, around.facts.flavor)),
        port_bindings: port_bindings(spec),
        auto_remove: Some(spec.auto_remove),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(capabilities(spec)),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        dns: some(spec.dns.iter().map(ToString::to_string).collect()),
        extra_hosts: some(
            spec.hosts
                .iter()
                .map(|(name, address)| format!("{name}:{address}"))
                .collect(),
        ),
        ipc_mode: Some("private".to_owned()),
        log_config: Some(log()),
        readonly_rootfs: Some(spec.read_only_root),
        security_opt: some(security(spec)),
        shm_size: Some(signed(spec.shm_bytes)),
        runtime: spec.runtime.clone(),
        ..HostConfig::default()
    }
}

/// A program of the container's must not fill the host's disk by what it writes.
fn log() -> HostConfigLogConfig {
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(
            [("max-size", LOG_BYTES), ("max-file", "2")]
                .map(pair)
                .into_iter()
                .collect(),
        ),
    }
}

fn capabilities(spec: &ContainerSpec) -> Vec<String> {
    let mut all: Vec<String> = spec.capabilities.clone();
    all.extend(AGENTS_OWN.iter().map(|name| (*name).to_owned()));
    all.sort_unstable();
    all.dedup();
    all
}

/// Names of capabilities in the order of their numbers, see capabilities(7).
const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The mask of these capabilities, as in `/proc/self/status`.
fn mask(names: &[String]) -> u64 {
    let numbers = CAPABILITIES.iter().enumerate();
    numbers
        .filter(|(_, name)| names.iter().any(|one| one == *name))
        .fold(0, |mask, (number, _)| mask | 1 << number)
}

fn security(spec: &ContainerSpec) -> Vec<String> {
    let mut options = Vec::new();
    if spec.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    if !spec.seccomp {
        options.push("seccomp=unconfined".to_owned());
    }
    options
}

fn ulimits(spec: &ContainerSpec) -> Option<Vec<ResourcesUlimits>> {
    let number = |number: u64| i64::try_from(number).unwrap_or(-1);
    let one = |(name, limit): (&String, &crate::config::Ulimit)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(number(limit.soft)),
        hard: Some(number(limit.hard)),
    };
    (!spec.ulimits.is_empty()).then(|| spec.ulimits.iter().map(one).collect())
}

fn devices(spec: &ContainerSpec) -> Option<Vec<DeviceMapping>> {
    let one = |device: &crate::config::Device| DeviceMapping {
        path_on_host: Some(device.host.display().to_string()),
        path_in_container: Some(device.container.display().to_string()),
        cgroup_permissions: Some(device.permissions.clone()),
    };
    (!spec.devices.is_empty()).then(|| spec.devices.iter().map(one).collect())
}

fn gpu_request(gpus: &Gpus) -> DeviceRequest {
    DeviceRequest {
        count: match gpus {
            Gpus::All => Some(-1),
            Gpus::Count(count) => Some(i64::from(*count)),
            Gpus::Ids(_) => None,
        },
        device_ids: match gpus {
            Gpus::Ids(ids) => Some(ids.clone()),
            Gpus::All | Gpus::Count(_) => None,
        },
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    }
}

fn mounts(spec: &ContainerSpec, around: &Circumstances<'_>) -> Vec<EngineMount> {
    let mut mounts = vec![EngineMount {
        target: Some(agent_volume::TARGET.to_owned()),
        source: Some(around.agent.to_owned()),
        typ: Some(MountType::VOLUME),
        read_only: Some(true),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            labels: Some(around.agent_labels.clone()),
            ..MountVolumeOptions::default()
        }),
        ..EngineMount::default()
    }];
    if let Some(directory) = around.link {
        mounts.push(bind(&directory.display().to_string(), link::TARGET, true));
    }
    mounts.extend(spec.mounts.iter().filter_map(mount));
    mounts
}

fn bind(source: &str, target: &str, read_only: bool) -> EngineMount {
    EngineMount {
        target: Some(target.to_owned()),
        source: Some(source.to_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(read_only),
        bind_options: Some(MountBindOptions::default()),
        ..EngineMount::default()
    }
}

fn mount(mount: &Mount) -> Option<EngineMount> {
    let target = mount.target.display().to_string();
    match &mount.source {
        MountSource::Bind(source) => Some(bind(
            &source.display().to_string(),
            &target,
            mount.read_only,
        )),
        MountSource::Volume(name) => Some(EngineMount {
            target: Some(target),
            source: Some(name.clone()),
            typ: Some(MountType::VOLUME),
            read_only: Some(mount.read_only),
            ..EngineMount::default()
        }),
        MountSource::Tmpfs { .. } => None,
    }
}

fn tmpfs(spec: &ContainerSpec) -> Option<HashMap<String, String>> {
    let one = |mount: &Mount| {
        let MountSource::Tmpfs { size_bytes } = mount.source else {
            return None;
        };
        let access = if mount.read_only { "ro" } else { "rw" };
        let mut options = format!("{access},exec,nosuid,nodev,mode=1777");
        if let Some(bytes) = size_bytes {
            options.push_str(&format!(",size={bytes}"));
        }
        Some((mount.target.display().to_string(), options))
    };
    let all: HashMap<_, _> = spec.mounts.iter().filter_map(one).collect();
    (!all.is_empty()).then_some(all)
}

fn network_mode(network: &Network, flavor: Flavor) -> String {
    match network {
        Network::Default | Network::Outbound => networks::default_name(flavor).to_owned(),
        Network::None => "none".to_owned(),
        Network::Host => "host".to_owned(),
        Network::Named(names) => names.first().cloned().unwrap_or_default(),
    }
}

/// How the container is connected to one of its named networks.
pub(super) fn endpoint(aliases: &[String]) -> EndpointSettings {
    EndpointSettings {
        aliases: (!aliases.is_empty()).then(|| aliases.to_vec()),
        ..EndpointSettings::default()
    }
}

/// The named networks that the order itself can hold; further ones are connected to afterwards.
pub(super) fn networks_in_order<'a>(network: &'a Network, facts: &Facts) -> &'a [String] {
    match network {
        // Before version 1.44 an order holds one.
        Network::Named(names) if facts.api < (1, 44) => names.get(..1).unwrap_or_default(),
        Network::Named(names) => names,
        Network::Default | Network::Outbound | Network::None | Network::Host => &[],
    }
}

/// Those that it cannot.
pub(super) fn further_networks<'a>(network: &'a Network, facts: &Facts) -> &'a [String] {
    match network {
        Network::Named(names) => names
            .get(networks_in_order(network, facts).len()..)
            .unwrap_or_default(),
        Network::Default | Network::Outbound | Network::None | Network::Host => &[],
    }
}

fn networking(spec: &ContainerSpec, facts: &Facts) -> Option<NetworkingConfig> {
    let names = networks_in_order(&spec.network, facts);
    let all = names
        .iter()
        .map(|name| (name.clone(), endpoint(&spec.aliases)));
    (!names.is_empty()).then(|| NetworkingConfig {
        endpoints_config: Some(all.collect()),
    })
}

fn port_name(port: &crate::config::Port) -> String {
    format!("{}/{}", port.container, port.protocol.as_str())
}

fn port_bindings(spec: &ContainerSpec) -> Option<PortMap> {
    let mut map = PortMap::new();
    for port in &spec.ports {
        let binding = PortBinding {
            host_ip: Some(port.address.to_string()),
            host_port: Some(port.host_number().unwrap_or(0).to_string()),
        };
        map.entry(port_name(port))
            .or_default()
            .get_or_insert_default()
            .push(binding);
    }
    (!map.is_empty()).then_some(map)
}
