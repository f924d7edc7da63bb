//! How many requests things cost, and what happens when one of them goes wrong.

use std::time::{Duration, Instant};

use podkit::{
    ContainerState, Deadlines, ErrorKind, Podkit, SessionKey, SessionSpec,
    backend::connect::connect,
};

use super::{
    DEBIAN, Engine, prefix_of,
    proxy::{HARMS, Harm, Proxy},
    run,
    support::options_at,
    tests,
};

tests![
    requests_are_few,
    harm_while_opening_is_typed_and_leaves_nothing,
    harm_while_coming_back_is_typed_and_passes,
    harm_while_stopping_and_closing_is_told_and_mended,
    harm_while_listing_is_no_empty_list,
    engine_that_is_not_there_is_told_with_all_that_was_tried,
];

/// Deadlines that a hanging request reaches soon.
pub(super) fn deadlines() -> Deadlines {
    let soon = Duration::from_millis(1500);
    let mut deadlines = Deadlines::default();
    deadlines.inspect = soon;
    deadlines.list = soon;
    deadlines.create = 2 * soon;
    deadlines.start = 2 * soon;
    deadlines.stop = 2 * soon;
    deadlines.remove = 2 * soon;
    deadlines.connect = 2 * soon;
    deadlines.settle = 2 * soon;
    deadlines
}

/// The longest that one call may take with these.
const LONGEST: Duration = Duration::from_secs(20);

pub(super) async fn client(engine: &Engine, url: &str) -> Podkit {
    Podkit::builder()
        .backend(url)
        .prefix(prefix_of(engine.place.path()))
        .connect_options(options_at(engine.place.path()))
        .default_spec(SessionSpec::new().image(DEBIAN))
        .deadlines(deadlines())
        .build()
        .await
        .unwrap()
}

fn key(name: &str) -> SessionKey {
    SessionKey::new("u", name).unwrap()
}

fn requests_are_few(engine: &Engine) {
    run(async {
        // What is made once for an engine is there.
        engine
            .open(super::debian())
            .await
            .unwrap()
            .close()
            .await
            .unwrap();
        let proxy = Proxy::new(engine.place.path(), engine.name);
        let first = client(engine, &proxy.url()).await;
        let session = first.open(&key("b")).await.unwrap();
        let cold = proxy.take_requests();
        assert!(cold.len() <= 6, "cold open: {cold:#?}");
        session.exec(["true"]).await.unwrap().check().unwrap();
        session.files().write("x", "y").await.unwrap();
        let warm = proxy.take_requests();
        assert!(warm.is_empty(), "warm: {warm:#?}");

        let second = client(engine, &proxy.url()).await;
        let session = second.open(&key("b")).await.unwrap();
        session.exec(["true"]).await.unwrap().check().unwrap();
        let again = proxy.take_requests();
        assert!(again.len() <= 2, "coming back: {again:#?}");
        session.close().await.unwrap();
        let mut close = proxy.take_requests();
        // Podman refuses what it meets in the middle of its end, and is asked again.
        close.dedup();
        assert!(close.len() <= 2, "close: {close:#?}");
    });
}

/// A client through a proxy, with a session whose execs nothing may delay.
struct Bench<'a> {
    engine: &'a Engine,
    proxy: Proxy,
    podkit: Podkit,
    other: podkit::Session,
    victim: String,
}

impl<'a> Bench<'a> {
    async fn new(engine: &'a Engine) -> Self {
        let proxy = Proxy::new(engine.place.path(), engine.name);
        let podkit = client(engine, &proxy.url()).await;
        let other = podkit.open(&key("other")).await.unwrap();
        other.exec(["true"]).await.unwrap().check().unwrap();
        let victim = key("a").container_name(podkit.prefix());
        Self {
            engine,
            proxy,
            podkit,
            other,
            victim,
        }
    }

    /// Makes a call while a request of the victim's goes wrong; meanwhile others go on.
    async fn harmed<T>(
        &self,
        nth: usize,
        harm: Harm,
        call: impl Future<Output = podkit::Result<T>>,
    ) -> podkit::Result<T> {
        self.proxy.plan(&self.victim, nth, harm);
        let began = Instant::now();
        let others = async {
            let began = Instant::now();
            self.other.exec(["true"]).await.unwrap().check().unwrap();
            assert!(
                began.elapsed() < Duration::from_secs(1),
                "{harm:?}: another was delayed"
            );
        };
        let (result, ()) = futures::join!(call, others);
        assert!(
            began.elapsed() < LONGEST,
            "{harm:?} at {nth}: {:?}",
            began.elapsed()
        );
        if let Err(error) = &result {
            assert_typed(error, harm);
        }
        result
    }

