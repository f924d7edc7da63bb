//! One caller at a time.

use std::time::Duration;

use podkit::{
    ErrorKind, Limit, Mount, OnConflict, Opened, Outcome, Prefix, SessionKey, SessionSpec,
    Workspace,
    container::{ContainerState, StopCause},
};

use super::engine::Engine;

fn key() -> SessionKey {
    SessionKey::new("bob", "123").unwrap()
}

#[tokio::test]
async fn open_of_a_missing_session_creates_and_then_reconnects_with_one_look_up() {
    let engine = Engine::new();
    let (one, two) = (engine.podkit().await, engine.podkit().await);
    let first = one.session("bob", "123").await.unwrap();
    assert_eq!(first.opened(), Opened::Created);
    engine.reset();
    let second = two.session("bob", "123").await.unwrap();
    assert_eq!(second.opened(), Opened::Reconnected);
    assert_eq!(
        (
            engine.count("inspect"),
            engine.count("connect"),
            engine.total()
        ),
        (1, 1, 2)
    );
    assert_eq!(
        first.boot_token().await.unwrap(),
        second.boot_token().await.unwrap()
    );
    assert_eq!(first.container(), second.container());
}

#[tokio::test]
async fn exec_in_an_open_session_makes_no_engine_call() {
    let engine = Engine::new();
    let session = engine.podkit().await.session("bob", "123").await.unwrap();
    engine.reset();
    for _ in 0..10 {
        let output = session.exec(["echo", "hi"]).await.unwrap();
        assert_eq!(
            (output.outcome, output.stdout.as_slice()),
            (Outcome::Exited(0), &b"hi\n"[..])
        );
    }
    assert_eq!(engine.total(), 0);
}

#[tokio::test]
async fn open_without_creation_of_a_missing_session_is_not_found() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let error = podkit
        .session("bob", "123")
        .create(false)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(engine.count("create"), 0);
    assert_eq!(
        podkit.inspect(&key()).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn open_with_a_bad_spec_or_id_makes_nothing() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let bad = [
        SessionSpec::new().memory("lots"),
        SessionSpec::new().cpus(-1.0),
        SessionSpec::new().mount(Mount::bind("/nonexistent/podkit", "/data")),
        SessionSpec::new().label("podkit.user", "eve"),
        SessionSpec::new().label("a", "x".repeat(40_000)),
    ];
    for spec in bad {
        let error = podkit.session("bob", "123").spec(spec).await.unwrap_err();
        let kinds = [
            ErrorKind::InvalidInput,
            ErrorKind::Unsupported,
            ErrorKind::LimitExceeded,
        ];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
    let error = podkit.session("..", "123").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(engine.count("create"), 0);
}

#[tokio::test]
async fn open_with_another_configuration_is_a_conflict_that_names_fields_only() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let spec = SessionSpec::new().env("TOKEN", "hunter2").cwd("/srv");
    podkit
        .session("bob", "123")
        .spec(spec.clone())
        .await
        .unwrap();
    let same = podkit.session("bob", "123").spec(spec).await.unwrap();
    assert_eq!(same.opened(), Opened::Reconnected);

    let other = SessionSpec::new()
        .env("TOKEN", "swordfish")
        .cwd("/srv")
        .user("nobody");
    let error = podkit
        .session("bob", "123")
        .spec(other.clone())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("env.TOKEN") && text.contains("user") && !text.contains("cwd"),
        "{text}"
    );
    assert!(
        !text.contains("hunter2") && !text.contains("swordfish"),
        "{text}"
    );

    let reuse = podkit
        .session("bob", "123")
        .spec(other.clone())
        .on_conflict(OnConflict::Reuse);
    assert_eq!(reuse.await.unwrap().opened(), Opened::Reconnected);
    let replace = podkit
        .session("bob", "123")
        .spec(other)
        .on_conflict(OnConflict::Replace);
    let replaced = replace.await.unwrap();
    assert_eq!(replaced.opened(), Opened::Created);
    let spec = replaced.info().await.unwrap().spec;
    assert_eq!(
        (spec.user.as_deref(), spec.env["TOKEN"].as_str()),
        (Some("nobody"), "swordfish")
    );
}

#[tokio::test]
async fn a_new_process_restores_the_real_configuration() {
    let engine = Engine::new();
    let spec = SessionSpec::new()
        .env("TOKEN", "hunter2")
        .label("team", "a")
        .exec_timeout(Limit::After(Duration::from_secs(9)))
        .idle_timeout(Limit::After(Duration::from_secs(3600)));
    engine
        .podkit()
        .await
        .session("bob", "123")
        .spec(spec.clone())
        .await
        .unwrap();
    let podkit = engine.podkit().await;
    let session = podkit.session("bob", "123").await.unwrap();
    assert!(!session.config_lost());
    let info = session.info().await.unwrap();
    assert_eq!(info.spec, spec);
    assert_eq!((info.key, info.state), (key(), ContainerState::Running));
    assert!(info.expires.stops_at.is_some() && info.expires.idle_at.is_some());
    assert!(!format!("{:?}", podkit.list().await.unwrap()).contains("hunter2"));
}

