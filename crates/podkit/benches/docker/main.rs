//! The Docker table of docs/benchmarks.md: podkit's sessions beside the bare Engine API and the
//! docker command line, in one run.
//!
//! `./scripts/bench.sh` runs it. Every measurement alternates with its neighbour, so that both see
//! the same machine; each is taken back to back and with pauses. All of podkit's goes through its
//! public API.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench fails loudly and prints"
)]

mod bare;
mod table;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use bare::Bare;
use podkit::{ExecEvent, Limit, Podkit, Prefix, Session, SessionKey, SessionSpec};
use table::{Rounds, row};

const PAUSE: Duration = Duration::from_millis(150);

/// Debian, as `scripts/engines.sh` makes it.
const IMAGE: &str = "podkit-test/debian:1";

/// Containers beside the one that is come back to.
const OTHERS: usize = 200;

/// Sessions that are opened in parallel.
const PARALLEL: usize = 8;

/// What every measurement needs.
struct Bench {
    podkit: Podkit,
    bare: Bare,
    prefix: Prefix,
}

impl Bench {
    async fn new() -> Option<Self> {
        let prefix = Prefix::new(format!("bench{}", std::process::id())).unwrap();
        let spec = SessionSpec::new().image(IMAGE).auto_stop(Limit::Off);
        let podkit = Podkit::builder()
            .backend("docker")
            .prefix(prefix.clone())
            .default_spec(spec)
            .build()
            .await;
        match podkit {
            Ok(podkit) => Some(Self {
                podkit,
                bare: Bare::new(&prefix),
                prefix,
            }),
            Err(error) => {
                eprintln!("no table of Docker: {error}");
                None
            }
        }
    }

    async fn open(&self, name: &str) -> Session {
        self.podkit.session("bench", name).await.unwrap()
    }
}

/// Opening and closing, beside the bare requests for a container with the same settings.
async fn life(bench: &Bench, rounds: Rounds) {
    let (mut open, mut close) = (Vec::new(), Vec::new());
    let (mut bare_open, mut bare_close) = (Vec::new(), Vec::new());
    for round in 0..rounds.count {
        rounds.pause().await;
        let began = Instant::now();
        let session = bench.open(&format!("life-{round}")).await;
        open.push(began.elapsed());
        session.exec(["true"]).await.unwrap().check().unwrap();
        let began = Instant::now();
        let report = session.close().await.unwrap();
        close.push(began.elapsed());
        assert!(report.failed.is_empty(), "{report:?}");

        rounds.pause().await;
        let began = Instant::now();
        let id = bench.bare.start("life").await;
        bare_open.push(began.elapsed());
        bench.bare.exec(&id).await;
        let began = Instant::now();
        bench.bare.remove(&id).await;
        bare_close.push(began.elapsed());
    }
    row(
        "open of an absent session",
        rounds,
        &open,
        "create + start",
        &bare_open,
        "≤ 1.05 ×",
    );
    row(
        "close",
        rounds,
        &close,
        "forced remove",
        &bare_close,
        "≤ 1.1 ×",
    );
}

async fn warm(bench: &Bench, rounds: Rounds) {
    let session = bench.open("warm").await;
    let id = bench.bare.start("warm").await;
    let (mut ours, mut theirs, mut cli) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds.count {
        rounds.pause().await;
        let began = Instant::now();
        let out = session.exec(["echo", "hi"]).await.unwrap();
        ours.push(began.elapsed());
        assert_eq!(out.stdout, b"hi\n");
        rounds.pause().await;
        let began = Instant::now();
        let out = bench.bare.exec(&id).await;
        theirs.push(began.elapsed());
        assert_eq!(out, b"hi\n");
        rounds.pause().await;
        cli.push(docker_exec(&id));
    }
    session.close().await.unwrap();
    bench.bare.remove(&id).await;
    row(
        "warm exec, output captured",
        rounds,
        &ours,
        "Engine API",
        &theirs,
        "≤ 1.5 ms",
    );
    row(
        "warm exec, output captured",
        rounds,
        &ours,
        "docker exec",
        &cli,
        "≤ 1.5 ms",
    );
}

fn docker_exec(id: &str) -> Duration {
    let began = Instant::now();
    let output = Command::new("docker")
        .args(["exec", id, "echo", "hi"])
        .output();
    let elapsed = began.elapsed();
    assert_eq!(output.unwrap().stdout, b"hi\n");
    elapsed
}

async fn parallel(bench: &Bench, rounds: Rounds) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds.count {
        rounds.pause().await;
        let began = Instant::now();
        let sessions = (0..PARALLEL).map(|number| async move {
            let session = bench.open(&format!("parallel-{round}-{number}")).await;
            session.exec(["true"]).await.unwrap().check().unwrap();
            session
        });
        let sessions = futures::future::join_all(sessions).await;
        ours.push(began.elapsed());
        let closes = sessions.iter().map(|session| session.close());
        futures::future::join_all(closes).await;

        rounds.pause().await;
        let began = Instant::now();
        let containers = (0..PARALLEL).map(|number| async move {
            let id = bench.bare.start(&format!("parallel-{number}")).await;
            bench.bare.exec(&id).await;
            id
        });
        let ids = futures::future::join_all(containers).await;
        theirs.push(began.elapsed());
        let removes = ids.iter().map(|id| bench.bare.remove(id));
        futures::future::join_all(removes).await;
    }
    row(
        "8 sessions in parallel: open and exec",
        rounds,
        &ours,
        "the same by the Engine API",
        &theirs,
        "≤ 1.1 ×",
    );
}

