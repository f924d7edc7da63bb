//! Background processes: begun, found again, logged, stopped, begun again.

use std::time::{Duration, SystemTime};

use super::{
    lab::{BOUND, Lab, assert_kind, eventually, shell, text},
    table,
    terminals::sleeping,
};
use crate::{
    ErrorKind, Limit, LogChunk, LogStream, Outcome, Process, ProcessInfo, ProcessState,
    RestartPolicy, Session,
};

table!["processes":
    Containers process_outlives_its_caller_or_is_unsupported,
    Programs process_is_found_by_name_from_another_client,
    Programs process_streams_are_apart_in_its_log,
    Programs process_log_tail_since_and_stream_are_told_apart,
    Programs process_log_is_followed_to_its_end,
    Programs process_log_is_bounded_and_keeps_its_end,
    Programs process_log_of_raw_bytes_comes_back_whole,
    Programs process_log_in_a_directory_of_the_users_choice,
    Programs process_line_is_waited_for,
    Programs process_stop_takes_the_whole_tree,
    Programs process_that_ignores_term_is_killed_after_the_grace,
    Programs process_outcome_is_told_like_a_commands,
    Programs process_that_cannot_begin_is_an_error_and_not_listed,
    Programs process_name_is_free_again_once_it_ended,
    Programs process_with_a_policy_is_begun_again,
    Programs process_that_was_stopped_is_not_begun_again,
    Programs process_keeps_the_container_only_when_asked_to,
    Programs process_ends_with_the_container,
    Programs process_forgotten_leaves_no_log,
    Programs process_has_environment_directory_and_user,
];

async fn spawn(session: &Session, script: &str) -> Process {
    session.spawn_shell(script).await.unwrap()
}

async fn ended(process: &Process) -> ProcessInfo {
    tokio::time::timeout(BOUND, process.wait())
        .await
        .expect("the process does not end")
        .unwrap()
}

async fn log_of(process: &Process) -> String {
    joined(&process.logs().await.unwrap())
}

fn joined(chunks: &[LogChunk]) -> String {
    let bytes: Vec<u8> = chunks
        .iter()
        .flat_map(|chunk| chunk.bytes.to_vec())
        .collect();
    String::from_utf8(bytes).unwrap()
}

async fn process_outlives_its_caller_or_is_unsupported(lab: Lab) {
    let session = lab.open("a").await;
    if !lab.is_real() {
        let refused = session.spawn(["true"]).await;
        assert_kind(
            refused,
            ErrorKind::Unsupported,
            "a process of a simulated container",
        );
        return;
    }
    let process = spawn(&session, "echo begun; sleep 1000").await;
    let (key, id) = (session.key().clone(), process.id().to_owned());
    drop((process, session));
    lab.podkit().shutdown().await;
    let session = lab.stranger().await.open(&key).await.unwrap();
    let info = session.process(&id).info().await.unwrap();
    assert_eq!(info.state, ProcessState::Running);
    assert!(info.pid.is_some() && info.restarts == 0, "{info:?}");
    assert_eq!(info.argv, ["/bin/sh", "-c", "echo begun; sleep 1000"]);
    session
        .process(&id)
        .wait_for_log("begun", BOUND)
        .await
        .unwrap();
    session.close().await.unwrap();
}

