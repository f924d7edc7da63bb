//! Several processes and one session: all of them start from one barrier.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::{collections::BTreeSet, process::ExitCode};

use support::{
    Place, block_on, crowd,
    worker::{Worker, main_if_asked, soon},
};

const PROCESSES: usize = 6;
const ROUNDS: usize = 100;

/// Starts the workers of a race from one barrier and collects their answers.
fn race(workers: &mut [Worker], commands: impl Fn(usize, u128) -> String) -> Vec<String> {
    let at = soon();
    for (number, worker) in workers.iter_mut().enumerate() {
        worker.tell(&commands(number, at));
    }
    workers.iter_mut().map(Worker::answer).collect()
}

fn tokens(answers: &[String], about: &str) -> BTreeSet<String> {
    answers
        .iter()
        .map(|answer| match answer.strip_prefix("ok ") {
            Some(token) => token.to_owned(),
            None => panic!("{about}: {answers:#?}"),
        })
        .collect()
}

/// A round leaves one container at most, whose name is the session's.
fn assert_one_and_close(place: &Place, about: &str) {
    block_on(async {
        let podkit = place.podkit().await;
        let infos = podkit.list().await.unwrap();
        assert!(infos.len() <= 1, "{about}: {infos:#?}");
        for info in infos {
            podkit.close(&info.key).await.unwrap();
        }
        podkit.shutdown().await;
    });
}

fn open_by_six_processes_at_once_is_one_container() {
    let place = Place::new();
    let mut workers: Vec<_> = (0..PROCESSES)
        .map(|_| Worker::start(place.path()))
        .collect();
    for round in 0..ROUNDS {
        let about = format!("round {round}");
        let answers = race(&mut workers, |_, at| format!("open s{round} {at}"));
        assert_eq!(tokens(&answers, &about).len(), 1, "{about}: {answers:#?}");
        assert_one_and_close(&place, &about);
    }
    place.assert_empty();
}

fn open_beside_a_closer_and_a_collector_always_succeeds() {
    let place = Place::new();
    let mut workers: Vec<_> = (0..PROCESSES + 2)
        .map(|_| Worker::start(place.path()))
        .collect();
    for round in 0..ROUNDS {
        let about = format!("round {round}");
        // One name for all rounds: what a round leaves is closed in the next.
        let answers = race(&mut workers, |number, at| match number {
            PROCESSES => format!("close s {at}"),
            number if number > PROCESSES => format!("gc {at}"),
            _ => format!("open s {at}"),
        });
        tokens(&answers, &about);
        if round % 2 == 0 {
            assert_one_and_close(&place, &about);
        }
    }
    assert_one_and_close(&place, "the end");
    place.assert_empty();
}

fn thousand_sessions_of_one_client_live_at_once() {
    let place = Place::new();
    block_on(crowd::live_at_once(place.builder(), 1000));
    place.assert_empty();
}

fn session_without_memory_on_the_host_is_refused() {
    let place = Place::new();
    block_on(crowd::refused_without_memory(&place));
    place.assert_empty();
}

fn main() -> ExitCode {
    if let Some(code) = main_if_asked(|_, _| None) {
        return code;
    }
    support::run(&[
        (
            "open_by_six_processes_at_once_is_one_container",
            open_by_six_processes_at_once_is_one_container,
        ),
        (
            "open_beside_a_closer_and_a_collector_always_succeeds",
            open_beside_a_closer_and_a_collector_always_succeeds,
        ),
        (
            "thousand_sessions_of_one_client_live_at_once",
            thousand_sessions_of_one_client_live_at_once,
        ),
        (
            "session_without_memory_on_the_host_is_refused",
            session_without_memory_on_the_host_is_refused,
        ),
    ])
}
