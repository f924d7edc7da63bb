//! Clients and containers that are stopped for a while, as a machine that sleeps stops them, and clocks
//! that differ.

use std::{fs, time::Duration};

use podkit::{Limit, Outcome, Podkit, SessionKey, SessionSpec};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    init_of, kind_of,
    support::{Place, block_on, host, wait_for, worker::Worker},
};

/// After so long without a word a connection is dead, and a look more.
const SILENCE: Duration = Duration::from_millis(podkit_agent::DEAD_AFTER_MS + 30_000);

/// Runs a shell text, with a timeout where that is not 0: what it said, or how it ended.
pub(super) async fn run(
    podkit: &Podkit,
    session: &str,
    milliseconds: u64,
    script: &str,
) -> podkit::Result<String> {
    let spec = SessionSpec::new().auto_stop(Limit::Off);
    let session = podkit.session("u", session).spec(spec).await?;
    let mut exec = session.shell(script);
    if milliseconds > 0 {
        exec = exec.timeout(Duration::from_millis(milliseconds));
    }
    let output = exec.await?;
    Ok(match output.outcome {
        Outcome::Exited(0) => output.stdout_text().trim().to_owned(),
        outcome => outcome.as_str().to_owned(),
    })
}

fn signal(worker: &Worker, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(worker.pid()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// How many `sleep` run in a container.
fn sleeping(init: u32) -> usize {
    let is_sleep = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == "sleep")
    };
    host::processes_of(init)
        .iter()
        .filter(|pid| is_sleep(pid))
        .count()
}

fn wait_for_sleeping(init: u32, count: usize, bound: Duration) {
    wait_for(bound, || match sleeping(init) {
        found if found == count => Ok(()),
        found => Err(format!("{found} commands, not {count}")),
    });
}

/// One client is stopped alone: its command goes, as that of any client that is silent. Others are
/// stopped with their container, as by a machine that sleeps: nothing of that is anybody's silence,
/// commands go on, and their time has gone on too.
pub(super) fn clients_and_containers_stopped_for_longer_than_silence_go_on() {
    let place = Place::new();
    let start = || Worker::start(place.path());
    let (mut alone, mut with, mut late) = (start(), start(), start());
    for (worker, session) in [(&mut alone, "alone"), (&mut with, "with")] {
        assert_eq!(worker.ask(&format!("run {session} 0 echo up")), "ok up");
    }
    let (alone_init, with_init) = (init_of(&place, "alone"), init_of(&place, "with"));
    alone.tell("run alone 0 sleep 1000; echo over");
    with.tell("run with 0 sleep 4; echo done");
    late.tell("run with 5000 sleep 1000; echo over");
    let soon = Duration::from_secs(4);
    wait_for_sleeping(alone_init, 1, soon);
    wait_for_sleeping(with_init, 2, soon);
    let (key, prefix) = (SessionKey::new("u", "with").unwrap(), "test");
    let name = key.container_name(&podkit::Prefix::new(prefix).unwrap());
    let container = podkit::ContainerId::new(name).unwrap();
    for worker in [&alone, &with, &late] {
        signal(worker, Signal::STOP);
    }
    block_on(async {
        let podkit = place.podkit().await;
        podkit.containers().pause(&container).await.unwrap();
    });
    // The agent gives the silent client up, and its command.
    wait_for_sleeping(alone_init, 0, SILENCE);
    block_on(async {
        let podkit = place.podkit().await;
        podkit.containers().resume(&container).await.unwrap();
    });
    for worker in [&alone, &with, &late] {
        signal(worker, Signal::CONT);
    }
    assert_eq!(with.answer(), "ok done");
    assert_eq!(late.answer(), "ok timed_out");
    let answer = alone.answer();
    assert_eq!(kind_of(&answer), "agent_unreachable", "{answer}");
    for (worker, session) in [(&mut alone, "alone"), (&mut late, "with")] {
        assert_eq!(worker.ask(&format!("run {session} 0 echo hi")), "ok hi");
    }
    // No container was made or started anew.
    assert_eq!(init_of(&place, "alone"), alone_init);
    assert_eq!(init_of(&place, "with"), with_init);
    for session in ["alone", "with"] {
        assert_eq!(with.ask(&format!("close {session} 0")), "ok true");
    }
    assert_eq!(with.ask("gc 0"), "ok 0");
    place.assert_empty();
}

/// What a process reads of the machine's start, and of other processes' starts, is its time
/// namespace's: one client is eleven days ahead of the other.
pub(super) fn clients_whose_clocks_differ_share_sessions() {
    let place = Place::new();
    let ahead = [
        "--time",
        "--fork",
        "--kill-child",
        "--boottime",
        "1000000",
        "--monotonic",
        "1000000",
    ];
    let mut ahead = Worker::try_start_in(place.path(), &ahead, "true").unwrap();
    let mut here = Worker::start(place.path());
    for round in 0..2 {
        let (first, second) = if round == 0 {
            (&mut ahead, &mut here)
        } else {
            (&mut here, &mut ahead)
        };
        let token = first.ask("open s 0");
        assert_eq!(kind_of(&token), "", "{token}");
        assert_eq!(second.ask("open s 0"), token);
        assert_eq!(first.ask("open s 0"), token);
        let init = init_of(&place, "s");
        assert_eq!(second.ask("gc 0"), "ok 0");
        assert_eq!(first.ask("open s 0"), token);
        assert_eq!(second.ask("close s 0"), "ok true");
        assert_eq!(host::processes_of(init), [0_u32; 0], "round {round}");
        assert_eq!(first.ask("gc 0"), "ok 0");
        place.assert_empty();
    }
}
