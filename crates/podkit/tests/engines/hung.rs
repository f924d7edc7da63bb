//! An engine that goes wrong while sessions are open: it hangs altogether, or in one of its answers.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use podkit::{
    CloseReport, ContainerState, ErrorKind, EventKind, GcOptions, HealthOptions, LimitChange,
    SessionKey, SessionSpec, Symptom, conformance::DEEDS,
};

use super::{
    DEBIAN, Engine, prefix_of,
    proxy::{HARMS, Proxy},
    requests::{assert_typed, client, deadlines},
    run,
    support::options_at,
    tests, text,
};

tests![
    engine_that_hangs_holds_up_nothing_in_a_session_that_is_open,
    engine_that_hangs_is_timed_out_by_everything_that_needs_it,
    harm_to_what_is_done_with_an_open_session_is_typed_and_passes,
    events_that_break_off_cost_no_recovery,
];

fn key(name: &str) -> SessionKey {
    SessionKey::new("u", name).unwrap()
}

fn engine_that_hangs_holds_up_nothing_in_a_session_that_is_open(engine: &Engine) {
    run(async {
        let proxy = Proxy::new(engine.place.path(), engine.name);
        let podkit = client(engine, &proxy.url()).await;
        let session = podkit.open(&key("a")).await.unwrap();
        session.exec(["true"]).await.unwrap().check().unwrap();
        proxy.take_requests();
        proxy.hang();
        // Limits and measures are the engine's.
        let of_the_engine = ["measuring", "limiting"];
        let deeds = DEEDS
            .iter()
            .filter(|deed| !of_the_engine.contains(&deed.name));
        let begun = deeds.map(|deed| deed.begin(&session, engine.place.path()));
        let doing = try_join_all(begun).await.unwrap();
        assert_eq!(text(&session, "echo hi").await, "hi\n");
        session.files().write("x", "y").await.unwrap();
        session.files().append("x", "z").await.unwrap();
        assert_eq!(session.files().read("x").await.unwrap(), b"yz");
        let late = session.exec(["sleep", "60"]);
        let late = late.timeout(Duration::from_millis(100)).await.unwrap();
        assert_eq!(late.outcome, podkit::Outcome::TimedOut);
        drop(doing);
        for process in session.processes().await.unwrap() {
            session.process(process.id).kill().await.unwrap();
        }
        let requests = proxy.take_requests();
        assert_eq!(requests, [""; 0], "calls that need the engine");
        proxy.heal();
        session.close().await.unwrap();
        assert!(engine.containers().is_empty());
    });
}

fn engine_that_hangs_is_timed_out_by_everything_that_needs_it(engine: &Engine) {
    run(async {
        let proxy = Proxy::new(engine.place.path(), engine.name);
        let podkit = client(engine, &proxy.url()).await;
        let session = podkit.open(&key("a")).await.unwrap();
        let (a, b) = (key("a"), key("b"));
        proxy.hang();
        let began = Instant::now();
        let change = LimitChange::new().pids_max(300);
        let (images, containers) = (
            async { podkit.containers().list_images().await },
            podkit.containers(),
        );
        let results = futures::join!(
            async { podkit.open(&b).await.map(drop) },
            async { podkit.list().await.map(drop) },
            podkit.pause(&a),
            async { podkit.gc(GcOptions::new()).await.map(drop) },
            async { podkit.inspect(&a).await.map(drop) },
            async { podkit.stats(&a).await.map(drop) },
            async { podkit.stop(&a, Duration::ZERO).await },
            async { images.await.map(drop) },
            async { session.set_limits(change).await },
            async { containers.ping().await },
        );
        let results: [(&str, podkit::Result<()>); 10] = [
            ("open", results.0),
            ("list", results.1),
            ("pause", results.2),
            ("gc", results.3),
            ("inspect", results.4),
            ("stats", results.5),
            ("stop", results.6),
            ("images", results.7),
            ("limits", results.8),
            ("ping", results.9),
        ];
        for (name, result) in results {
            let Err(error) = result else {
                panic!("{name} succeeded on an engine that hangs")
            };
            let unable = engine.name == "podman" && name == "limits";
            let kind = if unable {
                ErrorKind::Unsupported
            } else {
                ErrorKind::TimedOut
            };
            assert_eq!(error.kind(), kind, "{name}: {error:?}");
            assert!(error.operation().is_some(), "{name}: {error:?}");
        }
        match podkit.close(&a).await {
            Ok(CloseReport { failed, .. }) => assert!(!failed.is_empty(), "it cannot be closed"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}"),
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{:?}",
            began.elapsed()
        );
        proxy.heal();
        let report = podkit.close(&a).await.unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        podkit.close(&b).await.unwrap();
        assert!(engine.containers().is_empty());
        podkit.gc(GcOptions::new()).await.unwrap();
        podkit.shutdown().await;
    });
}

