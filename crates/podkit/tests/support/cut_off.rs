//! A client that is killed in the middle of everything that it can do.

use std::time::{Duration, Instant};

use podkit::{Session, conformance::DEEDS};

use super::{Place, block_on, entries, worker::Worker};

/// The session in which everything is done.
pub const SESSION: &str = "victim";

/// What deeds that were cut off may leave in the workspace.
const LEFT: &str = "cd /workspace; ls -A | grep -v -x -e read -e archived -e appended -e down -e up \
                    -e extracted -e watched -e name -e other; ls -A extracted; \
                    ls -A up | grep -v -x first; true";

/// Kills clients that do everything at once: the first one when all is under way, the others while it
/// is being begun. Each time nothing goes on but what is nobody's, and no file is there in half.
pub fn killed_in_the_middle(place: &Place, rounds: u32) {
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        let mut worker = Worker::start(place.path());
        let began = Instant::now();
        for deed in DEEDS {
            worker.tell(&format!("do {} {SESSION}", deed.name));
        }
        if round == 0 {
            for deed in DEEDS {
                let answer = worker.answer();
                assert!(answer.starts_with("ok"), "{}: {answer}", deed.name);
            }
            longest = began.elapsed();
        }
        let until = longest * (round * 7 % rounds) / rounds;
        while began.elapsed() < until {
            std::hint::spin_loop();
        }
        worker.kill();
        block_on(assert_nothing_goes_on(place, round));
        let came = entries(&place.path().join("down"));
        assert!(
            came.is_empty(),
            "round {round}: half a file came out: {came:?}"
        );
    }
}

async fn assert_nothing_goes_on(place: &Place, round: u32) {
    let podkit = place.podkit().await;
    let session = podkit.session("u", SESSION).await.unwrap();
    for process in session.processes().await.unwrap() {
        let process = session.process(process.id);
        process.stop(Duration::ZERO).await.unwrap();
        process.forget().await.unwrap();
    }
    let began = Instant::now();
    loop {
        let running = said(&session, "grep -h -s . /proc/[0-9]*/comm").await;
        let ours = ["sleep", "cat", "python3", "truncate"];
        let on: Vec<&str> = running.lines().filter(|name| ours.contains(name)).collect();
        if on.is_empty() {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "round {round}: {on:?}"
        );
    }
    let left = said(&session, LEFT).await;
    assert_eq!(left, "", "round {round}: half files");
    podkit.shutdown().await;
}

async fn said(session: &Session, script: &str) -> String {
    session.shell(script).await.unwrap().stdout_text()
}
