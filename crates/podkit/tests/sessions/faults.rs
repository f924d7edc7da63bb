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

/// Of two makers one is slower, and fails on what the other has made.
#[tokio::test]
async fn a_container_made_by_another_meanwhile_is_not_removed() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let mut starts = 0;
    engine.set_fault(move |call| {
        starts += usize::from(call == "start");
        (call == "start" && starts == 1).then(|| Error::new(ErrorKind::LimitExceeded, "injected"))
    });
    engine.set_edit(|info| {
        info.labels
            .insert("podkit.created".to_owned(), "1".to_owned());
    });
    let session = podkit.session("bob", "123").await.unwrap();
    session.exec(["true"]).await.unwrap().check().unwrap();
    assert_eq!(engine.count("remove"), 0);
}

/// It may have begun, so that beginning it again could do everything twice.
#[tokio::test]
async fn a_command_whose_connection_breaks_is_not_begun_again() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let session = podkit.session("bob", "123").await.unwrap();
    engine.cut();
    let error = session.exec(["true"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AgentUnreachable);
    // What comes next gets a connection of its own.
    session.exec(["true"]).await.unwrap().check().unwrap();
}

/// A disk with room for so many bytes, which somebody frees at times.
#[derive(Clone, Default)]
struct Disk(Arc<std::sync::Mutex<(Vec<u8>, usize)>>);

impl std::io::Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let (written, room) = &mut *self.0.lock().unwrap();
        let count = bytes.len().min(*room - written.len());
        if count == 0 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        written.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_audit_line_that_was_cut_off_spoils_no_other() {
    let engine = Engine::new();
    for room in [0, 1, 100] {
        let (disk, failed) = (Disk::default(), Arc::new(AtomicUsize::new(0)));
        disk.0.lock().unwrap().1 = room;
        let counter = Arc::clone(&failed);
        let audit = podkit::AuditLog::new(disk.clone()).on_failure(move |error| {
            assert_eq!(error.kind(), ErrorKind::LimitExceeded);
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let podkit = engine.builder().audit(audit).build().await.unwrap();
        let session = podkit.session("bob", "123").await.unwrap();
        for _ in 0..2 {
            session.exec(["true"]).await.unwrap().check().unwrap();
        }
        let both = async || (failed.load(Ordering::SeqCst) == 2).then_some(());
        super::wait_for("two complaints", both).await;
        disk.0.lock().unwrap().1 = usize::MAX;
        session.exec(["echo", "later"]).await.unwrap();
        session.exec(["echo", "last"]).await.unwrap();
        podkit.shutdown().await;
        let written = disk.0.lock().unwrap().0.clone();
        let text = String::from_utf8(written).unwrap();
        let whole: Vec<serde_json::Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let words = whole.iter().map(|line| line["argv"][1].as_str().unwrap());
        assert_eq!(
            words.collect::<Vec<_>>(),
            ["later", "last"],
            "{room}: {text}"
        );
        assert_eq!(text.lines().count(), 2 + usize::from(room > 0), "{text}");
    }
}