fn harm_to_what_is_done_with_an_open_session_is_typed_and_passes(engine: &Engine) {
    run(async {
        let proxy = Proxy::new(engine.place.path(), engine.name);
        let podkit = client(engine, &proxy.url()).await;
        let session = podkit.open(&key("a")).await.unwrap();
        let token = session.boot_token().await.unwrap();
        let name = session.container().as_str();
        let limits = podkit.capabilities().live_limits;
        for harm in HARMS {
            for (mark, nth) in [(name, 0), (name, 1), ("/images", 0)] {
                for call in ["pause", "resume", "stats", "limits", "images"] {
                    if call == "limits" && !limits {
                        continue;
                    }
                    proxy.plan(mark, nth, harm);
                    let result = match call {
                        "pause" => session.pause().await,
                        "resume" => session.resume().await,
                        "stats" => session.stats().await.map(drop),
                        "limits" => session.set_limits(LimitChange::new().pids_max(300)).await,
                        _ => podkit.containers().list_images().await.map(drop),
                    };
                    if let Err(error) = result {
                        assert_typed(&error, harm);
                    }
                    proxy.heal();
                }
            }
            assert_eq!(text(&session, "echo hi").await, "hi\n", "{harm:?}");
            let info = session.info().await.unwrap();
            assert_eq!(info.state, ContainerState::Running, "{harm:?}");
        }
        assert_eq!(session.boot_token().await.unwrap(), token);
        session.close().await.unwrap();
        assert!(engine.containers().is_empty());
    });
}

/// The stream of events breaks off, or never comes, before a container is killed.
fn events_that_break_off_cost_no_recovery(engine: &Engine) {
    run(async {
        let proxy = Proxy::new(engine.place.path(), engine.name);
        for harm in HARMS {
            proxy.plan("/events", 0, harm);
            let health = HealthOptions::new()
                .interval(Duration::from_millis(200))
                .probe_deadline(Duration::from_secs(2));
            let podkit = podkit::Podkit::builder()
                .backend(proxy.url())
                .prefix(prefix_of(engine.place.path()))
                .connect_options(options_at(engine.place.path()))
                .default_spec(SessionSpec::new().image(DEBIAN))
                .deadlines(deadlines())
                .health(health)
                .build()
                .await
                .unwrap();
            let session = podkit.open(&key("a")).await.unwrap();
            let mut events = podkit.events();
            engine.run(&["rm", "-f", session.container().as_str()]);
            let told = async {
                loop {
                    match events.next().await.unwrap().kind {
                        EventKind::HealthCheckFailed(illness) => {
                            let symptoms = [Symptom::Removed, Symptom::Died, Symptom::Silent];
                            assert!(symptoms.contains(&illness.symptom), "{illness:?}");
                        }
                        EventKind::Recovered(_) => break,
                        _ => {}
                    }
                }
            };
            let bound = Duration::from_secs(30);
            tokio::time::timeout(bound, told).await.unwrap();
            assert_eq!(text(&session, "echo hi").await, "hi\n", "{harm:?}");
            proxy.heal();
            session.close().await.unwrap();
            podkit.shutdown().await;
        }
        assert!(engine.containers().is_empty());
    });
}
