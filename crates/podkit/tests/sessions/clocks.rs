//! Expiry and collection.

use std::time::{Duration, Instant, SystemTime};

use podkit::{GcOptions, Limit, Opened, SessionKey, SessionSpec, container::ContainerState};

use super::engine::Engine;

fn key() -> SessionKey {
    SessionKey::new("bob", "123").unwrap()
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn gc_without_an_idle_time_removes_only_what_its_own_clock_ended() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    podkit.session("bob", "plain").await.unwrap();
    let short = SessionSpec::new().idle_timeout(Limit::After(Duration::from_millis(1)));
    podkit.session("bob", "123").spec(short).await.unwrap();
    let long = SessionSpec::new().idle_timeout(Limit::After(HOUR));
    podkit.session("bob", "long").spec(long).await.unwrap();
    let begin = Instant::now();
    let over = async || (begin.elapsed() > Duration::from_millis(5)).then_some(());
    super::wait_for("the end of the idle time", over).await;

    let dry = engine
        .podkit()
        .await
        .gc(GcOptions::new().with_dry_run(true))
        .await
        .unwrap();
    assert_eq!((dry.removed.as_slice(), dry.kept), ([key()].as_slice(), 2));
    assert_eq!(
        (podkit.list().await.unwrap().len(), engine.count("sweep")),
        (3, 0)
    );

    let report = engine.podkit().await.gc(GcOptions::new()).await.unwrap();
    assert_eq!(
        (report.removed.as_slice(), report.kept),
        ([key()].as_slice(), 2)
    );
    assert!(report.failed.is_empty());
    assert_eq!(
        (podkit.list().await.unwrap().len(), engine.count("sweep")),
        (2, 1)
    );
}

#[tokio::test]
async fn gc_counts_a_running_command_as_activity() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let session = podkit.session("bob", "123").await.unwrap();
    let handle = session.exec(["cat"]).stdin_stream().stream().await.unwrap();
    let idle = GcOptions::new().with_idle(Duration::ZERO);
    let report = engine.podkit().await.gc(idle).await.unwrap();
    assert_eq!((report.removed.len(), report.kept), (0, 1));
    handle.kill().await.unwrap();
    let _ended = handle.wait().await.unwrap();
}

#[tokio::test]
async fn gc_removes_idle_sessions_whether_they_run_or_not() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    podkit.session("bob", "123").await.unwrap();
    podkit.session("bob", "stopped").await.unwrap();
    let stopped = SessionKey::new("bob", "stopped").unwrap();
    podkit.stop(&stopped, Duration::ZERO).await.unwrap();
    let report = podkit.gc(GcOptions::new().with_idle(HOUR)).await.unwrap();
    assert_eq!((report.removed.len(), report.kept), (0, 2));
    let report = podkit
        .gc(GcOptions::new().with_idle(Duration::ZERO))
        .await
        .unwrap();
    assert_eq!((report.removed.len(), report.kept), (2, 0));
    assert!(podkit.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn gc_spares_containers_that_are_being_made() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    podkit.session("bob", "123").await.unwrap();
    engine.set_edit(|info| info.state = ContainerState::Created);
    let idle = GcOptions::new().with_idle(Duration::ZERO);
    let report = podkit.gc(idle).await.unwrap();
    assert_eq!((report.removed.len(), report.kept), (0, 1));
    engine.set_edit(|info| {
        info.state = ContainerState::Created;
        info.created_at = SystemTime::now() - Duration::from_secs(601);
    });
    assert_eq!(podkit.gc(idle).await.unwrap().removed, [key()]);
}

#[tokio::test]
async fn gc_of_an_open_session_lets_its_handle_recover() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let session = podkit.session("bob", "123").await.unwrap();
    podkit
        .gc(GcOptions::new().with_idle(Duration::ZERO))
        .await
        .unwrap();
    session.exec(["true"]).await.unwrap().check().unwrap();
    assert_eq!(session.opened(), Opened::Recovered);
}

