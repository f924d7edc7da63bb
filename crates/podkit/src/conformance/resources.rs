//! What a container uses, limits that change, rest.

use std::time::Duration;

use super::{
    lab::{BOUND, Lab, assert_kind, eventually, key, shell, text},
    table,
};
use crate::{
    ContainerState, ErrorKind, Limit, LimitChange, Opened, Outcome, ProcessState, SessionSpec,
};

table!["resources":
    Containers stats_and_limits_work_or_are_unsupported,
    Containers limits_that_cannot_be_are_refused,
    Containers what_does_not_run_has_no_stats_and_no_rest,
    Programs stats_tell_what_commands_use,
    Programs stats_stream_ends_with_the_container,
    Programs limits_changed_while_it_runs_hold_and_outlast_a_restart,
    Programs limit_below_what_is_used_is_refused_and_changes_nothing,
    Programs pause_freezes_processes_until_the_next_use,
    Programs pause_does_not_count_as_idle_time,
];

const MEGABYTE: u64 = 1_000_000;

async fn stats_and_limits_work_or_are_unsupported(lab: Lab) {
    let session = lab.open("a").await;
    let capabilities = lab.podkit().capabilities();
    let change = LimitChange::new().pids_max(300);
    if capabilities.live_limits {
        session.set_limits(change).await.unwrap();
    } else {
        let refused = session.set_limits(change).await;
        assert_kind(refused, ErrorKind::Unsupported, "limits");
    }
    if capabilities.stats {
        let stats = session.stats().await.unwrap();
        assert!(stats.cpu_time.is_some(), "{stats:?}");
    } else {
        assert_kind(session.stats().await, ErrorKind::Unsupported, "stats");
        let stream = session.watch_stats(Duration::ZERO);
        assert_kind(stream, ErrorKind::Unsupported, "a stream of stats");
    }
}

async fn limits_that_cannot_be_are_refused(lab: Lab) {
    if !lab.podkit().capabilities().live_limits {
        return;
    }
    let session = lab.open("a").await;
    let new = LimitChange::new;
    for change in [
        new(),
        new().memory("1k"),
        new().memory("much"),
        new().cpus(0.0),
        new().cpus(f64::NAN),
        new().pids_max(0),
        new().swap("-1"),
    ] {
        let about = format!("{change:?}");
        let refused = session.set_limits(change).await;
        assert_kind(refused, ErrorKind::InvalidInput, &about);
    }
    assert_eq!(text(&session, "echo fine").await, "fine\n");
}

async fn what_does_not_run_has_no_stats_and_no_rest(lab: Lab) {
    let podkit = lab.podkit();
    let change = LimitChange::new().pids_max(300);
    let capabilities = podkit.capabilities();
    for result in [
        podkit.pause(&key("a")).await,
        podkit.resume(&key("a")).await,
    ] {
        assert_kind(result, ErrorKind::NotFound, "no session");
    }
    assert_kind(podkit.stats(&key("a")).await, ErrorKind::NotFound, "stats");
    if capabilities.live_limits {
        let refused = podkit.set_limits(&key("a"), change).await;
        assert_kind(refused, ErrorKind::NotFound, "limits");
    }
    let session = lab.open("a").await;
    session.stop(Duration::ZERO).await.unwrap();
    for result in [session.pause().await, session.resume().await] {
        assert_kind(result, ErrorKind::ContainerGone, "a stopped session");
    }
    if capabilities.stats {
        assert_kind(session.stats().await, ErrorKind::ContainerGone, "stats");
    }
    let info = session.info().await.unwrap();
    assert_eq!(info.state, ContainerState::Exited, "nothing was started");
}

async fn stats_tell_what_commands_use(lab: Lab) {
    if !lab.podkit().capabilities().stats {
        return;
    }
    let spec = SessionSpec::new().pids_max(200);
    let limited = lab.podkit().capabilities().pids_limit;
    let spec = if limited { spec } else { SessionSpec::new() };
    let session = lab.open_with("a", spec).await;
    let first = session.stats().await.unwrap();
    // The tail keeps all of it, and the program after it reads nothing.
    session
        .spawn_shell("head -c 60000000 /dev/zero | tail -c 50000000 | sleep 1000")
        .await
        .unwrap();
    let counts_memory = first.memory_bytes.is_some();
    let now = eventually("what it holds is counted", || async {
        let now = session.stats().await.unwrap();
        let holds = now.memory_bytes.is_none_or(|bytes| bytes > 45 * MEGABYTE);
        holds.then_some(now)
    })
    .await;
    assert!(counts_memory == now.memory_bytes.is_some(), "{now:?}");
    assert!(now.cpu_time > first.cpu_time, "{first:?} {now:?}");
    assert!(now.cpus_since(&first).is_some_and(|cpus| cpus > 0.0));
    if let Some(pids) = now.pids {
        assert!((3..20).contains(&pids), "{now:?}");
    }
    if limited {
        assert!(now.pids_limit.is_none_or(|limit| limit == 200), "{now:?}");
    }
    if lab.podkit().capabilities().memory_limit {
        assert_eq!(now.memory_limit_bytes, Some(512 << 20));
    }
}

