//! `podkit spawn`, `ps`, `logs`, `kill` and `wait`.

use std::time::SystemTime;

use podkit::{
    ContainerState, Error, ErrorKind, LogStream, Outcome, Podkit, Process, ProcessInfo,
    ProcessState, Session, SessionKey, SpawnRequest,
};
use serde_json::{Map, Value, json};

use super::{Context, exec};
use crate::{
    output::{BytesJson, Exit, Failure, Stream, ago, table, time_text},
    process_args::{KillArgs, LogsArgs, PsArgs, SpawnArgs, WaitArgs},
    pump,
    signals::Signals,
    terminal,
};

/// Most bytes of the log of a session's own program that are shown.
const OWN_LOG_BYTES: u64 = 1 << 20;

/// Most characters of a command line in a table.
const SHOWN_COMMAND: usize = 60;

/// Begins a process.
pub(super) async fn spawn(context: &Context, args: SpawnArgs) -> Result<Exit, Failure> {
    let key = context.key(&args.session)?;
    let mut request = SpawnRequest::new(exec::surrounded(exec::words(&args.words), &args.around)?);
    request.name.clone_from(&args.name);
    request.restart = args.restart;
    request.keep_alive = args.keep_alive;
    request.log_directory.clone_from(&args.log_dir);
    request.log_limit_bytes = args.log_limit;
    request.exec.timeout = args.timeout;
    request.exec.terminal = args.terminal.then(terminal::size);
    request.check().map_err(Failure::usage)?;
    let session = context.session(&key, args.quiet).await?;
    let process = session.spawn_request(request).await?;
    let info = process.info().await?;
    context
        .output
        .result(|| info_json(&key, &info), || format!("{}\n", info.id))?;
    Ok(Exit::Success)
}

/// Lists processes.
pub(super) async fn ps(context: &Context, args: PsArgs) -> Result<Exit, Failure> {
    let key = context.key(&args.session)?;
    let podkit = context.podkit().await?;
    let mut infos = match running(&podkit, &key).await? {
        Some(session) => session.processes().await?,
        None => Vec::new(),
    };
    if args.running {
        infos.retain(|info| info.state.is_alive());
    }
    infos.sort_by_key(|info| info.started_at);
    let json = || infos.iter().map(|info| info_json(&key, info)).collect();
    let text = || {
        if args.quiet {
            return infos.iter().map(|info| format!("{}\n", info.id)).collect();
        }
        let rows: Vec<Vec<String>> = infos.iter().map(row).collect();
        let head = [
            "ID", "NAME", "STATE", "PID", "RESTARTS", "STARTED", "COMMAND",
        ];
        table(&head, &rows)
    };
    context.output.result(json, text)?;
    Ok(Exit::Success)
}

fn row(info: &ProcessInfo) -> Vec<String> {
    let state = match info.state {
        ProcessState::Ended(Outcome::Exited(0)) => "ended".to_owned(),
        ProcessState::Ended(outcome) => outcome.to_string(),
        state => state.as_str().to_owned(),
    };
    let command: String = info.argv.join(" ").chars().take(SHOWN_COMMAND).collect();
    vec![
        info.id.clone(),
        info.name.clone().unwrap_or_else(|| "-".to_owned()),
        state,
        info.pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        info.restarts.to_string(),
        ago(info.started_at),
        command,
    ]
}

/// A process as JSON; the field names are API.
fn info_json(key: &SessionKey, info: &ProcessInfo) -> Value {
    let outcome = match info.state {
        ProcessState::Ended(outcome) => Some(outcome),
        _ => None,
    };
    json!({
        "session": key.to_string(),
        "id": info.id,
        "name": info.name,
        "argv": info.argv,
        "state": info.state.as_str(),
        "outcome": outcome.map(Outcome::as_str),
        "code": outcome.map(Outcome::code),
        "pid": info.pid,
        "restarts": info.restarts,
        "started_at": time_text(info.started_at),
        "ended_at": info.ended_at.map(time_text),
        "terminal": info.terminal,
        "keep_alive": info.keep_alive,
        "log_directory": info.log_directory,
        "usage": {
            "wall_seconds": info.usage.wall.as_secs_f64(),
            "cpu_user_seconds": info.usage.cpu_user.as_secs_f64(),
            "cpu_system_seconds": info.usage.cpu_system.as_secs_f64(),
            "peak_memory_bytes": info.usage.peak_memory_bytes,
        },
    })
}

/// The session when its container runs: nothing is started for a look.
async fn running(podkit: &Podkit, key: &SessionKey) -> Result<Option<Session>, Error> {
    let info = podkit.inspect(key).await?;
    if info.state != ContainerState::Running {
        return Ok(None);
    }
    podkit.open(key).create(false).await.map(Some)
}

/// `SESSION#PROCESS` in its two parts.
pub(super) fn split(context: &Context, text: &str) -> Result<(SessionKey, String), Failure> {
    let Some((session, process)) = text.rsplit_once('#').filter(|(_, name)| !name.is_empty())
    else {
        let message = format!("{text:?} names no process");
        let error = Error::invalid_input(message)
            .with_hint("write SESSION#NAME or SESSION#ID; `podkit ps SESSION` lists them");
        return Err(Failure::usage(error));
    };
    Ok((context.key(session)?, process.to_owned()))
}

