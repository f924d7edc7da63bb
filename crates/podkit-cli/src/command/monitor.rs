//! `podkit monitor`.

use podkit::{CommandEnd, Event, EventKind, HealthOptions, Reason, rfc3339};
use serde_json::{Map, Value, json};

use super::Context;
use crate::{
    output::{Exit, Failure, duration_text, printable},
    resource_args::MonitorArgs,
    signals::Signals,
};

/// Watches over the sessions of the prefix until it is interrupted, and tells what happens.
pub(super) async fn monitor(context: &Context, args: MonitorArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()?;
    let mut health = HealthOptions::new()
        .interval(args.interval)
        .log_lines(args.log_lines)
        .all_sessions(true);
    health.clean_orphans = args.clean_orphans;
    let podkit = context.builder(true).health(health).build().await?;
    let mut events = podkit.events();
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => show(context, &event)?,
                None => return Ok(Exit::Success),
            },
            _ = signals.number() => {
                podkit.shutdown().await;
                return Ok(Exit::Success);
            }
        }
    }
}

/// One event is one line, for programs as well.
fn show(context: &Context, event: &Event) -> Result<(), Failure> {
    let key = event.key.as_ref().map(ToString::to_string);
    let line = if context.output.is_json() {
        let mut object = Map::new();
        object.insert("at".to_owned(), json!(rfc3339(event.at)));
        object.insert("event".to_owned(), json!(event.kind.as_str()));
        object.insert("session".to_owned(), json!(key));
        object.extend(details(&event.kind));
        Value::Object(object).to_string()
    } else {
        let name = event.kind.as_str().replace('_', " ");
        let more: Vec<String> = details(&event.kind)
            .into_iter()
            .filter(|(_, value)| !value.is_null() && *value != json!([]))
            .map(|(name, value)| format!("{name}={}", plain(&value)))
            .collect();
        let key = key.unwrap_or_default();
        let line = format!("{} {key} {name} {}", rfc3339(event.at), more.join(" "));
        printable(line.trim_end()).into_owned()
    };
    context.output.text(&format!("{line}\n"))
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// What an event says beside its name.
fn details(kind: &EventKind) -> Map<String, Value> {
    let value = match kind {
        EventKind::ContainerStopped(cause) => json!({ "cause": cause.map(|one| one.as_str()) }),
        EventKind::SessionOpened(how) | EventKind::Recovered(how) => json!({ "how": how.as_str() }),
        EventKind::SessionExpiring(at) => json!({ "expires_at": rfc3339(*at) }),
        EventKind::OrphanRemoved(idle) => json!({ "idle": duration_text(*idle) }),
        EventKind::HealthCheckFailed(illness) => json!({
            "symptom": illness.symptom.as_str(),
            "exit_code": illness.exit_code,
            "log": illness.log,
        }),
        EventKind::ContainerCreationFailed(reason)
        | EventKind::ContainerStartFailed(reason)
        | EventKind::ContainerStopFailed(reason)
        | EventKind::ContainerRemovalFailed(reason)
        | EventKind::SessionOpenFailed(reason)
        | EventKind::RecoveryFailed(reason) => failed(reason),
        EventKind::ExecStarted(command) => json!({ "argv": command.argv }),
        EventKind::ExecEnded(command, end) => match end {
            CommandEnd::Ended(outcome, _) => {
                json!({ "argv": command.argv, "outcome": outcome.as_str(), "code": outcome.code() })
            }
            CommandEnd::Failed(reason) => failed(reason),
            _ => json!({ "argv": command.argv }),
        },
        EventKind::ProcessStarted(process) => json!({ "id": process.id, "name": process.name }),
        EventKind::ProcessEnded(process, outcome) => json!({
            "id": process.id,
            "name": process.name,
            "outcome": outcome.as_str(),
            "code": outcome.code(),
        }),
        EventKind::Missed(count) => json!({ "count": count }),
        _ => json!({}),
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn failed(reason: &Reason) -> Value {
    json!({
        "kind": reason.kind.as_str(),
        "message": reason.message,
        "exit_code": reason.exit_code,
        "log": reason.log,
    })
}
