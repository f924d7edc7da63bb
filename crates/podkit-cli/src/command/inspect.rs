//! `podkit inspect`, and sessions as JSON.

use std::time::{Duration, SystemTime};

use podkit::{Isolation, Limit, Mount, MountSource, Network, SessionInfo, SessionSpec};
use serde_json::{Value, json};

use super::Context;
use crate::{
    args::InspectArgs,
    output::{Exit, Failure, ago, duration_text, time_text},
};

/// Shows all that is known of a session.
pub(super) async fn inspect(context: &Context, args: InspectArgs) -> Result<Exit, Failure> {
    let key = context.key(&args.session)?;
    let info = context.podkit().await?.inspect(&key).await?;
    context
        .output
        .result(|| info_json(&info), || info_text(&info))?;
    Ok(Exit::Success)
}

/// A session as JSON; the field names are API. Values of environment variables are not shown.
pub(super) fn info_json(info: &SessionInfo) -> Value {
    let time = |time: Option<SystemTime>| time.map(time_text);
    json!({
        "session": info.key.to_string(),
        "user_id": info.key.user().as_str(),
        "session_id": info.key.session().as_str(),
        "container": info.container.as_str(),
        "state": info.state.as_str(),
        "stop_cause": info.stop_cause.map(podkit::backend::StopCause::as_str),
        "created_at": time_text(info.created_at),
        "started_at": time(info.started_at),
        "last_active_at": time(info.last_active_at),
        "stops_at": time(info.expires.stops_at),
        "idle_at": time(info.expires.idle_at),
        "ends_at": time(info.expires.ends_at),
        "isolation": info.isolation.map(Isolation::as_str),
        "ports": info.ports,
        "workspace": info.workspace.as_ref().map(|path| path.to_string_lossy()),
        "config_lost": info.config_lost,
        "spec": spec_json(&info.spec),
    })
}

fn spec_json(spec: &SessionSpec) -> Value {
    let seconds = |limit: Option<Limit>| match limit {
        None => Value::Null,
        Some(Limit::Off) => "off".into(),
        Some(Limit::After(time)) => time.as_secs_f64().into(),
    };
    let bytes =
        |amount: &Option<podkit::Bytes>| amount.as_ref().and_then(|amount| amount.resolve().ok());
    json!({
        "image": spec.image,
        "memory_bytes": bytes(&spec.memory),
        "swap_bytes": bytes(&spec.swap),
        "cpus": spec.cpus,
        "pids_max": spec.pids_max,
        "network": spec.network.as_ref().map(network_text),
        "mounts": spec.mounts.iter().map(mount_text).collect::<Vec<_>>(),
        "env": spec.env.keys().collect::<Vec<_>>(),
        "user": spec.user,
        "hostname": spec.hostname,
        "labels": spec.labels,
        "read_only": spec.read_only_root,
        "host_paths": spec.host_paths,
        "auto_stop_seconds": seconds(spec.auto_stop),
        "idle_timeout_seconds": seconds(spec.idle_timeout),
        "max_lifetime_seconds": seconds(spec.max_lifetime),
    })
}

fn network_text(network: &Network) -> String {
    match network {
        Network::Outbound => "outbound".to_owned(),
        Network::None => "none".to_owned(),
        Network::Host => "host".to_owned(),
        Network::Named(names) => names.join(","),
        _ => "default".to_owned(),
    }
}

fn mount_text(mount: &Mount) -> String {
    let source = match &mount.source {
        MountSource::Bind(path) => path.display().to_string(),
        MountSource::Volume(name) => name.clone(),
        _ => "tmpfs".to_owned(),
    };
    let mode = if mount.read_only { ":ro" } else { "" };
    format!("{source}:{}{mode}", mount.target.display())
}

fn info_text(info: &SessionInfo) -> String {
    let spec = &info.spec;
    let at = |time: SystemTime| format!("{} ({})", time_text(time), ago(time));
    let limit = |limit: Option<Limit>, default: Option<Duration>| match limit {
        Some(Limit::After(time)) => Some(duration_text(time)),
        Some(Limit::Off) => Some("off".to_owned()),
        None => default.map(|time| format!("{} (default)", duration_text(time))),
    };
    let list = |items: Vec<String>| (!items.is_empty()).then(|| items.join("\n               "));
    let rows: [(&str, Option<String>); 22] = [
        ("session", Some(info.key.to_string())),
        ("container", Some(info.container.to_string())),
        ("state", Some(info.state.as_str().to_owned())),
        (
            "stopped by",
            info.stop_cause
                .map(|cause| cause.as_str().replace('_', " ")),
        ),
        ("created", Some(at(info.created_at))),
        ("started", info.started_at.map(at)),
        ("last used", info.last_active_at.map(at)),
        (
            "ports",
            list(info.ports.iter().map(ToString::to_string).collect()),
        ),
        (
            "isolation",
            info.isolation.map(|class| class.as_str().replace('_', " ")),
        ),
        (
            "workspace",
            info.workspace
                .as_ref()
                .map(|path| path.display().to_string()),
        ),
        ("image", spec.image.clone()),
        ("memory", spec.memory.as_ref().map(ToString::to_string)),
        ("cpus", spec.cpus.map(|cpus| cpus.to_string())),
        ("pids", spec.pids_max.map(|pids| pids.to_string())),
        ("network", spec.network.as_ref().map(network_text)),
        ("mounts", list(spec.mounts.iter().map(mount_text).collect())),
        ("variables", list(spec.env.keys().cloned().collect())),
        ("user", spec.user.clone()),
        (
            "auto stop",
            limit(spec.auto_stop, Some(podkit::DEFAULT_AUTO_STOP)),
        ),
        ("idle timeout", limit(spec.idle_timeout, None)),
        ("max lifetime", limit(spec.max_lifetime, None)),
        (
            "config",
            info.config_lost
                .then(|| "lost with an earlier container".to_owned()),
        ),
    ];
    rows.into_iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name:14} {value}\n")))
        .collect()
}
