//! What happens is told: once, in order, and whatever listeners do.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    lab::{BOUND, Lab, assert_kind, eventually, key},
    table,
};
use crate::{
    AuditLog, CommandEnd, ErrorKind, Event, EventHandler, EventKind, EventStream, OnConflict,
    Opened, Outcome, Result, SessionKey, SessionSpec,
};

table!["events":
    Containers events_of_a_session_come_once_and_in_order,
    Containers events_of_commands_say_how_they_ended,
    Containers event_handler_that_panics_or_hangs_changes_nothing,
    Containers event_handler_changes_what_is_made,
    Containers event_handler_refuses_what_is_made,
    Containers audit_has_a_line_for_each_command,
    Programs events_of_failures_say_why,
    Programs audit_has_a_line_for_a_command_that_is_refused,
];

/// The next event of a session.
async fn next(events: &mut EventStream) -> EventKind {
    let event = tokio::time::timeout(BOUND, events.next()).await;
    let event = event.expect("no event came").expect("the stream ended");
    assert_eq!(event.key, Some(key("a")));
    assert!(event.container.is_some());
    event.kind
}

async fn names_until(events: &mut EventStream, last: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    loop {
        let name = next(events).await.as_str();
        names.push(name);
        if name == last {
            return names;
        }
    }
}

async fn events_of_a_session_come_once_and_in_order(lab: Lab) {
    let mut events = lab.podkit().events();
    let session = lab.open("a").await;
    assert_eq!(
        names_until(&mut events, "session_opened").await,
        ["container_created", "container_started", "session_opened"]
    );
    lab.open("a").await;
    let again = next(&mut events).await;
    assert_eq!(again, EventKind::SessionOpened(Opened::Reconnected));
    session.stop(Duration::ZERO).await.unwrap();
    assert_eq!(next(&mut events).await.as_str(), "container_stopped");
    lab.open("a").await;
    assert_eq!(next(&mut events).await, EventKind::ContainerStarted);
    let started = EventKind::SessionOpened(Opened::Started);
    assert_eq!(next(&mut events).await, started);
    lab.backend().remove(session.container()).await.unwrap();
    session.files().write("f", "x").await.unwrap();
    let names = names_until(&mut events, "session_opened").await;
    assert_eq!(
        names,
        ["container_created", "container_started", "session_opened"]
    );
    session.close().await.unwrap();
    assert_eq!(
        names_until(&mut events, "session_closed").await,
        ["session_closing", "container_removed", "session_closed"]
    );
    // There is nothing to close, and so nothing to tell.
    lab.podkit().close(&key("a")).await.unwrap();
    let refused = lab.podkit().session("u", "a").create(false).await;
    assert_kind(refused, ErrorKind::NotFound, "no session");
    let EventKind::SessionOpenFailed(reason) = next(&mut events).await else {
        panic!("another event")
    };
    assert_eq!(reason.kind, ErrorKind::NotFound);
}

async fn events_of_commands_say_how_they_ended(lab: Lab) {
    let session = lab.open("a").await;
    let mut events = lab.podkit().events();
    session.exec(["false"]).env("SECRET", "x").await.unwrap();
    let EventKind::ExecStarted(begun) = next(&mut events).await else {
        panic!("another event")
    };
    assert_eq!(begun.argv, ["false"]);
    let EventKind::ExecEnded(ended, end) = next(&mut events).await else {
        panic!("another event")
    };
    assert_eq!(ended, begun);
    assert!(matches!(end, CommandEnd::Ended(Outcome::Exited(1), _)));
    assert!(!format!("{ended:?}").contains("SECRET"));
    let handle = session.exec(["sleep", "1000"]).stream().await.unwrap();
    drop(handle);
    assert_eq!(next(&mut events).await.as_str(), "exec_started");
    let EventKind::ExecEnded(last, end) = next(&mut events).await else {
        panic!("another event")
    };
    assert_eq!(end, CommandEnd::LetGo);
    assert!(last.number != begun.number);
}

struct Bad {
    hangs: bool,
}

impl EventHandler for Bad {
    #[expect(clippy::panic, reason = "that is what it is for")]
    fn on_event(&self, _: &Event) {
        if self.hangs {
            loop {
                std::thread::park();
            }
        }
        panic!("a handler's own")
    }

    #[expect(clippy::panic, reason = "that is what it is for")]
    fn container_creating(&self, _: &SessionKey, _: SessionSpec) -> Result<SessionSpec> {
        panic!("a handler's own")
    }
}

struct Recorder(Arc<Mutex<Vec<&'static str>>>);

impl EventHandler for Recorder {
    fn on_event(&self, event: &Event) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.push(event.kind.as_str());
    }
}

