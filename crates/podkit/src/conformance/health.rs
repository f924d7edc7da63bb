//! What is not well is recovered, what is not used expires; each fact is told once.

use std::{sync::Arc, time::Duration};

use super::{
    Fault, FaultBackend, Method,
    lab::{BOUND, Lab, eventually, key, text},
    table,
};
use crate::{
    ContainerState, EventKind, EventStream, HealthOptions, Limit, Opened, Outcome, Podkit, Session,
    SessionSpec, Symptom, backend::BackendRef,
};

table!["health":
    Containers health_removed_container_is_made_anew,
    Containers health_frozen_container_is_thawed_and_a_resting_one_is_not,
    Containers health_unused_session_expires_after_a_warning,
    Containers health_stopped_session_stays_stopped,
    Containers health_monitor_ends_with_its_podkit,
    Programs health_killed_container_comes_back_with_its_files,
    Programs health_silent_agent_is_restarted,
    Programs health_session_that_was_killed_by_its_stop_stays_stopped,
    Programs health_two_monitors_recover_once_each_fact,
    Programs health_long_command_is_no_idleness,
    Programs health_process_that_ended_is_told_once,
    Programs health_container_out_of_memory_goes_on_and_is_told_once,
];

const INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn options() -> HealthOptions {
    HealthOptions::new()
        .interval(INTERVAL)
        .probe_deadline(Duration::from_secs(1))
}

async fn watched(lab: &Lab) -> Podkit {
    lab.builder().health(options()).build().await.unwrap()
}

/// The next event that is about health, within a bound.
pub(super) async fn next(events: &mut EventStream) -> EventKind {
    let wait = async {
        loop {
            let kind = events.next().await.expect("the stream ended").kind;
            if matches!(
                kind,
                EventKind::HealthCheckFailed(_)
                    | EventKind::Recovered(_)
                    | EventKind::RecoveryFailed(_)
                    | EventKind::SessionExpiring(_)
                    | EventKind::SessionExpired
                    | EventKind::ProcessEnded(..)
            ) {
                return kind;
            }
        }
    };
    tokio::time::timeout(BOUND, wait).await.expect("no event")
}

async fn assert_recovered(events: &mut EventStream, symptom: Symptom, how: Opened) {
    match next(events).await {
        EventKind::HealthCheckFailed(illness) => assert_eq!(illness.symptom, symptom),
        other => panic!("{other:?}"),
    }
    assert_eq!(next(events).await, EventKind::Recovered(how));
}

/// A container that is being removed may be seen dead, or silent, on its way out.
async fn assert_removal_recovered(events: &mut EventStream) {
    match next(events).await {
        EventKind::HealthCheckFailed(illness) => {
            let symptoms = [Symptom::Removed, Symptom::Died, Symptom::Silent];
            assert!(symptoms.contains(&illness.symptom), "{illness:?}");
        }
        other => panic!("{other:?}"),
    }
    let recovered = next(events).await;
    assert!(
        matches!(recovered, EventKind::Recovered(_)),
        "{recovered:?}"
    );
}

/// That nothing more is told: another session's fate is told after all that is due.
async fn assert_quiet(podkit: &Podkit, lab: &Lab, events: &mut EventStream) {
    let marker = podkit.session("u", "marker").await.unwrap();
    lab.backend().remove(marker.container()).await.unwrap();
    assert_removal_recovered(events).await;
    lab.backend().remove(marker.container()).await.unwrap();
    assert_removal_recovered(events).await;
}

async fn health_removed_container_is_made_anew(lab: Lab) {
    let podkit = watched(&lab).await;
    let spec = SessionSpec::new().env("A", "1");
    let session = podkit.session("u", "a").spec(spec).await.unwrap();
    let mut events = podkit.events();
    lab.backend().remove(session.container()).await.unwrap();
    assert_removal_recovered(&mut events).await;
    let info = session.info().await.unwrap();
    assert_eq!(info.state, ContainerState::Running);
    assert_eq!(info.spec.env["A"], "1");
    assert_quiet(&podkit, &lab, &mut events).await;
    // One that was closed on purpose is not.
    session.close().await.unwrap();
    assert_quiet(&podkit, &lab, &mut events).await;
}

