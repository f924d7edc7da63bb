//! Sessions: open, stop, come back, close, expire.

use std::time::Duration;

use super::{
    lab::{BOUND, Lab, assert_kind, eventually, key, sweep_only, text},
    table,
};
use crate::{
    ErrorKind, GcOptions, Limit, OnConflict, Opened, Session, SessionSpec, Workspace,
    backend::{ContainerState, StopCause},
};

table!["sessions":
    Containers session_opens_once_and_reconnects,
    Containers session_without_create_is_not_found,
    Containers session_stopped_starts_again_with_its_files,
    Containers session_close_is_idempotent_and_reports,
    Containers session_with_other_fields_is_a_conflict,
    Containers session_info_tells_what_is_known,
    Containers session_gc_removes_the_idle_and_spares_the_rest,
    Containers session_scoped_is_always_closed,
    Programs session_stops_by_itself_and_comes_back,
    Programs session_running_exec_and_touch_hold_the_clock_off,
    Programs session_inspection_is_no_activity,
    Programs session_max_lifetime_stops_everything,
    Programs session_workspace_outlives_close,
    Programs session_main_command_runs_and_its_end_stops_the_container,
    Programs session_memory_of_the_boot_changes_with_each_start,
    Containers session_max_lifetime_counts_from_its_creation,
];

async fn state(session: &Session) -> ContainerState {
    session.info().await.unwrap().state
}

async fn session_opens_once_and_reconnects(lab: Lab) {
    let first = lab.open("a").await;
    assert_eq!(first.opened(), Opened::Created);
    let token = first.boot_token().await.unwrap();
    let second = lab.open("a").await;
    assert_eq!(second.opened(), Opened::Reconnected);
    let third = lab.stranger().await.open(&key("a")).await.unwrap();
    assert_eq!(third.opened(), Opened::Reconnected);
    for session in [&second, &third] {
        assert_eq!(session.boot_token().await.unwrap(), token);
        assert_eq!(session.container(), first.container());
        assert_eq!(session.key(), first.key());
        assert!(!session.config_lost());
    }
    let other = lab.open("b").await;
    assert_ne!(other.boot_token().await.unwrap(), token);
    assert_ne!(other.container(), first.container());
}

async fn session_without_create_is_not_found(lab: Lab) {
    let opened = lab.podkit().open(&key("a")).create(false).await;
    assert_kind(opened, ErrorKind::NotFound, "open without create");
    assert_kind(
        lab.podkit().inspect(&key("a")).await,
        ErrorKind::NotFound,
        "inspect",
    );
    assert!(lab.podkit().list().await.unwrap().is_empty());
    lab.open("a").await;
    let session = lab.podkit().open(&key("a")).create(false).await.unwrap();
    assert_eq!(session.opened(), Opened::Reconnected);
}

async fn session_stopped_starts_again_with_its_files(lab: Lab) {
    if !lab.podkit().capabilities().stop_keeps_files {
        return;
    }
    let session = lab.open("a").await;
    session.files().write("note", "kept").await.unwrap();
    for round in 0..2 {
        lab.podkit()
            .stop(&key("a"), Duration::from_millis(100))
            .await
            .unwrap();
        // To stop what is stopped is no error.
        lab.podkit()
            .stop(&key("a"), Duration::from_millis(100))
            .await
            .unwrap();
        let info = lab.podkit().inspect(&key("a")).await.unwrap();
        assert_eq!(info.state, ContainerState::Exited, "round {round}");
        assert_eq!(info.stop_cause, Some(StopCause::Requested));
        let again = lab.open("a").await;
        assert_eq!(again.opened(), Opened::Started);
        assert_eq!(again.files().read("note").await.unwrap(), b"kept");
        // The handle from before works on as well.
        assert_eq!(session.files().read("note").await.unwrap(), b"kept");
    }
}