#[tokio::test]
async fn default_spec_fills_in_and_never_conflicts() {
    let engine = Engine::new();
    let with = |user: &str| {
        engine
            .builder()
            .default_spec(SessionSpec::new().user(user))
            .build()
    };
    let (one, two) = (with("one").await.unwrap(), with("two").await.unwrap());
    one.session("bob", "123").await.unwrap();
    let session = two.session("bob", "123").await.unwrap();
    assert_eq!(
        session.info().await.unwrap().spec.user.as_deref(),
        Some("one")
    );
}

#[tokio::test]
async fn another_prefix_is_never_seen_or_touched() {
    let engine = Engine::new();
    let other = Prefix::new("podkit-other").unwrap();
    let (ours, theirs) = (
        engine.podkit().await,
        engine.builder().prefix(other).build().await.unwrap(),
    );
    let session = theirs.session("bob", "123").await.unwrap();
    assert!(ours.list().await.unwrap().is_empty());
    assert!(!ours.close(&key()).await.unwrap().existed);
    let report = ours
        .gc(podkit::GcOptions::new().with_idle(Duration::ZERO))
        .await
        .unwrap();
    assert_eq!((report.removed.len(), report.kept), (0, 0));
    ours.session("bob", "123").await.unwrap();
    assert_eq!(theirs.list().await.unwrap().len(), 1);
    session.exec(["true"]).await.unwrap().check().unwrap();
}

#[tokio::test]
async fn close_is_idempotent_and_ends_every_handle_of_this_process() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let session = podkit.session("bob", "123").await.unwrap();
    let clone = session.clone();
    let report = session.close().await.unwrap();
    assert!(report.existed && report.failed.is_empty());
    assert!(!session.close().await.unwrap().existed);
    let error = clone.exec(["true"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContainerGone);
    assert!(podkit.list().await.unwrap().is_empty());
    assert_eq!(
        podkit.session("bob", "123").await.unwrap().opened(),
        Opened::Created
    );
    assert_eq!(
        clone.exec(["true"]).await.unwrap_err().kind(),
        ErrorKind::ContainerGone
    );
}

#[tokio::test]
async fn close_of_a_session_with_a_running_command_ends_it_as_session_closed() {
    let engine = Engine::new();
    let (ours, theirs) = (engine.podkit().await, engine.podkit().await);
    let session = ours.session("bob", "123").await.unwrap();
    let handle = session.exec(["cat"]).stdin_stream().stream().await.unwrap();
    assert!(theirs.close(&key()).await.unwrap().existed);
    let result = handle.wait().await.unwrap();
    assert_eq!(result.outcome, Outcome::SessionClosed);
}

#[tokio::test]
async fn exec_after_a_stop_starts_the_container_again() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let session = podkit.session("bob", "123").await.unwrap();
    let before = session.boot_token().await.unwrap();
    engine
        .podkit()
        .await
        .stop(&key(), Duration::ZERO)
        .await
        .unwrap();
    let info = podkit.inspect(&key()).await.unwrap();
    assert_eq!(info.state, ContainerState::Exited);
    assert_eq!(info.stop_cause, Some(StopCause::Requested));
    session.exec(["true"]).await.unwrap().check().unwrap();
    assert_eq!(session.opened(), Opened::Started);
    assert_ne!(session.boot_token().await.unwrap(), before);
}

#[tokio::test]
async fn exec_after_a_removal_elsewhere_makes_the_container_anew_as_it_was() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let spec = SessionSpec::new().env("TOKEN", "hunter2").user("nobody");
    let session = podkit
        .session("bob", "123")
        .spec(spec.clone())
        .await
        .unwrap();
    assert!(engine.podkit().await.close(&key()).await.unwrap().existed);
    session.exec(["true"]).await.unwrap().check().unwrap();
    assert_eq!(session.opened(), Opened::Recovered);
    assert_eq!(session.info().await.unwrap().spec, spec);
}

#[tokio::test]
async fn open_of_a_paused_session_resumes_it() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let session = podkit.session("bob", "123").await.unwrap();
    podkit
        .containers()
        .pause(session.container())
        .await
        .unwrap();
    let again = podkit.session("bob", "123").await.unwrap();
    assert_eq!(again.opened(), Opened::Resumed);
    again.exec(["true"]).await.unwrap().check().unwrap();
}

