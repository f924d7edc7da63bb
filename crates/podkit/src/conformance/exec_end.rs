//! How commands end: limits, time, memory, dropped handles, closed sessions.

use std::time::{Duration, Instant};

use super::{
    exec::process_count,
    exec_stream::wait_for_output,
    lab::{Lab, eventually, shell, text},
    table,
};
use crate::{ExecEvent, Limit, Outcome, Session, SessionSpec};

table!["exec":
    Programs exec_output_over_its_limit_is_cut_and_flagged,
    Programs exec_timeout_keeps_partial_output,
    Programs exec_timeout_kills_what_left_the_session,
    Programs exec_session_timeout_is_the_default,
    Programs exec_background_child_delays_the_result_at_most_the_drain_time,
    Programs exec_dropped_handle_kills_the_tree,
    Programs exec_dropped_future_kills_the_tree,
    Programs exec_killed_by_request_is_signaled,
    Programs exec_ends_as_session_closed_when_the_session_closes,
    Programs exec_over_memory_is_out_of_memory_and_the_session_lives_on,
    Programs exec_full_shared_memory_does_not_end_the_session,
    Programs exec_over_pids_fails_inside_and_the_session_lives_on,
];

async fn exec_output_over_its_limit_is_cut_and_flagged(lab: Lab) {
    let session = lab.open("a").await;
    let script = "printf 0123456789; printf abcdefghij >&2; printf x >after";
    let cases = [(4, true), (9, true), (10, false), (11, false), (0, true)];
    for (limit, truncated) in cases {
        let output = session.shell(script).output_limit(limit).await.unwrap();
        let kept = usize::try_from(limit).unwrap().min(10);
        assert_eq!(
            output.stdout,
            b"0123456789".get(..kept).unwrap(),
            "limit {limit}"
        );
        assert_eq!(
            output.stderr,
            b"abcdefghij".get(..kept).unwrap(),
            "limit {limit}"
        );
        let flags = (
            output.result.stdout_truncated,
            output.result.stderr_truncated,
        );
        assert_eq!(flags, (truncated, truncated), "limit {limit}");
        assert_eq!(output.outcome, Outcome::Exited(0), "the command goes on");
    }
    // Without a limit of its own a collected stream keeps 10 MiB, and the command ends by itself.
    let output = shell(&session, "head -c 11000000 /dev/zero; echo end >&2").await;
    assert_eq!(output.stdout.len(), 10 << 20);
    assert!(output.result.stdout_truncated && !output.result.stderr_truncated);
    assert_eq!(output.stderr, b"end\n");
}

async fn exec_timeout_keeps_partial_output(lab: Lab) {
    let session = lab.open("a").await;
    let start = Instant::now();
    let output = session
        .shell("echo out; echo err >&2; while :; do read x </dev/zero; done")
        .timeout(Duration::from_millis(300))
        .await
        .unwrap();
    assert_eq!(output.outcome, Outcome::TimedOut);
    assert_eq!(output.code(), 124);
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (b"out\n".as_slice(), b"err\n".as_slice())
    );
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(300), "{elapsed:?}");
    assert!(elapsed < Duration::from_millis(1500), "{elapsed:?}");
    let quick = session
        .exec(["true"])
        .timeout(Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(quick.outcome, Outcome::Exited(0));
}

async fn exec_timeout_kills_what_left_the_session(lab: Lab) {
    let session = lab.open("a").await;
    let before = process_count(&session).await;
    // One child in the group, one orphan, one orphan in a session of its own.
    let script = "trap '' TERM HUP; tail -f /dev/null & (tail -f /dev/null &) ; \
        (setsid tail -f /dev/null &) ; echo up; tail -f /dev/null";
    let output = session
        .shell(script)
        .timeout(Duration::from_millis(300))
        .await
        .unwrap();
    assert_eq!(
        (output.outcome, output.stdout.as_slice()),
        (Outcome::TimedOut, b"up\n".as_slice())
    );
    let after = process_count(&session).await;
    assert_eq!(after, before, "processes are left");
}

