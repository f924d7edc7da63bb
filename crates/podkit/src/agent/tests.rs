//! The client against agents that are wrong, hostile, silent or gone.

use std::{pin::pin, time::Duration};

use podkit_agent::{
    ExecSpec, ExecStatus, ExecUsage, Failure, FailureKind, FileChange, FileChangeKind, FrameBuffer,
    INITIAL_WINDOW_BYTES, MAX_DATA_BYTES, MAX_FRAME_BYTES, MemorySource, Output, PROTOCOL_VERSION,
    Reply, Request, StopReason,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::Instant,
};

use super::AgentClient;
use crate::{
    backend::AgentStream,
    error::{Error, ErrorKind},
    exec::{ExecEvent, Outcome},
};

/// The agent's side of a connection, played by a test.
struct Peer {
    stream: DuplexStream,
    frames: FrameBuffer,
}

impl Peer {
    /// The next request; none after the end.
    async fn next(&mut self) -> Option<(u32, Request)> {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some((kind, stream, payload)) = self.frames.next_frame().unwrap() {
                return Some((stream, Request::decode(kind, payload).unwrap()));
            }
            match self.stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.frames.push(&chunk[..count]),
            }
        }
    }

    /// The next request that is no ping.
    async fn request(&mut self) -> (u32, Request) {
        loop {
            match self.next().await.unwrap() {
                (_, Request::Ping) => {}
                request => return request,
            }
        }
    }

    async fn say(&mut self, stream: u32, reply: Reply) {
        let mut bytes = Vec::new();
        reply.encode(stream, &mut bytes);
        self.raw(&bytes).await;
    }

    /// Bytes as they are; the client may have hung up already.
    async fn raw(&mut self, bytes: &[u8]) {
        let _gone = self.stream.write_all(bytes).await;
    }

    async fn greet(&mut self) {
        self.say(0, hello(PROTOCOL_VERSION)).await;
    }

    /// Takes the next command and says that it runs.
    async fn start(&mut self) -> u32 {
        loop {
            if let (stream, Request::Exec(_)) = self.request().await {
                self.say(stream, Reply::Started(7)).await;
                return stream;
            }
        }
    }
}

fn hello(version: u16) -> Reply {
    Reply::Hello {
        version,
        version_min: version,
        boot_token: [7; 16],
        kernel_tree_kill: true,
    }
}

fn exited(code: u8) -> Reply {
    Reply::Exited {
        status: ExecStatus::Exited(code),
        stdout_truncated: false,
        stderr_truncated: false,
        tree_survives: false,
        usage: ExecUsage {
            wall_us: 1,
            user_us: 0,
            system_us: 0,
            peak_memory_bytes: 0,
            peak_memory_source: MemorySource::LargestProcess,
        },
    }
}

fn pair() -> (AgentStream, Peer) {
    let (ours, theirs) = duplex(1 << 20);
    let peer = Peer {
        stream: theirs,
        frames: FrameBuffer::new(),
    };
    (AgentStream::new(ours), peer)
}

async fn connected() -> (AgentClient, Peer) {
    let (stream, mut peer) = pair();
    let (client, ()) = tokio::join!(AgentClient::connect(stream), peer.greet());
    assert!(matches!(peer.request().await, (0, Request::Hello { .. })));
    (client.unwrap(), peer)
}

fn echo() -> ExecSpec {
    ExecSpec {
        argv: vec![b"echo".to_vec()],
        ..ExecSpec::default()
    }
}

/// What a client says to a first message.
async fn greeted_with(bytes: &[u8]) -> Error {
    let (stream, mut peer) = pair();
    peer.raw(bytes).await;
    let result = tokio::time::timeout(Duration::from_secs(60), AgentClient::connect(stream)).await;
    result.unwrap().err().unwrap()
}

#[tokio::test]
async fn greeting_that_is_none_is_agent_unreachable() {
    let mut wrong_magic = Vec::new();
    hello(PROTOCOL_VERSION).encode(0, &mut wrong_magic);
    wrong_magic[9] ^= 1;
    let mut no_greeting = Vec::new();
    Reply::Pong.encode(0, &mut no_greeting);
    let oversized = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_le_bytes();
    for bytes in [
        &wrong_magic[..],
        &no_greeting,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0xff; 64],
        &oversized,
    ] {
        let error = greeted_with(bytes).await;
        assert_eq!(error.kind(), ErrorKind::AgentUnreachable, "{error:?}");
    }
}

