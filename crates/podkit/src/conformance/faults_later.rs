//! Faults in what is done with a session that is open: at every such call of the engine's, and in the
//! middle of every call to the agent.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::try_join_all};
use tokio::time::timeout;

use super::{
    DEEDS, Doing, Fault, FaultBackend, Method,
    faults::{Bench, assert_typed},
    health::{next, options, signal},
    lab::{BOUND, Lab, assert_kind, eventually, key, text},
    table,
};
use crate::{
    ContainerState, ErrorKind, EventKind, LimitChange, Opened, Outcome, PullPolicy, PullRequest,
    Result, SessionSpec, StartupCheck, backend::BackendRef,
};

table!["faults":
    Containers fault_while_pausing_or_resuming_is_typed_and_passes,
    Containers fault_while_limiting_or_measuring_is_typed_and_passes,
    Containers fault_of_a_session_that_is_open_is_repeated_where_that_is_harmless,
    Containers fault_while_asking_about_images_or_the_parent_is_typed,
    Containers fault_in_a_pull_is_never_repeated_and_makes_nothing,
    Containers fault_while_recovering_is_told_and_tried_again,
    Containers fault_in_events_leaves_recovery_to_the_interval,
    Programs fault_in_the_log_hides_no_reason,
    Programs fault_that_kills_the_container_ends_every_call_typed,
    Programs fault_that_freezes_the_container_ends_calls_and_not_the_session,
];

/// One of each sort: what may pass, what is wrong, and what reads as another state.
const FAULTS: [Fault; 9] = [
    Fault::Hang,
    Fault::HangAfter,
    Fault::Fail(ErrorKind::Unavailable),
    Fault::FailAfter(ErrorKind::Unavailable),
    Fault::Fail(ErrorKind::TimedOut),
    Fault::Fail(ErrorKind::Unexpected),
    Fault::FailAfter(ErrorKind::LimitExceeded),
    Fault::Fail(ErrorKind::NotFound),
    Fault::FailAfter(ErrorKind::ContainerGone),
];

async fn fault_while_pausing_or_resuming_is_typed_and_passes(lab: Lab) {
    if !lab.podkit().capabilities().pause {
        return;
    }
    let bench = Bench::new(lab).await;
    for fault in FAULTS {
        for method in [Method::Pause, Method::Resume] {
            let session = bench.podkit.open(&key("a")).await.unwrap();
            let token = session.boot_token().await.unwrap();
            if method == Method::Resume {
                session.pause().await.unwrap();
            }
            bench.faults.inject(method, 0, 50, fault);
            let about = format!("{fault:?} in {method:?}");
            let result = match method {
                Method::Pause => session.pause().await,
                _ => session.resume().await,
            };
            assert_typed(&result, fault, &about);
            // The next use finds out how it is.
            bench.faults.heal();
            let output = session.exec(["echo", "hi"]).await.unwrap();
            assert_eq!(output.stdout, b"hi\n", "{about}");
            let info = session.info().await.unwrap();
            assert_eq!(info.state, ContainerState::Running, "{about}");
            assert_eq!(session.boot_token().await.unwrap(), token, "{about}");
        }
    }
    bench.assert_sound("pause and resume").await;
}

