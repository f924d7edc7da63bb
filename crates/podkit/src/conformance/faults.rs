//! Every fault at every call of create, exec and remove: a typed error, no orphan, and the next call
//! works.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Fault, FaultBackend, Method,
    lab::{Lab, key},
    table,
};
use crate::{Deadlines, ErrorKind, GcOptions, Podkit, Result, Session};

table!["faults":
    Containers fault_while_opening_is_typed_and_leaves_no_orphan,
    Containers fault_while_reconnecting_is_typed_and_passes,
    Containers fault_in_exec_after_removal_is_typed_and_passes,
    Containers fault_while_closing_is_reported_and_close_works_again,
    Containers fault_while_stopping_or_looking_is_typed_and_passes,
    Containers fault_in_gc_is_reported_and_gc_works_again,
    Containers fault_that_passes_is_repeated_for_idempotent_calls,
    Containers fault_in_create_is_never_repeated,
    Containers fault_for_one_session_delays_no_other,
];

/// A deadline that a hanging call reaches soon, on an engine that is quicker.
const SOON: Duration = Duration::from_millis(150);

pub(super) struct Bench {
    pub(super) lab: Lab,
    pub(super) faults: Arc<FaultBackend>,
    pub(super) podkit: Podkit,
}

impl Bench {
    pub(super) async fn new(lab: Lab) -> Self {
        // A deadline of one call leaves room for the whole of a session.
        let began = Instant::now();
        let session = lab.open("pace").await;
        session.stop(Duration::ZERO).await.unwrap();
        session.close().await.unwrap();
        // An engine that others use at the same time holds a call up for as long as that takes.
        let soon = SOON.max(began.elapsed() * 2);
        let faults = FaultBackend::new(lab.backend());
        let backend: crate::backend::BackendRef = Arc::<FaultBackend>::clone(&faults);
        let podkit = lab.podkit_with(backend, deadlines(soon)).await;
        Self {
            lab,
            faults,
            podkit,
        }
    }

    pub(super) async fn run(&self, name: &str) -> Result<()> {
        let session = self.podkit.open(&key(name)).await?;
        let output = session.exec(["echo", "hi"]).await?;
        assert_eq!(output.stdout, b"hi\n");
        Ok(())
    }

    /// As somebody else does, who knows nothing of sessions.
    pub(super) async fn remove(&self, session: &Session) {
        let container = session.container();
        self.lab.backend().remove(container).await.unwrap();
    }

    /// At most the one container under the session's name is there, and what it is is usable.
    pub(super) async fn assert_sound(&self, about: &str) {
        self.faults.heal();
        let infos = self.lab.podkit().list().await.unwrap();
        assert!(infos.len() <= 1, "{about}: orphans: {infos:?}");
        if let Err(error) = self.run("a").await {
            panic!("{about}: the next call failed: {error:?}");
        }
        let report = self.podkit.close(&key("a")).await.unwrap();
        assert!(
            report.existed && report.failed.is_empty(),
            "{about}: {report:?}"
        );
        assert!(
            self.lab.podkit().list().await.unwrap().is_empty(),
            "{about}"
        );
    }
}

fn deadlines(soon: Duration) -> Deadlines {
    Deadlines {
        ping: soon,
        inspect: soon,
        list: soon,
        create: soon * 4,
        start: soon * 4,
        // A disk that others write to holds it up for longer than anything else.
        stop: (soon * 4).max(Duration::from_secs(3)),
        remove: soon * 4,
        connect: soon,
        agent: soon * 4,
        logs: soon,
        sweep: soon,
        pull: soon * 4,
        settle: soon * 4,
    }
}

/// Kinds of errors that podkit only passes on, as it does `Unexpected`.
const PASSED_ON: [ErrorKind; 5] = [
    ErrorKind::ImageNotFound,
    ErrorKind::InvalidInput,
    ErrorKind::Unsupported,
    ErrorKind::PermissionDenied,
    ErrorKind::LimitExceeded,
];

/// Errors of every kind, and hangs; before and after the effect. Where a container takes long to make,
/// one kind stands for all that are passed on.
fn faults(lab: &Lab) -> Vec<Fault> {
    let slow = matches!(lab.backend().name(), "docker" | "podman");
    let mut all = vec![Fault::Hang, Fault::HangAfter];
    for &kind in ErrorKind::ALL {
        if slow && PASSED_ON.contains(&kind) {
            continue;
        }
        all.push(Fault::Fail(kind));
        all.push(Fault::FailAfter(kind));
    }
    all
}

