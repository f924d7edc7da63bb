//! From a wish to a complete order: every default filled in, everything checked, nothing touched.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

mod change;
mod engine;
mod mounts;

pub(crate) use change::change_limits;

use super::{paths, security};
use crate::{
    backend::{Capabilities, ContainerSpec, Limits, MainCommand},
    config::{
        Bytes, DEFAULT_AUTO_STOP, DEFAULT_CPU_MILLIS, DEFAULT_MEMORY_BYTES, DEFAULT_PIDS_MAX,
        DEFAULT_USER, Image, Limit, Mount, Network, SessionSpec, WORKSPACE_PATH,
    },
    error::{Error, Result},
    exec::check_env,
    id::ContainerId,
};

/// Least memory of a container: below it not even the agent and a shell start.
const MIN_MEMORY_BYTES: u64 = 6 << 20;

/// Labels of podkit's own begin with this; callers' labels may not.
const RESERVED_LABELS: &str = "podkit.";

/// What the container manager makes a container from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ContainerRequest {
    /// Name of the container.
    pub name: ContainerId,
    /// Labels beside the spec's own.
    pub labels: BTreeMap<String, String>,
    /// The wish.
    pub spec: SessionSpec,
    /// Mounts beside the spec's own, as a [`MountStrategy`](super::MountStrategy) gives them.
    pub mounts: Vec<Mount>,
}

impl ContainerRequest {
    /// A request without further labels and mounts.
    #[must_use]
    pub const fn new(name: ContainerId, spec: SessionSpec) -> Self {
        Self {
            name,
            labels: BTreeMap::new(),
            spec,
            mounts: Vec::new(),
        }
    }
}

/// Checks a wish as far as that goes without a container's name.
///
/// # Errors
/// As [`resolve`].
pub fn check(spec: &SessionSpec, capabilities: &Capabilities) -> Result<()> {
    let name = ContainerId::new("unnamed")?;
    resolve(&ContainerRequest::new(name, spec.clone()), capabilities).map(drop)
}

/// Turns a wish into a complete order for an engine with these capabilities. A pure function.
///
/// # Errors
/// - `InvalidInput`, naming the field that cannot be used.
/// - `Unsupported`, naming the field that this engine cannot honour. Limits that the caller did not
///   ask for are left out instead; the engine states that in `Capabilities`.
pub fn resolve(request: &ContainerRequest, capabilities: &Capabilities) -> Result<ContainerSpec> {
    let spec = &request.spec;
    let binds = capabilities.bind_mounts && capabilities.writable_binds;
    need(binds, spec.workspace.is_some(), "workspace")?;
    let image = image(spec, capabilities)?;
    let limits = limits(spec, capabilities)?;
    let (mounts, shm_bytes) = mounts::mounts(request, capabilities, limits.memory_bytes)?;
    for (name, value) in &spec.env {
        check_env(name, value)?;
    }
    let main = main_command(spec)?;
    engine::check(spec, capabilities)?;
    Ok(ContainerSpec {
        name: request.name.clone(),
        labels: labels(request)?,
        host_paths: host_paths(spec, &image)?,
        image,
        env: spec.env.clone(),
        cwd: cwd(spec)?,
        user: user(spec)?,
        mounts,
        network: network(spec, capabilities)?,
        aliases: spec.aliases.clone(),
        ports: spec.ports.clone(),
        dns: spec.dns.clone(),
        hostname: hostname(spec, &request.name)?,
        hosts: hosts(spec)?,
        ulimits: spec.ulimits.clone(),
        devices: spec.devices.clone(),
        gpus: spec.gpus.clone(),
        runtime: spec.runtime.clone(),
        platform: spec.platform.clone(),
        pull: spec.pull.unwrap_or_default(),
        auto_remove: spec.auto_remove.unwrap_or(false),
        limits,
        shm_bytes,
        read_only_root: spec.read_only_root.unwrap_or(false),
        capabilities: security::capabilities(&spec.security)?,
        seccomp: !spec.security.seccomp_unconfined,
        no_new_privileges: !spec.security.allow_new_privileges,
        isolation: isolation(spec, capabilities)?,
        auto_stop: auto_stop(spec)?,
        max_lifetime: clock("max_lifetime", spec.max_lifetime)?,
        main,
    })
}

/// The `auto_stop` that a container made from `spec` has.
///
/// # Errors
/// `InvalidInput` for zero.
pub(crate) fn auto_stop(spec: &SessionSpec) -> Result<Option<Duration>> {
    clock("idle_timeout", spec.idle_timeout)?;
    clock("exec_timeout", spec.exec_timeout)?;
    let runs_something = spec.image_defaults || spec.entrypoint.is_some() || spec.command.is_some();
    let default = if runs_something {
        Limit::Off
    } else {
        Limit::After(DEFAULT_AUTO_STOP)
    };
    clock("auto_stop", Some(spec.auto_stop.unwrap_or(default)))
}

