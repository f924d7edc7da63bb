//! The table of docs/benchmarks.md: the embedded engine beside what else runs here, in one run.
//!
//! `./scripts/bench.sh` runs it. Every measurement alternates with its neighbour, so that both see
//! the same machine; each is taken back to back and with pauses, since pauses show costs that loops
//! hide. All of it goes through the public API, and the hardening of every timed container is
//! checked after its time was taken.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails loudly and prints"
)]

mod breakdown;
mod floor;
mod growth;
mod others;
mod plot;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use podkit::{
    ConnectOptions, ExecEvent, Image, Isolation, Limit, Mount, Network, Podkit, Session,
    SessionSpec,
};
use tempfile::TempDir;

use breakdown::Memory;

const PAUSE: Duration = Duration::from_millis(150);

/// Prints one byte and exits; the least that a program can do.
const PROGRAM: &str = r#"
__attribute__((noreturn)) void _start(void) {
    static const char x = 'x';
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(1), "D"(1), "S"(&x), "d"(1) : "rcx", "r11", "memory");
    for (;;) __asm__ volatile("syscall" : "=a"(r) : "a"(231), "D"(0) : "rcx", "r11", "memory");
}
"#;

/// How often, and how long to wait before each.
#[derive(Clone, Copy)]
struct Rounds {
    count: usize,
    pause: Duration,
}

impl Rounds {
    const fn pauses(self) -> &'static str {
        if self.pause.is_zero() {
            "none"
        } else {
            "150 ms"
        }
    }
}

/// What every measurement needs.
struct Bench {
    podkit: Podkit,
    directory: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("podkit-bench")
            .tempdir_in("/var/tmp")
            .unwrap();
        fs::write(directory.path().join("first.c"), PROGRAM).unwrap();
        fs::create_dir(directory.path().join("bin")).unwrap();
        compile(
            directory.path(),
            &["-nostdlib", "-o", "bin/first", "first.c"],
        );
        let podkit = connect(directory.path()).await;
        Self { podkit, directory }
    }

    /// Another client, with nothing remembered.
    async fn connect(&self) -> Podkit {
        connect(self.directory.path()).await
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("bin/first")
    }

    fn spec(&self) -> SessionSpec {
        SessionSpec::new()
            .image("host")
            .network(Network::None)
            .auto_stop(Limit::Off)
            .mount(Mount::bind(self.directory.path().join("bin"), "/bench").read_only())
    }

    async fn open(&self, name: &str) -> Session {
        self.podkit
            .session("bench", name)
            .spec(self.spec())
            .await
            .unwrap()
    }
}

/// Builds a static program in a directory.
fn compile(directory: &Path, arguments: &[&str]) {
    let built = Command::new("cc")
        .args(["-static", "-O1"])
        .args(arguments)
        .current_dir(directory)
        .status()
        .unwrap();
    assert!(built.success(), "cc {arguments:?}");
}

async fn connect(directory: &Path) -> Podkit {
    let mut options = ConnectOptions::for_home(directory);
    options.state_dir = Some(directory.join("state"));
    options.run_dir = Some(directory.join("state/run"));
    Podkit::builder()
        .backend("embedded")
        .connect_options(options)
        .build()
        .await
        .unwrap()
}

/// One byte of output from the static program; the time of the first byte is returned.
async fn first_byte(session: &Session) -> Instant {
    let mut handle = session.exec(["/bench/first"]).stream().await.unwrap();
    let mut seen = None;
    while let Some(event) = handle.next().await {
        match event.unwrap() {
            ExecEvent::Stdout(_) => seen = seen.or_else(|| Some(Instant::now())),
            ExecEvent::Exited(result) => assert!(result.outcome.is_success(), "{result:?}"),
            _ => {}
        }
    }
    seen.unwrap()
}

/// Checks that the container which was timed is the hardened one.
async fn assert_hardened(session: &Session) {
    let out = session
        .shell("cat /proc/self/status /proc/self/uid_map; ls /sys/class/net")
        .await
        .unwrap()
        .check()
        .unwrap();
    let text = out.stdout_text();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(
        u64::from_str_radix(&field("CapEff:"), 16).unwrap() & (1 << 21),
        0,
        "SYS_ADMIN"
    );
    assert!(text.ends_with("lo\n"), "own network namespace: {text}");
    if session.info().await.unwrap().isolation == Some(Isolation::OwnRange) {
        let map = text
            .lines()
            .find(|line| line.trim_start().starts_with("0 "))
            .unwrap();
        assert!(
            !map.split_whitespace().nth(1).unwrap().eq("0"),
            "own range: {map}"
        );
    }
}