async fn process_is_found_by_name_from_another_client(lab: Lab) {
    let session = lab.open("a").await;
    let process = session.spawn(["sleep", "1000"]).name("web").await.unwrap();
    let other = lab.stranger().await.open(session.key()).await.unwrap();
    let info = other.process("web").info().await.unwrap();
    assert_eq!(info.id, process.id());
    let taken = other.spawn(["sleep", "1"]).name("web").await;
    assert_kind(taken, ErrorKind::AlreadyExists, "a second `web`");
    let listed = other.processes().await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    let missing = other.process("none").info().await;
    assert_kind(missing, ErrorKind::NotFound, "a process that never was");
    for name in ["", "a/b", "a#b", "a\nb", &"x".repeat(129)] {
        let bad = other.spawn(["true"]).name(name).await;
        assert_kind(bad, ErrorKind::InvalidInput, "a bad name");
    }
}

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
    let script = "i=0; while [ $i -lt 20000 ]; do echo line-$i; i=$((i+1)); done";
    let process = session.spawn_shell(script).log_limit(50_000).await.unwrap();
    ended(&process).await;
    let log = log_of(&process).await;
    assert!(
        log.ends_with("line-19998\nline-19999\n"),
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

async fn process_stop_takes_the_whole_tree(lab: Lab) {
    let session = lab.open("a").await;
    let script = "trap 'echo bye; exit 5' TERM; sleep 2001 & setsid sleep 2002 & echo up; \
                  while :; do sleep 0.01; done";
    let process = spawn(&session, script).await;
    process.wait_for_log("up", BOUND).await.unwrap();
    let info = process.stop(BOUND).await.unwrap();
    assert_eq!(info.state, ProcessState::Ended(Outcome::Exited(5)));
    let out = joined(&process.logs().only(LogStream::Stdout).await.unwrap());
    assert_eq!(out, "up\nbye\n");
    assert_eq!(sleeping(&session, "200[12]").await, 0);
    // Once more is no error.
    process.stop(Duration::ZERO).await.unwrap();
}

async fn process_that_ignores_term_is_killed_after_the_grace(lab: Lab) {
    let session = lab.open("a").await;
    let process = spawn(
        &session,
        "trap '' TERM; echo up; while :; do sleep 0.01; done",
    )
    .await;
    process.wait_for_log("up", BOUND).await.unwrap();
    let info = process.stop(Duration::from_millis(100)).await.unwrap();
    assert_eq!(info.state, ProcessState::Ended(Outcome::Signaled(9)));
    let other = spawn(&session, "sleep 1000").await;
    other.signal(15).await.unwrap();
    assert_eq!(
        ended(&other).await.state,
        ProcessState::Ended(Outcome::Signaled(15))
    );
    other.signal(15).await.unwrap();
    assert_kind(other.signal(0).await, ErrorKind::InvalidInput, "signal 0");
}

async fn process_outcome_is_told_like_a_commands(lab: Lab) {
    let session = lab.open("a").await;
    for (script, outcome) in [
        ("exit 7", Outcome::Exited(7)),
        ("exec /no/such/program", Outcome::Exited(127)),
        ("kill -KILL $$", Outcome::Signaled(9)),
    ] {
        let info = ended(&spawn(&session, script).await).await;
        assert_eq!(info.state, ProcessState::Ended(outcome), "{script}");
        assert!(
            info.ended_at >= Some(info.started_at) && info.pid.is_none(),
            "{info:?}"
        );
    }
    let missing = session.spawn(["no-such-program"]).await.unwrap();
    assert_eq!(
        ended(&missing).await.state,
        ProcessState::Ended(Outcome::Exited(127))
    );
    assert!(log_of(&missing).await.contains("not found"));
    let timed = session
        .spawn(["sleep", "1000"])
        .timeout(Duration::from_millis(50))
        .await
        .unwrap();
    assert_eq!(
        ended(&timed).await.state,
        ProcessState::Ended(Outcome::TimedOut)
    );
}

async fn process_that_cannot_begin_is_an_error_and_not_listed(lab: Lab) {
    let session = lab.open("a").await;
    let nowhere = session.spawn(["true"]).cwd("/no/such").await;
    assert_kind(
        nowhere,
        ErrorKind::InvalidInput,
        "a directory that is missing",
    );
    let nobody = session.spawn(["true"]).user("no-such-user").await;
    assert_kind(nobody, ErrorKind::InvalidInput, "a user that is missing");
    let empty = session.spawn(Vec::<Vec<u8>>::new()).await;
    assert_kind(empty, ErrorKind::InvalidInput, "an empty command");
    assert_eq!(session.processes().await.unwrap(), []);
}

async fn process_name_is_free_again_once_it_ended(lab: Lab) {
    let session = lab.open("a").await;
    let first = session.spawn(["true"]).name("job").await.unwrap();
    ended(&first).await;
    let second = session.spawn(["sleep", "1000"]).name("job").await.unwrap();
    assert_ne!(first.id(), second.id());
    assert_eq!(session.process("job").info().await.unwrap().id, second.id());
    assert_eq!(session.processes().await.unwrap().len(), 2);
}

async fn process_with_a_policy_is_begun_again(lab: Lab) {
    let session = lab.open("a").await;
    let policy = RestartPolicy::OnFailure {
        max_restarts: Some(2),
    };
    let failing = session
        .spawn_shell("echo try; exit 1")
        .restart(policy)
        .await
        .unwrap();
    let info = ended(&failing).await;
    assert_eq!(
        (info.restarts, info.state),
        (2, ProcessState::Ended(Outcome::Exited(1)))
    );
    assert_eq!(log_of(&failing).await, "try\ntry\ntry\n");
    let fine = session.spawn(["true"]).restart(policy).await.unwrap();
    assert_eq!(ended(&fine).await.restarts, 0);
    let always = session
        .spawn_shell("echo again")
        .restart(RestartPolicy::Always)
        .await
        .unwrap();
    eventually("it to be begun again", || async {
        let info = always.info().await.unwrap();
        (info.restarts >= 2).then_some(())
    })
    .await;
    let info = always.stop(Duration::ZERO).await.unwrap();
    assert!(!info.state.is_alive(), "{info:?}");
}

async fn process_that_was_stopped_is_not_begun_again(lab: Lab) {
    let session = lab.open("a").await;
    let process = session
        .spawn(["sleep", "1000"])
        .restart(RestartPolicy::Always)
        .await
        .unwrap();
    process.kill().await.unwrap();
    eventually("it to be begun again", || async {
        let info = process.info().await.unwrap();
        (info.restarts == 1 && info.pid.is_some()).then_some(())
    })
    .await;
    let info = process.stop(BOUND).await.unwrap();
    assert_eq!(
        (info.state, info.restarts),
        (ProcessState::Ended(Outcome::Signaled(15)), 1)
    );
}

async fn process_keeps_the_container_only_when_asked_to(lab: Lab) {
    let spec = lab
        .default_spec()
        .auto_stop(Limit::After(Duration::from_millis(600)));
    let session = lab.open_with("a", spec.clone()).await;
    spawn(&session, "sleep 1000").await;
    let stopped = || async {
        let info = session.info().await.unwrap();
        (info.state == crate::ContainerState::Exited).then_some(())
    };
    eventually("the container to stop", stopped).await;
    assert_eq!(
        session.processes().await.unwrap(),
        [],
        "nothing is started for that"
    );
    let held = lab.open_with("b", spec).await;
    let process = held
        .spawn_shell("sleep 1.5; echo done")
        .keep_alive()
        .await
        .unwrap();
    assert_eq!(
        ended(&process).await.state,
        ProcessState::Ended(Outcome::Exited(0))
    );
}

async fn process_ends_with_the_container(lab: Lab) {
    let session = lab.open("a").await;
    let process = session
        .spawn(["sleep", "1000"])
        .restart(RestartPolicy::Always)
        .await
        .unwrap();
    let stop = async { session.stop(Duration::ZERO).await.unwrap() };
    let (waited, ()) = futures::future::join(process.wait(), stop).await;
    // The end came first, or the connection's.
    match waited {
        Ok(info) => assert!(!info.state.is_alive(), "{info:?}"),
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::ContainerGone | ErrorKind::NotFound | ErrorKind::AgentUnreachable
            ),
            "{error:?}"
        ),
    }
    session.exec(["true"]).await.unwrap();
    assert_eq!(session.processes().await.unwrap(), []);
    assert_kind(
        process.info().await,
        ErrorKind::NotFound,
        "a process of an earlier life",
    );
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

async fn process_has_environment_directory_and_user(lab: Lab) {
    let session = lab.open("a").await;
    let script = "echo $GREETING; pwd; id -u; echo a; echo b >&2";
    let user = if lab.has_one_id() { "0" } else { "65534" };
    let process = session
        .spawn_shell(script)
        .env("GREETING", "hi there")
        .cwd("/tmp")
        .user(user)
        .await
        .unwrap();
    ended(&process).await;
    let log = joined(&process.logs().only(LogStream::Stdout).await.unwrap());
    assert_eq!(log, format!("hi there\n/tmp\n{user}\na\n"));
}