async fn session_close_is_idempotent_and_reports(lab: Lab) {
    let session = lab.open("a").await;
    let report = session.close().await.unwrap();
    assert!(report.existed && report.failed.is_empty(), "{report:?}");
    let report = session.close().await.unwrap();
    assert!(!report.existed && report.failed.is_empty(), "{report:?}");
    assert!(!lab.podkit().close(&key("never")).await.unwrap().existed);
    assert!(lab.podkit().list().await.unwrap().is_empty());
    let again = lab.open("a").await;
    assert_eq!(again.opened(), Opened::Created);
    lab.podkit().stop(&key("a"), Duration::ZERO).await.unwrap();
    assert!(
        lab.podkit().close(&key("a")).await.unwrap().existed,
        "a stopped session is closed too"
    );
}

/// Only what the caller sets is compared.
async fn session_with_other_fields_is_a_conflict(lab: Lab) {
    let spec = || SessionSpec::new().env("A", "1").hostname("box");
    let first = lab.open_with("a", spec()).await;
    let token = first.boot_token().await.unwrap();
    for same in [
        SessionSpec::new(),
        spec(),
        SessionSpec::new().hostname("box"),
    ] {
        let session = lab.open_with("a", same).await;
        assert_eq!(session.boot_token().await.unwrap(), token);
    }
    let differing = [
        ("env", SessionSpec::new().env("A", "2")),
        ("env", SessionSpec::new().env("B", "1")),
        ("hostname", SessionSpec::new().hostname("other")),
        ("user", SessionSpec::new().user("1234")),
        ("auto_stop", SessionSpec::new().auto_stop(Limit::Off)),
    ];
    for (field, spec) in differing {
        let open = || lab.podkit().session("u", "a").spec(spec.clone());
        let error = assert_kind(open().await, ErrorKind::Conflict, field);
        assert!(error.message().contains(field), "{error}");
        let reused = open().on_conflict(OnConflict::Reuse).await.unwrap();
        assert_eq!(reused.boot_token().await.unwrap(), token, "{field}");
    }
    let spec = SessionSpec::new().env("A", "2");
    let replaced = lab
        .podkit()
        .session("u", "a")
        .spec(spec)
        .on_conflict(OnConflict::Replace);
    let replaced = replaced.await.unwrap();
    assert_ne!(replaced.boot_token().await.unwrap(), token);
    assert_eq!(lab.podkit().list().await.unwrap().len(), 1);
}

async fn session_info_tells_what_is_known(lab: Lab) {
    let before = std::time::SystemTime::now() - Duration::from_secs(1);
    let spec = SessionSpec::new()
        .env("TOKEN", "hunter2")
        .label("team", "blue");
    let session = lab.open_with("a", spec).await;
    let info = session.info().await.unwrap();
    assert_eq!(
        (&info.key, info.state),
        (session.key(), ContainerState::Running)
    );
    assert!(info.created_at >= before && info.created_at <= std::time::SystemTime::now() + BOUND);
    assert!(info.started_at.is_some() && info.stop_cause.is_none() && !info.config_lost);
    assert_eq!(info.isolation, lab.podkit().capabilities().isolation);
    let restored = &info.spec;
    assert_eq!(
        restored.env.get("TOKEN").map(String::as_str),
        Some("hunter2")
    );
    assert_eq!(
        restored.labels.get("team").map(String::as_str),
        Some("blue")
    );
    assert!(
        !format!("{info:?}").contains("hunter2"),
        "a value of the environment is shown"
    );
    // Values are in no label.
    let id = session.container();
    let raw = lab.backend().inspect(id).await.unwrap();
    assert!(!format!("{:?}", raw.labels).contains("hunter2"));
    assert_eq!(raw.name, session.key().container_name(lab.prefix()));
    let listed = lab.podkit().list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed.first().unwrap().key, info.key);
    assert!(
        lab.podkit()
            .list()
            .user("nobody-else")
            .await
            .unwrap()
            .is_empty()
    );
    lab.podkit().session("v", "a").await.unwrap();
    assert_eq!(lab.podkit().list().user("v").await.unwrap().len(), 1);
    assert_eq!(lab.podkit().list().await.unwrap().len(), 2);
}

