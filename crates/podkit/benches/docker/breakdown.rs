//! Where the time goes, step by step, and that the memory of a client stays what it is.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use podkit::{ContainerId, ExecEvent, Session, SessionKey, container::ContainerRequest};

use super::{
    Bench, PAUSE, rows, spec,
    table::{Pairs, Rounds, Times, milliseconds, pairs},
};

const ROUNDS: Rounds = Rounds {
    count: 100,
    pause: Duration::ZERO,
};

/// One static program, as `scripts/engines.sh` makes it.
const STATIC_IMAGE: &str = "podkit-test/static:1";

fn cell(times: &Times) -> String {
    let (median, p99) = (times.percentile(50), times.percentile(99));
    format!("{median:.2} / {p99:.2}")
}

/// An opening and a removal by the calls that they are made of, beside those of the Engine API.
pub(super) async fn life(bench: &Bench) {
    let containers = bench.podkit.containers();
    let ours = async |round| {
        let name = format!("step-{round}");
        let key = SessionKey::new("bench", name.as_str()).unwrap();
        let id = ContainerId::new(key.container_name(&bench.prefix)).unwrap();
        let mut request = ContainerRequest::new(id.clone(), spec());
        let labels = [
            ("podkit.prefix", bench.prefix.as_str()),
            ("podkit.user", "bench"),
            ("podkit.session", &name),
        ];
        request.labels = BTreeMap::from(labels.map(|(name, value)| (name.into(), value.into())));
        let order = containers.resolve(&request).unwrap();
        let mut clock = Clock::new();
        assert!(containers.find(&id).await.unwrap().is_none());
        let look = clock.lap();
        containers.create(&order).await.unwrap();
        let create = clock.lap();
        containers.start(&id).await.unwrap();
        let start = clock.lap();
        let session = bench.podkit.open(&key).await.unwrap();
        let connect = clock.lap();
        assert!(containers.find(&id).await.unwrap().is_some());
        let look_again = clock.lap();
        containers.remove(&id).await.unwrap();
        let remove = clock.lap();
        assert!(!session.close().await.unwrap().existed);
        [look, create, start, connect, look_again, remove]
    };
    let theirs = async |round| {
        let nothing = Duration::ZERO;
        let mut clock = Clock::new();
        let id = bench.bare.create_own(&format!("step-{round}")).await;
        let create = clock.lap();
        bench.bare.start(&id).await;
        let start = clock.lap();
        bench.bare.remove(&id).await;
        [nothing, create, start, nothing, nothing, clock.lap()]
    };
    let steps = pairs(ROUNDS, ours, theirs).await;
    let names = [
        ("look-up of what is not there", false),
        ("create", true),
        ("start", true),
        ("look-up of what runs, its agent's answer", false),
        ("look-up before a removal", false),
        ("removal of what runs, without telling its agent", true),
    ];
    println!("\n| call of an opening and of a removal | podkit, ms: p50 / p99 | Engine API |");
    println!("| --- | --- | --- |");
    for ((name, beside), step) in names.into_iter().zip(&steps) {
        let theirs = if beside {
            cell(&step.theirs())
        } else {
            "–".to_owned()
        };
        println!("| {name} | {} | {theirs} |", cell(&step.ours()));
    }
}

/// Time since the last look at it.
struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self) -> Duration {
        let last = std::mem::replace(&mut self.0, Instant::now());
        self.0 - last
    }
}

/// A warm exec as its client sees it: until it has begun, until its output came, until its end, and
/// how long its agent says that it took.
async fn exec_steps(session: &Session, command: &[&str]) -> [Duration; 4] {
    let mut clock = Clock::new();
    let mut handle = session
        .exec(command.iter().copied())
        .stream()
        .await
        .unwrap();
    let begun = clock.lap();
    let (mut output, mut wall) = (Duration::ZERO, Duration::ZERO);
    while let Some(event) = handle.next().await {
        match event.unwrap() {
            ExecEvent::Stdout(bytes) => {
                assert_eq!(&bytes[..], b"hi\n");
                output = clock.lap();
            }
            ExecEvent::Exited(result) => {
                assert!(result.outcome.is_success(), "{result:?}");
                wall = result.usage.wall;
            }
            _ => {}
        }
    }
    [begun, output, clock.lap(), wall]
}