/// A failure shows the injected kind, or the deadline's, or that it was mended on the way.
pub(super) fn assert_typed(result: &Result<()>, fault: Fault, about: &str) {
    let Err(error) = result else { return };
    let kind = error.kind();
    let expected = match fault {
        Fault::Fail(injected) | Fault::FailAfter(injected) => kind == injected,
        Fault::Hang | Fault::HangAfter => false,
    };
    let general = [
        ErrorKind::TimedOut,
        ErrorKind::AgentUnreachable,
        ErrorKind::Unavailable,
    ];
    // What was found while mending: the name is taken, the container is gone.
    let mending = [
        ErrorKind::AlreadyExists,
        ErrorKind::NotFound,
        ErrorKind::ContainerGone,
        ErrorKind::Conflict,
    ];
    assert!(
        expected || general.contains(&kind) || mending.contains(&kind),
        "{about}: {error:?}"
    );
    assert!(
        error.operation().is_some(),
        "{about}: the operation is not named: {error:?}"
    );
}

async fn fault_while_opening_is_typed_and_leaves_no_orphan(lab: Lab) {
    let bench = Bench::new(lab).await;
    for method in [
        Method::Inspect,
        Method::Create,
        Method::Start,
        Method::Connect,
    ] {
        for fault in faults(&bench.lab) {
            for (after, times) in [(0, 1), (0, 50), (1, 50)] {
                if after == 1 && !matches!(method, Method::Inspect) {
                    continue;
                }
                let slow = matches!(fault, Fault::Hang | Fault::HangAfter);
                if slow && times > 1 && method == Method::Create {
                    continue;
                }
                bench.faults.inject(method, after, times, fault);
                let about = format!("{fault:?} × {times} in {method:?} after {after}");
                let result = bench.run("a").await;
                assert_typed(&result, fault, &about);
                bench.assert_sound(&about).await;
            }
        }
    }
}

async fn fault_while_reconnecting_is_typed_and_passes(lab: Lab) {
    let bench = Bench::new(lab).await;
    for method in [Method::Inspect, Method::Connect] {
        for fault in faults(&bench.lab) {
            bench.lab.open("a").await;
            bench.faults.inject(method, 0, 50, fault);
            let about = format!("{fault:?} in {method:?}");
            let result = bench.run("a").await;
            assert_typed(&result, fault, &about);
            let known = bench.lab.podkit().list().await.unwrap();
            assert_eq!(known.len(), 1, "{about}: a running container was lost");
            bench.assert_sound(&about).await;
        }
    }
}

async fn fault_in_exec_after_removal_is_typed_and_passes(lab: Lab) {
    let bench = Bench::new(lab).await;
    for method in [
        Method::Inspect,
        Method::Create,
        Method::Start,
        Method::Connect,
    ] {
        for fault in [
            Fault::Fail(ErrorKind::Unexpected),
            Fault::FailAfter(ErrorKind::LimitExceeded),
            Fault::Hang,
        ] {
            let session = bench.podkit.open(&key("a")).await.unwrap();
            bench.remove(&session).await;
            bench.faults.inject(method, 0, 50, fault);
            let about = format!("{fault:?} in {method:?}");
            let result = session.exec(["echo", "hi"]).await.map(drop);
            assert_typed(&result, fault, &about);
            bench.faults.heal();
            let output = session.exec(["echo", "hi"]).await.unwrap();
            assert_eq!(output.stdout, b"hi\n", "{about}");
            bench.assert_sound(&about).await;
        }
    }
}

async fn fault_while_closing_is_reported_and_close_works_again(lab: Lab) {
    let bench = Bench::new(lab).await;
    for fault in faults(&bench.lab) {
        bench.run("a").await.unwrap();
        bench.faults.inject(Method::Remove, 0, 50, fault);
        let about = format!("{fault:?} in Remove");
        match bench.podkit.close(&key("a")).await {
            Ok(report) => {
                let gone = bench.lab.podkit().list().await.unwrap().is_empty();
                assert!(gone || !report.failed.is_empty(), "{about}: {report:?}");
            }
            Err(error) => assert_typed(&Err(error), fault, &about),
        }
        bench.faults.heal();
        bench.podkit.close(&key("a")).await.unwrap();
        assert!(
            bench.lab.podkit().list().await.unwrap().is_empty(),
            "{about}"
        );
        bench.assert_sound(&about).await;
    }
}