#[tokio::test]
async fn looking_is_no_activity_and_touching_is() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let session = podkit.session("bob", "123").await.unwrap();
    let active = async || {
        podkit
            .inspect(&key())
            .await
            .unwrap()
            .last_active_at
            .unwrap()
    };
    let first = active().await;
    // Milliseconds are rounded both ways, so that looks may differ by a few.
    let later = super::wait_for("time", async || {
        (first.elapsed().unwrap() > Duration::from_millis(50)).then_some(())
    });
    later.await;
    assert!(active().await < first + Duration::from_millis(30));
    session.touch().await.unwrap();
    assert!(active().await > first + Duration::from_millis(30));
}

/// This machine's clock was put back, or another's runs ahead: what is on record has not happened yet.
#[tokio::test]
async fn clock_that_was_put_back_makes_nothing_old() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let spec = SessionSpec::new()
        .idle_timeout(Limit::After(HOUR))
        .max_lifetime(Limit::After(HOUR));
    podkit.session("bob", "123").spec(spec).await.unwrap();
    podkit.stop(&key(), Duration::ZERO).await.unwrap();
    engine.set_edit(|info| {
        let ahead = SystemTime::now() + 24 * HOUR;
        info.created_at = ahead;
        info.started_at = info.started_at.map(|_| ahead);
        info.finished_at = info.finished_at.map(|_| ahead);
        info.last_active_at = info.last_active_at.map(|_| ahead);
    });
    for options in [GcOptions::new(), GcOptions::new().with_idle(HOUR)] {
        let report = podkit.gc(options).await.unwrap();
        assert_eq!((report.removed.len(), report.kept), (0, 1));
    }
    let session = engine.podkit().await.session("bob", "123").await.unwrap();
    assert_eq!(session.opened(), Opened::Started);
    session.exec(["true"]).await.unwrap().check().unwrap();
    podkit.inspect(&key()).await.unwrap();
}

/// The clock leapt ahead: the time of a container that runs is its agent's, which does not leap.
#[tokio::test]
async fn clock_that_leapt_ahead_ends_no_session_that_runs() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let spec = SessionSpec::new().idle_timeout(Limit::After(HOUR));
    let session = podkit.session("bob", "123").spec(spec).await.unwrap();
    let long_ago = |info: &mut podkit::backend::ContainerInfo| {
        info.created_at = SystemTime::UNIX_EPOCH;
        info.started_at = info.started_at.map(|_| SystemTime::UNIX_EPOCH);
        info.finished_at = info.finished_at.map(|_| SystemTime::UNIX_EPOCH);
        info.last_active_at = info.last_active_at.map(|_| SystemTime::UNIX_EPOCH);
    };
    engine.set_edit(long_ago);
    let report = engine.podkit().await.gc(GcOptions::new()).await.unwrap();
    assert_eq!((report.removed.len(), report.kept), (0, 1));
    session.exec(["true"]).await.unwrap().check().unwrap();
    // Of one that rests nothing but the dates is known.
    podkit.stop(&key(), Duration::ZERO).await.unwrap();
    let report = engine.podkit().await.gc(GcOptions::new()).await.unwrap();
    assert_eq!(report.removed, [key()]);
}

/// A lifetime counts from the making, by dates, wherever the clock stands then.
#[tokio::test]
async fn clock_that_leapt_ahead_ends_a_lifetime_before_anything_is_started() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let spec = SessionSpec::new().max_lifetime(Limit::After(HOUR));
    podkit.session("bob", "123").spec(spec).await.unwrap();
    podkit.stop(&key(), Duration::ZERO).await.unwrap();
    engine.set_edit(|info| info.created_at -= 2 * HOUR);
    engine.reset();
    let error = podkit.session("bob", "123").await.unwrap_err();
    assert_eq!(error.kind(), podkit::ErrorKind::LimitExceeded);
    assert_eq!(engine.count("start"), 0);
}
