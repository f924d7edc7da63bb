//! Background processes: begun, found again, logged, stopped, begun again.

use std::{future::IntoFuture, time::Duration};

use super::{
    lab::{BOUND, Lab, assert_kind, eventually, text},
    table,
    terminals::sleeping,
};
use crate::{
    ContainerState, ErrorKind, GcOptions, Limit, LogChunk, LogStream, Outcome, Process,
    ProcessInfo, ProcessState, RestartPolicy, Session,
};

table!["processes":
    Containers process_outlives_its_caller_or_is_unsupported,
    Programs process_is_found_by_name_from_another_client,
    Programs process_stop_takes_the_whole_tree,
    Programs process_that_ignores_term_is_killed_after_the_grace,
    Programs process_outcome_is_told_like_a_commands,
    Programs process_that_cannot_begin_is_an_error_and_not_listed,
    Programs process_name_is_free_again_once_it_ended,
    Programs process_with_a_policy_is_begun_again,
    Programs process_that_was_stopped_is_not_begun_again,
    Programs process_keeps_the_container_only_when_asked_to,
    Programs process_ends_with_the_container,
    Programs process_begun_by_two_at_once_under_one_name_is_one,
    Programs process_asked_about_beside_a_closer_brings_nothing_back,
    Programs process_of_a_dropped_call_is_gone,
    Programs process_bad_input_is_typed_and_disturbs_nobody,
    Programs process_has_environment_directory_and_user,
];

pub(super) async fn spawn(session: &Session, script: &str) -> Process {
    session.spawn_shell(script).await.unwrap()
}

pub(super) async fn ended(process: &Process) -> ProcessInfo {
    tokio::time::timeout(BOUND, process.wait())
        .await
        .expect("the process does not end")
        .unwrap()
}

pub(super) async fn log_of(process: &Process) -> String {
    joined(&process.logs().await.unwrap())
}

pub(super) fn joined(chunks: &[LogChunk]) -> String {
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
        (info.state == ContainerState::Exited).then_some(())
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
    held.spawn(["sleep", "1000"]).keep_alive().await.unwrap();
    let anything = GcOptions::new().with_idle(Duration::from_nanos(1));
    lab.podkit().gc(anything).await.unwrap();
    let state = held.info().await.unwrap().state;
    assert_eq!(state, ContainerState::Running, "it is in use");
}

async fn process_ends_with_the_container(lab: Lab) {
    let session = lab.open("a").await;
    let process = session
        .spawn(["sleep", "1000"])
        .restart(RestartPolicy::Always)
        .await
        .unwrap();
    let directory = process.info().await.unwrap().log_directory.unwrap();
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
    assert_kind(
        process.info().await,
        ErrorKind::NotFound,
        "one of a stopped container",
    );
    let state = session.info().await.unwrap().state;
    assert_eq!(
        state,
        ContainerState::Exited,
        "nothing is started for a look"
    );
    session.exec(["true"]).await.unwrap();
    assert_eq!(session.processes().await.unwrap(), []);
    // The first log of a life takes those of earlier ones away.
    ended(&spawn(&session, "true").await).await;
    let left = text(&session, &format!("ls -d {directory} || true")).await;
    assert_eq!(left, "");
    assert_kind(
        process.info().await,
        ErrorKind::NotFound,
        "a process of an earlier life",
    );
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

async fn process_begun_by_two_at_once_under_one_name_is_one(lab: Lab) {
    let session = lab.open("a").await;
    let other = lab.stranger().await.open(session.key()).await.unwrap();
    for round in 0..10 {
        let name = format!("job-{round}");
        let begin = |session: &Session| session.spawn(["sleep", "1000"]).name(&name).into_future();
        let (one, two) = futures::future::join(begin(&session), begin(&other)).await;
        let (begun, refused) = match (one, two) {
            (Ok(begun), refused) | (refused, Ok(begun)) => (begun, refused),
            both => panic!("{both:?}"),
        };
        assert_kind(refused, ErrorKind::AlreadyExists, "the second of one name");
        begun.stop(Duration::ZERO).await.unwrap();
    }
}

async fn process_asked_about_beside_a_closer_brings_nothing_back(lab: Lab) {
    let stranger = lab.stranger().await;
    for _ in 0..5 {
        let session = lab.open("a").await;
        let process = spawn(&session, "sleep 1000").await;
        let asking = async {
            loop {
                match process.info().await {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            }
        };
        let (error, closed) = futures::future::join(asking, stranger.close(session.key())).await;
        closed.unwrap();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ContainerGone | ErrorKind::AgentUnreachable
            ),
            "{error:?}"
        );
        for _ in 0..3 {
            let later = process.stop(Duration::ZERO).await;
            assert_kind(
                later,
                ErrorKind::NotFound,
                "a process of a session that was closed",
            );
        }
        assert!(session.processes().await.is_err());
        assert_eq!(
            stranger.list().await.unwrap().len(),
            0,
            "nothing was brought back"
        );
    }
}

async fn process_of_a_dropped_call_is_gone(lab: Lab) {
    let session = lab.open("a").await;
    for _ in 0..20 {
        // It is polled once, which asks for the process, and dropped.
        let mut begun = session.spawn(["sleep", "4001"]).into_future();
        assert!(futures::poll!(&mut begun).is_pending());
    }
    eventually("all of them to be gone", || async {
        let listed = session.processes().await.unwrap();
        (listed.is_empty() && sleeping(&session, "4001").await == 0).then_some(())
    })
    .await;
}

async fn process_bad_input_is_typed_and_disturbs_nobody(lab: Lab) {
    let session = lab.open("a").await;
    let running = session.shell("sleep 0.5; echo undisturbed");
    let attack = async {
        let long = "x".repeat(3 << 20);
        for id in ["", "a/b", &"x".repeat(129), &long] {
            let looked = session.process(id).info().await;
            assert_kind(looked, ErrorKind::InvalidInput, "a bad id");
            let read = session.process(id).logs().await;
            assert_kind(read, ErrorKind::InvalidInput, "the log of a bad id");
        }
        let far = session.spawn(["true"]).log_directory(&long).await;
        assert_kind(far, ErrorKind::InvalidInput, "a long directory");
        let much = session.spawn(["echo", &long]).await;
        assert_kind(much, ErrorKind::LimitExceeded, "a long command line");
        let user = session.spawn(["true"]).user(&long).await;
        assert_kind(user, ErrorKind::LimitExceeded, "a long user");
    };
    let (output, ()) = futures::future::join(running.into_future(), attack).await;
    assert_eq!(output.unwrap().stdout_text(), "undisturbed\n");
}
