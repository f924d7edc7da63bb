//! What becomes of the times when many sessions are there.

use std::time::{Duration, Instant};

use podkit::Session;

use super::{Bench, first_byte, plot, sorted};

/// How many sessions are there besides.
const OTHERS: [usize; 4] = [1, 10, 100, 1000];

/// Measurements of each step.
const ROUNDS: usize = 50;

const STEPS: [&str; 5] = [
    "open to the first byte",
    "warm exec",
    "new client: reconnect and exec",
    "close",
    "list",
];

/// Prints the table; the lines of the plot are its medians.
pub(super) async fn table(bench: &Bench) -> Vec<plot::Line> {
    println!(
        "\n| sessions beside it, all running | {} |",
        STEPS.join(" | ")
    );
    println!("| --- |{}", " --- |".repeat(STEPS.len()));
    let mut lines = STEPS.map(|name| plot::Line {
        name: name.to_owned(),
        points: Vec::new(),
    });
    let mut others: Vec<Session> = Vec::new();
    for count in OTHERS {
        while others.len() < count {
            others.push(bench.open(&format!("other-{}", others.len())).await);
        }
        let mut times: [Vec<Duration>; STEPS.len()] = Default::default();
        for round in 0..ROUNDS {
            for (step, time) in one(bench, round, count + 1).await.into_iter().enumerate() {
                times[step].push(time);
            }
        }
        let mut cells = Vec::new();
        for (line, times) in lines.iter_mut().zip(times) {
            let times = sorted(times);
            let (median, p99) = (times.percentile(50), times.percentile(99));
            cells.push(format!("{median:.2} / {p99:.2}"));
            line.points.push((count, median));
        }
        println!("| {count} | {} |", cells.join(" | "));
    }
    for session in &others {
        session.close().await.unwrap();
    }
    lines.into()
}

/// One measurement of each step.
async fn one(bench: &Bench, round: usize, alive: usize) -> [Duration; STEPS.len()] {
    let name = format!("grown-{round}");
    let start = Instant::now();
    let session = bench.open(&name).await;
    let open = first_byte(&session).await - start;
    let start = Instant::now();
    first_byte(&session).await;
    let warm = start.elapsed();
    let start = Instant::now();
    let client = bench.connect().await;
    let again = client.session("bench", &name).await.unwrap();
    first_byte(&again).await;
    let reconnect = start.elapsed();
    client.shutdown().await;
    let start = Instant::now();
    let listed = bench.podkit.list().await.unwrap();
    let list = start.elapsed();
    assert_eq!(listed.len(), alive);
    let start = Instant::now();
    session.close().await.unwrap();
    [open, warm, reconnect, start.elapsed(), list]
}
