//! Many sessions of one client, within the descriptors that a process usually has.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use podkit::{
    ErrorKind, Outcome, Podkit, PodkitBuilder, SessionInfo, SessionKey, backend::ContainerState,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Place;

/// What a process may have open on a usual machine.
const DESCRIPTORS: u64 = 1024;

/// How many of them are worked with at the same time.
const AT_ONCE: usize = 32;

/// So many sessions live at once, and each one keeps its own.
pub async fn live_at_once(builder: PodkitBuilder, count: usize) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(DESCRIPTORS);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    let podkit = builder.build().await.unwrap();
    let result = work(&podkit, count).await;
    let closed = stream::iter(0..count).map(|number| {
        let (podkit, key) = (podkit.clone(), key(number));
        async move { podkit.close(&key).await }
    });
    let closed = closed.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>();
    let closed = closed.await;
    result.unwrap();
    assert!(closed.unwrap().iter().all(|report| report.existed));
}

/// Where memory is short nothing is made and nothing is started, and what runs goes on.
pub async fn refused_without_memory(place: &Place) {
    let mut options = place.options();
    options.reserve_memory = Some(u64::MAX);
    let short = place.builder().connect_options(options).build();
    let (short, wide) = (short.await.unwrap(), place.builder().build().await.unwrap());
    let refused = short.session("u", "a").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded, "{refused:?}");
    assert!(refused.hint().is_some_and(|hint| hint.contains("gc")));
    assert_eq!(wide.list().await.unwrap().len(), 0);

    let session = wide.session("u", "a").await.unwrap();
    let opened = short.session("u", "a").await.unwrap();
    assert_eq!(opened.exec(["echo", "hi"]).await.unwrap().stdout, b"hi\n");
    session.stop(Duration::ZERO).await.unwrap();
    let refused = short.session("u", "a").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded, "{refused:?}");
    session.close().await.unwrap();
}

async fn work(podkit: &Podkit, count: usize) -> podkit::Result<()> {
    let opened = stream::iter(0..count).map(|number| async move {
        let session = podkit.open(&key(number)).await?;
        let write = format!("echo {number} > /tmp/number");
        assert_eq!(
            session.shell(write).await?.result.outcome,
            Outcome::Exited(0)
        );
        podkit::Result::Ok(session)
    });
    let sessions: Vec<_> = opened.buffered(AT_ONCE).try_collect().await?;
    let infos: Vec<SessionInfo> = podkit.list().await?;
    let running = |info: &&SessionInfo| info.state == ContainerState::Running;
    assert_eq!(infos.iter().filter(running).count(), count);
    let read = stream::iter(sessions.iter().enumerate()).map(|(number, session)| async move {
        let output = session.exec(["cat", "/tmp/number"]).await?;
        assert_eq!(output.stdout, format!("{number}\n").into_bytes());
        podkit::Result::Ok(())
    });
    read.buffer_unordered(AT_ONCE).try_collect().await
}

fn key(number: usize) -> SessionKey {
    SessionKey::new("crowd", format!("s{number}")).unwrap()
}