async fn health_frozen_container_is_thawed_and_a_resting_one_is_not(lab: Lab) {
    if !lab.podkit().capabilities().pause {
        return;
    }
    let podkit = watched(&lab).await;
    let session = podkit.session("u", "a").await.unwrap();
    let token = session.boot_token().await.unwrap();
    let mut events = podkit.events();
    lab.backend().pause(session.container()).await.unwrap();
    assert_recovered(&mut events, Symptom::Frozen, Opened::Resumed).await;
    assert_eq!(session.boot_token().await.unwrap(), token);
    session.pause().await.unwrap();
    assert_quiet(&podkit, &lab, &mut events).await;
    let info = session.info().await.unwrap();
    assert_eq!(info.state, ContainerState::Paused);
}

async fn health_unused_session_expires_after_a_warning(lab: Lab) {
    let podkit = watched(&lab).await;
    let idle = Limit::After(Duration::from_secs(2));
    let spec = SessionSpec::new().idle_timeout(idle);
    podkit.session("u", "a").spec(spec).await.unwrap();
    let mut events = podkit.events();
    assert!(matches!(
        next(&mut events).await,
        EventKind::SessionExpiring(_)
    ));
    assert_eq!(next(&mut events).await, EventKind::SessionExpired);
    eventually("its end", || async {
        podkit.list().await.unwrap().is_empty().then_some(())
    })
    .await;
    assert_quiet(&podkit, &lab, &mut events).await;
}

async fn health_stopped_session_stays_stopped(lab: Lab) {
    let podkit = watched(&lab).await;
    let stop = Limit::After(Duration::from_millis(300));
    let spec = SessionSpec::new().auto_stop(stop);
    let by_itself = podkit.session("u", "a").spec(spec).await.unwrap();
    let asked = podkit.session("u", "b").await.unwrap();
    let mut events = podkit.events();
    asked.stop(Duration::ZERO).await.unwrap();
    eventually("the stop", || async {
        let info = by_itself.info().await.unwrap();
        (info.state == ContainerState::Exited).then_some(())
    })
    .await;
    assert_quiet(&podkit, &lab, &mut events).await;
    for session in [by_itself, asked] {
        let info = session.info().await.unwrap();
        assert_eq!(info.state, ContainerState::Exited);
    }
}

async fn health_monitor_ends_with_its_podkit(lab: Lab) {
    let slow = HealthOptions::new().interval(Duration::from_secs(3600));
    let podkit = lab.builder().health(slow).build().await.unwrap();
    tokio::time::timeout(BOUND, podkit.shutdown())
        .await
        .unwrap();
    // Nobody shuts this one down: its stream ends with it.
    let podkit = lab.builder().health(options()).build().await.unwrap();
    let mut events = podkit.events();
    drop(podkit);
    let end = async { while events.next().await.is_some() {} };
    tokio::time::timeout(BOUND, end).await.unwrap();
    // Nor does a look that takes long keep it.
    let faults = FaultBackend::new(lab.backend());
    faults.inject(Method::List, 0, u32::MAX, Fault::Hang);
    let engine: BackendRef = Arc::<FaultBackend>::clone(&faults);
    let builder = lab.builder().engine(engine);
    let health = options().all_sessions(true);
    let podkit = builder.health(health).build().await.unwrap();
    let mut events = podkit.events();
    eventually("a look", || async {
        (faults.fired(Method::List) > 0).then_some(())
    })
    .await;
    drop(podkit);
    let end = async { while events.next().await.is_some() {} };
    tokio::time::timeout(BOUND, end).await.unwrap();
}

/// Sends a signal to the container's PID 1 from the host.
pub(super) async fn signal(session: &Session, lab: &Lab, signal: &str) {
    let info = lab.backend().inspect(session.container()).await.unwrap();
    let pid = info.pid.expect("it runs").to_string();
    let mut kill = std::process::Command::new("kill");
    let status = kill.args(["-s", signal, &pid]).status().unwrap();
    assert!(status.success(), "kill -s {signal} {pid}");
}