async fn fault_while_limiting_or_measuring_is_typed_and_passes(lab: Lab) {
    let mut bench = Bench::new(lab).await;
    let mut deadlines = *bench.podkit.containers().deadlines();
    // Docker measures once a second.
    deadlines.inspect = deadlines.inspect.max(Duration::from_secs(2));
    let faults: BackendRef = Arc::<FaultBackend>::clone(&bench.faults);
    bench.podkit = bench.lab.podkit_with(faults, deadlines).await;
    let session = bench.podkit.open(&key("a")).await.unwrap();
    let token = session.boot_token().await.unwrap();
    let able = bench.podkit.capabilities();
    for fault in FAULTS {
        let about = format!("{fault:?}");
        if able.live_limits {
            bench.faults.inject(Method::SetLimits, 0, 50, fault);
            let changed = session.set_limits(LimitChange::new().pids_max(301)).await;
            assert!(changed.is_err(), "{about}: nothing was changed");
            assert_typed(&changed, fault, &about);
            bench.faults.heal();
            let change = LimitChange::new().pids_max(302);
            session.set_limits(change).await.unwrap();
        }
        // Measuring has no effect, before or after which it could hang.
        if able.stats && fault != Fault::HangAfter {
            let mut stream = session.watch_stats(Duration::ZERO).unwrap();
            stream.next().await.unwrap();
            bench.faults.inject(Method::Stats, 0, 50, fault);
            let stats = session.stats().await.map(drop);
            assert!(stats.is_err(), "{about}: nothing was measured");
            assert_typed(&stats, fault, &about);
            // Only what says that the container is gone ends a stream.
            let looked = stream.next().await;
            let gone = [ErrorKind::NotFound, ErrorKind::ContainerGone];
            match fault {
                Fault::Fail(kind) | Fault::FailAfter(kind) if gone.contains(&kind) => {
                    assert!(looked.unwrap().is_none(), "{about}");
                }
                _ => assert_typed(&looked.map(drop), fault, &about),
            }
            bench.faults.heal();
            let stats = session.stats().await.unwrap();
            assert!(stats.pids_limit.is_none_or(|limit| limit == 302), "{about}");
        }
    }
    assert_eq!(session.boot_token().await.unwrap(), token);
    bench.assert_sound("limits and stats").await;
}

async fn fault_of_a_session_that_is_open_is_repeated_where_that_is_harmless(lab: Lab) {
    let bench = Bench::new(lab).await;
    let session = bench.podkit.open(&key("a")).await.unwrap();
    let able = bench.podkit.capabilities();
    let once = Fault::Fail(ErrorKind::Unavailable);
    for (method, possible) in [
        (Method::Pause, able.pause),
        (Method::Resume, able.pause),
        (Method::SetLimits, able.live_limits),
        (Method::Stats, able.stats),
        (Method::Ping, true),
        (Method::List, true),
        (Method::Logs, true),
        (Method::Stop, true),
    ] {
        if !possible {
            continue;
        }
        bench.faults.inject(method, 0, 1, once);
        let containers = bench.podkit.containers();
        let done = match method {
            Method::Pause => session.pause().await,
            Method::Resume => session.resume().await,
            Method::SetLimits => session.set_limits(LimitChange::new().pids_max(300)).await,
            Method::Stats => session.stats().await.map(drop),
            Method::Ping => containers.ping().await,
            Method::List => bench.podkit.list().await.map(drop),
            Method::Logs => containers.logs(session.container(), 100).await.map(drop),
            _ => session.stop(Duration::ZERO).await,
        };
        if let Err(error) = done {
            panic!("{method:?}: {error:?}");
        }
        // A stop may be the agent's own doing.
        let fired = bench.faults.fired(method);
        assert!(fired == 1 || method == Method::Stop, "{method:?}: {fired}");
        bench.faults.heal();
    }
    bench.assert_sound("all of them").await;
}

async fn fault_while_asking_about_images_or_the_parent_is_typed(lab: Lab) {
    let bench = Bench::new(lab).await;
    let containers = bench.podkit.containers();
    let image = bench.lab.default_spec().image.unwrap_or_default();
    let ask = async |method| -> Result<()> {
        match method {
            Method::ListImages => containers.list_images().await.map(drop),
            Method::InspectImage => containers.inspect_image(&image).await.map(drop),
            Method::RemoveImage => containers.remove_image("podkit-test/none:1").await,
            _ => containers.parent().await.map(drop),
        }
    };
    for method in [
        Method::ListImages,
        Method::InspectImage,
        Method::RemoveImage,
        Method::Parent,
    ] {
        if let Err(error) = ask(method).await {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{method:?}");
            continue;
        }
        for fault in FAULTS {
            bench.faults.inject(method, 0, 50, fault);
            let asked = ask(method).await;
            let about = format!("{fault:?} in {method:?}");
            assert!(asked.is_err(), "{about}: it reads as an answer");
            assert_typed(&asked, fault, &about);
            bench.faults.heal();
        }
        let fault = Fault::Fail(ErrorKind::Unavailable);
        bench.faults.inject(method, 0, 1, fault);
        ask(method).await.unwrap();
        bench.faults.heal();
    }
}