/// Sorted times of one row.
struct Times(Vec<Duration>);

impl Times {
    fn percentile(&self, percent: usize) -> f64 {
        let index = (self.0.len() * percent / 100).min(self.0.len() - 1);
        self.0[index].as_secs_f64() * 1e3
    }
}

fn sorted(mut times: Vec<Duration>) -> Times {
    times.sort_unstable();
    Times(times)
}

fn row(what: &str, rounds: Rounds, ours: &Times, beside: &str, other: Option<&Times>) {
    let pauses = rounds.pauses();
    let (median, p99) = (ours.percentile(50), ours.percentile(99));
    let compared = other.map_or_else(
        || " – | – ".to_owned(),
        |other| {
            let theirs = other.percentile(50);
            format!(
                " {beside} {theirs:.2} / {:.2} | {:.2} ",
                other.percentile(99),
                median / theirs
            )
        },
    );
    println!(
        "| {what} | {pauses} | {} | {median:.2} / {p99:.2} |{compared}|",
        rounds.count
    );
}

fn time_command(program: &Path, arguments: &[&str]) -> Duration {
    let start = Instant::now();
    let output = Command::new(program).args(arguments).output().unwrap();
    let elapsed = start.elapsed();
    assert_eq!(
        output.stdout,
        b"x",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    elapsed
}

async fn pause(rounds: Rounds) {
    if !rounds.pause.is_zero() {
        tokio::time::sleep(rounds.pause).await;
    }
}

async fn cold(bench: &Bench, rounds: Rounds, what: &str) {
    let bwrap = Path::new("/usr/bin/bwrap");
    let program = bench.program();
    let program = program.to_str().unwrap();
    let (mut ours, mut cycles, mut theirs) = (vec![], vec![], vec![]);
    for round in 0..rounds.count {
        pause(rounds).await;
        let start = Instant::now();
        let session = bench.open(&format!("cold-{round}")).await;
        ours.push(first_byte(&session).await - start);
        let before_checks = start.elapsed();
        assert_hardened(&session).await;
        let closing = Instant::now();
        session.close().await.unwrap();
        cycles.push(before_checks + closing.elapsed());
        if bwrap.exists() {
            pause(rounds).await;
            theirs.push(time_command(
                bwrap,
                &[
                    "--unshare-all",
                    "--ro-bind",
                    "/",
                    "/",
                    "--proc",
                    "/proc",
                    "--dev",
                    "/dev",
                    program,
                ],
            ));
        }
    }
    let theirs = (!theirs.is_empty()).then(|| sorted(theirs));
    row(
        &format!("open of an absent session to the first byte{what}"),
        rounds,
        &sorted(ours),
        "bwrap",
        theirs.as_ref(),
    );
    row(
        &format!("open, exec, close{what}"),
        rounds,
        &sorted(cycles),
        "bwrap",
        theirs.as_ref(),
    );
}

async fn warm(bench: &Bench, rounds: Rounds, what: &str) {
    let session = bench.open("warm").await;
    let (mut ours, mut theirs) = (vec![], vec![]);
    for round in 0..rounds.count + 5 {
        pause(rounds).await;
        let start = Instant::now();
        let out = session.exec(["/bench/first"]).await.unwrap();
        let elapsed = start.elapsed();
        assert_eq!(out.stdout, b"x");
        pause(rounds).await;
        let bare = time_command(&bench.program(), &[]);
        if round >= 5 {
            ours.push(elapsed);
            theirs.push(bare);
        }
    }
    assert_hardened(&session).await;
    session.close().await.unwrap();
    row(
        &format!("warm exec, output captured{what}"),
        rounds,
        &sorted(ours),
        "bare spawn",
        Some(&sorted(theirs)),
    );
}

/// The command line that is measured, and where the plots go: the arguments of the bench.
fn arguments() -> (PathBuf, PathBuf) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let cli = arguments.next();
    let cli = cli.unwrap_or_else(|| root.join("target/release/podkit"));
    assert!(
        cli.exists(),
        "`{}` is missing; run `./scripts/bench.sh`",
        cli.display()
    );
    let plots = arguments.next().filter(|path| path.is_dir());
    (cli, plots.unwrap_or_else(|| root.join("docs")))
}

