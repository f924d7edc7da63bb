//! Where the time goes, step by step, and where the memory.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use podkit::{ExecEvent, Session};
use podkit_runtime::{ContainerSpec, Runtime, RuntimeOptions};

use super::{Bench, sorted};

const ROUNDS: usize = 100;

/// Rounds before those that count: they sweep, and find out what the machine can do.
const FIRST: usize = 5;

/// Times of each step, in the order of the steps.
#[derive(Default)]
struct Steps(BTreeMap<(usize, String), Vec<Duration>>);

impl Steps {
    fn add(&mut self, place: usize, step: &str, time: Duration) {
        self.0
            .entry((place, step.to_owned()))
            .or_default()
            .push(time);
    }

    fn print(self, title: &str) {
        println!("\n| {title} | ms: p50 / p99 |\n| --- | --- |");
        for ((_, step), times) in self.0 {
            let times = sorted(times);
            let (median, p99) = (times.percentile(50), times.percentile(99));
            println!("| {step} | {median:.3} / {p99:.3} |");
        }
    }
}

/// Making, starting and removing through the engine alone: from the beginning of each of its steps
/// to the next one's.
pub(super) fn life(directory: &Path) {
    let marks = Arc::new(Mutex::new(Vec::new()));
    let mut options = RuntimeOptions::new(directory.join("steps"), directory.join("steps/run"));
    let seen = Arc::clone(&marks);
    options.fault = Some(Arc::new(move |step: &str| {
        seen.lock().unwrap().push((step.to_owned(), Instant::now()));
        Ok(())
    }));
    let runtime = Runtime::open(options).unwrap();
    let (mut up, mut down) = (Steps::default(), Steps::default());
    let collect = |steps: &mut Steps, counts: bool, call: &dyn Fn()| {
        marks.lock().unwrap().clear();
        call();
        let mut seen = std::mem::take(&mut *marks.lock().unwrap());
        seen.push(("end".to_owned(), Instant::now()));
        for (place, pair) in seen.windows(2).enumerate().filter(|_| counts) {
            steps.add(place, &pair[0].0, pair[1].1 - pair[0].1);
        }
    };
    for round in 0..ROUNDS + FIRST {
        let (name, counts) = (format!("step-{round}"), round >= FIRST);
        collect(&mut up, counts, &|| {
            runtime.create(&ContainerSpec::new(&name)).unwrap();
            runtime.start(&name).unwrap();
        });
        collect(&mut down, counts, &|| runtime.remove(&name).unwrap());
    }
    up.print("step of an opening, from its beginning to the next");
    down.print("step of a removal, from its beginning to the next");
}

/// A warm exec, as its client sees it, and how long the agent says that the command took.
pub(super) async fn exec(bench: &Bench) {
    let session = bench.open("steps").await;
    let mut steps = Steps::default();
    for round in 0..ROUNDS + FIRST {
        let mut last = Instant::now();
        let mut place = 0;
        let mut step = |steps: &mut Steps, name: &str| {
            let now = Instant::now();
            if round >= FIRST {
                steps.add(place, name, now - last);
            }
            (last, place) = (now, place + 1);
        };
        let mut handle = session.exec(["/bench/first"]).stream().await.unwrap();
        step(
            &mut steps,
            "request, fork, rights, execution: until `Started` came",
        );
        while let Some(event) = handle.next().await {
            match event.unwrap() {
                ExecEvent::Stdout(_) => step(&mut steps, "until the output came"),
                ExecEvent::Exited(result) => {
                    step(&mut steps, "end, drain, group removed: until `Exited` came");
                    if round >= FIRST {
                        let name = "of all that, by the agent's clock from fork to end";
                        steps.add(9, name, result.usage.wall);
                    }
                }
                _ => {}
            }
        }
    }
    session.close().await.unwrap();
    steps.print("step of a warm exec");
}

/// Kinds of memory that containers take, in bytes.
pub(super) struct Memory(BTreeMap<&'static str, u64>);

const KINDS: [&str; 6] = [
    "Slab",
    "KernelStack",
    "PageTables",
    "Percpu",
    "AnonPages",
    "Shmem",
];

impl Memory {
    pub(super) fn now() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap();
        let read = |kind: &'static str| {
            let mut lines = text.lines().map(|line| line.split_once(':'));
            let value = lines.find_map(|pair| pair.filter(|(name, _)| *name == kind));
            let kibibytes = value.unwrap().1.trim().trim_end_matches(" kB");
            (kind, kibibytes.parse::<u64>().unwrap() * 1024)
        };
        Self(KINDS.into_iter().map(read).collect())
    }

    /// What has come since `before`, for each of `count`, in KiB.
    pub(super) fn print_each(&self, before: &Self, count: u64) {
        println!("\n| memory of an idle container | KiB |\n| --- | --- |");
        for (kind, now) in &self.0 {
            let more = now.saturating_sub(before.0[kind]);
            println!("| {kind} | {} |", more / count / 1024);
        }
    }
}

/// What the agent of a session holds of its own, in KiB.
pub(super) async fn agent(bench: &Bench, session: &Session) -> u64 {
    let containers = bench.podkit.containers();
    let pid = containers
        .inspect(session.container())
        .await
        .unwrap()
        .pid
        .unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
