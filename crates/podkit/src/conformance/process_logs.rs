//! Logs of background processes.

use std::{
    future::IntoFuture,
    time::{Duration, SystemTime},
};

use super::{
    lab::{BOUND, Lab, assert_kind, eventually, shell, text},
    processes::{ended, joined, log_of, spawn},
    table,
};
use crate::{ErrorKind, LogStream, Outcome, ProcessState};

table!["processes":
    Programs process_streams_are_apart_in_its_log,
    Programs process_log_tail_since_and_stream_are_told_apart,
    Programs process_log_is_followed_to_its_end,
    Programs process_log_is_bounded_and_keeps_its_end,
    Programs process_log_of_raw_bytes_comes_back_whole,
    Programs process_log_in_a_directory_of_the_users_choice,
    Programs process_line_is_waited_for,
    Programs process_forgotten_leaves_no_log,
    Programs process_log_attacked_from_inside_ends_typed_and_harms_nobody,
];

async fn process_streams_are_apart_in_its_log(lab: Lab) {
    let session = lab.open("a").await;
    let process = spawn(&session, "echo out; echo err >&2; echo more").await;
    ended(&process).await;
    let of = async |stream| joined(&process.logs().only(stream).await.unwrap());
    assert_eq!(of(LogStream::Stdout).await, "out\nmore\n");
    assert_eq!(of(LogStream::Stderr).await, "err\n");
    let merged = session
        .spawn_shell("echo out; echo err >&2")
        .merge_output()
        .await
        .unwrap();
    ended(&merged).await;
    let chunks = merged.logs().await.unwrap();
    assert_eq!(joined(&chunks), "out\nerr\n");
    assert!(chunks.iter().all(|chunk| chunk.stream == LogStream::Stdout));
}

async fn process_log_tail_since_and_stream_are_told_apart(lab: Lab) {
    let session = lab.open("a").await;
    let script = "for i in 1 2 3 4; do echo line $i; done; while [ ! -e go ]; do sleep 0.01; done; \
                  echo late; printf unended";
    let process = spawn(&session, script).await;
    process.wait_for_log("line 4", BOUND).await.unwrap();
    let tail = async |lines| joined(&process.logs().tail(lines).await.unwrap());
    assert_eq!(tail(2).await, "line 3\nline 4\n");
    assert_eq!(tail(0).await, "");
    assert_eq!(tail(100).await, "line 1\nline 2\nline 3\nline 4\n");
    // The container's clock is this machine's; what was written before this moment is left out.
    let now = SystemTime::now() + Duration::from_millis(2);
    eventually("time to pass", || async move {
        SystemTime::now().duration_since(now).ok()
    })
    .await;
    session.files().write("go", "").await.unwrap();
    ended(&process).await;
    let late = process.logs().since(now).await.unwrap();
    assert_eq!(joined(&late), "late\nunended");
    assert_eq!(tail(1).await, "unended");
}

async fn process_log_is_followed_to_its_end(lab: Lab) {
    let session = lab.open("a").await;
    let script = "echo 1; while read line; do echo got $line; done < fifo; exit 3";
    shell(&session, "mkfifo fifo").await;
    let process = spawn(&session, script).await;
    let mut events = process.logs().follow().stream().await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert_eq!(&first.bytes[..], b"1\n");
    shell(&session, "printf 'a\\nb\\n' > fifo").await;
    let mut rest = Vec::new();
    while let Some(chunk) = events.next().await.unwrap() {
        rest.extend_from_slice(&chunk.bytes);
    }
    assert_eq!(String::from_utf8(rest).unwrap(), "got a\ngot b\n");
    assert_eq!(
        ended(&process).await.state,
        ProcessState::Ended(Outcome::Exited(3))
    );
    // Following what has ended gives all of it, and ends.
    let again = process.logs().follow().await.unwrap();
    assert_eq!(joined(&again), "1\ngot a\ngot b\n");
}

async fn process_log_is_bounded_and_keeps_its_end(lab: Lab) {
    let session = lab.open("a").await;
    let script = "i=0; while [ $i -lt 50000 ]; do echo line-$i; i=$((i+1)); done";
    let process = session.spawn_shell(script).log_limit(50_000).await.unwrap();
    ended(&process).await;
    let log = log_of(&process).await;
    assert!(
        log.ends_with("line-49998\nline-49999\n"),
        "{}",
        &log[log.len() - 100..]
    );
    assert!(
        (10_000..220_000).contains(&log.len()),
        "{} bytes",
        log.len()
    );
    let directory = process.info().await.unwrap().log_directory.unwrap();
    let used = text(&session, &format!("du -sk {directory} | cut -f1")).await;
    assert!(used.trim().parse::<u64>().unwrap() < 600, "{used} KiB");
}

async fn process_log_of_raw_bytes_comes_back_whole(lab: Lab) {
    let session = lab.open("a").await;
    let script = "head -c 300000 /dev/urandom > raw; cat raw; cat raw >&2";
    let process = spawn(&session, script).await;
    ended(&process).await;
    let raw = session.files().read("raw").await.unwrap();
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        let chunks = process.logs().only(stream).await.unwrap();
        let bytes: Vec<u8> = chunks
            .iter()
            .flat_map(|chunk| chunk.bytes.to_vec())
            .collect();
        assert!(bytes == raw, "{stream:?}: {} bytes", bytes.len());
    }
}