#[tokio::test]
async fn greeting_of_another_version_is_unsupported() {
    let mut bytes = Vec::new();
    hello(PROTOCOL_VERSION + 1).encode(0, &mut bytes);
    assert_eq!(greeted_with(&bytes).await.kind(), ErrorKind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn greeting_that_never_comes_is_agent_unreachable_within_ten_seconds() {
    let (stream, _peer) = pair();
    let begin = Instant::now();
    let error = AgentClient::connect(stream).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AgentUnreachable);
    assert!(begin.elapsed() < Duration::from_secs(10));
}

/// Everything that a stream of a command must not carry ends the connection.
#[tokio::test]
async fn frame_that_does_not_fit_ends_the_connection() {
    let data = |bytes: usize| Reply::Data(Output::Stdout, vec![1; bytes]);
    let wrong: [(u32, Reply); 7] = [
        (99, data(1)),
        (99, Reply::Done),
        (1, Reply::Done),
        (1, Reply::Started(8)),
        (1, data(MAX_DATA_BYTES + 1)),
        (0, Reply::Done),
        (0, hello(PROTOCOL_VERSION)),
    ];
    for (stream, reply) in wrong {
        let (client, mut peer) = connected().await;
        let (handle, _) = tokio::join!(client.exec(echo()), peer.start());
        let about = format!("{stream} {:?}", std::mem::discriminant(&reply));
        peer.say(stream, reply).await;
        let error = handle.unwrap().wait().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AgentUnreachable, "{about}");
        assert!(!client.is_open(), "{about}");
        assert!(client.status().await.is_err(), "{about}");
    }
}

#[tokio::test]
async fn data_beyond_the_window_ends_the_connection() {
    let (client, mut peer) = connected().await;
    let (handle, stream) = tokio::join!(client.exec(echo()), peer.start());
    let handle = handle.unwrap();
    let mut left = INITIAL_WINDOW_BYTES as usize + 1;
    while left > 0 {
        let count = left.min(MAX_DATA_BYTES);
        peer.say(stream, Reply::Data(Output::Stdout, vec![1; count]))
            .await;
        left -= count;
    }
    // Nobody reads the handle, so nothing more was granted. It ends at once, and not because nothing
    // was heard for long: then a ping would have come.
    assert!(peer.next().await.is_none());
    assert!(!client.is_open());
    let error = handle.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AgentUnreachable);
}

#[tokio::test]
async fn slow_reader_delays_no_other_stream() {
    let (client, mut peer) = connected().await;
    let (slow, stream) = tokio::join!(client.exec(echo()), peer.start());
    let mut slow = slow.unwrap();
    for _ in 0..INITIAL_WINDOW_BYTES as usize / MAX_DATA_BYTES {
        let full = Reply::Data(Output::Stdout, vec![1; MAX_DATA_BYTES]);
        peer.say(stream, full).await;
    }
    let (other, second) = tokio::join!(client.exec(echo()), peer.start());
    peer.say(second, Reply::Data(Output::Stdout, b"hi".to_vec()))
        .await;
    peer.say(second, exited(3)).await;
    let output = other.unwrap().collect(100).await.unwrap();
    assert_eq!(output.stdout, b"hi");
    assert_eq!(output.outcome, Outcome::Exited(3));
    peer.say(stream, exited(0)).await;
    let mut bytes = 0;
    while let Some(event) = slow.next().await {
        if let ExecEvent::Stdout(part) = event.unwrap() {
            bytes += part.len();
        }
    }
    assert_eq!(bytes, INITIAL_WINDOW_BYTES as usize);
}

