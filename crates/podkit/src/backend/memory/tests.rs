use std::time::Duration;

use podkit_agent::{ExecSpec, FileCall, MAX_DATA_BYTES, Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    ContainerManager, ExecEvent, Limit, Outcome, Podkit, Session, SessionKey, SessionSpec,
    backend::StopCause, container::ContainerRequest,
};

async fn session(spec: SessionSpec) -> (Podkit, Session) {
    let podkit = Podkit::builder()
        .engine(MemoryBackend::shared())
        .build()
        .await
        .unwrap();
    let session = podkit.session("bob", "123").spec(spec).await.unwrap();
    (podkit, session)
}

async fn stopped(podkit: &Podkit) -> Option<StopCause> {
    let key = SessionKey::new("bob", "123").unwrap();
    podkit.inspect(&key).await.unwrap().stop_cause
}

#[tokio::test(start_paused = true)]
async fn clocks_stop_the_container_and_a_running_command_holds_one_off() {
    let minute = Duration::from_secs(60);
    let spec = SessionSpec::new().auto_stop(Limit::After(minute));
    let (podkit, session) = session(spec).await;
    session.exec(["sleep", "300"]).await.unwrap();
    assert_eq!(stopped(&podkit).await, None);
    tokio::time::sleep(minute - Duration::from_secs(1)).await;
    assert_eq!(stopped(&podkit).await, None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stopped(&podkit).await, Some(StopCause::AutoStop));

    session.exec(["true"]).await.unwrap();
    let output = session.exec(["sleep", "300"]).timeout(minute);
    assert_eq!(output.await.unwrap().outcome, Outcome::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn lifetime_ends_a_running_command_and_counts_from_the_creation() {
    let hour = Duration::from_secs(3600);
    let spec = SessionSpec::new().max_lifetime(Limit::After(hour));
    let (podkit, session) = session(spec).await;
    let begun = tokio::time::Instant::now();
    let output = session.exec(["sleep", "infinity"]).await.unwrap();
    assert_eq!(output.outcome, Outcome::SessionClosed);
    assert!(begun.elapsed() >= hour - Duration::from_secs(1));
    assert_eq!(stopped(&podkit).await, Some(StopCause::MaxLifetime));
}

#[tokio::test(start_paused = true)]
async fn frozen_container_is_not_stopped_by_its_clock() {
    let spec = SessionSpec::new().auto_stop(Limit::After(Duration::from_secs(1)));
    let (podkit, session) = session(spec).await;
    let containers = podkit.containers();
    containers.pause(session.container()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(stopped(&podkit).await, None);
    containers.resume(session.container()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(stopped(&podkit).await, Some(StopCause::AutoStop));
}

#[tokio::test]
async fn input_and_output_beyond_every_window_pass_whole() {
    let (_podkit, session) = session(SessionSpec::new()).await;
    let large: Vec<u8> = (0..=250).cycle().take(3_000_003).collect();
    let output = session.exec(["cat"]).stdin(large.clone()).await.unwrap();
    assert!(output.stdout == large);
    let limited = session.exec(["cat"]).stdin(large).output_limit(10);
    let limited = limited.await.unwrap();
    assert_eq!(limited.stdout.len(), 10);
    assert!(limited.result.stdout_truncated && limited.outcome == Outcome::Exited(0));
}

#[tokio::test]
async fn commands_end_by_signals_and_programs_that_are_missing_say_so() {
    let (_podkit, session) = session(SessionSpec::new().env("A", "1")).await;
    let mut handle = session.exec(["sleep", "infinity"]).stream().await.unwrap();
    handle.signal(15).await.unwrap();
    let mut last = None;
    while let Some(event) = handle.next().await {
        last = Some(event.unwrap());
    }
    assert!(
        matches!(last, Some(ExecEvent::Exited(result)) if result.outcome == Outcome::Signaled(15))
    );
    let missing = session.exec(["/usr/bin/python3"]).await.unwrap();
    assert_eq!(missing.outcome, Outcome::Exited(127));
    assert!(missing.stderr_text().contains("python3"));
    let shell = session.shell("pwd; echo 'a  b'; exit 3").await.unwrap();
    assert_eq!(
        (shell.stdout_text().as_str(), shell.code()),
        ("/workspace\na  b\n", 3)
    );
    let env = session.exec(["env"]).env("B", "2").await.unwrap();
    assert!(env.stdout_text().starts_with("A=1\nB=2\nHOME=/root\n"));
}

/// Speaks the protocol without the client's own care.
struct Wire(tokio::io::DuplexStream, podkit_agent::FrameBuffer);

impl Wire {
    async fn send(&mut self, stream: u32, request: &Request) {
        let mut frame = Vec::new();
        request.encode(stream, &mut frame);
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next message; `None` when the connection was cut off.
    async fn next(&mut self) -> Option<(u32, Reply)> {
        loop {
            if let Some((kind, stream, payload)) = self.1.next_frame().unwrap() {
                return Some((stream, Reply::decode(kind, payload).unwrap()));
            }
            let mut buffer = [0; 4096];
            let count = self.0.read(&mut buffer).await.unwrap();
            if count == 0 {
                return None;
            }
            self.1.push(&buffer[..count]);
        }
    }

    async fn greeted() -> (BackendRef, Self) {
        let backend = MemoryBackend::shared();
        let name = ContainerId::new("wire").unwrap();
        let request = ContainerRequest::new(name, SessionSpec::new());
        let spec = ContainerManager::new(Arc::clone(&backend)).resolve(&request);
        let id = backend.create(&spec.unwrap()).await.unwrap();
        backend.start(&id).await.unwrap();
        let (mut source, mut sink) = backend.connect(&id).await.unwrap().split();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut from, mut to) = tokio::io::split(theirs);
        let mut pumps = JoinSet::new();
        pumps.spawn(async move {
            tokio::io::copy(&mut source, &mut to).await?;
            to.shutdown().await
        });
        pumps.spawn(async move {
            tokio::io::copy(&mut from, &mut sink).await?;
            sink.shutdown().await
        });
        pumps.detach_all();
        let mut wire = Self(ours, podkit_agent::FrameBuffer::new());
        let hello = Request::Hello {
            version: podkit_agent::PROTOCOL_VERSION,
            version_min: podkit_agent::PROTOCOL_VERSION_MIN,
        };
        wire.send(0, &hello).await;
        let (_, reply) = wire.next().await.unwrap();
        assert!(matches!(reply, Reply::Hello { .. }));
        (backend, wire)
    }
}

#[tokio::test]
async fn client_that_sends_beyond_its_window_is_cut_off() {
    let (_backend, mut wire) = Wire::greeted().await;
    // A command that reads nothing grants nothing.
    let spec = ExecSpec {
        argv: vec![b"sleep".to_vec(), b"infinity".to_vec()],
        stdin: true,
        ..ExecSpec::default()
    };
    wire.send(1, &Request::Exec(spec)).await;
    assert!(matches!(wire.next().await, Some((1, Reply::Started(_)))));
    for _ in 0..4 {
        wire.send(1, &Request::Stdin(vec![0; MAX_DATA_BYTES])).await;
    }
    wire.send(0, &Request::Ping).await;
    assert_eq!(wire.next().await, Some((0, Reply::Pong)));
    wire.send(1, &Request::Stdin(vec![0])).await;
    assert_eq!(wire.next().await, None);
}

#[tokio::test]
async fn agent_never_sends_beyond_the_window() {
    let (_backend, mut wire) = Wire::greeted().await;
    let file = |call| Request::File {
        call,
        path: b"large".to_vec(),
        user: Vec::new(),
        timeout_ms: None,
    };
    let write = FileCall::Write {
        mode: None,
        parents: true,
    };
    wire.send(1, &file(write)).await;
    for _ in 0..4 {
        wire.send(1, &Request::Stdin(vec![7; MAX_DATA_BYTES])).await;
    }
    // More than one window in all, so that reading it back needs credit.
    assert!(matches!(wire.next().await, Some((1, Reply::Credit(_)))));
    wire.send(1, &Request::Stdin(vec![7; MAX_DATA_BYTES])).await;
    wire.send(1, &Request::StdinEnd).await;
    let read = FileCall::Read {
        offset: 0,
        limit: None,
    };
    while wire.next().await.expect("the connection was cut off") != (1, Reply::Done) {}
    wire.send(2, &file(read)).await;
    let mut seen = 0;
    while seen < podkit_agent::INITIAL_WINDOW_BYTES as usize {
        match wire.next().await {
            Some((2, Reply::Data(_, bytes))) => seen += bytes.len(),
            other => panic!("{other:?}"),
        }
    }
    wire.send(0, &Request::Ping).await;
    assert_eq!(wire.next().await, Some((0, Reply::Pong)), "nothing follows");
    wire.send(2, &Request::Cancel).await;
    assert!(matches!(wire.next().await, Some((2, Reply::Failed(_)))));
}