async fn event_handler_that_panics_or_hangs_changes_nothing(lab: Lab) {
    let names = Arc::new(Mutex::new(Vec::new()));
    let podkit = lab
        .builder()
        .event_handler(Bad { hangs: false })
        .event_handler(Bad { hangs: true })
        .event_handler(Recorder(Arc::clone(&names)))
        .build()
        .await
        .unwrap();
    let session = podkit.session("u", "a").await.unwrap();
    assert_eq!(session.exec(["echo", "hi"]).await.unwrap().stdout, b"hi\n");
    session.close().await.unwrap();
    assert!(lab.podkit().list().await.unwrap().is_empty());
    eventually("the last event", || async {
        let names = names.lock().unwrap_or_else(PoisonError::into_inner);
        names.contains(&"session_closed").then_some(())
    })
    .await;
    let names = names.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(
        names,
        [
            "container_created",
            "container_started",
            "session_opened",
            "exec_started",
            "exec_ended",
            "session_closing",
            "container_removed",
            "session_closed",
        ]
    );
}

struct Policy;

impl EventHandler for Policy {
    fn container_creating(&self, key: &SessionKey, spec: SessionSpec) -> Result<SessionSpec> {
        if key.session().as_str() == "refused" {
            return Err(crate::Error::new(ErrorKind::LimitExceeded, "too many"));
        }
        Ok(spec.env("MADE_BY", "policy").env("OWN", "changed"))
    }
}

async fn event_handler_changes_what_is_made(lab: Lab) {
    let podkit = lab.builder().event_handler(Policy).build().await.unwrap();
    let wish = || SessionSpec::new().env("OWN", "wish");
    let session = podkit.session("u", "a").spec(wish()).await.unwrap();
    let info = session.info().await.unwrap();
    assert_eq!(info.spec.env["MADE_BY"], "policy");
    assert_eq!(info.spec.env["OWN"], "changed");
    // The same wish finds it again, and another one does not.
    let again = podkit.session("u", "a").spec(wish()).await.unwrap();
    assert_eq!(again.opened(), Opened::Reconnected);
    let other = SessionSpec::new().env("OWN", "other");
    let refused = lab.podkit().session("u", "a").spec(other.clone()).await;
    assert_kind(refused, ErrorKind::Conflict, "another wish");
    let reused = lab.podkit().session("u", "a").spec(other);
    reused.on_conflict(OnConflict::Reuse).await.unwrap();
}

async fn event_handler_refuses_what_is_made(lab: Lab) {
    let podkit = lab.builder().event_handler(Policy).build().await.unwrap();
    let refused = podkit.session("u", "refused").await;
    let error = assert_kind(refused, ErrorKind::LimitExceeded, "refused");
    assert!(error.message().contains("too many"), "{error:?}");
    assert!(podkit.list().await.unwrap().is_empty());
}

async fn audit_has_a_line_for_each_command(lab: Lab) {
    let path = lab.directory().join("audit");
    let audit = AuditLog::append(&path).unwrap();
    let podkit = lab.builder().audit(audit).build().await.unwrap();
    let session = podkit.session("u", "a").await.unwrap();
    session
        .exec(["echo", "one"])
        .env("SECRET", "hunter2")
        .await
        .unwrap();
    session.exec(["false"]).await.unwrap();
    session.exec(["/no/such/program"]).await.unwrap();
    podkit.shutdown().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let codes: Vec<u64> = lines
        .iter()
        .map(|line| line["code"].as_u64().unwrap())
        .collect();
    assert_eq!(codes, [0, 1, 127]);
    let first = lines.first().unwrap();
    assert_eq!(first["argv"], serde_json::json!(["echo", "one"]));
    assert_eq!(first["user"], "u");
    assert_eq!(first["session"], "a");
    assert!(first["wall_ms"].is_u64() && first["time"].is_string());
    assert!(!text.contains("hunter2") && !text.contains("SECRET"));
}

async fn events_of_failures_say_why(lab: Lab) {
    let mut events = lab.podkit().events();
    let spec = SessionSpec {
        entrypoint: Some(vec!["/bin/sh".to_owned(), "-c".to_owned()]),
        command: Some(vec!["echo gone; exit 3".to_owned()]),
        ..SessionSpec::new()
    };
    let opened = lab.podkit().session("u", "a").spec(spec).await;
    if opened.is_ok() {
        // It was up for a moment.
        return;
    }
    assert_eq!(next(&mut events).await, EventKind::ContainerCreated);
    let why = loop {
        if let EventKind::ContainerStartFailed(reason) = next(&mut events).await {
            break reason;
        }
    };
    assert_eq!(why.exit_code, Some(3), "{why:?}");
    assert_eq!(why.log, ["gone"]);
    let last = names_until(&mut events, "session_open_failed").await;
    assert_eq!(last, ["session_open_failed"]);
}

async fn audit_has_a_line_for_a_command_that_is_refused(lab: Lab) {
    let path = lab.directory().join("audit");
    let audit = AuditLog::append(&path).unwrap();
    let podkit = lab.builder().audit(audit).build().await.unwrap();
    let session = podkit.session("u", "a").await.unwrap();
    let refused = session.exec(["true"]).cwd("/no/such/directory").await;
    assert_kind(refused, ErrorKind::InvalidInput, "a missing directory");
    podkit.shutdown().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["argv"], serde_json::json!(["true"]));
    assert_eq!(line["outcome"], "failed");
    assert_eq!(line["error"]["kind"], "invalid_input");
}
