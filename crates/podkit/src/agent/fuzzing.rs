//! A client and an agent that says anything.
#![expect(
    clippy::missing_panics_doc,
    reason = "a panic is how a fuzzer is told of what does not hold"
)]

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures::future::{join, join_all};
use podkit_agent::{
    Encoder, ExecSpec, FileCall, LogQuery, MAX_DATA_BYTES, Output, PROTOCOL_VERSION, Reply,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    runtime::{Builder, Runtime},
};

use super::{AgentClient, port::ListeningPort};
use crate::{
    backend::AgentStream,
    error::{Error, Result},
    exec::ExecEvent,
    fuzzing::Choices,
    sync::Lock,
};

/// Most calls at once.
const CALLS: u8 = 4;

/// Most frames that are as long as may be: more than a window holds.
const FLOODS: u32 = 6;

/// What comes of a call, as far as it does not depend on when what came.
type Outcome = (Vec<u8>, Vec<u8>, String);

thread_local! {
    static RUNTIME: io::Result<Runtime> = Builder::new_current_thread().enable_time().build();
}

/// Calls of all kinds, and an agent that answers with any bytes: each call ends, and with the same
/// result wherever the bytes are cut.
pub fn client(input: &[u8]) {
    let mut choices = Choices::new(input);
    let calls: Vec<u8> = (0..=choices.below(CALLS)).map(|_| choices.u8()).collect();
    let (cut, flood) = (usize::from(choices.u8()) + 1, choices.below(32) == 31);
    let wire = wire(&mut choices, flood);
    let pieces = outcomes(&calls, &wire, cut.max(wire.len() / 32));
    if flood || cut > wire.len() {
        return;
    }
    let whole = outcomes(&calls, &wire, usize::MAX);
    // Of a call that is given up early, what comes later may be wrong in other ways.
    let gave_up = |(_, _, end): &Outcome| end.contains("broke the protocol") || end == "given up";
    if !whole.iter().chain(&pieces).any(gave_up) {
        assert_eq!(whole, pieces);
    }
}

/// A line of a list of ports.
pub(crate) fn listening_port(line: &str) {
    if let Some(port) = ListeningPort::parse(line) {
        assert!(port.pid != Some(0) && port.name.as_deref() != Some(""));
    }
}

/// What an agent says after its greeting: frames of a kind, or bytes of any.
fn wire(choices: &mut Choices<'_>, flood: bool) -> Vec<u8> {
    let (mut wire, mut floods) = (Vec::new(), 0);
    while !choices.is_empty() {
        let (kind, stream) = (choices.u8(), u32::from(choices.below(CALLS + 2)));
        if kind == 0xff {
            wire.extend_from_slice(choices.bytes());
            continue;
        }
        if flood && kind == 0xfe && floods < FLOODS {
            floods += 1;
            let data = vec![kind; MAX_DATA_BYTES];
            Reply::encode_data(stream, Output::Stdout, &data, &mut wire);
            continue;
        }
        let mut frame = Encoder::frame(&mut wire, kind, stream);
        frame.rest(choices.bytes());
        frame.end();
    }
    wire
}

/// What comes of these calls when these bytes come in pieces of this size.
fn outcomes(calls: &[u8], wire: &[u8], cut: usize) -> Vec<Outcome> {
    RUNTIME.with(|runtime| {
        let Ok(runtime) = runtime else {
            return Vec::new();
        };
        let outcomes = runtime.block_on(async {
            let script = Arc::new(Script::new(wire, cut));
            let agent = AgentStream::new(Peer(Arc::clone(&script)));
            let Ok(client) = AgentClient::connect(agent).await else {
                return Vec::new();
            };
            let calls = join_all(calls.iter().map(|kind| call(&client, *kind)));
            // Each call is begun before the first byte comes.
            let (outcomes, ()) = join(calls, async { script.release() }).await;
            assert!(!client.is_open() || client.closing().is_none());
            outcomes
        });
        // Tasks that were ended go, too.
        runtime.block_on(tokio::task::yield_now());
        outcomes
    })
}

/// One call, to its end.
fn call(client: &AgentClient, kind: u8) -> Pin<Box<dyn Future<Output = Outcome> + '_>> {
    Box::pin(async move {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let end = match kind % 16 {
            0 => exec(client, &mut out, &mut err).await,
            1 => collect(client, &mut out, &mut err).await,
            2 => read(client, &mut out).await,
            3 => write(client).await,
            4 => client.list("/", "").await.map(|all| format!("{all:?}")),
            5 => client
                .stat("/a", "", true)
                .await
                .map(|one| format!("{one:?}")),
            6 => archive(client, &mut out).await,
            7 => extract(client).await,
            8 => watch(client).await,
            9 => client
                .usage("/", "")
                .await
                .map(|usage| format!("{usage:?}")),
            10 => client.processes().await.map(|all| format!("{all:?}")),
            11 => logs(client, &mut out, &mut err).await,
            12 => attach(client, &mut out).await,
            13 => client.list_ports().await.map(|all| format!("{all:?}")),
            14 => client.status().await.map(|status| format!("{status:?}")),
            _ => dial(client, &mut out).await,
        };
        let end = end.unwrap_or_else(|error| shown(&error));
        (out, err, end)
    })
}

/// An error, as people see it: without anything that would drive their terminal.
fn shown(error: &Error) -> String {
    let text = error.to_string();
    assert!(
        !text.contains(char::is_control) && text.len() < 8192,
        "{text:?}"
    );
    format!("{:?} {}", error.kind(), text)
}

