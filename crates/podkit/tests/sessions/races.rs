//! Several callers and several processes at once. Every front door of its own stands for a process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use podkit::{ErrorKind, GcOptions, Opened, Outcome, Podkit, Result, Session, SessionKey};
use tokio::{sync::Barrier, task::JoinSet};

use super::engine::Engine;

const OPENERS: usize = 6;
const ROUNDS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_openers_of_one_session_share_one_container() {
    let engine = Engine::new();
    let (one, two) = (engine.podkit().await, engine.podkit().await);
    let barrier = Arc::new(Barrier::new(OPENERS));
    let mut tasks = JoinSet::new();
    for number in 0..OPENERS {
        let podkit = if number % 2 == 0 {
            one.clone()
        } else {
            two.clone()
        };
        let barrier = Arc::clone(&barrier);
        tasks.spawn(async move {
            let mut tokens = Vec::new();
            for round in 0..ROUNDS {
                barrier.wait().await;
                let session = podkit.session("bob", round.to_string()).await.unwrap();
                let output = session.exec(["echo", "hi"]).await.unwrap();
                assert_eq!(output.stdout, b"hi\n");
                tokens.push((session.boot_token().await.unwrap(), session.opened()));
            }
            tokens
        });
    }
    let all = tasks.join_all().await;
    for round in 0..ROUNDS {
        let makers = all
            .iter()
            .filter(|tokens| tokens[round].1 == Opened::Created)
            .count();
        assert_eq!(makers, 1, "round {round}");
        assert!(
            all.iter().all(|tokens| tokens[round].0 == all[0][round].0),
            "round {round}"
        );
    }
    assert_eq!(one.list().await.unwrap().len(), ROUNDS);
}

/// A command that was begun may end with its session; nothing else may go wrong.
async fn use_once(podkit: &Podkit) -> Result<Session> {
    let session = podkit.session("bob", "123").await?;
    match session.exec(["echo", "hi"]).await {
        Ok(output) => assert!(
            matches!(output.outcome, Outcome::Exited(0) | Outcome::SessionClosed),
            "{output:?}"
        ),
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::ContainerGone | ErrorKind::AgentUnreachable
            ),
            "{error:?}"
        ),
    }
    Ok(session)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openers_racing_with_a_closer_and_a_collector_always_get_a_session() {
    let engine = Engine::new();
    let key = SessionKey::new("bob", "123").unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let mut foes = JoinSet::new();
    let (closer, stop, target) = (engine.podkit().await, Arc::clone(&done), key.clone());
    foes.spawn(async move {
        while !stop.load(Ordering::SeqCst) {
            let report = closer.close(&target).await.unwrap();
            assert!(report.failed.is_empty(), "{report:?}");
            tokio::task::yield_now().await;
        }
    });
    let (collector, stop) = (engine.podkit().await, Arc::clone(&done));
    foes.spawn(async move {
        while !stop.load(Ordering::SeqCst) {
            let options = GcOptions::new().with_idle(Duration::from_millis(1));
            collector.gc(options).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let mut openers = JoinSet::new();
    for _ in 0..4 {
        let podkit = engine.podkit().await;
        openers.spawn(async move {
            for _ in 0..ROUNDS {
                use_once(&podkit).await.unwrap();
            }
        });
    }
    openers.join_all().await;
    done.store(true, Ordering::SeqCst);
    foes.join_all().await;
    let podkit = engine.podkit().await;
    podkit.close(&key).await.unwrap();
    assert!(podkit.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_dropped_opening_leaves_nothing_that_a_close_does_not_remove() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    for round in 0..50_usize {
        let key = SessionKey::new("bob", round.to_string()).unwrap();
        let mut opening = Box::pin(podkit.open(&key).into_future());
        // Polled a few times, and then dropped wherever it is.
        for _ in 0..round {
            let poll = std::future::poll_fn(|context| {
                std::task::Poll::Ready(opening.as_mut().poll(context).is_ready())
            });
            if poll.await {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(opening);
        let report = podkit.close(&key).await.unwrap();
        assert!(report.failed.is_empty());
        assert!(podkit.list().await.unwrap().is_empty(), "round {round}");
    }
}

#[tokio::test]
async fn a_dropped_command_is_killed_and_the_session_goes_on() {
    let engine = Engine::new();
    let session = engine.podkit().await.session("bob", "123").await.unwrap();
    for _ in 0..20 {
        let handle = session.exec(["cat"]).stdin_stream().stream().await.unwrap();
        drop(handle);
        session.exec(["true"]).await.unwrap().check().unwrap();
    }
}

#[tokio::test]
async fn sessions_of_other_keys_never_wait_for_one_that_hangs() {
    let engine = Engine::new();
    let podkit = engine.podkit().await;
    let session = podkit.session("eve", "1").await.unwrap();
    engine.hang();
    let hung = podkit.session("bob", "123").into_future();
    let mut hung = Box::pin(hung);
    tokio::select! {
        biased;
        result = &mut hung => unreachable!("{result:?}"),
        () = tokio::task::yield_now() => {}
    }
    session.exec(["true"]).await.unwrap().check().unwrap();
    engine.heal();
    podkit.session("alice", "1").await.unwrap();
}

use std::future::{Future, IntoFuture};
