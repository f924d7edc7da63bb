//! What the kernel alone takes for the same: what no engine on this machine can be below.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    Bench, Rounds, available_memory, compile, first_byte, pause, row, sorted, time_command,
};

const SOURCE: &str = include_str!("floor.c");

/// Containers that are held at once for what each one takes.
const HELD: u32 = 200;

/// Where a group for each command can be made, as the agent does it.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

fn build(bench: &Bench) -> PathBuf {
    let directory = bench.directory.path();
    fs::write(directory.join("floor.c"), SOURCE).unwrap();
    compile(directory, &["-o", "floor", "floor.c"]);
    directory.join("floor")
}

/// A floor that lives, and answers.
struct Running(Child);

impl Running {
    fn start(floor: &Path, arguments: &[&str]) -> Self {
        let child = Command::new(floor)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    fn answer(&mut self) {
        let mut byte = [0];
        let stdout = self.0.stdout.as_mut().unwrap();
        stdout.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    fn ask(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// Rows of the same shape as the first table's, each beside its floor.
pub(super) async fn table(bench: &Bench, rounds: &[Rounds]) {
    let floor = build(bench);
    // What is in there becomes another user's.
    let place = tempfile::Builder::new()
        .prefix("podkit-floor")
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in("/var/tmp")
        .unwrap();
    let place = place.path().join("one");
    let place = place.to_str().unwrap();
    println!(
        "\n| step | pauses | n | podkit, ms: p50 / p99 | the kernel alone, ms: p50 / p99 | ratio |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for &rounds in rounds {
        opening(bench, &floor, place, rounds).await;
        exec(bench, &floor, rounds).await;
    }
    memory(&floor, place);
}

async fn opening(bench: &Bench, floor: &Path, place: &str, rounds: Rounds) {
    let (mut ours, mut namespaces, mut containers) = (vec![], vec![], vec![]);
    for round in 0..rounds.count {
        pause(rounds).await;
        let start = Instant::now();
        let session = bench.open(&format!("floor-{round}")).await;
        ours.push(first_byte(&session).await - start);
        session.close().await.unwrap();
        pause(rounds).await;
        namespaces.push(time_command(floor, &["namespaces"]));
        pause(rounds).await;
        containers.push(time_command(floor, &["container", place]));
    }
    let (ours, what) = (sorted(ours), "open of an absent session to the first byte");
    row(
        what,
        rounds,
        &ours,
        "six namespaces",
        Some(&sorted(namespaces)),
    );
    let containers = Some(sorted(containers));
    row(what, rounds, &ours, "and the mounts", containers.as_ref());
}

async fn exec(bench: &Bench, floor: &Path, rounds: Rounds) {
    let program = bench.program();
    let group = UNIFIED
        .iter()
        .find(|group| Path::new(group).join("cgroup.controllers").exists())
        .map(|top| Path::new(top).join(format!("podkit-floor-{}", std::process::id())));
    if let Some(group) = &group {
        fs::create_dir(group).unwrap();
    }
    let groups = group.as_deref().unwrap_or(Path::new("")).to_str().unwrap();
    let mut server = Running::start(floor, &["serve", groups, program.to_str().unwrap()]);
    let session = bench.open("floor").await;
    let (mut ours, mut theirs) = (vec![], vec![]);
    for _ in 0..rounds.count {
        pause(rounds).await;
        let start = Instant::now();
        let out = session.exec(["/bench/first"]).await.unwrap();
        ours.push(start.elapsed());
        assert_eq!(out.stdout, b"x");
        pause(rounds).await;
        let start = Instant::now();
        server.ask();
        server.answer();
        theirs.push(start.elapsed());
    }
    session.close().await.unwrap();
    server.end();
    if let Some(group) = &group {
        fs::remove_dir(group).unwrap();
    }
    let beside = "asked for, forked into a group, executed, ended, told";
    let what = "warm exec, output captured";
    row(what, rounds, &sorted(ours), beside, Some(&sorted(theirs)));
}

/// What a container that does nothing takes, by what the machine's free memory falls.
fn memory(floor: &Path, place: &str) {
    let before = available_memory();
    let start = Instant::now();
    let mut held = Running::start(floor, &["hold", place, &HELD.to_string()]);
    held.answer();
    let elapsed: Duration = start.elapsed();
    let each = before.saturating_sub(available_memory()) / u64::from(HELD) / 1024;
    held.end();
    println!(
        "\n{HELD} of those that the kernel alone makes, one after the other: {:.2} ms and {each} KiB each.",
        elapsed.as_secs_f64() * 1e3 / f64::from(HELD)
    );
}