async fn session_gc_removes_the_idle_and_spares_the_rest(lab: Lab) {
    let report = lab.podkit().gc(sweep_only()).await.unwrap();
    assert_eq!((report.removed.len(), report.kept), (0, 0));
    lab.open("old").await;
    eventually("the session is idle", || async {
        let options = GcOptions::new()
            .with_idle(Duration::from_millis(100))
            .with_dry_run(true);
        let report = lab.podkit().gc(options).await.unwrap();
        (report.removed.len() == 1).then_some(())
    })
    .await;
    let young = lab.open("young").await;
    young.touch().await.unwrap();
    assert_eq!(
        lab.podkit().list().await.unwrap().len(),
        2,
        "a dry run removes nothing"
    );
    let report = lab.podkit().gc(sweep_only()).await.unwrap();
    assert_eq!(
        (report.removed.len(), report.kept),
        (0, 2),
        "nothing goes without an idle time"
    );
    let report = lab
        .podkit()
        .gc(GcOptions::new().with_idle(Duration::from_secs(3600)))
        .await
        .unwrap();
    assert_eq!((report.removed.len(), report.kept), (0, 2));
    let stranger = lab.stranger().await;
    let report = eventually("the idle session is removed", || async {
        let report = stranger
            .gc(GcOptions::new().with_idle(Duration::from_millis(50)))
            .await
            .unwrap();
        (!report.removed.is_empty()).then_some(report)
    })
    .await;
    assert!(report.failed.is_empty(), "{report:?}");
}

async fn session_scoped_is_always_closed(lab: Lab) {
    let podkit = lab.podkit();
    let said = podkit
        .scoped(SessionSpec::new(), async |session: &Session| {
            let output = session.exec(["echo", "hi"]).await?;
            Ok(output.stdout)
        })
        .await
        .unwrap();
    assert_eq!(said, b"hi\n");
    assert!(podkit.list().await.unwrap().is_empty());
    let failed = podkit
        .scoped(SessionSpec::new(), async |session: &Session| {
            session.exec(["false"]).await?.check()
        })
        .await;
    assert_kind(failed, ErrorKind::Unexpected, "the body failed");
    assert!(podkit.list().await.unwrap().is_empty());
}

async fn wait_for_stop(lab: &Lab, name: &str) -> StopCause {
    eventually("the container stopped", || async {
        let info = lab.podkit().inspect(&key(name)).await.unwrap();
        (info.state == ContainerState::Exited).then_some(info.stop_cause)
    })
    .await
    .expect("the cause is known")
}

async fn session_stops_by_itself_and_comes_back(lab: Lab) {
    let spec = SessionSpec::new().auto_stop(Limit::After(Duration::from_millis(300)));
    let session = lab.open_with("a", spec.clone()).await;
    text(&session, "echo kept >note").await;
    assert_eq!(wait_for_stop(&lab, "a").await, StopCause::AutoStop);
    // The next use starts it, by the same handle.
    assert_eq!(text(&session, "cat note").await, "kept\n");
    assert_eq!(state(&session).await, ContainerState::Running);
    assert_eq!(
        wait_for_stop(&lab, "a").await,
        StopCause::AutoStop,
        "the clock runs again"
    );
    let again = lab.open_with("a", spec).await;
    assert_eq!(again.opened(), Opened::Started);
}

async fn session_running_exec_and_touch_hold_the_clock_off(lab: Lab) {
    let spec = SessionSpec::new().auto_stop(Limit::After(Duration::from_millis(800)));
    let session = lab.open_with("a", spec).await;
    let token = session.boot_token().await.unwrap();
    let endless = "while :; do read x </dev/zero; done";
    let output = session
        .shell(endless)
        .timeout(Duration::from_millis(1500))
        .await
        .unwrap();
    assert_eq!(
        output.outcome,
        crate::Outcome::TimedOut,
        "the clock stopped a running command"
    );
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..12 {
        tick.tick().await;
        session.touch().await.unwrap();
    }
    assert_eq!(
        session.boot_token().await.unwrap(),
        token,
        "the container was restarted"
    );
    assert_eq!(wait_for_stop(&lab, "a").await, StopCause::AutoStop);
}