async fn process_log_in_a_directory_of_the_users_choice(lab: Lab) {
    let session = lab.open("a").await;
    let process = session
        .spawn_shell("echo here")
        .log_directory("logs/web")
        .await
        .unwrap();
    ended(&process).await;
    let info = process.info().await.unwrap();
    assert_eq!(info.log_directory.as_deref(), Some("/workspace/logs/web"));
    let path = format!("logs/web/{}.out.log", process.id());
    assert_eq!(session.files().read(&path).await.unwrap(), b"here\n");
    // A place that cannot be had is told, and nothing runs.
    session.files().write("file", "").await.unwrap();
    let refused = session
        .spawn_shell("touch ran")
        .log_directory("file/logs")
        .await;
    assert_kind(refused, ErrorKind::InvalidInput, "a log below a file");
    assert!(!session.files().exists("ran").await.unwrap());
    assert_eq!(session.processes().await.unwrap().len(), 1);
}

async fn process_line_is_waited_for(lab: Lab) {
    let session = lab.open("a").await;
    let script = "while [ ! -e go ]; do sleep 0.01; done; echo listening on 8000 >&2; sleep 1000";
    let process = spawn(&session, script).await;
    let early = process
        .wait_for_log("listening", Duration::from_millis(50))
        .await;
    assert_kind(early, ErrorKind::TimedOut, "a line that has not come");
    let (waited, ()) = futures::future::join(process.wait_for_log("listening", BOUND), async {
        session.files().write("go", "").await.unwrap();
    })
    .await;
    assert_eq!(waited.unwrap(), "listening on 8000");
    let over = spawn(&session, "echo other").await;
    let never = over.wait_for_log("listening", BOUND).await;
    assert_kind(never, ErrorKind::NotFound, "a line that never comes");
}

async fn process_forgotten_leaves_no_log(lab: Lab) {
    let session = lab.open("a").await;
    let process = spawn(&session, "echo text; sleep 1000").await;
    process.wait_for_log("text", BOUND).await.unwrap();
    assert_kind(
        process.forget().await,
        ErrorKind::AlreadyExists,
        "one that runs",
    );
    let directory = process.info().await.unwrap().log_directory.unwrap();
    process.stop(Duration::ZERO).await.unwrap();
    process.forget().await.unwrap();
    assert_kind(
        process.info().await,
        ErrorKind::NotFound,
        "one that was forgotten",
    );
    assert_eq!(text(&session, &format!("ls {directory}")).await, "");
}

/// What the container's root does to a log, in its directory, with `$id` for the process.
const ATTACKS: [&str; 8] = [
    "rm $id.idx; ln -s /etc/passwd $id.idx",
    "rm $id.idx; mkfifo $id.idx",
    "rm $id.idx; mkdir $id.idx",
    "head -c 100000 /dev/urandom > $id.idx",
    "truncate -s 1000000000000 $id.idx",
    "rm $id.out.log; ln -s /etc/shadow $id.out.log",
    "rm -r ../*",
    "kill -9 $(grep -l agent /proc/[0-9]*/comm | grep -v /1/ | cut -d/ -f3)",
];

async fn process_log_attacked_from_inside_ends_typed_and_harms_nobody(lab: Lab) {
    let session = lab.open("a").await;
    let bystander = spawn(&session, "while :; do echo alive; sleep 0.05; done").await;
    bystander.wait_for_log("alive", BOUND).await.unwrap();
    let directory = bystander.info().await.unwrap().log_directory.unwrap();
    for attack in ATTACKS {
        let process = spawn(&session, "echo text; sleep 1000").await;
        process.wait_for_log("text", BOUND).await.unwrap();
        let id = process.id();
        let script = format!("mkdir -p {directory}; cd {directory}; id={id}; {attack}");
        let attacked = session.shell(script).await;
        match attacked {
            // Where the way to the agent is a process inside, it is killed along with the loggers.
            Err(error)
                if attack.starts_with("kill") && error.kind() == ErrorKind::AgentUnreachable => {}
            result => drop(result.unwrap()),
        }
        // Whatever comes, it comes soon, and is bytes or an error of a kind.
        let logs = process.logs().only(LogStream::Stdout).into_future();
        let read = tokio::time::timeout(BOUND, logs).await.expect("an end");
        if let Ok(chunks) = read {
            let shown = joined(&chunks);
            assert!(shown.is_empty() || shown == "text\n", "{attack}: {shown:?}");
        }
        let info = process.stop(Duration::ZERO).await.unwrap();
        assert!(!info.state.is_alive(), "{attack}: {info:?}");
        // What was put in its place is not removed but as a name.
        let _ = process.forget().await;
        assert_eq!(
            text(&session, "head -c 4 /etc/passwd").await,
            "root",
            "{attack}"
        );
    }
    assert!(bystander.info().await.is_ok());
    session.exec(["true"]).await.unwrap().check().unwrap();
}
