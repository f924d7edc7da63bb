//! The rows of the table.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use futures::future::join_all;
use podkit::{Session, SessionKey};

use super::{
    Bench, client,
    table::{Rounds, pairs, row},
};

/// Containers beside the one that is come back to.
const OTHERS: usize = 200;

/// Sessions that are opened in parallel.
const PARALLEL: usize = 8;

/// Runs the command of every measurement in a session; the container must do what it should.
pub(super) async fn echo(session: &Session) {
    let output = session.exec(["echo", "hi"]).await.unwrap();
    assert_eq!(output.stdout, b"hi\n");
}

pub(super) async fn bare_echo(bench: &Bench, id: &str) {
    assert_eq!(bench.bare.exec(id, &["echo", "hi"]).await, b"hi\n");
}

/// How long a program takes that must write what the command of every measurement writes.
pub(super) fn time_program(command: &mut Command) -> Duration {
    let began = Instant::now();
    let output = command.output();
    let elapsed = began.elapsed();
    let output = output.unwrap();
    assert_eq!(output.stdout, b"hi\n", "{command:?}: {output:?}");
    elapsed
}

fn docker_exec(id: &str) -> Duration {
    time_program(Command::new("docker").args(["exec", id, "echo", "hi"]))
}

pub(super) async fn close(session: &Session) {
    let report = session.close().await.unwrap();
    assert!(report.existed && report.failed.is_empty(), "{report:?}");
}

pub(super) async fn warm(bench: &Bench, rounds: Rounds) {
    let session = bench.open("warm").await;
    let id = bench.bare.open("warm").await;
    let ours = async |_| {
        let began = Instant::now();
        echo(&session).await;
        [began.elapsed()]
    };
    let theirs = async |_| {
        let began = Instant::now();
        bare_echo(bench, &id).await;
        [began.elapsed()]
    };
    let what = "warm exec, output captured";
    let [api] = pairs(rounds, ours, theirs).await;
    row(what, rounds, &api, "Engine API", "≤ 1.5 ms");
    let [cli] = pairs(rounds, ours, async |_| [docker_exec(&id)]).await;
    row(what, rounds, &cli, "`docker exec`", "≤ 1.5 ms");
    close(&session).await;
    bench.bare.remove(&id).await;
}

/// Opening until the agent has answered, and closing.
pub(super) async fn life(bench: &Bench, rounds: Rounds) {
    let ours = async |round| {
        let began = Instant::now();
        let session = bench.open(&format!("life-{round}")).await;
        let open = began.elapsed();
        echo(&session).await;
        let began = Instant::now();
        close(&session).await;
        [open, began.elapsed()]
    };
    let theirs = async |round| {
        let began = Instant::now();
        let id = bench.bare.open(&format!("life-{round}")).await;
        let open = began.elapsed();
        bare_echo(bench, &id).await;
        let began = Instant::now();
        bench.bare.remove(&id).await;
        [open, began.elapsed()]
    };
    let [open, closing] = pairs(rounds, ours, theirs).await;
    row(
        "open of an absent session",
        rounds,
        &open,
        "create + start",
        "≤ 1.05 ×",
    );
    row("close", rounds, &closing, "forced remove", "≤ 1.1 ×");
}

pub(super) async fn parallel(bench: &Bench, rounds: Rounds) {
    let ours = async |round| {
        let began = Instant::now();
        let sessions = (0..PARALLEL).map(|number| async move {
            let session = bench.open(&format!("parallel-{round}-{number}")).await;
            echo(&session).await;
            session
        });
        let sessions = join_all(sessions).await;
        let elapsed = began.elapsed();
        join_all(sessions.iter().map(close)).await;
        [elapsed]
    };
    let theirs = async |round| {
        let began = Instant::now();
        let containers = (0..PARALLEL).map(|number| async move {
            let id = bench.bare.open(&format!("parallel-{round}-{number}")).await;
            bare_echo(bench, &id).await;
            id
        });
        let ids = join_all(containers).await;
        let elapsed = began.elapsed();
        join_all(ids.iter().map(|id| bench.bare.remove(id))).await;
        [elapsed]
    };
    let [times] = pairs(rounds, ours, theirs).await;
    row(
        "8 sessions in parallel: open and exec",
        rounds,
        &times,
        "the same by the Engine API",
        "≤ 1.1 ×",
    );
}

/// A new process finds a session that runs, beside many others, and runs a command in it.
pub(super) async fn reconnect(bench: &Bench, rounds: Rounds, cli: Option<&Path>) {
    let mut others = Vec::new();
    for number in 0..OTHERS {
        let name = format!("other-{number}");
        let key = SessionKey::new("bench", name.as_str()).unwrap();
        let labels = [
            ("podkit.prefix", bench.prefix.as_str()),
            ("podkit.user", "bench"),
            ("podkit.session", &name),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let name = key.container_name(&bench.prefix);
        others.push(bench.bare.create(&name, BTreeMap::from(labels)).await);
    }
    let sessions = bench.podkit.list().await.unwrap();
    assert_eq!(sessions.len(), OTHERS, "all others are of this prefix");
    let session = bench.open(client::SESSION.1).await;
    let id = bench.bare.open("again").await;

    let itself = std::env::current_exe().unwrap();
    let new_process =
        |words: [&str; 2]| time_program(Command::new(&itself).arg(client::MODE).args(words));
    let ours = async |_| [new_process(["podkit", bench.prefix.as_str()])];
    let theirs = async |_| [new_process(["engine", &id])];
    let [times] = pairs(rounds, ours, theirs).await;
    row(
        "new process: reconnect and exec, 200 others there",
        rounds,
        &times,
        "inspect + exec by the Engine API",
        "≤ 15 ms",
    );
    if let Some(cli) = cli {
        let ours = async |_| {
            let mut command = Command::new(cli);
            command.args(["--backend", "docker", "--prefix", bench.prefix.as_str()]);
            [time_program(command.args([
                "exec",
                "-n",
                "bench/again",
                "--",
                "echo",
                "hi",
            ]))]
        };
        let [times] = pairs(rounds, ours, async |_| [docker_exec(&id)]).await;
        row(
            "the same by `podkit exec`",
            rounds,
            &times,
            "`docker exec`",
            "≤ 15 ms",
        );
    }
    close(&session).await;
    for id in others.into_iter().chain([id]) {
        bench.bare.remove(&id).await;
    }
}
