//! One command of a simulated container, from its request to its last message.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use podkit_agent::{
    ExecSpec, ExecStatus, ExecUsage, Failure, FailureKind, MemorySource, Output, Reply,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    agent::{Channel, Ends, Event, Input},
    engine::Container,
    files::User,
    life::Life,
    place, programs,
};

/// Signals that end no command by default: CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH. The
/// four that stop one do nothing here.
const HARMLESS_SIGNALS: &[i32] = &[17, 18, 19, 20, 21, 22, 23, 28];

/// A command that runs.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) container: Arc<Container>,
    pub(super) env: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) cwd: Vec<u8>,
    input: Option<Input>,
    output: Sender,
}

/// What a command says, up to its limits.
#[derive(Debug)]
struct Sender {
    channel: Arc<Channel>,
    merge: bool,
    limit: Option<u64>,
    stdout: Sent,
    stderr: Sent,
}

#[derive(Debug, Default)]
struct Sent {
    bytes: u64,
    truncated: bool,
}

impl Process {
    /// Standard output.
    pub(super) async fn say(&mut self, text: &[u8]) {
        self.output.send(Output::Stdout, text).await;
    }

    /// Standard error.
    pub(super) async fn complain(&mut self, text: &str) {
        self.output.send(Output::Stderr, text.as_bytes()).await;
    }

    /// Standard input; `None` at its end.
    pub(super) async fn listen(&mut self) -> Option<Vec<u8>> {
        match &mut self.input {
            Some(input) => input.next().await,
            None => None,
        }
    }
}

impl Sender {
    async fn send(&mut self, output: Output, bytes: &[u8]) {
        let output = if self.merge { Output::Stdout } else { output };
        let sent = match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        };
        let left = self.limit.map(|limit| limit.saturating_sub(sent.bytes));
        let left = left
            .and_then(|left| usize::try_from(left).ok())
            .unwrap_or(usize::MAX);
        let kept = bytes.get(..left).unwrap_or(bytes);
        sent.truncated |= kept.len() < bytes.len();
        sent.bytes += kept.len() as u64;
        self.channel.data(output, kept).await;
    }
}

/// Who a user is: `root`, `nobody`, a number, and the same for a group after a colon.
///
/// # Errors
/// `InvalidInput` for everybody else: nobody else is known here.
pub(super) fn user(container: &Container, asked: &[u8]) -> Result<User, Failure> {
    let asked = if asked.is_empty() {
        container.spec.user.as_bytes()
    } else {
        asked
    };
    let text = String::from_utf8_lossy(asked);
    let number = |name: &str| match name {
        "root" => Some(0),
        "nobody" | "nogroup" => Some(65534),
        name => name.parse().ok().filter(|id| *id != u32::MAX),
    };
    let (name, group) = text.split_once(':').unwrap_or((&text, &text));
    match (number(name), number(group)) {
        (Some(uid), Some(gid)) => Ok(User { uid, gid }),
        (None, _) => Err(invalid(format!("there is no user `{name}`"))),
        (_, None) => Err(invalid(format!("there is no group `{group}`"))),
    }
}

fn invalid(message: String) -> Failure {
    Failure {
        kind: FailureKind::InvalidInput,
        errno: 0,
        message,
    }
}

/// Runs a command; what comes back is the last message of its stream.
pub(super) async fn run(
    container: &Arc<Container>,
    life: &Life,
    ends: Ends,
    spec: ExecSpec,
) -> Reply {
    let begun = Instant::now();
    let Ends {
        channel,
        input,
        mut events,
    } = ends;
    let (env, cwd) = match prepare(container, &spec) {
        Ok(prepared) => prepared,
        Err(failure) => return Reply::Failed(failure),
    };
    channel.reply(&Reply::Started(life.next_pid()));
    let mut process = Process {
        container: Arc::clone(container),
        env,
        cwd,
        input: spec.stdin.then_some(input),
        output: Sender {
            channel,
            merge: spec.merge_output,
            limit: spec.output_limit_bytes,
            stdout: Sent::default(),
            stderr: Sent::default(),
        },
    };
    let deadline = spec
        .timeout_ms
        .and_then(|ms| begun.checked_add(Duration::from_millis(ms)));
    let status = tokio::select! {
        biased;
        _ = life.stopping() => ExecStatus::SessionClosed,
        signal = killed(&mut events, spec.detached) => ExecStatus::Signaled(signal),
        code = programs::run(&mut process, &spec.argv) => ExecStatus::Exited(code),
        () = reached(deadline) => ExecStatus::TimedOut,
    };
    life.thawed().await;
    let wall_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    Reply::Exited {
        status,
        stdout_truncated: process.output.stdout.truncated,
        stderr_truncated: process.output.stderr.truncated,
        tree_survives: false,
        usage: ExecUsage {
            wall_us,
            user_us: 0,
            system_us: 0,
            peak_memory_bytes: 0,
            peak_memory_source: MemorySource::LargestProcess,
        },
    }
}

type Prepared = (BTreeMap<Vec<u8>, Vec<u8>>, Vec<u8>);

/// Checks all that can keep a command from beginning.
fn prepare(container: &Container, spec: &ExecSpec) -> Result<Prepared, Failure> {
    if spec.argv.first().is_none_or(Vec::is_empty) {
        return Err(invalid("the command names no program".to_owned()));
    }
    if spec
        .argv
        .iter()
        .chain(&spec.env)
        .any(|word| word.contains(&0))
    {
        return Err(invalid(
            "an argument or the environment contains a NUL byte".to_owned(),
        ));
    }
    let user = user(container, &spec.user)?;
    let session = container.spec.cwd.as_bytes();
    let cwd = if spec.cwd.is_empty() {
        session
    } else {
        &spec.cwd
    };
    let place = place::place(session, cwd)?;
    container.tree.lock().check_cwd(&place)?;
    let home = if user.uid == 0 { "/root" } else { "/" };
    let base = [("HOME", home), ("PATH", "/usr/local/bin:/usr/bin:/bin")];
    let session = container
        .spec
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let mut env: BTreeMap<Vec<u8>, Vec<u8>> = base
        .into_iter()
        .chain(session)
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect();
    for entry in &spec.env {
        let Some(equals) = entry
            .iter()
            .position(|byte| *byte == b'=')
            .filter(|at| *at > 0)
        else {
            return Err(invalid(
                "an entry of the environment is not `KEY=VALUE`".to_owned(),
            ));
        };
        let (name, value) = entry.split_at(equals);
        env.insert(name.to_vec(), value.get(1..).unwrap_or_default().to_vec());
    }
    Ok((env, place.absolute()))
}

/// Waits for what ends a command from outside.
async fn killed(events: &mut mpsc::UnboundedReceiver<Event>, detached: bool) -> u8 {
    const KILL: u8 = 9;
    while let Some(event) = events.recv().await {
        match event {
            Event::Cancelled => return KILL,
            Event::Lost if !detached => return KILL,
            Event::Lost => {}
            Event::Signal(signal) => match u8::try_from(signal) {
                Ok(number @ 1..=64) if !HARMLESS_SIGNALS.contains(&signal) => return number,
                _ => {}
            },
        }
    }
    std::future::pending().await
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
