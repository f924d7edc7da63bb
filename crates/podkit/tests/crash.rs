//! A client that is killed at any step leaves nothing that a collection does not remove.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use podkit::{GcOptions, SessionKey, backend::connect::connect};
use support::{
    Place, block_on, cut_off,
    host::Snapshot,
    worker::{Worker, main_if_asked},
};

/// Another process's session, which nothing may touch.
struct Bystander {
    worker: Worker,
    token: String,
}

impl Bystander {
    fn new(place: &Place) -> Self {
        let mut worker = Worker::start(place.path());
        let token = worker.ask("open bystander 0");
        assert!(token.starts_with("ok "), "{token}");
        Self { worker, token }
    }

    fn assert_untouched(&mut self, about: &str) {
        assert_eq!(self.worker.ask("open bystander 0"), self.token, "{about}");
    }
}

/// Collects as a later process would: a made container that nobody started yet is spared for ten
/// minutes, so its session is closed by name.
fn collect(place: &Place, session: &str) {
    block_on(async {
        let podkit = place.podkit().await;
        let report = podkit.gc(GcOptions::new()).await.unwrap();
        assert!(
            report.failed.is_empty() && report.swept.failed.is_empty(),
            "{report:?}"
        );
        podkit
            .close(&SessionKey::new("u", session).unwrap())
            .await
            .unwrap();
        podkit.shutdown().await;
        let backend = connect("embedded", &place.options()).await.unwrap();
        let report = backend.sweep(Duration::ZERO).await.unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
    });
}

/// How long a client takes to open a session, from the command to the answer.
fn create_time(place: &Place) -> Duration {
    let mut worker = Worker::start(place.path());
    let mut times: Vec<_> = (0..9)
        .map(|_| {
            let start = Instant::now();
            assert!(worker.ask("open timed 0").starts_with("ok "));
            let elapsed = start.elapsed();
            assert!(worker.ask("close timed 0").starts_with("ok "));
            elapsed
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Waits to the microsecond, as a timer cannot.
fn spin(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}

const ROUNDS: u32 = 300;

fn client_killed_at_random_leaves_nothing() {
    let place = Place::new();
    let mut bystander = Bystander::new(&place);
    let longest = create_time(&place).mul_f64(1.2);
    collect(&place, "victim");
    let before = Snapshot::take(place.path());
    for round in 0..ROUNDS {
        let mut worker = Worker::start(place.path());
        worker.tell("open victim 0");
        // Evenly over the whole time, in an order that visits neighbours far apart.
        spin(longest * (round * 7 % ROUNDS) / ROUNDS);
        worker.kill();
        // The next one to open the session succeeds, whatever it finds.
        if round % 3 == 0 {
            let mut next = Worker::start(place.path());
            let answer = next.ask("open victim 0");
            assert!(answer.starts_with("ok "), "round {round}: {answer}");
        }
        if round % 10 == 9 {
            collect(&place, "victim");
            before.assert_same(place.path(), &format!("round {round}"));
            bystander.assert_untouched(&format!("round {round}"));
        }
    }
}

fn client_killed_in_the_middle_of_everything_leaves_nothing() {
    let place = Place::new();
    let mut bystander = Bystander::new(&place);
    let before = Snapshot::take(place.path());
    cut_off::killed_in_the_middle(&place, 20);
    collect(&place, cut_off::SESSION);
    before.assert_same(place.path(), "at the end");
    bystander.assert_untouched("at the end");
}

fn main() -> ExitCode {
    if let Some(code) = main_if_asked(|_, _| None) {
        return code;
    }
    support::run(&[
        (
            "client_killed_at_random_leaves_nothing",
            client_killed_at_random_leaves_nothing,
        ),
        (
            "client_killed_in_the_middle_of_everything_leaves_nothing",
            client_killed_in_the_middle_of_everything_leaves_nothing,
        ),
    ])
}
