//! The Docker table of docs/benchmarks.md: podkit's sessions beside the bare Engine API and the
//! docker command line, in one run.
//!
//! `./scripts/bench.sh` runs it. Every measurement alternates with its neighbour, so that both see
//! the same machine; each is taken back to back and with pauses. All of podkit's goes through its
//! public API. Whatever happens, the containers of the run are removed at its end.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench fails loudly and prints"
)]

mod bare;
mod breakdown;
mod client;
mod rows;
mod table;
mod trees;

use std::{panic::AssertUnwindSafe, path::PathBuf, process::ExitCode, time::Duration};

use bare::Bare;
use futures::FutureExt;
use podkit::{Limit, Podkit, Prefix, Session, SessionSpec};
use table::Rounds;
use tokio::signal::unix::{SignalKind, signal};

const PAUSE: Duration = Duration::from_millis(150);

/// Debian, as `scripts/engines.sh` makes it.
const IMAGE: &str = "podkit-test/debian:1";

/// What every measurement needs.
struct Bench {
    podkit: Podkit,
    bare: Bare,
    prefix: Prefix,
}

fn spec() -> SessionSpec {
    SessionSpec::new().image(IMAGE).auto_stop(Limit::Off)
}

async fn connect(prefix: &Prefix) -> podkit::Result<Podkit> {
    Podkit::builder()
        .backend("docker")
        .prefix(prefix.clone())
        .default_spec(spec())
        .build()
        .await
}

impl Bench {
    /// # Errors
    /// Why there is nothing to measure here.
    async fn new() -> Result<Self, String> {
        let prefix = Prefix::new(format!("bench{}", std::process::id())).unwrap();
        let podkit = connect(&prefix).await.map_err(|error| error.to_string())?;
        let bare = Bare::new(prefix.as_str());
        println!("{}\n", bare.describe().await?);
        Ok(Self {
            podkit,
            bare,
            prefix,
        })
    }

    async fn open(&self, name: &str) -> Session {
        self.podkit.session("bench", name).await.unwrap()
    }

    /// Both kinds of containers have the same limits, rights, networks and log; the first session
    /// also makes the agent's volume and podkit's network, once for an engine.
    async fn assert_same_settings(&self) {
        let session = self.open("first").await;
        let id = self.bare.open("first").await;
        let ours = self.bare.settings_of(session.container().as_str()).await;
        let theirs = self.bare.settings_of(&id).await;
        assert_eq!(ours, theirs, "podkit's container and the bare one");
        rows::close(&session).await;
        self.bare.remove(&id).await;
    }

    async fn measure(&self, cli: Option<PathBuf>, copies_only: bool) {
        self.assert_same_settings().await;
        table::head();
        if copies_only {
            return trees::trees(self).await;
        }
        for pause in [Duration::ZERO, PAUSE] {
            let rounds = Rounds { count: 100, pause };
            rows::warm(self, rounds).await;
            rows::life(self, rounds).await;
            rows::reconnect(self, rounds, cli.as_deref()).await;
            rows::parallel(self, Rounds { count: 30, pause }).await;
        }
        trees::trees(self).await;
        breakdown::exec_after(self).await;
        breakdown::exec(self).await;
        breakdown::life(self).await;
        breakdown::memory(self).await;
    }

    /// Removes what is left of this run, sessions by podkit, and says what could not be.
    async fn clean(&self) -> Vec<String> {
        let mut failed = Vec::new();
        match self.podkit.list().await {
            Ok(sessions) => {
                for session in sessions {
                    match self.podkit.close(&session.key).await {
                        Ok(report) => failed.extend(report.failed.iter().map(ToString::to_string)),
                        Err(error) => failed.push(error.to_string()),
                    }
                }
            }
            Err(error) => failed.push(error.to_string()),
        }
        self.podkit.shutdown().await;
        failed.extend(self.bare.remove_all().await);
        failed
    }
}

/// Until somebody ends the run from outside.
async fn interrupted() {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let mut interrupt = signal(SignalKind::interrupt()).unwrap();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn run(cli: Option<PathBuf>, copies_only: bool) -> ExitCode {
    let bench = match Bench::new().await {
        Ok(bench) => bench,
        Err(why) => {
            eprintln!("no table of Docker: {why}");
            return ExitCode::SUCCESS;
        }
    };
    let measured = tokio::select! {
        result = AssertUnwindSafe(bench.measure(cli, copies_only)).catch_unwind() => result.is_ok(),
        () = interrupted() => false,
    };
    let failed = bench.clean().await;
    for what in &failed {
        eprintln!("not removed: {what}");
    }
    if measured && failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == client::MODE) {
        client::run(&words[1..]);
        return ExitCode::SUCCESS;
    }
    // The release build of `podkit`, for the row that is about it.
    let cli = words.first().map(PathBuf::from).filter(|cli| cli.exists());
    let copies_only = words.iter().any(|word| word == "copies");
    if cli.is_none() && !copies_only {
        eprintln!("no row of `podkit exec`: name its release build as first argument");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(run(cli, copies_only))
}