async fn fault_in_a_pull_is_never_repeated_and_makes_nothing(lab: Lab) {
    let bench = Bench::new(lab).await;
    if !bench.podkit.capabilities().image_references || !bench.lab.is_real() {
        return;
    }
    let unavailable = ErrorKind::Unavailable;
    for (count, fault) in (1..).zip([Fault::Fail(unavailable), Fault::Hang]) {
        bench.faults.inject(Method::Pull, 0, 50, fault);
        let request = PullRequest::new("podkit-test/none:1");
        // The deadline of a pull is long; nobody has to wait for it.
        let pulled = timeout(2 * BOUND, bench.podkit.containers().pull(&request)).await;
        if let Ok(pulled) = pulled {
            assert_typed(&pulled, fault, "a pull");
            assert!(pulled.is_err());
        }
        assert_eq!(bench.faults.fired(Method::Pull), count, "{fault:?}");
        bench.faults.heal();
    }
    bench
        .faults
        .inject(Method::Pull, 0, 50, Fault::Fail(unavailable));
    let mut spec = bench.lab.default_spec();
    spec.pull = Some(PullPolicy::Always);
    let opened = bench.podkit.session("u", "a").spec(spec).await;
    assert_kind(opened, unavailable, "an opening");
    assert!(bench.lab.podkit().list().await.unwrap().is_empty());
    bench.assert_sound("pull").await;
}

/// A podkit on the bench's engine that watches over its sessions.
async fn watched(bench: &Bench) -> crate::Podkit {
    let backend: BackendRef = Arc::<FaultBackend>::clone(&bench.faults);
    let builder = bench.lab.builder().engine(backend);
    builder.health(options()).build().await.unwrap()
}

async fn fault_while_recovering_is_told_and_tried_again(lab: Lab) {
    let bench = Bench::new(lab).await;
    let podkit = watched(&bench).await;
    for method in [Method::Create, Method::Start, Method::Connect] {
        let session = podkit.session("u", "a").await.unwrap();
        let mut events = podkit.events();
        let fault = Fault::Fail(ErrorKind::LimitExceeded);
        bench.faults.inject(method, 0, 2, fault);
        bench.remove(&session).await;
        let mut failures = 0;
        loop {
            match next(&mut events).await {
                EventKind::Recovered(_) => break,
                EventKind::RecoveryFailed(_) => failures += 1,
                _ => {}
            }
        }
        assert_eq!(bench.faults.fired(method), 2, "{method:?}");
        assert!(failures <= 2, "{method:?}: {failures} failures");
        let output = session.exec(["echo", "hi"]).await.unwrap();
        assert_eq!(output.stdout, b"hi\n", "{method:?}");
        assert_eq!(podkit.list().await.unwrap().len(), 1, "{method:?}");
        session.close().await.unwrap();
        bench.faults.heal();
    }
    podkit.shutdown().await;
}

async fn fault_in_events_leaves_recovery_to_the_interval(lab: Lab) {
    let bench = Bench::new(lab).await;
    for fault in [Fault::Fail(ErrorKind::Unexpected), Fault::Hang] {
        bench.faults.inject(Method::Watch, 0, 1000, fault);
        let podkit = watched(&bench).await;
        let session = podkit.session("u", "a").await.unwrap();
        let mut events = podkit.events();
        bench.remove(&session).await;
        while !matches!(next(&mut events).await, EventKind::Recovered(_)) {}
        session.exec(["true"]).await.unwrap().check().unwrap();
        // Who waits for a container that goes looks for itself.
        session.stop(Duration::ZERO).await.unwrap();
        session.exec(["true"]).await.unwrap().check().unwrap();
        session.close().await.unwrap();
        podkit.shutdown().await;
        bench.faults.heal();
    }
}

