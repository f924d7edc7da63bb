//! What some engines have: ports, networks' aliases, devices, limits of processes, runtimes.

use std::collections::BTreeSet;

use super::{check_hostname, need};
use crate::{
    backend::Capabilities,
    config::{Network, SessionSpec},
    error::{Error, Result},
};

/// Checks the fields that are passed on as they are.
pub(super) fn check(spec: &SessionSpec, capabilities: &Capabilities) -> Result<()> {
    need(capabilities.ports, !spec.ports.is_empty(), "ports")?;
    need(capabilities.dns, !spec.dns.is_empty(), "dns")?;
    need(capabilities.ulimits, !spec.ulimits.is_empty(), "ulimits")?;
    need(capabilities.devices, !spec.devices.is_empty(), "devices")?;
    need(capabilities.gpus, spec.gpus.is_some(), "gpus")?;
    need(capabilities.platforms, spec.platform.is_some(), "platform")?;
    need(
        capabilities.auto_remove,
        spec.auto_remove == Some(true),
        "auto_remove",
    )?;
    need(capabilities.image_references, spec.pull.is_some(), "pull")?;
    ports(spec)?;
    aliases(spec, capabilities)?;
    runtime(spec, capabilities)?;
    platform(spec)?;
    for (name, limit) in &spec.ulimits {
        limit.check(name)?;
    }
    for device in &spec.devices {
        device.check()?;
    }
    Ok(())
}

fn ports(spec: &SessionSpec) -> Result<()> {
    let mut offered = BTreeSet::new();
    for port in &spec.ports {
        if port.container == 0 || port.host_number() == Some(0) {
            return Err(Error::invalid_input("the port 0 is no port"));
        }
        if let Some(number) = port.host_number()
            && !offered.insert((port.address, number, port.protocol))
        {
            return Err(Error::invalid_input(format!(
                "two ports are offered at {number}/{} of `{}`",
                port.protocol.as_str(),
                port.address
            )));
        }
    }
    if !spec.ports.is_empty() && matches!(spec.network, Some(Network::None | Network::Host)) {
        return Err(Error::invalid_input(
            "`ports` need a network of the container's own: neither `none` nor `host`",
        ));
    }
    Ok(())
}

fn aliases(spec: &SessionSpec, capabilities: &Capabilities) -> Result<()> {
    if spec.aliases.is_empty() {
        return Ok(());
    }
    need(capabilities.named_networks, true, "aliases")?;
    let inherits = spec.inherit_networks && spec.network.is_none();
    if !inherits && !matches!(spec.network, Some(Network::Named(_))) {
        return Err(Error::invalid_input("`aliases` belong to named networks"));
    }
    spec.aliases
        .iter()
        .try_for_each(|name| check_hostname(name))
}

fn runtime(spec: &SessionSpec, capabilities: &Capabilities) -> Result<()> {
    let Some(name) = &spec.runtime else {
        return Ok(());
    };
    need(!capabilities.runtimes.is_empty(), true, "runtime")?;
    if capabilities.runtimes.contains(name) {
        return Ok(());
    }
    let known = capabilities.runtimes.join(", ");
    Err(Error::unsupported(format!(
        "this engine has no runtime {name:?}, the `runtime`"
    ))
    .with_hint(format!("it has these: {known}")))
}

fn platform(spec: &SessionSpec) -> Result<()> {
    let Some(name) = &spec.platform else {
        return Ok(());
    };
    let parts: Vec<&str> = name.split('/').collect();
    let part = |part: &&str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
    };
    if (2..=3).contains(&parts.len()) && parts.iter().all(part) {
        return Ok(());
    }
    Err(Error::invalid_input(format!("{name:?} is not a platform"))
        .with_hint("write `linux/amd64` or `linux/arm64`"))
}