async fn exec(client: &AgentClient, out: &mut Vec<u8>, err: &mut Vec<u8>) -> Result<String> {
    let mut handle = client.exec(ExecSpec::default()).await?;
    let mut end = String::new();
    while let Some(event) = handle.next().await {
        match event? {
            ExecEvent::Stdout(bytes) => out.extend_from_slice(&bytes),
            ExecEvent::Stderr(bytes) => err.extend_from_slice(&bytes),
            // How long it took is not the agent's word where the container stopped.
            ExecEvent::Exited(result) => end = format!("{:?}", result.outcome),
            ExecEvent::Started(pid) => end = pid.to_string(),
        }
    }
    Ok(end)
}

async fn collect(client: &AgentClient, out: &mut Vec<u8>, err: &mut Vec<u8>) -> Result<String> {
    const LIMIT: u64 = 100;
    let handle = client.exec(ExecSpec::default()).await?;
    let output = handle.collect(LIMIT).await?;
    assert!(output.stdout.len() <= 100 && output.stderr.len() <= 100);
    out.extend_from_slice(&output.stdout);
    err.extend_from_slice(&output.stderr);
    Ok(format!("{:?}", output.outcome))
}

async fn read(client: &AgentClient, out: &mut Vec<u8>) -> Result<String> {
    let mut reader = client.read("/a", "", 0, None).await?;
    let end = reader.read_to_end(out).await;
    Ok(format!("{:?}", end.map_err(|error| error.kind())))
}

async fn write(client: &AgentClient) -> Result<String> {
    let call = FileCall::Append {
        mode: None,
        parents: false,
    };
    let mut writer = client.write(call, "/a", "").await?;
    writer.write_all(Bytes::from_static(b"bytes")).await?;
    writer.finish().await?;
    Ok(String::new())
}

async fn archive(client: &AgentClient, out: &mut Vec<u8>) -> Result<String> {
    let mut reader = client.archive("/a", "").await?;
    while let Some(bytes) = reader.next().await? {
        out.extend_from_slice(&bytes);
    }
    let failed = reader.failures.kept.iter().map(shown);
    Ok(failed.collect())
}

async fn extract(client: &AgentClient) -> Result<String> {
    let (mut writer, extraction) = client.extract("/a", "").await?;
    let _wanted = writer.write_all(Bytes::from_static(b"bytes")).await;
    writer.end();
    let failures = extraction.finish().await?;
    Ok(failures.kept.iter().map(shown).collect())
}

async fn watch(client: &AgentClient) -> Result<String> {
    let mut watch = client.watch("/a", "", true).await?;
    let mut changes = String::new();
    while let Some(change) = watch.next().await {
        let change = change?;
        changes.push_str(change.kind.as_str());
        changes.push_str(&change.path);
    }
    Ok(changes)
}

async fn logs(client: &AgentClient, out: &mut Vec<u8>, err: &mut Vec<u8>) -> Result<String> {
    let mut reader = client.process_logs("a", LogQuery::default()).await?;
    while let Some((is_error, bytes)) = reader.next().await? {
        if is_error { &mut *err } else { &mut *out }.extend_from_slice(&bytes);
    }
    Ok(String::new())
}

async fn attach(client: &AgentClient, out: &mut Vec<u8>) -> Result<String> {
    let mut handle = client.attach("a", None).await?;
    while let Some(event) = handle.next().await {
        if let ExecEvent::Stdout(bytes) = event? {
            out.extend_from_slice(&bytes);
        }
    }
    Ok(String::new())
}

async fn dial(client: &AgentClient, out: &mut Vec<u8>) -> Result<String> {
    let mut stream = client.dial_port(80).await?;
    let end = stream.read_to_end(out).await;
    // What is pumped when the connection ends may be lost, and is so by chance.
    out.clear();
    drop(end);
    Ok("given up".to_owned())
}

/// What an agent says, and when.
struct Script {
    bytes: Vec<u8>,
    cut: usize,
    state: Lock<State>,
}

#[derive(Default)]
struct State {
    greeting: Vec<u8>,
    said: usize,
    released: bool,
    reader: Option<Waker>,
}

impl Script {
    fn new(bytes: &[u8], cut: usize) -> Self {
        let mut greeting = Vec::new();
        let hello = Reply::Hello {
            version: PROTOCOL_VERSION,
            version_min: PROTOCOL_VERSION,
            boot_token: [7; 16],
            kernel_tree_kill: true,
        };
        hello.encode(0, &mut greeting);
        Self {
            bytes: bytes.to_vec(),
            cut,
            state: Lock::new(State {
                greeting,
                ..State::default()
            }),
        }
    }

    fn release(&self) {
        let mut state = self.state.lock();
        state.released = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

/// The agent's end: it says what the script has, hangs up then, and takes all that it is told.
struct Peer(Arc<Script>);

impl AsyncRead for Peer {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.state.lock();
        if !state.greeting.is_empty() {
            buffer.put_slice(&std::mem::take(&mut state.greeting));
            return Poll::Ready(Ok(()));
        }
        if !state.released {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let left = self.0.bytes.get(state.said..).unwrap_or_default();
        let count = left.len().min(self.0.cut).min(buffer.remaining());
        buffer.put_slice(left.get(..count).unwrap_or_default());
        state.said += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