async fn fault_while_stopping_or_looking_is_typed_and_passes(lab: Lab) {
    let bench = Bench::new(lab).await;
    for fault in faults(&bench.lab) {
        bench.run("a").await.unwrap();
        bench.faults.inject(Method::Stop, 0, 50, fault);
        let about = format!("{fault:?} in Stop");
        let result = bench
            .podkit
            .stop(&key("a"), Duration::from_millis(10))
            .await;
        assert_typed(&result, fault, &about);
        bench.faults.heal();
        bench
            .podkit
            .stop(&key("a"), Duration::from_millis(10))
            .await
            .unwrap();
        bench.faults.inject(Method::List, 0, 50, fault);
        let result = bench.podkit.list().await.map(drop);
        assert!(
            result.is_err(),
            "{about}: a listing that failed reads as empty"
        );
        assert_typed(&result, fault, &about);
        bench.faults.heal();
        bench.faults.inject(Method::Inspect, 0, 50, fault);
        let result = bench.podkit.inspect(&key("a")).await.map(drop);
        assert_typed(&result, fault, &about);
        bench.assert_sound(&about).await;
    }
}

async fn fault_in_gc_is_reported_and_gc_works_again(lab: Lab) {
    let bench = Bench::new(lab).await;
    // Idle times are known to the millisecond, so that only zero means all.
    let all = || GcOptions::new().with_idle(Duration::ZERO);
    for method in [Method::List, Method::Remove, Method::Sweep] {
        for fault in [
            Fault::Fail(ErrorKind::PermissionDenied),
            Fault::FailAfter(ErrorKind::Unavailable),
            Fault::Hang,
        ] {
            bench.run("a").await.unwrap();
            bench.faults.inject(method, 0, 50, fault);
            let about = format!("{fault:?} in {method:?}");
            match bench.podkit.gc(all()).await {
                Ok(report) => assert!(
                    !report.failed.is_empty() || !report.swept.failed.is_empty(),
                    "{about}: {report:?}"
                ),
                Err(error) => assert_typed(&Err(error), fault, &about),
            }
            bench.faults.heal();
            let report = bench.podkit.gc(all()).await.unwrap();
            assert!(report.failed.is_empty(), "{about}: {report:?}");
            assert!(
                bench.lab.podkit().list().await.unwrap().is_empty(),
                "{about}"
            );
        }
    }
}

async fn fault_that_passes_is_repeated_for_idempotent_calls(lab: Lab) {
    let bench = Bench::new(lab).await;
    for method in [
        Method::Inspect,
        Method::Start,
        Method::Connect,
        Method::Remove,
    ] {
        bench
            .faults
            .inject(method, 0, 1, Fault::Fail(ErrorKind::Unavailable));
        bench.run("a").await.unwrap();
        assert!(
            bench
                .podkit
                .close(&key("a"))
                .await
                .unwrap()
                .failed
                .is_empty()
        );
        assert_eq!(bench.faults.fired(method), 1, "{method:?}");
    }
}

async fn fault_in_create_is_never_repeated(lab: Lab) {
    let bench = Bench::new(lab).await;
    bench
        .faults
        .inject(Method::Create, 0, 50, Fault::Fail(ErrorKind::Unavailable));
    assert!(bench.run("a").await.is_err());
    assert_eq!(bench.faults.fired(Method::Create), 1);
    bench.assert_sound("create").await;
}

/// Nobody waits for another session's start or removal.
async fn fault_for_one_session_delays_no_other(lab: Lab) {
    let bench = Bench::new(lab).await;
    bench.run("b").await.unwrap();
    bench.faults.inject(Method::Start, 0, 1, Fault::Hang);
    let stuck = bench.run("a");
    let others = async {
        for _ in 0..20 {
            bench.run("b").await.unwrap();
        }
        bench.run("c").await.unwrap();
    };
    tokio::select! {
        biased;
        result = stuck => panic!("the start hangs, and yet: {result:?}"),
        () = others => {}
    }
    bench.podkit.close(&key("b")).await.unwrap();
    bench.podkit.close(&key("c")).await.unwrap();
    bench.assert_sound("start").await;
}