async fn fault_in_the_log_hides_no_reason(lab: Lab) {
    let bench = Bench::new(lab).await;
    for fault in [Fault::Fail(ErrorKind::Unavailable), Fault::Hang] {
        bench.faults.inject(Method::Logs, 0, 50, fault);
        let spec = SessionSpec {
            entrypoint: Some(vec!["/bin/sh".to_owned(), "-c".to_owned()]),
            command: Some(vec!["echo last words; sleep 0.2; exit 7".to_owned()]),
            ..SessionSpec::new()
        };
        let check = StartupCheck::new()
            .checks(2)
            .interval(Duration::from_millis(300));
        let opening = bench.podkit.session("u", "a").spec(spec);
        let error = opening.startup_check(check).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains("exits with 7"), "{fault:?}: {error:?}");
        bench.faults.heal();
        // The engine may be slower than the deadline.
        eventually("its removal", || async {
            let left = bench.lab.podkit().list().await.unwrap();
            left.is_empty().then_some(())
        })
        .await;
    }
}

/// Everything that lasts, under way in one session, and waited for.
async fn begin_all(lab: &Lab, session: &crate::Session) -> Vec<(&'static str, Doing)> {
    let begun = DEEDS.iter().map(|deed| async move {
        let doing = deed.begin(session, lab.directory()).await?;
        Ok::<_, crate::Error>((deed.name, doing))
    });
    let mut all = try_join_all(begun).await.unwrap();
    for (name, doing) in &mut all {
        assert!(doing.as_mut().now_or_never().is_none(), "{name} is over");
    }
    // What was asked before this has been heard.
    text(session, "true").await;
    all
}

async fn fault_that_kills_the_container_ends_every_call_typed(lab: Lab) {
    let session = lab.open("a").await;
    let token = session.boot_token().await.unwrap();
    let all = begin_all(&lab, &session).await;
    signal(&session, &lab, "KILL").await;
    for (name, doing) in all {
        match timeout(BOUND, doing).await {
            Err(_) => panic!("{name} goes on in a container that was killed"),
            Ok(Ok(None | Some(Outcome::SessionClosed))) => {}
            Ok(Ok(Some(outcome))) => panic!("{name} ended as {outcome:?}"),
            Ok(Err(error)) => {
                let kinds = [ErrorKind::ContainerGone, ErrorKind::AgentUnreachable];
                assert!(kinds.contains(&error.kind()), "{name}: {error:?}");
            }
        }
    }
    assert_eq!(text(&session, "echo hi").await, "hi\n");
    assert_eq!(session.opened(), Opened::Started);
    assert_ne!(session.boot_token().await.unwrap(), token);
    assert!(session.processes().await.unwrap().is_empty());
    if lab.podkit().capabilities().stop_keeps_files {
        assert_eq!(half_files(&session).await, "");
    }
    let came = std::fs::read_dir(lab.directory().join("down")).unwrap();
    assert_eq!(came.count(), 0, "half a file came out");
}

/// What deeds that were cut off must not have left.
async fn half_files(session: &crate::Session) -> String {
    let script = "cd /workspace; ls -A | grep -v -x -e read -e archived -e appended -e down \
                  -e up -e extracted -e watched -e name -e other; ls -A extracted; \
                  ls -A up | grep -v -x first; true";
    text(session, script).await
}

async fn fault_that_freezes_the_container_ends_calls_and_not_the_session(lab: Lab) {
    if !lab.podkit().capabilities().pause {
        return;
    }
    let session = lab.open("a").await;
    let token = session.boot_token().await.unwrap();
    let kept = session.spawn(["sleep", "1000"]).name("kept").await.unwrap();
    let running = session.exec(["sleep", "1000"]).stream().await.unwrap();
    let reading = session.files().reader("/dev/null").await;
    assert_kind(reading, ErrorKind::InvalidInput, "a device");
    lab.backend().pause(session.container()).await.unwrap();
    // Whoever waits is told, as soon as the agent must be taken for dead.
    let error = timeout(BOUND, running.wait()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AgentUnreachable, "{error:?}");
    assert_eq!(text(&session, "echo hi").await, "hi\n");
    assert_eq!(session.boot_token().await.unwrap(), token);
    assert!(kept.info().await.unwrap().state.is_alive());
    // The command ended with those who waited for it.
    eventually("the end of the command", async || {
        let count = "grep -s -x sleep /proc/[0-9]*/comm | wc -l";
        (text(&session, count).await.trim() == "1").then_some(())
    })
    .await;
}
