//! `podkit stats`, `limit`, `pause` and `resume`.

use std::{collections::BTreeMap, result::Result as StdResult, time::Duration};

use futures::future::join_all;
use podkit::{
    ContainerState, ContainerStats, Error, ErrorKind, LimitChange, Podkit, Result, SessionKey,
};
use serde_json::{Map, Value, json};

use super::Context;
use crate::{
    output::{Exit, Failure, table, time_text},
    resource_args::{LimitArgs, PauseArgs, ResumeArgs, StatsArgs},
};

/// Shortest time over which processor time is averaged.
const SHORTEST: Duration = Duration::from_millis(50);

/// What sessions used, at one look.
type Looks = BTreeMap<SessionKey, ContainerStats>;

/// Shows what sessions use.
pub(super) async fn stats(context: &Context, args: StatsArgs) -> StdResult<Exit, Failure> {
    let named: Vec<SessionKey> = args
        .sessions
        .iter()
        .map(|text| context.key(text))
        .collect::<StdResult<_, _>>()?;
    let podkit = context.podkit().await?;
    if !podkit.capabilities().stats {
        let engine = podkit.backend_name();
        let text = format!("the engine `{engine}` does not count here what a container uses");
        return Err(Error::new(ErrorKind::Unsupported, text).into());
    }
    let mut before = look(&podkit, &named, true).await?;
    loop {
        tokio::time::sleep(args.interval.max(SHORTEST)).await;
        let now = look(&podkit, &named, false).await?;
        show(context, &before, &now)?;
        if !args.follow || now.is_empty() {
            return Ok(Exit::Success);
        }
        before = now;
    }
}

/// What the named sessions use, or all that run. Those that stopped meanwhile are left out, unless it
/// is the first look at one that was named.
async fn look(podkit: &Podkit, named: &[SessionKey], first: bool) -> Result<Looks> {
    let keys = if named.is_empty() {
        let all = podkit.list().await?;
        let alive = |state| matches!(state, ContainerState::Running | ContainerState::Paused);
        let running = all.into_iter().filter(|info| alive(info.state));
        running.map(|info| info.key).collect()
    } else {
        named.to_vec()
    };
    let stats = keys.iter().map(|key| podkit.stats(key));
    let mut found = Looks::new();
    for (key, stats) in keys.iter().zip(join_all(stats).await) {
        match stats {
            Ok(stats) => {
                found.insert(key.clone(), stats);
            }
            Err(error) if is_gone(&error) && (named.is_empty() || !first) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ContainerGone)
}

fn show(context: &Context, before: &Looks, now: &Looks) -> StdResult<(), Failure> {
    let cpus = |key: &SessionKey, stats: &ContainerStats| stats.cpus_since(before.get(key)?);
    let json = || {
        now.iter()
            .map(|(key, stats)| stats_json(key, stats, cpus(key, stats)))
            .collect()
    };
    let text = || {
        let rows: Vec<Vec<String>> = now
            .iter()
            .map(|(key, stats)| row(key, stats, cpus(key, stats)))
            .collect();
        let head = ["SESSION", "CPUS", "CPU TIME", "MEMORY", "LIMIT", "PIDS"];
        table(&head, &rows)
    };
    context.output.result(json, text)
}

fn row(key: &SessionKey, stats: &ContainerStats, cpus: Option<f64>) -> Vec<String> {
    let unknown = || "-".to_owned();
    vec![
        key.to_string(),
        cpus.map_or_else(unknown, |cpus| format!("{cpus:.2}")),
        stats
            .cpu_time
            .map_or_else(unknown, |time| format!("{:.2}s", time.as_secs_f64())),
        stats.memory_bytes.map_or_else(unknown, megabytes),
        stats.memory_limit_bytes.map_or_else(unknown, megabytes),
        stats.pids.map_or_else(unknown, |pids| pids.to_string()),
    ]
}

fn megabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{}m", tenths / 10, tenths % 10)
}

fn stats_json(key: &SessionKey, stats: &ContainerStats, cpus: Option<f64>) -> Value {
    let mut object = Map::new();
    object.insert("session".to_owned(), json!(key.to_string()));
    object.insert("at".to_owned(), json!(time_text(stats.at)));
    object.insert("cpus".to_owned(), json!(cpus));
    let seconds = stats.cpu_time.map(|time| time.as_secs_f64());
    object.insert("cpu_seconds".to_owned(), json!(seconds));
    for (name, value) in [
        ("memory_bytes", stats.memory_bytes),
        ("memory_limit_bytes", stats.memory_limit_bytes),
        ("pids", stats.pids),
        ("pids_limit", stats.pids_limit),
        ("network_rx_bytes", stats.network_rx_bytes),
        ("network_tx_bytes", stats.network_tx_bytes),
        ("disk_read_bytes", stats.disk_read_bytes),
        ("disk_written_bytes", stats.disk_written_bytes),
    ] {
        object.insert(name.to_owned(), json!(value));
    }
    Value::Object(object)
}

/// Changes limits.
pub(super) async fn limit(context: &Context, args: LimitArgs) -> StdResult<Exit, Failure> {
    let key = context.key(&args.session)?;
    let mut change = LimitChange::new();
    change.cpus = args.cpus;
    change.pids_max = args.pids;
    change.memory = args.memory.map(Into::into);
    change.swap = args.swap.map(Into::into);
    if change == LimitChange::new() {
        let error = Error::new(ErrorKind::InvalidInput, "no limit is to change")
            .with_hint("say --memory, --swap, --cpus or --pids");
        return Err(Failure::usage(error));
    }
    context.podkit().await?.set_limits(&key, change).await?;
    done(context, &key)
}

/// Pauses a session.
pub(super) async fn pause(context: &Context, args: PauseArgs) -> StdResult<Exit, Failure> {
    let key = context.key(&args.session)?;
    context.podkit().await?.pause(&key).await?;
    done(context, &key)
}

/// Lets a session go on.
pub(super) async fn resume(context: &Context, args: ResumeArgs) -> StdResult<Exit, Failure> {
    let key = context.key(&args.session)?;
    context.podkit().await?.resume(&key).await?;
    done(context, &key)
}

fn done(context: &Context, key: &SessionKey) -> StdResult<Exit, Failure> {
    if context.output.is_json() {
        context
            .output
            .result(|| json!({ "session": key.to_string() }), String::new)?;
    }
    Ok(Exit::Success)
}
