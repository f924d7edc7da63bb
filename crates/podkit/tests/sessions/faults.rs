//! An engine that fails, lies, or hangs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use podkit::{
    Deadlines, Error, ErrorKind, Opened, SessionKey, SessionSpec, container::ContainerState,
};

use super::engine::Engine;

fn key() -> SessionKey {
    SessionKey::new("bob", "123").unwrap()
}

#[tokio::test]
async fn a_container_that_cannot_be_started_is_removed_and_the_first_error_kept() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    engine.fail("start", ErrorKind::LimitExceeded);
    let error = podkit.session("bob", "123").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.cleanup().is_empty());
    assert!(
        error
            .to_string()
            .starts_with("failed to start container in `podkit-123-bob-")
    );
    engine.heal();
    assert!(podkit.list().await.unwrap().is_empty());
    assert_eq!(
        podkit.session("bob", "123").await.unwrap().opened(),
        Opened::Created
    );
}

#[tokio::test]
async fn a_failed_cleanup_is_told_beside_the_first_error() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    engine.set_fault(|call| match call {
        "start" => Some(Error::new(ErrorKind::LimitExceeded, "first")),
        "remove" => Some(Error::new(ErrorKind::PermissionDenied, "second")),
        _ => None,
    });
    let error = podkit.session("bob", "123").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::LimitExceeded, "first")
    );
    assert_eq!(error.cleanup()[0].kind(), ErrorKind::PermissionDenied);
    engine.heal();
    let session = podkit.session("bob", "123").await.unwrap();
    assert_eq!(session.opened(), Opened::Started);
}

#[tokio::test]
async fn every_step_that_fails_leaves_a_session_that_the_next_opening_repairs() {
    for call in ["inspect", "create", "start", "connect"] {
        for kind in ErrorKind::ALL.iter().copied() {
            let engine = Engine::new();
            let podkit = engine.podkit().await;
            let failures = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&failures);
            engine.set_fault(move |name| {
                let first = name == call && counter.fetch_add(1, Ordering::SeqCst) == 0;
                first.then(|| Error::new(kind, "injected"))
            });
            // It may fail or find a way around; what counts is what it leaves.
            let _opened = podkit.session("bob", "123").await;
            engine.heal();
            let session = podkit.session("bob", "123").await.unwrap();
            session.exec(["true"]).await.unwrap().check().unwrap();
            assert_eq!(podkit.list().await.unwrap().len(), 1, "{call} {kind}");
        }
    }
}

#[tokio::test]
async fn a_close_that_fails_is_reported_and_can_be_repeated() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    podkit.session("bob", "123").await.unwrap();
    engine.fail("remove", ErrorKind::PermissionDenied);
    let report = podkit.close(&key()).await.unwrap();
    assert!(report.existed);
    assert_eq!(report.failed[0].kind(), ErrorKind::PermissionDenied);
    engine.heal();
    let report = podkit.close(&key()).await.unwrap();
    assert!(report.existed && report.failed.is_empty());
}

#[tokio::test]
async fn a_container_of_the_name_with_other_labels_is_never_adopted_or_removed() {
    let engine = Engine::new();
    engine.podkit().await.session("bob", "123").await.unwrap();
    for (label, value) in [
        ("podkit.user", "eve"),
        ("podkit.prefix", "x"),
        ("podkit.session", "\n"),
    ] {
        engine.set_edit(move |info| {
            info.labels.insert(label.to_owned(), value.to_owned());
        });
        let podkit = engine.podkit().await;
        let error = podkit.session("bob", "123").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{label}");
        let report = podkit.close(&key()).await.unwrap();
        assert!(!report.existed && report.failed.len() == 1, "{label}");
        assert!(podkit.list().await.unwrap().is_empty(), "{label}");
        let gc = podkit
            .gc(podkit::GcOptions::new().with_idle(Duration::ZERO))
            .await
            .unwrap();
        assert!(gc.removed.is_empty());
        engine.heal();
    }
    assert_eq!(engine.count("remove"), 0);
}

#[tokio::test]
async fn a_configuration_that_does_not_parse_is_lost_and_said_so() {
    let engine = Engine::new();
    engine.podkit().await.session("bob", "123").await.unwrap();
    for config in ["", "{\"cpus\":", "{\"of a later version\":1}", "\u{1}"] {
        engine.set_edit(move |info| {
            info.labels
                .insert("podkit.config".to_owned(), config.to_owned());
        });
        let podkit = engine.podkit().await;
        let spec = SessionSpec::new().user("nobody");
        let session = podkit.session("bob", "123").spec(spec).await.unwrap();
        assert!(session.config_lost(), "{config}");
        assert!(podkit.list().await.unwrap()[0].config_lost);
        session.exec(["true"]).await.unwrap().check().unwrap();
    }
}

#[tokio::test]
async fn a_dead_container_is_replaced_with_the_configuration_it_had() {
    let engine = Engine::new();
    let spec = SessionSpec::new().env("A", "1").user("nobody");
    engine
        .podkit()
        .await
        .session("bob", "123")
        .spec(spec.clone())
        .await
        .unwrap();
    let mut looks = 0;
    engine.set_edit(move |info| {
        looks += 1;
        if looks == 1 {
            info.state = ContainerState::Dead;
        }
    });
    let session = engine.podkit().await.session("bob", "123").await.unwrap();
    assert_eq!(session.opened(), Opened::Recovered);
    assert!(!session.config_lost());
    assert_eq!(session.info().await.unwrap().spec, spec);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_being_removed_is_waited_out() {
    let engine = Engine::new();
    engine.podkit().await.session("bob", "123").await.unwrap();
    let mut looks = 0;
    engine.set_edit(move |info| {
        looks += 1;
        if looks <= 20 {
            info.state = ContainerState::Removing;
        }
    });
    let session = engine.podkit().await.session("bob", "123").await.unwrap();
    assert_eq!(session.opened(), Opened::Reconnected);

    engine.set_edit(|info| info.state = ContainerState::Removing);
    let error = engine
        .podkit()
        .await
        .session("bob", "123")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_gone_is_asked_three_times_and_then_unavailable() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    engine.fail("inspect", ErrorKind::Unavailable);
    let error = podkit.session("bob", "123").await.unwrap_err();
    assert_eq!(
        (error.kind(), engine.count("inspect")),
        (ErrorKind::Unavailable, 3)
    );
    engine.fail("create", ErrorKind::Unavailable);
    engine.reset();
    let error = podkit.session("bob", "123").await.unwrap_err();
    assert_eq!(
        (error.kind(), engine.count("create")),
        (ErrorKind::Unavailable, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_timed_out_by_its_deadline() {
    let engine = Engine::new();
    let mut deadlines = Deadlines::default();
    deadlines.inspect = Duration::from_secs(3);
    let podkit = engine.builder().deadlines(deadlines).build().await.unwrap();
    engine.hang();
    let begin = tokio::time::Instant::now();
    let error = podkit.session("bob", "123").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn an_image_that_is_missing_is_not_taken_for_a_lost_race() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    engine.fail("create", ErrorKind::NotFound);
    let error = podkit.session("bob", "123").await.unwrap_err();
    assert_eq!(
        (error.kind(), engine.count("create")),
        (ErrorKind::NotFound, 1)
    );
    engine.fail("start", ErrorKind::NotFound);
    podkit.session("bob", "123").await.unwrap_err();
    engine.heal();
    assert!(podkit.list().await.unwrap().is_empty());
}
