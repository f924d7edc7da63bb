//! Rows about trees of files, beside `docker cp`.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use podkit::Session;

use super::{
    Bench,
    table::{Rounds, pairs, row},
};

const ROUNDS: Rounds = Rounds {
    count: 10,
    pause: Duration::ZERO,
};

const BESIDE: &str = "`docker cp`";

fn docker_cp(from: &str, to: &str) -> Duration {
    let began = Instant::now();
    let mut copy = Command::new("docker");
    let copied = copy.args(["cp", from, to]).stdout(Stdio::null()).status();
    let time = began.elapsed();
    assert!(copied.unwrap().success(), "docker cp {from} {to}");
    time
}

async fn upload(session: &Session, from: &Path, to: &str) -> Duration {
    let began = Instant::now();
    let report = session.files().upload(from, to).await.unwrap();
    let time = began.elapsed();
    report.check().unwrap();
    time
}

async fn download(session: &Session, from: &str, to: &Path) -> Duration {
    let began = Instant::now();
    let report = session.files().download(from, to).await.unwrap();
    let time = began.elapsed();
    report.check().unwrap();
    time
}

/// Both ways of one tree; each copy goes to a place of its own.
async fn both_ways(bench: &Bench, what: &str, fill: impl FnOnce(&Path)) {
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let tree = place.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fill(&tree);
    let session = bench.open("trees").await;
    let id = bench.bare.open("trees").await;
    let text = tree.to_str().unwrap();
    let [sent] = pairs(
        ROUNDS,
        async |round| [upload(&session, &tree, &format!("/tmp/in{round}")).await],
        async |round| [docker_cp(text, &format!("{id}:/tmp/in{round}"))],
    )
    .await;
    row(&format!("{what} in"), ROUNDS, &sent, BESIDE, "≤ 1.0 ×");
    let to = |by: &str, round: usize| place.path().join(format!("{by}{round}"));
    let [came] = pairs(
        ROUNDS,
        async |round| [download(&session, "/tmp/in0", &to("ours", round)).await],
        async |round| {
            let to = to("theirs", round);
            [docker_cp(&format!("{id}:/tmp/in0"), to.to_str().unwrap())]
        },
    )
    .await;
    row(&format!("{what} out"), ROUNDS, &came, BESIDE, "≤ 1.0 ×");
    super::rows::close(&session).await;
    bench.bare.remove(&id).await;
}

pub(super) async fn trees(bench: &Bench) {
    both_ways(bench, "2000 files of 1 KiB", |tree| {
        for number in 0..2000 {
            let directory = tree.join((number % 20).to_string());
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(number.to_string()), vec![7; 1024]).unwrap();
        }
    })
    .await;
    both_ways(bench, "a file of 100 MB", |tree| {
        fs::write(tree.join("big"), vec![7; 100_000_000]).unwrap();
    })
    .await;
}