/// The steps of a warm exec, and beside their sum the same program started on the host.
async fn exec_column(session: &Session, command: &[&str], on_host: &[&str]) -> [Pairs; 5] {
    let ours = async |_| {
        let [begun, output, end, wall] = exec_steps(session, command).await;
        [begun + output + end, begun, output, end, wall]
    };
    let theirs = async |_| {
        let elapsed = rows::time_program(Command::new(on_host[0]).args(&on_host[1..]));
        let nothing = Duration::ZERO;
        [elapsed, nothing, nothing, nothing, nothing]
    };
    pairs(ROUNDS, ours, theirs).await
}

/// Where the time of a warm exec goes, for a program that loads libraries and for one that is static.
pub(super) async fn exec(bench: &Bench) {
    let session = bench.open("steps").await;
    let dynamic = exec_column(&session, &["echo", "hi"], &["echo", "hi"]).await;
    rows::close(&session).await;
    let opening = bench.podkit.session("bench", "static");
    let session = opening.spec(spec().image(STATIC_IMAGE)).await.unwrap();
    let (inside, on_host) = (["/busybox", "echo", "hi"], ["busybox", "echo", "hi"]);
    let one = exec_column(&session, &inside, &on_host).await;
    rows::close(&session).await;
    println!("\n| step of a warm exec, ms: p50 / p99 | `echo` of Debian | static `echo` |");
    println!("| --- | --- | --- |");
    let names = [
        "all of it",
        "request, forks, rights, filter, execution: until `Started` came",
        "until the output came",
        "its end, a look for what it left: until `Exited` came",
        "of all that, by the agent's clock from fork to end",
    ];
    for ((name, dynamic), one) in names.into_iter().zip(&dynamic).zip(&one) {
        println!(
            "| {name} | {} | {} |",
            cell(&dynamic.ours()),
            cell(&one.ours())
        );
    }
    let (dynamic, one) = (cell(&dynamic[0].theirs()), cell(&one[0].theirs()));
    println!(
        "| beside it: the same program started on the host, output captured | {dynamic} | {one} |"
    );
}

/// What a warm exec takes after different things, beside the same program started on the host: what
/// slows both is the machine's. The kinds take turns by blocks of rounds.
pub(super) async fn exec_after(bench: &Bench) {
    const BLOCKS: usize = 4;
    let kinds = [
        ("the one before it, at once", Duration::ZERO, false),
        ("the one before it, 150 ms later", PAUSE, false),
        ("an exec by the Engine API, at once", Duration::ZERO, true),
        ("an exec by the Engine API, 150 ms later", PAUSE, true),
    ];
    let session = bench.open("after").await;
    let id = bench.bare.open("after").await;
    let mut times = kinds.map(|_| Pairs::default());
    for _ in 0..BLOCKS {
        for ((_, pause, engine), times) in kinds.into_iter().zip(&mut times) {
            let before = async || {
                if engine {
                    rows::bare_echo(bench, &id).await;
                }
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            };
            let ours = async |_| {
                before().await;
                let began = Instant::now();
                rows::echo(&session).await;
                [began.elapsed()]
            };
            let theirs = async |_| {
                before().await;
                [rows::time_program(Command::new("echo").arg("hi"))]
            };
            let rounds = Rounds {
                count: ROUNDS.count / BLOCKS,
                pause: Duration::ZERO,
            };
            let [block] = pairs(rounds, ours, theirs).await;
            times.extend(block);
        }
    }
    rows::close(&session).await;
    bench.bare.remove(&id).await;
    println!("\n| a warm exec after | podkit, ms: p50 / p99 | the same program on the host |");
    println!("| --- | --- | --- |");
    for ((name, ..), times) in kinds.into_iter().zip(&times) {
        println!(
            "| {name} | {} | {} |",
            cell(&times.ours()),
            cell(&times.theirs())
        );
    }
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

/// The memory of a client after the first commands, and after 1000 more.
pub(super) async fn memory(bench: &Bench) {
    let session = bench.open("memory").await;
    let many = async |count: usize| {
        let mut times = Vec::new();
        for _ in 0..count {
            let began = Instant::now();
            session.exec(["true"]).await.unwrap().check().unwrap();
            times.push(milliseconds(began.elapsed()));
        }
        Times::new(times).percentile(50)
    };
    many(200).await;
    let before = resident_kib();
    let median = many(1000).await;
    let after = resident_kib();
    rows::close(&session).await;
    println!(
        "\nA client's resident memory: {before} KiB before and {after} KiB after 1000 warm execs of {median:.2} ms."
    );
}