fn clock(field: &str, limit: Option<Limit>) -> Result<Option<Duration>> {
    match limit.and_then(Limit::duration) {
        Some(Duration::ZERO) => Err(Error::invalid_input(format!(
            "`{field}` of zero lets nothing run"
        ))),
        duration => Ok(duration),
    }
}

/// Refuses a field that is set where the engine cannot honour it.
fn need(able: bool, asked: bool, field: &str) -> Result<()> {
    if asked && !able {
        return Err(
            Error::unsupported(format!("this engine cannot honour `{field}`"))
                .with_hint(format!("leave `{field}` out, or use an engine that has it")),
        );
    }
    Ok(())
}

fn image(spec: &SessionSpec, capabilities: &Capabilities) -> Result<Image> {
    let Some(name) = &spec.image else {
        need(capabilities.inherit, spec.inherit_image, "inherit_image")?;
        return Ok(capabilities.default_image.clone());
    };
    let image = Image::parse(name)?;
    match &image {
        Image::Reference(_) if !capabilities.image_references => Err(Error::unsupported(format!(
            "this engine knows no images by name, as `{name}`"
        ))
        .with_hint("use `host`, `dir:/path` or `tar:/path`")),
        Image::Reference(_) => Ok(image),
        Image::Host { .. } | Image::Directory(_) | Image::Tar(_) if !capabilities.local_images => {
            Err(
                Error::unsupported(format!("this engine has no local image, as `{name}`"))
                    .with_hint("name an image of a registry, such as `python:3.12`"),
            )
        }
        Image::Directory(path) | Image::Tar(path) if !path.is_absolute() => Err(
            Error::invalid_input(format!("the path of the image `{name}` is not absolute")),
        ),
        Image::Host { .. } | Image::Directory(_) | Image::Tar(_) => Ok(image),
    }
}

fn host_paths(spec: &SessionSpec, image: &Image) -> Result<Vec<PathBuf>> {
    let Image::Host { paths } = image else {
        return if spec.host_paths.is_empty() {
            Ok(Vec::new())
        } else {
            Err(Error::invalid_input(
                "`host_paths` belong to the image `host` only",
            ))
        };
    };
    let mut all = paths.clone();
    for path in &spec.host_paths {
        if !path.is_absolute() {
            return Err(Error::invalid_input(format!(
                "the host path {path:?} is not absolute"
            )));
        }
        all.push(paths::normalize(path)?);
    }
    Ok(all)
}

fn limits(spec: &SessionSpec, capabilities: &Capabilities) -> Result<Limits> {
    need(capabilities.cpu_limit, spec.cpus.is_some(), "cpus")?;
    need(capabilities.memory_limit, spec.memory.is_some(), "memory")?;
    need(capabilities.swap_limit, spec.swap.is_some(), "swap")?;
    need(capabilities.pids_limit, spec.pids_max.is_some(), "pids_max")?;
    let memory = memory_bytes(spec)?;
    if spec.pids_max == Some(0) {
        return Err(Error::invalid_input("`pids_max` of 0 lets nothing run"));
    }
    Ok(Limits {
        memory_bytes: capabilities.memory_limit.then_some(memory),
        swap_bytes: match &spec.swap {
            Some(swap) => Some(swap.resolve()?),
            None => (capabilities.memory_limit && capabilities.swap_limit).then_some(0),
        },
        cpu_millis: capabilities.cpu_limit.then_some(cpu_millis(spec)?),
        pids_max: capabilities
            .pids_limit
            .then_some(spec.pids_max.unwrap_or(DEFAULT_PIDS_MAX)),
    })
}

/// The memory that `spec` means.
///
/// # Errors
/// `InvalidInput`.
pub(crate) fn memory_bytes(spec: &SessionSpec) -> Result<u64> {
    let bytes = spec
        .memory
        .as_ref()
        .map_or(Ok(DEFAULT_MEMORY_BYTES), Bytes::resolve)?;
    if bytes < MIN_MEMORY_BYTES {
        return Err(Error::invalid_input(format!(
            "`memory` of {bytes} bytes is below the least of {MIN_MEMORY_BYTES} bytes (6m)"
        )));
    }
    Ok(bytes)
}

/// Thousandths of a core that `spec` means.
///
/// # Errors
/// `InvalidInput`.
pub(crate) fn cpu_millis(spec: &SessionSpec) -> Result<u32> {
    let Some(cpus) = spec.cpus else {
        return Ok(DEFAULT_CPU_MILLIS);
    };
    if !(0.01..=100_000.0).contains(&cpus) {
        return Err(Error::invalid_input(format!(
            "`cpus` of {cpus} is not at least 0.01 cores"
        )));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was checked one line above"
    )]
    let millis = (cpus * 1000.0).round() as u32;
    Ok(millis)
}