#[tokio::test]
async fn scoped_session_is_closed_when_its_body_ends_fails_panics_or_is_dropped() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let empty = async || podkit.list().await.unwrap().is_empty().then_some(());

    let code = podkit.scoped(SessionSpec::new(), async |s| {
        Ok(s.exec(["true"]).await?.code())
    });
    assert_eq!(code.await.unwrap(), 0);
    assert!(podkit.list().await.unwrap().is_empty());

    let failed = podkit.scoped(SessionSpec::new(), async |s| {
        s.exec(["false"]).await?.check()
    });
    assert_eq!(failed.await.unwrap_err().kind(), ErrorKind::Unexpected);
    assert!(podkit.list().await.unwrap().is_empty());

    let cloned = podkit.clone();
    let panicked = tokio::task::JoinSet::from_iter([async move {
        let body = async |_: &podkit::Session| -> podkit::Result<()> { panic!("on purpose") };
        cloned.scoped(SessionSpec::new(), body).await
    }]);
    for result in panicked.join_all_results().await {
        assert!(result.is_err());
    }
    super::wait_for("closing after a panic", empty).await;

    let never = podkit.scoped(SessionSpec::new(), async |_| {
        std::future::pending::<podkit::Result<()>>().await
    });
    let mut never = Box::pin(never);
    tokio::select! {
        biased;
        _ = &mut never => unreachable!("the body never ends"),
        () = super::wait_for("opening", async || {
            (!podkit.list().await.unwrap().is_empty()).then_some(())
        }) => {}
    }
    drop(never);
    super::wait_for("closing after a drop", empty).await;
}

/// `join_all` that keeps panics.
trait JoinAllResults<T> {
    async fn join_all_results(self) -> Vec<Result<T, tokio::task::JoinError>>;
}

impl<T: 'static> JoinAllResults<T> for tokio::task::JoinSet<T> {
    async fn join_all_results(mut self) -> Vec<Result<T, tokio::task::JoinError>> {
        let mut results = Vec::new();
        while let Some(result) = self.join_next().await {
            results.push(result);
        }
        results
    }
}

#[tokio::test]
async fn files_written_are_read_listed_renamed_and_removed() {
    let engine = Engine::new();
    let session = engine.podkit().await.session("bob", "123").await.unwrap();
    let files = session.files();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    files.write("a/b.bin", bytes.clone()).await.unwrap();
    assert_eq!(files.read("/workspace/a/b.bin").await.unwrap(), bytes);
    files.append("a/b.bin", "tail").await.unwrap();
    assert_eq!(files.stat("a/b.bin").await.unwrap().size_bytes, 300_004);
    assert_eq!(files.list("a").await.unwrap().len(), 1);
    files.rename("a/b.bin", "a/c.bin").await.unwrap();
    assert!(!files.exists("a/b.bin").await.unwrap() && files.exists("a/c.bin").await.unwrap());
    files.remove_all("a").await.unwrap();
    assert_eq!(
        files.read("a/c.bin").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let options = podkit::WriteOptions::new().with_parents(false);
    let error = files
        .write_with("x/y", options, &b"1"[..])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        files.read("").await.unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[tokio::test]
async fn calls_after_a_shutdown_are_unavailable() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    podkit.session("bob", "123").await.unwrap();
    podkit.shutdown().await;
    let error = podkit.session("bob", "123").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(engine.podkit().await.list().await.unwrap().len(), 1);
}

#[test]
fn blocking_calls_work_outside_async_code_and_fail_inside() {
    use podkit::blocking::Podkit;
    let podkit = Podkit::connect("memory").unwrap();
    let session = podkit.session("bob", "123").unwrap();
    assert_eq!(session.exec(["echo", "hi"]).unwrap().stdout, b"hi\n");
    session.files().write("a", "x").unwrap();
    assert_eq!(session.files().read("a").unwrap(), b"x");
    let code = podkit
        .scoped(SessionSpec::new(), |s| Ok(s.exec(["true"])?.code()))
        .unwrap();
    assert_eq!((code, podkit.list().unwrap().len()), (0, 1));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async move {
        let error = session.exec(["true"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        drop((session, podkit));
    });
}

#[tokio::test]
async fn a_workspace_is_made_on_first_use_and_outlives_its_session() {
    let engine = Engine::new();
    let base = tempfile::tempdir().unwrap();
    let podkit = engine.podkit().await;
    let spec = SessionSpec::new().workspace(Workspace::new(base.path()));
    let opening = podkit.session("bob", "a/b").spec(spec).await;
    let directory = base.path().join("workspaces/bob/a%2Fb");
    if !podkit.capabilities().writable_binds {
        assert_eq!(opening.unwrap_err().kind(), ErrorKind::Unsupported);
        return;
    }
    let session = opening.unwrap();
    assert!(directory.is_dir());
    assert_eq!(
        session.info().await.unwrap().workspace.as_deref(),
        Some(directory.as_path())
    );
    let host = session.to_host_path("/workspace/x").unwrap();
    assert_eq!(host, directory.join("x"));
    assert_eq!(
        session.to_container_path(&host).unwrap().to_str(),
        Some("/workspace/x")
    );
    assert_eq!(
        session.to_host_path("../x").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    std::fs::write(&host, "kept").unwrap();
    session.close().await.unwrap();
    assert_eq!(std::fs::read(&host).unwrap(), b"kept");
}