    /// After all is well again the session opens, and closing it leaves nothing.
    async fn assert_sound(&self, about: &str) {
        self.proxy.heal();
        let session = match self.podkit.open(&key("a")).await {
            Ok(session) => session,
            Err(error) => panic!("{about}: {error:?}"),
        };
        let output = session.exec(["echo", "hi"]).await.unwrap();
        assert_eq!(output.stdout, b"hi\n", "{about}");
        let report = session.close().await.unwrap();
        assert!(report.failed.is_empty(), "{about}: {report:?}");
        assert_eq!(self.engine.containers().len(), 1, "{about}");
        let options = options_at(self.engine.place.path());
        let backend = connect(&self.proxy.url(), &options).await.unwrap();
        backend.sweep(Duration::ZERO).await.unwrap();
        assert_eq!(self.engine.socket_directories().len(), 1, "{about}");
    }
}

pub(super) fn assert_typed(error: &podkit::Error, harm: Harm) {
    let kinds = [
        ErrorKind::Unavailable,
        ErrorKind::TimedOut,
        ErrorKind::Unexpected,
        ErrorKind::AgentUnreachable,
    ];
    assert!(kinds.contains(&error.kind()), "{harm:?}: {error:?}");
    assert!(error.operation().is_some(), "{harm:?}: {error:?}");
}

fn harm_while_opening_is_typed_and_leaves_nothing(engine: &Engine) {
    run(async {
        let bench = Bench::new(engine).await;
        for harm in HARMS {
            for nth in 0.. {
                let about = format!("{harm:?} at request {nth} of an opening");
                let open = async { bench.podkit.open(&key("a")).await };
                let _ = bench.harmed(nth, harm, open).await;
                let over = bench.proxy.heal();
                bench.assert_sound(&about).await;
                if over {
                    assert!(nth >= 3, "an opening has more requests than {nth}");
                    break;
                }
            }
        }
    });
}

fn harm_while_coming_back_is_typed_and_passes(engine: &Engine) {
    run(async {
        let bench = Bench::new(engine).await;
        for harm in HARMS {
            for nth in 0.. {
                bench.podkit.open(&key("a")).await.unwrap();
                let stranger = client(engine, &bench.proxy.url()).await;
                let about = format!("{harm:?} at request {nth} of coming back");
                let run = async {
                    let session = stranger.open(&key("a")).await?;
                    session.exec(["true"]).await?.check()
                };
                let _ = bench.harmed(nth, harm, run).await;
                let over = bench.proxy.heal();
                stranger.shutdown().await;
                bench.assert_sound(&about).await;
                if over {
                    break;
                }
            }
        }
    });
}

fn harm_while_stopping_and_closing_is_told_and_mended(engine: &Engine) {
    run(async {
        let bench = Bench::new(engine).await;
        for harm in HARMS {
            for nth in 0.. {
                bench.podkit.open(&key("a")).await.unwrap();
                let about = format!("{harm:?} at request {nth} of stopping and closing");
                let stop = async { bench.podkit.stop(&key("a"), Duration::ZERO).await };
                let _ = bench.harmed(nth, harm, stop).await;
                let over = bench.proxy.heal();
                bench.assert_sound(&about).await;
                bench.podkit.open(&key("a")).await.unwrap();
                let close = async { bench.podkit.close(&key("a")).await };
                if let Ok(report) = bench.harmed(nth, harm, close).await {
                    let gone = bench.engine.containers().len() == 1;
                    assert!(gone || !report.failed.is_empty(), "{about}: {report:?}");
                }
                bench.proxy.heal();
                bench.assert_sound(&about).await;
                if over {
                    break;
                }
            }
        }
    });
}

fn harm_while_listing_is_no_empty_list(engine: &Engine) {
    run(async {
        let bench = Bench::new(engine).await;
        for harm in HARMS {
            bench.proxy.plan("/containers/json", 0, harm);
            match bench.podkit.list().await {
                Ok(infos) => {
                    assert_eq!(infos.len(), 1, "{harm:?}");
                    assert_eq!(infos[0].state, ContainerState::Running);
                }
                Err(error) => assert_typed(&error, harm),
            }
            bench.proxy.heal();
        }
    });
}

fn engine_that_is_not_there_is_told_with_all_that_was_tried(engine: &Engine) {
    run(async {
        let missing = format!("unix://{}/none.sock", engine.place.path().display());
        let mut options = options_at(engine.place.path());
        options.docker.host = Some(missing.clone());
        options.docker.container_host = Some(missing.clone());
        for name in [engine.name, missing.as_str()] {
            let error = connect(name, &options).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert!(error.message().contains("none.sock"), "{error}");
            assert!(error.hint().is_some());
        }
        let silent = engine.place.path().join("silent.sock");
        let _listener = tokio::net::UnixListener::bind(&silent).unwrap();
        let began = Instant::now();
        let url = format!("unix://{}", silent.display());
        let error = connect(&url, &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(began.elapsed() < LONGEST);
    });
}