async fn reconnect(bench: &Bench, cli: &Path, rounds: Rounds) {
    let session = bench.open("cli").await;
    let state = bench.directory.path().join("state");
    let state = state.to_str().unwrap();
    let (mut ours, mut theirs) = (vec![], vec![]);
    for _ in 0..rounds.count {
        pause(rounds).await;
        ours.push(time_command(
            cli,
            &[
                "--backend",
                "embedded",
                "--state-dir",
                state,
                "exec",
                "bench/cli",
                "--",
                "/bench/first",
            ],
        ));
        pause(rounds).await;
        theirs.push(time_command(&bench.program(), &[]));
    }
    session.close().await.unwrap();
    row(
        "CLI: start to output, session running",
        rounds,
        &sorted(ours),
        "bare spawn",
        Some(&sorted(theirs)),
    );
}

fn available_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

async fn density(bench: &Bench, count: usize) {
    let before = available_memory();
    let start = Instant::now();
    let workers = (0..2).map(|worker| async move {
        let mut sessions = Vec::new();
        for index in (worker..count).step_by(2) {
            sessions.push(bench.open(&format!("dense-{index}")).await);
        }
        sessions
    });
    let sessions: Vec<Session> = futures::future::join_all(workers)
        .await
        .into_iter()
        .flatten()
        .collect();
    let elapsed = start.elapsed();
    let each = before.saturating_sub(available_memory()) / count as u64;
    for session in sessions.iter().step_by(100) {
        assert_hardened(session).await;
    }
    let closing = Instant::now();
    for session in &sessions {
        session.close().await.unwrap();
    }
    println!(
        "| {count} idle containers, two at a time | – | 1 | {:.2} s ({} KiB each); closed in {:.2} s | – | – |",
        elapsed.as_secs_f64(),
        each / 1024,
        closing.elapsed().as_secs_f64()
    );
}

/// What of the memory of idle containers is what.
async fn memory(bench: &Bench, count: usize) {
    let before = Memory::now();
    let mut sessions = Vec::new();
    for index in 0..count {
        sessions.push(bench.open(&format!("memory-{index}")).await);
    }
    Memory::now().print_each(&before, count as u64);
    let agent = breakdown::agent(bench, &sessions[count / 2]).await;
    println!("| of it the agent, shared pages by share | {agent} |");
    for session in &sessions {
        session.close().await.unwrap();
    }
}

async fn run() {
    let (cli, plots) = arguments();
    let bench = Bench::new().await;
    assert_eq!(bench.podkit.capabilities().default_image, Image::host());
    println!("| step | pauses | n | podkit, ms: p50 / p99 | beside it, ms: p50 / p99 | ratio |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for pause in [Duration::ZERO, PAUSE] {
        let rounds = Rounds { count: 100, pause };
        cold(&bench, rounds, "").await;
        warm(&bench, rounds, "").await;
        reconnect(&bench, &cli, rounds).await;
    }
    density(&bench, 1000).await;
    // A client as large as a real application: what forks, pays by the page.
    let ballast = vec![1_u8; 1 << 30];
    let rounds = Rounds {
        count: 100,
        pause: Duration::ZERO,
    };
    cold(&bench, rounds, ", client of 1 GiB").await;
    warm(&bench, rounds, ", client of 1 GiB").await;
    assert_eq!(std::hint::black_box(&ballast).len(), 1 << 30);
    drop(ballast);
    let rounds = [Duration::ZERO, PAUSE].map(|pause| Rounds { count: 30, pause });
    let bars = others::table(&bench, &cli, &rounds).await;
    let title = "One command in a container of its own, median, logarithmic";
    plot::bars(&plots.join("benchmarks-engines.svg"), title, &bars);
    let lines = growth::table(&bench).await;
    let title = "Times beside many sessions, median, logarithmic";
    plot::lines(&plots.join("benchmarks-growth.svg"), title, &lines);
    floor::table(&bench, &rounds).await;
    breakdown::life(bench.directory.path());
    breakdown::exec(&bench).await;
    memory(&bench, 200).await;
    bench.podkit.shutdown().await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(run());
}