fn main_command(spec: &SessionSpec) -> Result<MainCommand> {
    let words = |argv: &Option<Vec<String>>| argv.as_ref().map_or(0, Vec::len);
    if spec.image_defaults {
        if spec.entrypoint.is_some() || spec.command.is_some() {
            return Err(Error::invalid_input(
                "`image_defaults` excludes `entrypoint` and `command`",
            ));
        }
        return Ok(MainCommand::ImageDefaults {
            user: spec.user.as_ref().map(|_| user(spec)).transpose()?,
            cwd: spec.cwd.as_ref().map(|_| cwd(spec)).transpose()?,
        });
    }
    let all = spec.entrypoint.iter().chain(&spec.command).flatten();
    if all.into_iter().any(|word| word.contains('\0')) {
        return Err(Error::invalid_input(
            "`entrypoint` or `command` contains a NUL byte",
        ));
    }
    if words(&spec.entrypoint) + words(&spec.command) == 0 {
        return Ok(MainCommand::None);
    }
    Ok(MainCommand::Command {
        entrypoint: spec.entrypoint.clone(),
        command: spec.command.clone(),
    })
}

fn labels(request: &ContainerRequest) -> Result<BTreeMap<String, String>> {
    let mut labels = request.spec.labels.clone();
    for (key, value) in &labels {
        if key.starts_with(RESERVED_LABELS) {
            return Err(Error::invalid_input(format!(
                "the label {key:?} begins with `{RESERVED_LABELS}`, which is podkit's own"
            )));
        }
        if key.is_empty() || key.chars().chain(value.chars()).any(|c| c == '\0') {
            return Err(Error::invalid_input(format!(
                "the label {key:?} is not a label"
            )));
        }
    }
    labels.extend(request.labels.clone());
    Ok(labels)
}

fn cwd(spec: &SessionSpec) -> Result<String> {
    let Some(cwd) = &spec.cwd else {
        return Ok(WORKSPACE_PATH.to_owned());
    };
    let path = paths::normalize(&Path::new(WORKSPACE_PATH).join(cwd))?;
    path.into_os_string()
        .into_string()
        .map_err(|_| Error::invalid_input("the working directory is not UTF-8"))
}

fn user(spec: &SessionSpec) -> Result<String> {
    let user = spec.user.as_deref().unwrap_or(DEFAULT_USER);
    if user.is_empty() || user.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(Error::invalid_input(format!("{user:?} is not a user"))
            .with_hint("write `name`, `uid`, `name:group` or `uid:gid`"));
    }
    Ok(user.to_owned())
}

fn network(spec: &SessionSpec, capabilities: &Capabilities) -> Result<Network> {
    let inherits = spec.inherit_networks && spec.network.is_none();
    need(capabilities.inherit, inherits, "inherit_networks")?;
    let network = spec.network.clone().unwrap_or_default();
    match &network {
        Network::Outbound if !capabilities.outbound => Err(Error::unsupported(
            "this engine has no outbound network",
        )
        .with_hint(
            "leave `network` out for loopback only, or use an engine with an outbound network",
        )),
        Network::Named(names) => {
            need(capabilities.named_networks, true, "network (by name)")?;
            if names.is_empty() {
                return Err(Error::invalid_input("`network` names no network"));
            }
            Ok(network)
        }
        Network::Default | Network::Outbound | Network::None | Network::Host => Ok(network),
    }
}

/// Checks a host name as RFC 1123 has it.
fn check_hostname(name: &str) -> Result<()> {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if name.len() > 63 || !name.split('.').all(label) {
        return Err(Error::invalid_input(format!("{name:?} is not a host name")));
    }
    Ok(())
}

fn hostname(spec: &SessionSpec, container: &ContainerId) -> Result<String> {
    let Some(name) = &spec.hostname else {
        return Ok(container.to_string());
    };
    check_hostname(name)?;
    Ok(name.clone())
}

fn hosts(spec: &SessionSpec) -> Result<Vec<(String, IpAddr)>> {
    let line = |(name, address): (&String, &String)| {
        check_hostname(name)?;
        let address = address.parse().map_err(|_| {
            Error::invalid_input(format!(
                "{address:?}, the address of `{name}`, is no IP address"
            ))
        })?;
        Ok((name.clone(), address))
    };
    spec.hosts.iter().map(line).collect()
}

fn isolation(
    spec: &SessionSpec,
    capabilities: &Capabilities,
) -> Result<Option<crate::config::Isolation>> {
    let wanted = spec.security.isolation;
    let able = wanted.is_none() || wanted <= capabilities.isolation;
    need(able, wanted.is_some(), "security.isolation")?;
    Ok(wanted)
}

#[cfg(test)]
mod tests;