#[tokio::test]
async fn end_in_the_middle_of_a_command_is_agent_unreachable() {
    let (client, mut peer) = connected().await;
    let (handle, _) = tokio::join!(client.exec(echo()), peer.start());
    drop(peer);
    let error = handle.unwrap().wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AgentUnreachable);
    // What begins afterwards has not been sent, so that it may be asked for again.
    let error = client.exec(echo()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContainerGone);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_the_connection_of_a_running_command() {
    let (client, mut peer) = connected().await;
    let (handle, _) = tokio::join!(client.exec(echo()), peer.start());
    let begin = Instant::now();
    let error = handle.unwrap().wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AgentUnreachable);
    assert!(begin.elapsed() <= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_an_idle_connection_after_thirty_seconds() {
    let (client, _peer) = connected().await;
    let begin = Instant::now();
    client.connection().over().await;
    let elapsed = begin.elapsed();
    assert!((28..=32).contains(&elapsed.as_secs()), "{elapsed:?}");
}

#[tokio::test]
async fn dropped_calls_send_cancel() {
    let (client, mut peer) = connected().await;
    {
        let mut call = pin!(client.exec(echo()));
        assert!(futures::poll!(&mut call).is_pending());
    }
    let (stream, request) = peer.request().await;
    assert!(matches!(request, Request::Exec(_)));
    assert_eq!(peer.request().await, (stream, Request::Cancel));
    // What still comes for it is taken without complaint.
    peer.say(stream, Reply::Started(7)).await;
    peer.say(stream, exited(137)).await;
    let (handle, second) = tokio::join!(client.exec(echo()), peer.start());
    drop(handle.unwrap());
    assert_eq!(peer.request().await, (second, Request::Cancel));
    assert!(client.is_open());
}

#[tokio::test]
async fn dropped_detached_command_is_not_cancelled() {
    let (client, mut peer) = connected().await;
    let mut spec = echo();
    spec.detached = true;
    let (handle, _) = tokio::join!(client.exec(spec), peer.start());
    drop(handle.unwrap());
    let (_, ()) = tokio::join!(client.touch(), async {
        assert_eq!(peer.request().await, (0, Request::Touch));
        peer.say(0, Reply::Done).await;
    });
}

#[tokio::test]
async fn last_client_ends_the_connection() {
    let (client, mut peer) = connected().await;
    let clone = client.clone();
    drop(client);
    assert!(clone.is_open());
    drop(clone);
    assert!(peer.next().await.is_none());
}

#[tokio::test]
async fn disk_usage_without_end_is_agent_unreachable() {
    let (client, mut peer) = connected().await;
    let lying = async {
        let (mut sent, mut window) = (0, u64::from(INITIAL_WINDOW_BYTES));
        loop {
            match peer.request().await {
                (_, Request::Cancel) => return sent,
                (_, Request::Credit(_, bytes)) => window += u64::from(bytes),
                (stream, Request::File { .. }) => assert_eq!(stream, 1),
                request => panic!("{request:?}"),
            }
            let full = u64::try_from(MAX_DATA_BYTES).unwrap();
            while window >= full {
                // The beginning of the longest frame there may be, again and again.
                let mut bytes = vec![0; MAX_DATA_BYTES];
                bytes[..4].copy_from_slice(&u32::try_from(MAX_FRAME_BYTES).unwrap().to_le_bytes());
                peer.say(1, Reply::Data(Output::Stdout, bytes)).await;
                (sent, window) = (sent + full, window - full);
            }
            if sent > 64 << 20 {
                peer.say(1, Reply::Done).await;
                return sent;
            }
        }
    };
    let (usage, sent) = tokio::join!(client.usage("/", ""), lying);
    assert_eq!(usage.unwrap_err().kind(), ErrorKind::AgentUnreachable);
    assert!(sent <= 1 << 20, "{sent} bytes were taken");
    assert!(client.is_open());
}

#[tokio::test]
async fn watch_is_over_after_an_error() {
    let (client, mut peer) = connected().await;
    let agent = async {
        let (stream, _) = peer.request().await;
        let mut bytes = Vec::new();
        let change = FileChange {
            kind: FileChangeKind::Watching,
            directory: true,
            path: Vec::new(),
        };
        change.encode(&mut bytes);
        peer.say(stream, Reply::Data(Output::Stdout, bytes)).await;
        let failure = Failure {
            kind: FailureKind::LimitExceeded,
            errno: 0,
            message: "too many".to_owned(),
        };
        peer.say(stream, Reply::Failed(failure)).await;
    };
    let (watch, ()) = tokio::join!(client.watch("/", "", true), agent);
    let mut watch = watch.unwrap();
    let error = watch.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn connection_that_stops_a_container_gives_way_to_none() {
    let (client, mut peer) = connected().await;
    let mut stop = pin!(client.stop(Duration::from_secs(5)));
    assert!(futures::poll!(&mut stop).is_pending());
    client.close_unused();
    assert!(client.is_open() && client.unused_since().is_none());
    assert_eq!(peer.request().await, (0, Request::Stop { grace_ms: 5000 }));
    peer.say(0, Reply::Closing(StopReason::Requested)).await;
    drop(peer);
    stop.await.unwrap();
}
