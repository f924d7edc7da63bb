//! Several clients in processes of their own, one that is killed, and what belongs to others.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use podkit::{ErrorKind, EventKind, GcOptions, Opened, Outcome, Podkit, SessionKey, SessionSpec};

use super::{
    DEBIAN, Engine, debian, prefix_of, run,
    support::{
        cut_off, options_at,
        worker::{Worker, soon},
    },
    tests, text,
};

tests![
    open_by_six_processes_at_once_is_one_container,
    open_beside_a_closer_and_a_collector_always_succeeds,
    client_killed_at_random_leaves_nothing,
    client_killed_in_the_middle_of_everything_leaves_nothing,
    containers_of_others_are_not_touched,
    container_removed_or_killed_by_others_is_recovered,
    command_is_ended_by_others_and_the_session_goes_on,
];

const PROCESSES: usize = 6;

fn race(workers: &mut [Worker], commands: impl Fn(usize, u128) -> String) -> Vec<String> {
    let at = soon();
    for (number, worker) in workers.iter_mut().enumerate() {
        worker.tell(&commands(number, at));
    }
    workers.iter_mut().map(Worker::answer).collect()
}

fn tokens(answers: &[String], about: &str) -> BTreeSet<String> {
    let token = |answer: &String| match answer.strip_prefix("ok ") {
        Some(token) => token.to_owned(),
        None => panic!("{about}: {answers:#?}"),
    };
    answers.iter().map(token).collect()
}

fn workers(engine: &Engine, count: usize) -> Vec<Worker> {
    (0..count)
        .map(|_| Worker::start(engine.place.path()))
        .collect()
}

fn open_by_six_processes_at_once_is_one_container(engine: &Engine) {
    let mut workers = workers(engine, PROCESSES);
    for round in 0..100 {
        let about = format!("round {round}");
        let answers = race(&mut workers, |_, at| format!("open s{round} {at}"));
        assert_eq!(tokens(&answers, &about).len(), 1, "{about}: {answers:#?}");
        assert_eq!(workers[0].ask(&format!("close s{round} 0")), "ok true");
    }
    assert!(engine.containers().is_empty());
    assert!(engine.socket_directories().is_empty());
}

fn open_beside_a_closer_and_a_collector_always_succeeds(engine: &Engine) {
    let mut workers = workers(engine, PROCESSES + 2);
    for round in 0..50 {
        let answers = race(&mut workers, |number, at| match number {
            PROCESSES => format!("close s {at}"),
            number if number > PROCESSES => format!("gc {at}"),
            _ => format!("open s {at}"),
        });
        tokens(&answers, &format!("round {round}"));
    }
    workers[0].ask("close s 0");
    assert!(engine.containers().is_empty());
}

/// Waits to the microsecond, as a timer cannot.
fn spin(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}

fn client_killed_at_random_leaves_nothing(engine: &Engine) {
    let mut bystander = Worker::start(engine.place.path());
    let token = bystander.ask("open bystander 0");
    assert!(token.starts_with("ok "), "{token}");
    let began = Instant::now();
    assert!(bystander.ask("open timed 0").starts_with("ok "));
    let longest = began.elapsed().mul_f64(1.2);
    bystander.ask("close timed 0");
    let rounds = 60;
    for round in 0..rounds {
        let mut worker = Worker::start(engine.place.path());
        worker.tell("open victim 0");
        spin(longest * (round * 7 % rounds) / rounds);
        worker.kill();
        if round % 3 == 0 {
            let mut next = Worker::start(engine.place.path());
            let answer = next.ask("open victim 0");
            assert!(answer.starts_with("ok "), "round {round}: {answer}");
        }
        if round % 10 == 9 {
            collect(engine);
            assert_eq!(engine.containers().len(), 1, "round {round}");
            assert_eq!(engine.socket_directories().len(), 1, "round {round}");
            assert_eq!(bystander.ask("open bystander 0"), token, "round {round}");
        }
    }
}

fn client_killed_in_the_middle_of_everything_leaves_nothing(engine: &Engine) {
    cut_off::killed_in_the_middle(&engine.place, 6);
    collect(engine);
    assert!(engine.containers().is_empty());
    assert!(engine.socket_directories().is_empty());
}

/// Collects as a later process would.
fn collect(engine: &Engine) {
    run(async {
        let podkit = engine.podkit().await;
        let report = podkit.gc(GcOptions::new()).await.unwrap();
        assert!(
            report.failed.is_empty() && report.swept.failed.is_empty(),
            "{report:?}"
        );
        podkit
            .close(&SessionKey::new("u", "victim").unwrap())
            .await
            .unwrap();
        let options = options_at(engine.place.path());
        let backend = podkit::backend::connect::connect(engine.name, &options)
            .await
            .unwrap();
        backend.sweep(Duration::ZERO).await.unwrap();
        podkit.shutdown().await;
    });
}

