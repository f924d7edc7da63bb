//! Sessions among several: other managers, other prefixes, outside removal, lost state.

use std::{num::NonZeroUsize, time::Duration};

use super::{
    lab::{Lab, assert_kind, key, text},
    table,
};
use crate::{
    ErrorKind, GcOptions, Limit, Opened, Podkit, Prefix, SessionKey, SessionSpec,
    backend::ContainerState,
};

table!["sessions":
    Containers session_opened_by_many_at_once_is_one,
    Containers session_of_another_prefix_is_untouched,
    Containers session_is_restored_by_another_manager,
    Containers session_removed_from_outside_is_made_anew,
    Containers session_with_tampered_labels_is_not_adopted,
    Containers session_labels_over_their_limit_are_refused,
    Containers session_paused_is_resumed,
    Containers session_exec_and_close_at_once_end_in_order,
    Containers session_dropped_open_leaves_nothing_half_made,
    Containers sessions_keep_their_files_apart,
    Programs session_stopped_from_outside_comes_back,
    Programs sessions_beyond_the_connections_that_are_kept_all_work,
];

async fn session_opened_by_many_at_once_is_one(lab: Lab) {
    let strangers = [
        lab.stranger().await,
        lab.stranger().await,
        lab.podkit().clone(),
    ];
    let opens = (0..24).map(|number: usize| {
        let podkit: Podkit = strangers.get(number % 3).unwrap().clone();
        async move {
            let session = podkit.session("u", "a").await.unwrap();
            assert_eq!(session.exec(["echo", "hi"]).await.unwrap().stdout, b"hi\n");
            (session.opened(), session.boot_token().await.unwrap())
        }
    });
    let opened = futures::future::join_all(opens).await;
    let token = opened.first().unwrap().1;
    assert!(
        opened.iter().all(|(_, other)| *other == token),
        "two containers"
    );
    assert_eq!(lab.podkit().list().await.unwrap().len(), 1);
}

async fn session_of_another_prefix_is_untouched(lab: Lab) {
    let prefix = Prefix::new(format!("x{}", lab.prefix())).unwrap();
    let other = Podkit::builder()
        .engine(lab.backend())
        .prefix(prefix)
        .default_spec(lab.default_spec())
        .build()
        .await
        .unwrap();
    let theirs = other.session("u", "a").await.unwrap();
    let ours = lab.open("a").await;
    assert_ne!(ours.container(), theirs.container());
    assert_eq!(lab.podkit().list().await.unwrap().len(), 1);
    lab.podkit()
        .gc(GcOptions::new().with_idle(Duration::from_nanos(1)))
        .await
        .unwrap();
    assert_eq!(
        other.list().await.unwrap().len(),
        1,
        "gc took another prefix's session"
    );
    lab.podkit().close(&key("a")).await.unwrap();
    assert_eq!(theirs.exec(["echo", "hi"]).await.unwrap().stdout, b"hi\n");
    theirs.close().await.unwrap();
    other.shutdown().await;
}

async fn session_is_restored_by_another_manager(lab: Lab) {
    let spec = lab
        .default_spec()
        .env("A", "1")
        .hostname("box")
        .label("team", "blue")
        .auto_stop(Limit::After(Duration::from_secs(77)))
        .exec_timeout(Limit::After(Duration::from_secs(33)));
    lab.open_with("a", spec.clone())
        .await
        .files()
        .write("note", "x")
        .await
        .unwrap();
    let stranger = lab.stranger().await;
    let session = stranger.open(&key("a")).await.unwrap();
    assert!(!session.config_lost());
    assert_eq!(session.info().await.unwrap().spec, spec);
    assert_eq!(session.files().read("note").await.unwrap(), b"x");
    // The real configuration counts, not the default of whoever comes.
    assert_kind(
        stranger
            .session("u", "a")
            .spec(SessionSpec::new().env("A", "2"))
            .await,
        ErrorKind::Conflict,
        "another value",
    );
    stranger.shutdown().await;
    assert_eq!(
        lab.open("a").await.opened(),
        Opened::Reconnected,
        "a manager's end ends nothing"
    );
}