async fn health_killed_container_comes_back_with_its_files(lab: Lab) {
    let podkit = watched(&lab).await;
    let session = podkit.session("u", "a").await.unwrap();
    let keeps = podkit.capabilities().stop_keeps_files;
    text(&session, "echo kept > /root-note").await;
    let mut events = podkit.events();
    signal(&session, &lab, "KILL").await;
    assert_recovered(&mut events, Symptom::Died, Opened::Started).await;
    let output = session.shell("cat /root-note").await.unwrap();
    assert!(!keeps || output.stdout == b"kept\n", "{output:?}");
    assert_quiet(&podkit, &lab, &mut events).await;
}

async fn health_silent_agent_is_restarted(lab: Lab) {
    let podkit = watched(&lab).await;
    let session = podkit.session("u", "a").await.unwrap();
    let token = session.boot_token().await.unwrap();
    let mut events = podkit.events();
    signal(&session, &lab, "STOP").await;
    assert_recovered(&mut events, Symptom::Silent, Opened::Started).await;
    assert_eq!(text(&session, "echo hi").await, "hi\n");
    assert_ne!(session.boot_token().await.unwrap(), token);
}

async fn health_session_that_was_killed_by_its_stop_stays_stopped(lab: Lab) {
    let podkit = watched(&lab).await;
    let session = podkit.session("u", "a").await.unwrap();
    let mut events = podkit.events();
    // It cannot say why it ends.
    signal(&session, &lab, "STOP").await;
    session.stop(Duration::ZERO).await.unwrap();
    assert_quiet(&podkit, &lab, &mut events).await;
    let info = session.info().await.unwrap();
    assert_eq!(info.state, ContainerState::Exited);
    assert_eq!(text(&session, "echo hi").await, "hi\n");
}

async fn health_two_monitors_recover_once_each_fact(lab: Lab) {
    let (one, other) = (watched(&lab).await, watched(&lab).await);
    let session = one.session("u", "a").await.unwrap();
    other.session("u", "a").await.unwrap();
    for _ in 0..5 {
        signal(&session, &lab, "KILL").await;
        eventually("it is back", || async {
            let info = session.info().await.ok()?;
            let again = one.session("u", "a").await.is_ok();
            (again && info.state == ContainerState::Running).then_some(())
        })
        .await;
    }
    assert_eq!(lab.podkit().list().await.unwrap().len(), 1);
}

async fn health_long_command_is_no_idleness(lab: Lab) {
    let podkit = watched(&lab).await;
    let idle = Limit::After(Duration::from_millis(500));
    let spec = SessionSpec::new().idle_timeout(idle);
    let session = podkit.session("u", "a").spec(spec).await.unwrap();
    let output = session.exec(["sleep", "2"]).await.unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0));
}

async fn health_process_that_ended_is_told_once(lab: Lab) {
    let podkit = watched(&lab).await;
    let session = podkit.session("u", "a").await.unwrap();
    let mut events = podkit.events();
    let job = session.spawn_shell("exit 7").name("job").await.unwrap();
    let EventKind::ProcessEnded(about, outcome) = next(&mut events).await else {
        panic!("another event")
    };
    assert_eq!((about.name.as_str(), outcome), ("job", Outcome::Exited(7)));
    assert_eq!(about.id, job.id());
    assert_quiet(&podkit, &lab, &mut events).await;
    assert_eq!(session.key(), &key("a"));
}

async fn health_container_out_of_memory_goes_on_and_is_told_once(lab: Lab) {
    if !lab.podkit().capabilities().memory_limit {
        return;
    }
    let podkit = watched(&lab).await;
    let spec = SessionSpec::new().memory("64m");
    let session = podkit.session("u", "a").spec(spec).await.unwrap();
    let token = session.boot_token().await.unwrap();
    let mut events = podkit.events();
    // `tail` keeps its only line, which never ends.
    let hog = session.spawn_shell("exec tail -n 1 /dev/zero").name("hog");
    hog.await.unwrap();
    let EventKind::ProcessEnded(about, outcome) = next(&mut events).await else {
        panic!("another event")
    };
    assert_eq!(
        (about.name.as_str(), outcome),
        ("hog", Outcome::OutOfMemory)
    );
    let output = session.shell("tail -n 1 /dev/zero").await.unwrap();
    assert_eq!(output.outcome, Outcome::OutOfMemory);
    assert_quiet(&podkit, &lab, &mut events).await;
    assert_eq!(session.boot_token().await.unwrap(), token);
}
