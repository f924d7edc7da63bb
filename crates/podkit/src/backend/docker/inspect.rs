//! What an engine says of a container, in podkit's words. Pure functions.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum as Status, NetworkSettings,
};
use podkit_agent::{ExitCause, StopReason, exit_cause};

use super::{convert, link};
use crate::{
    backend::{ContainerInfo, ContainerState, StopCause},
    config::{Protocol, PublishedPort},
    error::{Error, ErrorKind, Result},
    id::ContainerId,
};

/// What is known of a container for starting it and for connecting to its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Named networks that it still has to be connected to.
    pub(super) networks: Vec<String>,
    /// Its further names on them.
    pub(super) aliases: Vec<String>,
    /// Pid of its PID 1 on the engine's machine; 0 when it does not run.
    pub(super) pid: u32,
    /// Directory of the host's in which its agent looks for clients.
    pub(super) link: Option<PathBuf>,
}

/// What an answer says for that.
pub(super) fn reach(answer: &ContainerInspectResponse) -> Reach {
    let state = answer.state.as_ref();
    let running = state.and_then(|state| state.running).unwrap_or(false);
    let pid = state.and_then(|state| state.pid).filter(|_| running);
    let mut mounts = answer.mounts.iter().flatten();
    let config = answer.config.as_ref();
    let list = |label: &str| -> Vec<String> {
        let text = config.and_then(|config| config.labels.as_ref()?.get(label));
        let names = text.map(String::as_str).unwrap_or_default().split(',');
        names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let networks = answer.network_settings.as_ref();
    let networks = networks.and_then(|settings| settings.networks.as_ref());
    let has = |name: &String| networks.is_some_and(|networks| networks.contains_key(name));
    let mut further = list(convert::NETWORKS);
    further.retain(|name| !has(name));
    Reach {
        networks: further,
        aliases: list(convert::ALIASES),
        pid: pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
        link: mounts
            .find(|mount| mount.destination.as_deref() == Some(link::TARGET))
            .and_then(|mount| mount.source.as_ref().map(PathBuf::from)),
    }
}

/// A container's info.
///
/// # Errors
/// `Unexpected` for an answer without a name.
pub(super) fn info(answer: ContainerInspectResponse) -> Result<ContainerInfo> {
    let reach = reach(&answer);
    let name = answer
        .name
        .as_deref()
        .map(|name| name.trim_start_matches('/').to_owned());
    let (Some(name), Some(state), Some(config)) = (name, answer.state, answer.config) else {
        return Err(Error::new(
            ErrorKind::Unexpected,
            "the engine's answer does not say what the container is",
        ));
    };
    let status = state_of(state.status.unwrap_or(Status::EMPTY), &state);
    let exited = matches!(status, ContainerState::Exited | ContainerState::Dead);
    let code = state.exit_code.filter(|_| exited);
    let arguments = answer.args.as_deref().unwrap_or_default();
    let killed = state.oom_killed == Some(true) || !arguments.iter().any(|word| word == "--");
    let cause = code.map(|code| stop_cause(code, killed));
    let finished_at = state
        .finished_at
        .as_deref()
        .and_then(time)
        .filter(|_| exited);
    let idle = match cause {
        Some(StopCause::AutoStop) => auto_stop(arguments),
        _ => None,
    };
    let env = config.env.unwrap_or_default().into_iter();
    Ok(ContainerInfo {
        id: ContainerId::new(name.clone())?,
        name,
        labels: config
            .labels
            .unwrap_or_default()
            .into_iter()
            .filter(|(name, value)| !convert::says_nothing(name, value))
            .collect(),
        env: env
            .filter_map(|entry| {
                let (name, value) = entry.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            })
            .collect::<BTreeMap<_, _>>(),
        state: status,
        exit_code: (cause == Some(StopCause::MainExited))
            .then_some(code)
            .flatten()
            .and_then(|code| i32::try_from(code).ok()),
        stop_cause: cause,
        created_at: answer
            .created
            .as_deref()
            .and_then(time)
            .unwrap_or(SystemTime::UNIX_EPOCH),
        started_at: state.started_at.as_deref().and_then(time),
        last_active_at: finished_at.map(|at| at - idle.unwrap_or_default()),
        finished_at,
        pid: (reach.pid > 0).then_some(reach.pid),
        isolation: None,
        ports: answer.network_settings.map(ports).unwrap_or_default(),
    })
}

fn state_of(status: Status, state: &bollard::models::ContainerState) -> ContainerState {
    match status {
        Status::CREATED => ContainerState::Created,
        Status::RUNNING | Status::RESTARTING => ContainerState::Running,
        Status::PAUSED => ContainerState::Paused,
        Status::REMOVING => ContainerState::Removing,
        Status::EXITED => ContainerState::Exited,
        Status::DEAD => ContainerState::Dead,
        // Podman has words of its own for what lies between: one that is being stopped runs.
        _ if state.running == Some(true) || state.pid.is_some_and(|pid| pid > 0) => {
            ContainerState::Running
        }
        _ => ContainerState::Exited,
    }
}

/// Why PID 1 ended: it says so itself, unless it was killed. One without a program of its own that
/// says nothing was.
fn stop_cause(code: i64, killed: bool) -> StopCause {
    match u8::try_from(code).ok().map(exit_cause) {
        Some(ExitCause::Stopped(StopReason::AutoStop)) => StopCause::AutoStop,
        Some(ExitCause::Stopped(StopReason::MaxLifetime)) => StopCause::MaxLifetime,
        Some(ExitCause::Stopped(StopReason::Requested)) => StopCause::Requested,
        // 137: by SIGKILL, which the container's own program may have been as well.
        Some(_) if code != 137 && !killed => StopCause::MainExited,
        _ => StopCause::Killed,
    }
}

/// The clock that the agent was given.
fn auto_stop(arguments: &[String]) -> Option<Duration> {
    let at = arguments.iter().position(|word| word == "--auto-stop")?;
    let ms = arguments.get(at + 1)?.parse().ok()?;
    Some(Duration::from_millis(ms))
}

/// A time as engines write it; the year 1 is none.
pub(super) fn time(text: &str) -> Option<SystemTime> {
    let time: jiff::Timestamp = text.parse().ok()?;
    (time.as_second() > 0).then(|| time.into())
}

fn ports(settings: NetworkSettings) -> Vec<PublishedPort> {
    let mut published = Vec::new();
    for (name, bindings) in settings.ports.unwrap_or_default() {
        let Some((number, protocol)) = name.split_once('/') else {
            continue;
        };
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => continue,
        };
        for binding in bindings.unwrap_or_default() {
            let address = binding.host_ip.filter(|address| !address.is_empty());
            let address = address.map_or_else(
                || Some(IpAddr::from([0, 0, 0, 0])),
                |address| address.parse().ok(),
            );
            let host = binding.host_port.and_then(|port| port.parse().ok());
            if let (Ok(container), Some(address), Some(host)) = (number.parse(), address, host) {
                published.push(PublishedPort::new(container, protocol, address, host));
            }
        }
    }
    published.sort_unstable();
    published
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_what_the_agent_says() {
        let table = [
            (224, StopCause::AutoStop),
            (225, StopCause::MaxLifetime),
            (226, StopCause::Requested),
            (0, StopCause::MainExited),
            (3, StopCause::MainExited),
            (137, StopCause::Killed),
        ];
        for (code, cause) in table {
            assert_eq!(stop_cause(code, false), cause, "{code}");
        }
        assert_eq!(stop_cause(1, true), StopCause::Killed);
    }

    #[test]
    fn one_that_is_being_stopped_runs() {
        let between = |pid| bollard::models::ContainerState {
            running: Some(false),
            pid: Some(pid),
            ..Default::default()
        };
        assert_eq!(
            state_of(Status::EMPTY, &between(7)),
            ContainerState::Running
        );
        assert_eq!(state_of(Status::EMPTY, &between(0)), ContainerState::Exited);
    }

    #[test]
    fn times_are_read_and_the_year_one_is_none() {
        assert_eq!(time("0001-01-01T00:00:00Z"), None);
        let at = time("1970-01-01T00:00:01.5Z").unwrap();
        assert_eq!(at, SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        assert_eq!(time("soon"), None);
    }

    #[test]
    fn clock_is_read_from_the_agents_arguments() {
        let words = ["init", "--auto-stop", "1500", "--"].map(str::to_owned);
        assert_eq!(auto_stop(&words), Some(Duration::from_millis(1500)));
        assert_eq!(auto_stop(&words[..2]), None);
    }
}