async fn stats_stream_ends_with_the_container(lab: Lab) {
    if !lab.podkit().capabilities().stats {
        return;
    }
    let session = lab.open("a").await;
    let mut stream = session.watch_stats(Duration::from_millis(10)).unwrap();
    let first = stream.next().await.unwrap().unwrap();
    let second = stream.next().await.unwrap().unwrap();
    assert!(second.at > first.at);
    session.close().await.unwrap();
    let end = async { while stream.next().await.unwrap().is_some() {} };
    tokio::time::timeout(BOUND, end).await.unwrap();
    let mut none = lab
        .podkit()
        .watch_stats(&key("a"), Duration::from_secs(1))
        .unwrap();
    assert_kind(none.next().await, ErrorKind::NotFound, "no session");
}

/// Needs 100 MB for a moment.
const HUNGRY: &str = "head -c 100000000 /dev/zero | tail -c 100000000 | wc -c";

async fn limits_changed_while_it_runs_hold_and_outlast_a_restart(lab: Lab) {
    let capabilities = lab.podkit().capabilities();
    if !capabilities.live_limits || !capabilities.memory_limit {
        return;
    }
    let session = lab.open_with("a", SessionSpec::new().memory("64m")).await;
    assert_ne!(shell(&session, HUNGRY).await.stdout, b"100000000\n");
    let change = LimitChange::new().memory("300m").cpus(0.5).pids_max(40);
    session.set_limits(change).await.unwrap();
    assert_eq!(text(&session, HUNGRY).await, "100000000\n");
    let forks = "for n in $(seq 60); do sleep 100 & done; wait -n 2>/dev/null; echo all";
    assert_ne!(shell(&session, forks).await.stdout, b"all\n");
    session.stop(Duration::ZERO).await.unwrap();
    assert_eq!(text(&session, HUNGRY).await, "100000000\n");
    let stats = session.stats().await.unwrap();
    assert_eq!(stats.memory_limit_bytes, Some(300 << 20));
    assert_eq!(stats.pids_limit, Some(40));
    // And down again.
    let change = LimitChange::new().memory("64m");
    session.set_limits(change).await.unwrap();
    assert_ne!(shell(&session, HUNGRY).await.stdout, b"100000000\n");
    // It is the session's own container still, whatever it was opened with.
    let again = lab.podkit().open(&key("a"));
    let again = again.spec(SessionSpec::new().memory("64m")).await.unwrap();
    assert_eq!(again.opened(), Opened::Reconnected);
}

async fn limit_below_what_is_used_is_refused_and_changes_nothing(lab: Lab) {
    let capabilities = lab.podkit().capabilities();
    if !capabilities.live_limits || !capabilities.memory_limit || !capabilities.stats {
        return;
    }
    let session = lab.open_with("a", SessionSpec::new().memory("200m")).await;
    let process = session
        .spawn_shell("head -c 60000000 /dev/zero | tail -c 60000000 | sleep 1000")
        .await
        .unwrap();
    eventually("what it holds is counted", || async {
        let stats = session.stats().await.unwrap();
        (stats.memory_bytes? > 50 * MEGABYTE).then_some(())
    })
    .await;
    let refused = session.set_limits(LimitChange::new().memory("30m")).await;
    assert_kind(refused, ErrorKind::LimitExceeded, "30 MB");
    let stats = session.stats().await.unwrap();
    assert_eq!(stats.memory_limit_bytes, Some(200 << 20));
    let info = process.info().await.unwrap();
    assert_eq!(info.state, ProcessState::Running);
}

async fn pause_freezes_processes_until_the_next_use(lab: Lab) {
    let session = lab.open("a").await;
    if !lab.podkit().capabilities().pause {
        assert_kind(session.pause().await, ErrorKind::Unsupported, "pause");
        return;
    }
    let token = session.boot_token().await.unwrap();
    session
        .spawn_shell("while :; do echo x >> /tmp/beats; done")
        .await
        .unwrap();
    eventually("the process runs", || async {
        let size = session.files().stat("/tmp/beats").await.ok()?.size_bytes;
        (size > 0).then_some(())
    })
    .await;
    session.pause().await.unwrap();
    session.pause().await.unwrap();
    let info = session.info().await.unwrap();
    assert_eq!(info.state, ContainerState::Paused);
    if lab.podkit().capabilities().stats {
        let before = session.stats().await.unwrap().cpu_time;
        let after = session.stats().await.unwrap().cpu_time;
        assert_eq!(before, after, "something runs");
    }
    let output = session.exec(["echo", "hi"]).await.unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0));
    assert_eq!(session.boot_token().await.unwrap(), token);
    assert_eq!(session.opened(), Opened::Resumed);
    session.pause().await.unwrap();
    session.resume().await.unwrap();
    session.resume().await.unwrap();
    let info = session.info().await.unwrap();
    assert_eq!(info.state, ContainerState::Running);
}

/// Another session, whose time is longer and which is not paused, ends meanwhile.
async fn pause_does_not_count_as_idle_time(lab: Lab) {
    if !lab.podkit().capabilities().pause {
        return;
    }
    let idle = |milliseconds| {
        let limit = Limit::After(Duration::from_millis(milliseconds));
        SessionSpec::new().auto_stop(limit)
    };
    let paused = lab.open_with("a", idle(2000)).await;
    let token = paused.boot_token().await.unwrap();
    let other = lab.open_with("b", idle(4500)).await;
    paused.pause().await.unwrap();
    eventually("the other one's end", || async {
        let info = other.info().await.unwrap();
        (info.state == ContainerState::Exited).then_some(())
    })
    .await;
    let output = paused.exec(["echo", "hi"]).await.unwrap();
    assert_eq!(output.stdout, b"hi\n");
    assert_eq!(paused.opened(), Opened::Resumed, "it stopped by itself");
    assert_eq!(paused.boot_token().await.unwrap(), token);
}