/// The process that is named.
pub(super) async fn find(
    podkit: &Podkit,
    key: &SessionKey,
    process: &str,
) -> Result<Process, Failure> {
    match running(podkit, key).await? {
        Some(session) => Ok(session.process(process)),
        None => Err(Error::new(
            ErrorKind::NotFound,
            format!("{key} does not run, so it has no process {process:?}"),
        )
        .into()),
    }
}

/// Shows a log.
pub(super) async fn logs(context: &Context, args: LogsArgs) -> Result<Exit, Failure> {
    if !args.process.contains('#') {
        return own_log(context, &args).await;
    }
    let (key, name) = split(context, &args.process)?;
    let mut signals = Signals::listen()?;
    let podkit = context.podkit().await?;
    let process = find(&podkit, &key, &name).await?;
    let mut logs = process.logs();
    if let Some(lines) = args.tail {
        logs = logs.tail(lines);
    }
    if let Some(time) = args.since {
        logs = logs.since(
            SystemTime::now()
                .checked_sub(time)
                .unwrap_or(SystemTime::UNIX_EPOCH),
        );
    }
    match (args.stdout, args.stderr) {
        (true, _) => logs = logs.only(LogStream::Stdout),
        (_, true) => logs = logs.only(LogStream::Stderr),
        _ => {}
    }
    if args.follow {
        logs = logs.follow();
    }
    let mut events = pump::unless_signalled(&mut signals, logs.stream()).await?;
    while let Some(chunk) = pump::unless_signalled(&mut signals, events.next()).await? {
        if context.output.is_json() {
            let stream = match chunk.stream {
                LogStream::Stdout => "stdout",
                LogStream::Stderr => "stderr",
            };
            let mut line = Map::new();
            line.insert("stream".to_owned(), stream.into());
            BytesJson::from(&chunk.bytes[..]).put("text", &mut line);
            context.output.text(&format!("{}\n", Value::Object(line)))?;
        } else if chunk.stream == LogStream::Stdout {
            pump::write_out(chunk.bytes).await?;
        } else {
            Stream::Stderr
                .write_all(&chunk.bytes)
                .map_err(|error| Failure::writing(Stream::Stderr, error))?;
        }
    }
    Ok(Exit::Success)
}

/// Shows what a session's own program has written.
async fn own_log(context: &Context, args: &LogsArgs) -> Result<Exit, Failure> {
    if args.follow || args.since.is_some() || args.stdout || args.stderr {
        let error = Error::invalid_input(
            "the log of a session's own program has no times and streams, and is not followed",
        );
        return Err(Failure::usage(error));
    }
    let key = context.key(&args.process)?;
    let podkit = context.podkit().await?;
    let info = podkit.inspect(&key).await?;
    let mut log = podkit
        .containers()
        .logs(&info.container, OWN_LOG_BYTES)
        .await?;
    if let Some(lines) = args.tail {
        let from = last_lines(&log, usize::try_from(lines).unwrap_or(usize::MAX));
        log.drain(..from);
    }
    if context.output.is_json() {
        let mut value = Map::new();
        value.insert("session".to_owned(), key.to_string().into());
        BytesJson::from(&log[..]).put("text", &mut value);
        context.output.result(|| value.into(), String::new)?;
    } else {
        pump::write_out(log.into()).await?;
    }
    Ok(Exit::Success)
}

/// Where the last lines begin.
fn last_lines(log: &[u8], lines: usize) -> usize {
    let body = log.strip_suffix(b"\n").unwrap_or(log);
    if lines == 0 {
        return log.len();
    }
    let mut ends = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    ends.nth(lines - 1).map_or(0, |(at, _)| at + 1)
}

/// Stops processes, or signals them.
pub(super) async fn kill(context: &Context, args: KillArgs) -> Result<Exit, Failure> {
    let mut targets = Vec::new();
    for text in &args.processes {
        targets.push(split(context, text)?);
    }
    let podkit = context.podkit().await?;
    let mut ended = Vec::new();
    for (key, name) in &targets {
        let process = find(&podkit, key, name).await?;
        if let Some(number) = args.signal {
            // One of a name that nobody has is an error, not a signal that reaches nobody.
            process.info().await?;
            process.signal(number).await?;
        } else {
            let info = process.stop(args.grace).await?;
            ended.push(info_json(key, &info));
        }
    }
    if context.output.is_json() {
        context.output.result(|| ended.into(), String::new)?;
    }
    Ok(Exit::Success)
}

/// Waits for the end of a process.
pub(super) async fn wait(context: &Context, args: WaitArgs) -> Result<Exit, Failure> {
    let (key, name) = split(context, &args.process)?;
    let mut signals = Signals::listen()?;
    let podkit = context.podkit().await?;
    let process = find(&podkit, &key, &name).await?;
    let info = pump::unless_signalled(&mut signals, process.wait()).await?;
    if context.output.is_json() {
        context
            .output
            .result(|| info_json(&key, &info), String::new)?;
    }
    match info.state {
        ProcessState::Ended(outcome) => {
            if !context.output.is_json() {
                context.output.outcome(outcome);
            }
            Ok(Exit::Command(outcome.code()))
        }
        _ => Ok(Exit::Podkit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_begin_after_the_end_of_another() {
        for (lines, rest) in [(0, ""), (1, "c\n"), (2, "b\nc\n"), (9, "a\nb\nc\n")] {
            let log = b"a\nb\nc\n";
            assert_eq!(&log[last_lines(log, lines)..], rest.as_bytes(), "{lines}");
        }
        assert_eq!(last_lines(b"a\nb", 1), 2);
    }
}
