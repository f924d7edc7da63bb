//! Many sessions of one client, within the descriptors that a process usually has.

use futures::{StreamExt, TryStreamExt, stream};
use podkit::{Outcome, Podkit, PodkitBuilder, SessionInfo, SessionKey, backend::ContainerState};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
