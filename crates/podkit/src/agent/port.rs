//! Ports of a container: what the library asks its agent about them.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use podkit_agent::{Output, PortCall, Request};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
    duplex, split,
};

use super::{
    client::{AgentClient, Guard, error_of},
    exec::Input,
    stream::{Call, End, Item, Stream},
};
use crate::error::{Error, ErrorKind, Result};

/// The version of the protocol that knows ports.
const VERSION: u16 = 2;

/// Bytes that a request about a port has at most.
const REQUEST_BYTES: usize = 64;

/// Bytes that wait in each direction of a stream.
const WAITING: usize = 64 * 1024;

/// Most bytes of a list of ports.
const MOST_LISTED: usize = 1 << 20;

/// What the agent says beside a port's bytes.
const CONNECTED: u8 = b'c';
const ENDED: u8 = b'e';

/// A port of a container on which somebody listens.
///
/// It comes from the container: the name may be anything, and is not safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListeningPort {
    /// The port.
    pub port: u16,
    /// The address that it is bound to; unspecified for all.
    pub address: IpAddr,
    /// Pid, in the container, of a process that has it open, where that can be seen.
    pub pid: Option<u32>,
    /// The name of that process.
    pub name: Option<String>,
}

impl ListeningPort {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let address = words.next()?.parse().ok()?;
        let port = words.next()?.parse().ok()?;
        let pid: u32 = words.next()?.parse().ok()?;
        let name = words.next().unwrap_or_default();
        Some(Self {
            port,
            address,
            pid: (pid != 0).then_some(pid),
            name: (!name.is_empty()).then(|| name.to_owned()),
        })
    }
}

impl AgentClient {
    /// Waits until somebody listens on a port, for so long at most.
    pub(crate) async fn wait_port(&self, port: u16, limit: Duration) -> Result<()> {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let stream = self.begin_port(PortCall::Wait, port, Some(limit)).await?;
        let guard = Guard::new(self, stream, true);
        let end = poll_fn(|context| guard.stream.poll_end(context)).await;
        drop(guard.disarm());
        match end {
            End::Done => Ok(()),
            end => {
                let error = error_of(end);
                Err(match error.kind() {
                    ErrorKind::TimedOut => Error::new(
                        ErrorKind::TimedOut,
                        format!("nothing listens on port {port} yet"),
                    ),
                    _ => error,
                })
            }
        }
    }

    /// The ports on which somebody listens.
    pub(crate) async fn list_ports(&self) -> Result<Vec<ListeningPort>> {
        let stream = self.begin_port(PortCall::List, 0, Some(30_000)).await?;
        let guard = Guard::new(self, stream, true);
        let mut text = Vec::new();
        let end = loop {
            match poll_fn(|context| guard.stream.poll_item(context)).await {
                Item::Data(_, bytes, credit) => {
                    self.connection().grant(guard.stream.id, credit);
                    text.extend_from_slice(&bytes);
                    if text.len() > MOST_LISTED {
                        return Err(Error::new(
                            ErrorKind::LimitExceeded,
                            "too many ports are listened on",
                        ));
                    }
                }
                Item::End(end) => break end,
            }
        };
        drop(guard.disarm());
        match end {
            End::Done => {}
            end => return Err(error_of(end)),
        }
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().filter_map(ListeningPort::parse).collect())
    }

    /// Connects to a port.
    pub(crate) async fn dial_port(&self, port: u16) -> Result<PortStream> {
        let stream = self.begin_port(PortCall::Dial, port, None).await?;
        let guard = Guard::new(self, stream, true);
        match poll_fn(|context| guard.stream.poll_item(context)).await {
            Item::Data(Output::Stderr, bytes, credit) if *bytes == [CONNECTED] => {
                self.connection().grant(guard.stream.id, credit);
            }
            Item::Data(..) => {
                return Err(Error::new(
                    ErrorKind::AgentUnreachable,
                    "the agent does not say that the port is connected",
                ));
            }
            Item::End(end) => {
                drop(guard.disarm());
                return Err(error_of(end));
            }
        }
        let stream = guard.disarm();
        let (ours, theirs) = duplex(WAITING);
        move_bytes(pump(self.clone(), stream, theirs));
        Ok(PortStream(ours))
    }

    async fn begin_port(
        &self,
        call: PortCall,
        port: u16,
        timeout_ms: Option<u64>,
    ) -> Result<Arc<Stream>> {
        self.require(VERSION, "ports")?;
        let request = Request::Port {
            call,
            port,
            timeout_ms,
        };
        self.connection()
            .begin(Call::Port, &request, REQUEST_BYTES)
            .await
    }
}

/// What was written before the stream is dropped still goes to the port.
#[expect(clippy::disallowed_methods, reason = "it ends with its stream")]
fn move_bytes(pump: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(pump);
}

/// Moves bytes both ways until both have ended, or whoever has the other end is gone.
async fn pump(client: AgentClient, stream: Arc<Stream>, theirs: DuplexStream) {
    let (read, write) = split(theirs);
    let input = Input::new(client.clone(), Arc::clone(&stream));
    let inward = push(input, read);
    let outward = pull(&client, &stream, write);
    tokio::pin!(inward, outward);
    let over = tokio::select! {
        over = &mut outward => over,
        () = &mut inward => outward.await,
    };
    if !over {
        client.connection().abandon(&stream, true);
    }
}

/// From the caller to the port.
async fn push(mut input: Input, mut from: ReadHalf<DuplexStream>) {
    let mut buffer = vec![0; WAITING];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                let bytes = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
                if !input.write_all(bytes).await {
                    return;
                }
            }
        }
    }
    input.end();
}

/// From the port to the caller; whether the call has ended.
async fn pull(client: &AgentClient, stream: &Stream, mut to: WriteHalf<DuplexStream>) -> bool {
    loop {
        match poll_fn(|context| stream.poll_item(context)).await {
            Item::Data(Output::Stdout, bytes, credit) => {
                let written = to.write_all(&bytes).await;
                client.connection().grant(stream.id, credit);
                if written.is_err() {
                    return false;
                }
            }
            Item::Data(Output::Stderr, bytes, credit) => {
                client.connection().grant(stream.id, credit);
                // One who is gone needs no end.
                if bytes.contains(&ENDED) && to.shutdown().await.is_err() {
                    return false;
                }
            }
            Item::End(_) => {
                let _ = to.shutdown().await;
                return true;
            }
        }
    }
}

/// A connection to a port in the container. Dropping it ends the connection; shutting its writing
/// side down tells the port that no more comes, and the other direction goes on.
///
/// When the container stops it reads as ended, and writing to it fails.
pub struct PortStream(DuplexStream);

impl AsyncRead for PortStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(context, buffer)
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(context)
    }
}

impl fmt::Debug for PortStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortStream")
    }
}