fn containers_of_others_are_not_touched(engine: &Engine) {
    let own = prefix_of(engine.place.path());
    let key = SessionKey::new("u", "a").unwrap();
    // One of another tool's, under the very name; one of a prefix that ours is the beginning of; one
    // with our label and nothing else.
    let taken = key.container_name(&own);
    let longer = format!("{own}-x-thing");
    let label = format!("podkit.prefix={own}-x");
    let ours = format!("podkit.prefix={own}");
    let half = format!("{own}-half");
    for (name, labels) in [
        (&taken, vec![]),
        (&longer, vec![&label]),
        (&half, vec![&ours]),
    ] {
        let mut words = vec!["create", "--name", name];
        for label in labels {
            words.extend(["--label", label]);
        }
        words.extend([DEBIAN, "sleep", "1000"]);
        engine.run(&words);
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run(async {
            let podkit = engine.podkit().await;
            assert!(podkit.list().await.unwrap().is_empty());
            let error = podkit.open(&key).await.unwrap_err();
            let kinds = [ErrorKind::Conflict, ErrorKind::AlreadyExists];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            let report = podkit.close(&key).await.unwrap();
            assert!(!report.existed && report.failed.len() == 1, "{report:?}");
            let options = GcOptions::new().with_idle(Duration::from_nanos(1));
            let report = podkit.gc(options).await.unwrap();
            assert!(report.removed.is_empty() && report.kept == 0, "{report:?}");
        });
        for name in [&taken, &longer, &half] {
            engine.run(&["inspect", name]);
        }
    }));
    for name in [&taken, &longer, &half] {
        engine.try_run(&["rm", "-f", name]);
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn container_removed_or_killed_by_others_is_recovered(engine: &Engine) {
    run(async {
        let podkit: Podkit = engine.podkit().await;
        let spec: SessionSpec = debian().env("A", "1");
        let session = podkit.session("u", "a").spec(spec).await.unwrap();
        text(&session, "echo 1 > /root/x").await;
        engine.run(&["kill", session.container().as_str()]);
        assert_eq!(text(&session, "cat /root/x; echo $A").await, "1\n1\n");
        engine.run(&["rm", "-f", session.container().as_str()]);
        assert_eq!(
            text(&session, "ls /root/x 2>/dev/null; echo $A").await,
            "1\n"
        );
        assert_eq!(session.opened(), podkit::Opened::Recovered);
        engine.run(&["pause", session.container().as_str()]);
        let again = engine.podkit().await.session("u", "a").await.unwrap();
        assert_eq!(text(&again, "echo hi").await, "hi\n");
    });
}

/// What somebody else does with the engine's own command line while a command runs; the files live on but for
/// the last ones.
fn command_is_ended_by_others_and_the_session_goes_on(engine: &Engine) {
    let prefix = format!("label=podkit.prefix={}", prefix_of(engine.place.path()));
    run(async {
        let podkit: Podkit = engine.podkit().await;
        let session = podkit.session("u", "a").spec(debian()).await.unwrap();
        let name = session.container().to_string();
        text(&session, "echo 1 > /root/x").await;
        let deeds: [(&[&str], Option<Opened>, bool); 5] = [
            (&["stop", "-t", "0", &name], Some(Opened::Started), true),
            (&["kill", &name], Some(Opened::Started), true),
            (&["restart", "-t", "0", &name], None, true),
            (&["rm", "-f", &name], Some(Opened::Recovered), false),
            (
                &["system", "prune", "-f", "--filter", &prefix],
                Some(Opened::Recovered),
                false,
            ),
        ];
        for (deed, opened, kept) in deeds {
            text(&session, "echo 1 > /root/x").await;
            let running = super::long_command(&session).await;
            if deed.first() == Some(&"system") {
                // Prunes what does not run.
                engine.run(&["stop", "-t", "0", &name]);
            }
            let mut events = podkit.events();
            engine.run_beside_others(deed);
            let end = tokio::time::timeout(Duration::from_secs(10), running.wait()).await;
            // A command ends with its container.
            let end = end.unwrap().unwrap();
            assert_eq!(end.outcome, Outcome::SessionClosed, "{deed:?}");
            let said = text(&session, "cat /root/x 2>/dev/null; echo on").await;
            assert_eq!(said, if kept { "1\non\n" } else { "on\n" }, "{deed:?}");
            let Some(opened) = opened else {
                // It runs again already.
                continue;
            };
            assert_eq!(session.opened(), opened, "{deed:?}");
            let told = loop {
                let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
                if let EventKind::SessionOpened(how) = event.unwrap().unwrap().kind {
                    break how;
                }
            };
            assert_eq!(told, opened, "{deed:?}");
        }
    });
}