async fn session_removed_from_outside_is_made_anew(lab: Lab) {
    let session = lab.open_with("a", SessionSpec::new().env("A", "1")).await;
    let token = session.boot_token().await.unwrap();
    lab.backend().remove(session.container()).await.unwrap();
    // A command that was refused before it began reopens the session once.
    assert_eq!(session.exec(["echo", "hi"]).await.unwrap().stdout, b"hi\n");
    assert_ne!(session.boot_token().await.unwrap(), token);
    let info = session.info().await.unwrap();
    let spec = &info.spec;
    assert_eq!(
        spec.env.get("A").map(String::as_str),
        Some("1"),
        "the known configuration is used"
    );
    lab.backend().remove(session.container()).await.unwrap();
    session.files().write("f", "x").await.unwrap();
    lab.backend().remove(session.container()).await.unwrap();
    assert_kind(
        lab.podkit().inspect(&key("a")).await,
        ErrorKind::NotFound,
        "inspect",
    );
    assert!(!lab.podkit().close(&key("a")).await.unwrap().existed);
}

/// The name is the lock, but only with labels that match the triple exactly.
async fn session_with_tampered_labels_is_not_adopted(lab: Lab) {
    let victim = key("a");
    let name = crate::ContainerId::new(victim.container_name(lab.prefix())).unwrap();
    let containers = crate::ContainerManager::new(lab.backend());
    let request = crate::container::ContainerRequest::new(name.clone(), lab.default_spec());
    let spec = containers.resolve(&request).unwrap();
    containers.create(&spec).await.unwrap();
    let opened = lab.podkit().open(&victim).await;
    let Err(error) = opened else {
        panic!("a container without our labels was adopted")
    };
    assert!(
        [ErrorKind::Conflict, ErrorKind::AlreadyExists].contains(&error.kind()),
        "{error:?}"
    );
    assert!(
        lab.podkit().list().await.unwrap().is_empty(),
        "it is not counted"
    );
    assert!(lab.backend().inspect(&name).await.is_ok(), "it was removed");
    lab.backend().remove(&name).await.unwrap();
    lab.podkit().open(&victim).await.unwrap();
}

async fn session_labels_over_their_limit_are_refused(lab: Lab) {
    let spec = SessionSpec::new().label("long", "x".repeat(33 << 10));
    let refused = lab.podkit().session("u", "a").spec(spec).await;
    assert_kind(refused, ErrorKind::LimitExceeded, "33 KiB of labels");
    assert!(lab.podkit().list().await.unwrap().is_empty());
    // A large environment is no label.
    let spec = SessionSpec::new().env("LONG", "x".repeat(100 << 10));
    lab.podkit().session("u", "a").spec(spec).await.unwrap();
}

async fn session_paused_is_resumed(lab: Lab) {
    let session = lab.open("a").await;
    let backend = lab.backend();
    if !backend.capabilities().pause {
        assert_kind(
            backend.pause(session.container()).await,
            ErrorKind::Unsupported,
            "pause",
        );
        assert_kind(
            backend.resume(session.container()).await,
            ErrorKind::Unsupported,
            "resume",
        );
        return;
    }
    let token = session.boot_token().await.unwrap();
    backend.pause(session.container()).await.unwrap();
    backend.pause(session.container()).await.unwrap();
    let info = backend.inspect(session.container()).await.unwrap();
    assert_eq!(info.state, ContainerState::Paused);
    let again = lab.stranger().await.open(&key("a")).await.unwrap();
    assert_eq!(again.opened(), Opened::Resumed);
    assert_eq!(again.boot_token().await.unwrap(), token);
    assert_eq!(again.exec(["echo", "hi"]).await.unwrap().stdout, b"hi\n");
    backend.pause(session.container()).await.unwrap();
    assert!(
        lab.podkit().close(&key("a")).await.unwrap().existed,
        "a paused session is closed"
    );
}

