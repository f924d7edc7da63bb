//! A client: one task for each of its sessions, which does something at random, and says before
//! and after on standard output what it does.

mod worker;

use std::{
    io::BufRead,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use podkit::{
    ConnectOptions, Limit, Podkit, PodkitBuilder, Prefix, SessionKey, SessionSpec, Workspace,
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use worker::Worker;

use crate::{DOCKER_IMAGE, number, random::Random, say};

/// Openings and closings that are begun at once.
const HEAVY: usize = 8;

/// Timeout of every command that is not to run out of time.
const COMMAND: Duration = Duration::from_secs(20);

/// Files of each session.
pub(crate) const FILES: [&str; 5] = [
    "/workspace/a",
    "/workspace/b/c",
    "/tmp/a",
    "/tmp/b/c",
    "/var/d",
];

/// What a client is told on its command line.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) place: PathBuf,
    pub(crate) backend: String,
    pub(crate) prefix: String,
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) generation: u64,
    pub(crate) seed: u64,
}

impl Order {
    pub(crate) fn words(&self) -> Vec<String> {
        vec![
            self.place.display().to_string(),
            self.backend.clone(),
            self.prefix.clone(),
            self.first.to_string(),
            self.count.to_string(),
            self.generation.to_string(),
            self.seed.to_string(),
        ]
    }

    fn parse(words: &[String]) -> Result<Self, String> {
        let [place, backend, prefix, first, count, generation, seed] = words else {
            return Err("a client is started by the soak test alone".to_owned());
        };
        Ok(Self {
            place: PathBuf::from(place),
            backend: backend.clone(),
            prefix: prefix.clone(),
            first: number("first", first)?,
            count: number("count", count)?,
            generation: number("generation", generation)?,
            seed: number("seed", seed)?,
        })
    }
}

/// Whether a session has a directory of the host as its workspace.
pub(crate) const fn has_workspace(session: usize) -> bool {
    session.is_multiple_of(2)
}

/// Whose session it is.
pub(crate) fn key(session: usize) -> podkit::Result<SessionKey> {
    SessionKey::new(format!("user{}", session % 7), format!("s{session}"))
}

fn spec(order: &Order, session: usize) -> SessionSpec {
    let seconds = if session % 4 == 3 { 15 } else { 60 };
    let mut spec = SessionSpec::new().auto_stop(Limit::After(Duration::from_secs(seconds)));
    if order.backend == "docker" {
        spec = spec.image(DOCKER_IMAGE);
    }
    if has_workspace(session) {
        spec = spec.workspace(Workspace::new(order.place.join("base")));
    }
    spec
}

/// A podkit with everything of its own below `place`.
async fn connect(backend: &str, place: &Path, prefix: &str) -> podkit::Result<Podkit> {
    builder(backend, place, prefix)?.build().await
}

/// The same, to be put together further.
pub(crate) fn builder(backend: &str, place: &Path, prefix: &str) -> podkit::Result<PodkitBuilder> {
    let mut options = ConnectOptions::for_home(place);
    options.state_dir = Some(place.join("state"));
    options.run_dir = Some(place.join("run"));
    let builder = Podkit::builder().backend(backend).connect_options(options);
    Ok(builder.prefix(Prefix::new(prefix)?))
}

/// What the tasks of a client are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Work,
    /// Finish what has begun, and wait.
    Gather,
    /// See that the session is open, and wait.
    Touch,
    /// Read everything, close the session, and end.
    Finish,
}

/// Runs a client on two threads.
pub(crate) fn run(client: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?
        .block_on(client)
}

/// A client process.
pub(crate) fn main(words: &[String]) -> Result<(), String> {
    let order = Order::parse(words)?;
    run(serve(order))
}

async fn serve(order: Order) -> Result<(), String> {
    let podkit = connect(&order.backend, &order.place, &order.prefix)
        .await
        .map_err(|error| format!("cannot connect to {}: {error:?}", order.backend))?;
    say("hello");
    let (phase, _) = watch::channel(Phase::Work);
    let (arrive, mut arrived) = mpsc::channel(order.count.max(1));
    let (heavy, operations) = (Arc::new(Semaphore::new(HEAVY)), Arc::default());
    let mut tasks = JoinSet::new();
    for session in order.first..order.first + order.count {
        let stream = order.generation * 1_000_000 + session as u64;
        let worker = Worker {
            podkit: podkit.clone(),
            order: order.clone(),
            session,
            handle: None,
            sequence: order.generation << 32,
            random: Random::new(order.seed, stream),
            operations: Arc::clone(&operations),
            heavy: Arc::clone(&heavy),
            phase: phase.subscribe(),
            arrive: arrive.clone(),
        };
        tasks.spawn(worker.run());
    }
    let mut commands = commands();
    // The end of the commands is the end of the parent.
    while let Some(command) = commands.recv().await {
        match command.as_str() {
            "quiet" => {
                for step in [Phase::Gather, Phase::Touch] {
                    phase.send_replace(step);
                    for _ in 0..order.count {
                        arrived.recv().await;
                    }
                }
                say("quiet");
            }
            "go" => drop(phase.send_replace(Phase::Work)),
            "finish" => {
                phase.send_replace(Phase::Finish);
                while let Some(ended) = tasks.join_next().await {
                    ended.map_err(|error| format!("a task of the client failed: {error}"))?;
                }
                podkit.shutdown().await;
                say("bye");
                return Ok(());
            }
            other => return Err(format!("the parent said `{other}`")),
        }
    }
    Ok(())
}

/// Lines of standard input.
pub(crate) fn commands() -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel(8);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receive
}