/// A new process finds a session that runs, beside many others, and runs a command in it.
async fn reconnect(bench: &Bench, rounds: Rounds) {
    let cli = std::env::args_os().nth(1).map(PathBuf::from);
    let Some(cli) = cli.filter(|cli| cli.exists()) else {
        eprintln!("no row of reconnecting: name the release build of `podkit` as first argument");
        return;
    };
    let labels = |number: usize| {
        BTreeMap::from([
            ("podkit.prefix".to_owned(), bench.prefix.to_string()),
            ("podkit.user".to_owned(), "bench".to_owned()),
            ("podkit.session".to_owned(), format!("other-{number}")),
        ])
    };
    let mut others = Vec::new();
    for number in 0..OTHERS {
        let key = SessionKey::new("bench", format!("other-{number}")).unwrap();
        let name = key.container_name(&bench.prefix);
        others.push(bench.bare.create(&name, labels(number)).await);
    }
    let session = bench.open("again").await;
    let id = session.container().to_string();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds.count {
        rounds.pause().await;
        let began = Instant::now();
        let output = Command::new(&cli)
            .args(["--backend", "docker", "--prefix", bench.prefix.as_str()])
            .args(["exec", "-n", "bench/again", "--", "echo", "hi"])
            .output()
            .unwrap();
        ours.push(began.elapsed());
        assert_eq!(output.stdout, b"hi\n", "{output:?}");
        rounds.pause().await;
        theirs.push(docker_exec(&id));
    }
    session.close().await.unwrap();
    for id in others {
        bench.bare.remove(&id).await;
    }
    row(
        "new process: reconnect and exec, 200 others there",
        rounds,
        &ours,
        "docker exec",
        &theirs,
        "≤ 15 ms",
    );
}

/// Where the time of a warm exec goes, beside what the same program takes on the host.
async fn steps(bench: &Bench) {
    let session = bench.open("steps").await;
    let mut columns: [Vec<f64>; 5] = Default::default();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    for round in 0..120 {
        let began = Instant::now();
        let mut handle = session.exec(["echo", "hi"]).stream().await.unwrap();
        let (mut started, mut output, mut wall) = (began, began, Duration::ZERO);
        while let Some(event) = handle.next().await {
            match event.unwrap() {
                ExecEvent::Started(_) => started = Instant::now(),
                ExecEvent::Stdout(_) => output = Instant::now(),
                ExecEvent::Exited(result) => wall = result.usage.wall,
                _ => {}
            }
        }
        let end = Instant::now();
        let host = Instant::now();
        let printed = Command::new("echo").arg("hi").output().unwrap();
        let host = host.elapsed();
        assert_eq!(printed.stdout, b"hi\n");
        if round >= 20 {
            columns[0].push(ms(started - began));
            columns[1].push(ms(output - started));
            columns[2].push(ms(end - output));
            columns[3].push(ms(wall));
            columns[4].push(ms(host));
        }
    }
    session.close().await.unwrap();
    println!("\n| step of a warm exec | ms: p50 |\n| --- | --- |");
    let names = [
        "request, supervisor, fork, rights, filter, execution: until `Started` came",
        "the program, until its output came",
        "its end, a look for what it left, until `Exited` came",
        "of all that, by the agent's clock from fork to end",
        "the same program started on the host, output captured",
    ];
    for (name, mut times) in names.into_iter().zip(columns) {
        times.sort_by(f64::total_cmp);
        println!("| {name} | {:.2} |", times[times.len() / 2]);
    }
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

async fn memory(bench: &Bench) {
    let session = bench.open("memory").await;
    for _ in 0..200 {
        session.exec(["true"]).await.unwrap();
    }
    let before = resident_kib();
    for _ in 0..1000 {
        session.exec(["true"]).await.unwrap();
    }
    let after = resident_kib();
    session.close().await.unwrap();
    println!(
        "\nA client's resident memory before and after 1000 warm execs: {before} KiB, {after} KiB."
    );
}

async fn run() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    // The agent's volume and podkit's network are made once for an engine.
    bench.open("first").await.close().await.unwrap();
    println!(
        "| step | pauses | n | podkit, ms: p50 / p99 | beside it, ms: p50 / p99 | ratio (95 %) | goal |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for pause in [Duration::ZERO, PAUSE] {
        let rounds = Rounds { count: 100, pause };
        warm(&bench, rounds).await;
        life(&bench, rounds).await;
        reconnect(&bench, rounds).await;
        parallel(&bench, Rounds { count: 30, pause }).await;
    }
    steps(&bench).await;
    memory(&bench).await;
    bench.podkit.shutdown().await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(run());
}