async fn session_exec_and_close_at_once_end_in_order(lab: Lab) {
    for _ in 0..10 {
        let session = lab.open("a").await;
        let run = async { session.exec(["echo", "hi"]).await };
        let close = async { session.close().await.unwrap() };
        let (ran, _) = tokio::join!(run, close);
        // It ran, or was ended by the close, or it opened the session anew: never a bad error.
        if let Err(error) = ran {
            let kinds = [ErrorKind::ContainerGone, ErrorKind::NotFound];
            assert!(kinds.contains(&error.kind()), "{error:?}");
        }
        session.close().await.unwrap();
    }
    assert!(lab.podkit().list().await.unwrap().is_empty());
}

/// A caller that gives up leaves a whole session or none.
async fn session_dropped_open_leaves_nothing_half_made(lab: Lab) {
    for microseconds in [0, 50, 200, 500, 1000, 2000, 4000] {
        let open = lab.podkit().open(&key("a"));
        let patience = Duration::from_micros(microseconds);
        let _ = tokio::time::timeout(patience, async { open.await }).await;
        let session = lab.podkit().open(&key("a")).await.unwrap();
        assert_eq!(session.exec(["echo", "hi"]).await.unwrap().stdout, b"hi\n");
        assert_eq!(lab.podkit().list().await.unwrap().len(), 1);
        lab.podkit().close(&key("a")).await.unwrap();
    }
}

async fn sessions_keep_their_files_apart(lab: Lab) {
    let mine = lab.podkit().session("u", "a").await.unwrap();
    mine.files()
        .write("/workspace/secret", "mine")
        .await
        .unwrap();
    for (user, session) in [("u", "b"), ("v", "a")] {
        let other = lab
            .podkit()
            .open(&SessionKey::new(user, session).unwrap())
            .await
            .unwrap();
        assert!(!other.files().exists("/workspace/secret").await.unwrap());
        other
            .files()
            .write("/workspace/secret", "theirs")
            .await
            .unwrap();
    }
    assert_eq!(
        mine.files().read("/workspace/secret").await.unwrap(),
        b"mine"
    );
}

async fn session_stopped_from_outside_comes_back(lab: Lab) {
    let session = lab.open("a").await;
    text(&session, "echo kept >note").await;
    lab.backend()
        .stop(session.container(), Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(text(&session, "cat note").await, "kept\n");
    let stranger = lab.stranger().await;
    stranger.close(&key("a")).await.unwrap();
    assert_eq!(text(&session, "echo anew; ls").await, "anew\n");
}

async fn sessions_beyond_the_connections_that_are_kept_all_work(lab: Lab) {
    const MOST: usize = 4;
    let most = NonZeroUsize::new(MOST).unwrap();
    let podkit = lab.builder().max_connections(most).build().await.unwrap();
    let busy = podkit.session("u", "busy").await.unwrap();
    let held = busy.exec(["cat"]).stdin_stream().stream();
    let mut held = held.await.unwrap();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut sessions = Vec::new();
    for name in names {
        let session = podkit.session("u", name).await.unwrap();
        text(&session, &format!("echo {name} > /tmp/name")).await;
        sessions.push(session);
    }
    for _ in 0..2 {
        for (session, name) in sessions.iter().zip(names) {
            let token = session.boot_token().await.unwrap();
            assert_eq!(text(session, "cat /tmp/name").await, format!("{name}\n"));
            assert_eq!(session.boot_token().await.unwrap(), token);
            assert!(podkit.containers().open_links() <= MOST);
        }
    }
    // More than are kept may be in use.
    let all = sessions.iter().map(|session| {
        let command = session.shell("sleep 0.2; echo done");
        std::future::IntoFuture::into_future(command)
    });
    for output in futures::future::join_all(all).await {
        assert_eq!(output.unwrap().stdout, b"done\n");
    }
    held.write_stdin("kept".into()).await.unwrap();
    held.close_stdin().await.unwrap();
    assert_eq!(held.collect(100).await.unwrap().stdout, b"kept");
}