async fn session_inspection_is_no_activity(lab: Lab) {
    let spec = SessionSpec::new().auto_stop(Limit::After(Duration::from_millis(300)));
    lab.open_with("a", spec).await;
    // `wait_for_stop` inspects without end, and lists are made besides.
    let listing = async {
        loop {
            lab.podkit().list().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = listing => {}
        cause = wait_for_stop(&lab, "a") => assert_eq!(cause, StopCause::AutoStop),
    }
}

async fn session_max_lifetime_stops_everything(lab: Lab) {
    let spec = SessionSpec::new().max_lifetime(Limit::After(Duration::from_secs(2)));
    let session = lab.open_with("a", spec).await;
    let endless = "echo on; while :; do read x </dev/zero; done";
    let output = session.shell(endless).await.unwrap();
    assert_eq!(
        (output.outcome, output.stdout.as_slice()),
        (crate::Outcome::SessionClosed, b"on\n".as_slice())
    );
    assert_eq!(wait_for_stop(&lab, "a").await, StopCause::MaxLifetime);
}

async fn session_workspace_outlives_close(lab: Lab) {
    if !lab.podkit().capabilities().writable_binds {
        let spec = SessionSpec::new().workspace(Workspace::new(lab.directory()));
        return lab.assert_unsupported(spec, "bind").await;
    }
    let spec = SessionSpec::new().workspace(Workspace::new(lab.directory()));
    let session = lab.open_with("a", spec.clone()).await;
    text(&session, "echo kept >note; echo lost >/tmp/note").await;
    session.close().await.unwrap();
    let again = lab.open_with("a", spec.clone()).await;
    assert_eq!(again.opened(), Opened::Created);
    assert_eq!(text(&again, "cat note; ls /tmp").await, "kept\n");
    let other = lab.open_with("b", spec).await;
    assert_eq!(
        text(&other, "ls -A").await,
        "",
        "another session's workspace is another"
    );
}

async fn session_main_command_runs_and_its_end_stops_the_container(lab: Lab) {
    let script =
        "echo from main; trap 'exit 3' TERM; while [ ! -e /workspace/end ]; do :; done; exit 5";
    let spec = SessionSpec::new().command(["/bin/sh", "-c", script]);
    let session = lab.open_with("a", spec.clone()).await;
    assert_eq!(text(&session, "echo beside").await, "beside\n");
    text(&session, "echo >end").await;
    assert_eq!(wait_for_stop(&lab, "a").await, StopCause::MainExited);
    let info = lab.backend().inspect(session.container()).await.unwrap();
    assert_eq!(info.exit_code, Some(5));
    let logs = lab
        .backend()
        .logs(session.container(), 1 << 16)
        .await
        .unwrap();
    assert!(
        String::from_utf8_lossy(&logs).contains("from main"),
        "{logs:?}"
    );
    // Asked to stop, the command gets its signal.
    session.close().await.unwrap();
    let session = lab.open_with("a", spec).await;
    session.stop(Duration::from_secs(5)).await.unwrap();
    let info = lab.backend().inspect(session.container()).await.unwrap();
    assert_eq!(info.state, ContainerState::Exited);
}

async fn session_memory_of_the_boot_changes_with_each_start(lab: Lab) {
    let session = lab.open("a").await;
    let first = session.boot_token().await.unwrap();
    session.stop(Duration::ZERO).await.unwrap();
    let again = lab.open("a").await;
    assert_ne!(again.boot_token().await.unwrap(), first);
}

async fn session_max_lifetime_counts_from_its_creation(lab: Lab) {
    let lifetime = Duration::from_secs(3600);
    let spec = SessionSpec::new().max_lifetime(Limit::After(lifetime));
    let session = lab.open_with("a", spec).await;
    let made = std::time::Instant::now();
    session.stop(Duration::ZERO).await.unwrap();
    let age = made.elapsed();
    assert_eq!(session.exec(["true"]).await.unwrap().code(), 0);
    // What its agent was told when it began again.
    let containers = crate::container::ContainerManager::new(lab.backend());
    let info = containers.inspect(session.container()).await.unwrap();
    let status = containers.status(&info).await.unwrap();
    let left = status.clocks.max_lifetime_ms.unwrap() + status.uptime_ms;
    let most = lifetime.saturating_sub(age).as_millis();
    assert!(u128::from(left) <= most + 1, "{left} ms of {most} ms");
}