async fn exec_session_timeout_is_the_default(lab: Lab) {
    let spec = SessionSpec::new().exec_timeout(Limit::After(Duration::from_millis(200)));
    let session = lab.open_with("a", spec).await;
    let endless = "while :; do read x </dev/zero; done";
    assert_eq!(shell(&session, endless).await.outcome, Outcome::TimedOut);
    let script = "i=0; while [ $i -lt 3 ]; do i=$((i+1)); done";
    let own = session
        .shell(script)
        .timeout(Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(own.outcome, Outcome::Exited(0));
}

/// What a grandchild that keeps standard output open says later is not waited for.
async fn exec_background_child_delays_the_result_at_most_the_drain_time(lab: Lab) {
    let session = lab.open("a").await;
    let start = Instant::now();
    let output = session
        .shell("tail -f /dev/null & echo fast")
        .await
        .unwrap();
    let elapsed = start.elapsed();
    assert_eq!(
        (output.outcome, output.stdout.as_slice()),
        (Outcome::Exited(0), b"fast\n".as_slice())
    );
    assert!(elapsed < Duration::from_millis(1000), "{elapsed:?}");
}

const ENDLESS_TREE: &str =
    "trap '' TERM; (setsid tail -f /dev/null &); tail -f /dev/null & echo ready; tail -f /dev/null";

async fn wait_for_processes(session: &Session, expected: usize) {
    eventually("no process of the command is left", || async {
        (process_count(session).await == expected).then_some(())
    })
    .await;
}

async fn exec_dropped_handle_kills_the_tree(lab: Lab) {
    let session = lab.open("a").await;
    let before = process_count(&session).await;
    let mut handle = session.shell(ENDLESS_TREE).stream().await.unwrap();
    wait_for_output(&mut handle, b"ready\n").await;
    assert!(process_count(&session).await > before);
    drop(handle);
    wait_for_processes(&session, before).await;
}

async fn exec_dropped_future_kills_the_tree(lab: Lab) {
    let session = lab.open("a").await;
    let before = process_count(&session).await;
    let script = "echo up >started; tail -f /dev/null";
    let running = session.shell(script);
    let started = eventually_started(&session);
    tokio::select! {
        output = async { running.await } => panic!("must not end: {output:?}"),
        () = started => {}
    }
    wait_for_processes(&session, before).await;
}

async fn eventually_started(session: &Session) {
    eventually("the command started", || async {
        session
            .files()
            .exists("started")
            .await
            .unwrap()
            .then_some(())
    })
    .await;
}

async fn exec_killed_by_request_is_signaled(lab: Lab) {
    let session = lab.open("a").await;
    let before = process_count(&session).await;
    let mut handle = session.shell(ENDLESS_TREE).stream().await.unwrap();
    wait_for_output(&mut handle, b"ready\n").await;
    handle.kill().await.unwrap();
    assert_eq!(handle.wait().await.unwrap().outcome, Outcome::Signaled(9));
    wait_for_processes(&session, before).await;
}

async fn exec_ends_as_session_closed_when_the_session_closes(lab: Lab) {
    for close in [false, true] {
        let session = lab.open("a").await;
        let mut handle = session.shell(ENDLESS_TREE).stream().await.unwrap();
        wait_for_output(&mut handle, b"ready\n").await;
        let end = async {
            if close {
                assert!(session.close().await.unwrap().existed);
            } else {
                session.stop(Duration::from_millis(200)).await.unwrap();
            }
        };
        let wait = async {
            while let Some(event) = handle.next().await {
                if let ExecEvent::Exited(result) = event.unwrap() {
                    return result.outcome;
                }
            }
            panic!("no last event");
        };
        let ((), outcome) = tokio::join!(end, wait);
        assert_eq!(outcome, Outcome::SessionClosed, "close: {close}");
    }
}

async fn exec_over_memory_is_out_of_memory_and_the_session_lives_on(lab: Lab) {
    if !lab.podkit().capabilities().memory_limit {
        return lab
            .assert_unsupported(SessionSpec::new().memory("64m"), "memory")
            .await;
    }
    let session = lab.open_with("a", SessionSpec::new().memory("64m")).await;
    let token = session.boot_token().await.unwrap();
    // `tail` keeps its only line, which never ends.
    let output = session
        .shell("echo begun; tail -n 1 /dev/zero")
        .await
        .unwrap();
    assert_eq!(
        (output.outcome, output.stdout.as_slice()),
        (Outcome::OutOfMemory, b"begun\n".as_slice())
    );
    assert_eq!(output.code(), 137);
    assert_eq!(text(&session, "echo alive").await, "alive\n");
    assert_eq!(
        session.boot_token().await.unwrap(),
        token,
        "the container was not restarted"
    );
}

async fn exec_full_shared_memory_does_not_end_the_session(lab: Lab) {
    if !lab.podkit().capabilities().memory_limit {
        return lab
            .assert_unsupported(SessionSpec::new().memory("64m"), "memory")
            .await;
    }
    let session = lab.open_with("a", SessionSpec::new().memory("64m")).await;
    for place in ["/dev/shm", "/tmp"] {
        let script = format!("head -c 256m /dev/zero >{place}/full; rm -f {place}/full");
        let script = if place == "/tmp" {
            format!("mountpoint -q /tmp || exit 0; {script}")
        } else {
            script
        };
        shell(&session, &script).await;
    }
    shell(&session, "head -c 256m /dev/zero >/dev/shm/full").await;
    for _ in 0..3 {
        assert_eq!(text(&session, "echo alive").await, "alive\n");
    }
}

async fn exec_over_pids_fails_inside_and_the_session_lives_on(lab: Lab) {
    if !lab.podkit().capabilities().pids_limit {
        return lab
            .assert_unsupported(SessionSpec::new().pids_max(32), "pids_max")
            .await;
    }
    let session = lab.open_with("a", SessionSpec::new().pids_max(32)).await;
    let bomb = "bomb() { bomb | bomb & }; bomb 2>/dev/null; while :; do read x </dev/zero; done";
    let output = session
        .shell(bomb)
        .timeout(Duration::from_millis(500))
        .await
        .unwrap();
    assert!(!output.outcome.is_success(), "{}", output.outcome);
    eventually("the session runs commands again", || async {
        let output = session.shell("echo alive | cat").await.ok()?;
        (output.stdout == b"alive\n").then_some(())
    })
    .await;
}
