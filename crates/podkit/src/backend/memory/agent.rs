//! The agent of a simulated container: one connection, its streams and their flow control.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Weak},
};

use podkit_agent::{
    Failure, FailureKind, FrameBuffer, INITIAL_WINDOW_BYTES, MAX_DATA_BYTES, Output,
    PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Reply, Request, compatible,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::{Semaphore, mpsc},
};

use super::{engine::Container, exec, life::Life, transfer::Transfer};
use crate::sync::Lock;

/// Input is granted anew once so much was taken.
const CREDIT_BYTES: u32 = INITIAL_WINDOW_BYTES / 2;

/// The streams of a connection that are open, by number.
type Streams = Lock<HashMap<u32, Arc<Channel>>>;

/// The client does not keep to the protocol.
struct Broken;

/// What happens to a call besides its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Signal(i32),
    Cancelled,
    /// The connection has ended.
    Lost,
}

/// One stream, as a call uses it.
#[derive(Debug)]
pub(super) struct Channel {
    id: u32,
    out: mpsc::UnboundedSender<Vec<u8>>,
    streams: Weak<Streams>,
    windows: [Semaphore; 2],
    input: Lock<Gate>,
    events: mpsc::UnboundedSender<Event>,
}

/// Where input comes in.
#[derive(Debug)]
struct Gate {
    sender: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// What the client may still send.
    left: u32,
}

/// The input of a call.
#[derive(Debug)]
pub(super) struct Input {
    channel: Arc<Channel>,
    chunks: mpsc::UnboundedReceiver<Vec<u8>>,
    taken: u32,
}

/// What a call gets of its stream.
pub(super) struct Ends {
    pub(super) channel: Arc<Channel>,
    pub(super) input: Input,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
}

impl Channel {
    fn window(&self, output: Output) -> &Semaphore {
        let [stdout, stderr] = &self.windows;
        match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    /// Sends a message that is not the last.
    pub(super) fn reply(&self, reply: &Reply) {
        send(&self.out, self.id, reply);
    }

    /// Sends the last message.
    pub(super) fn end(&self, reply: &Reply) {
        if let Some(streams) = self.streams.upgrade() {
            streams.lock().remove(&self.id);
        }
        self.reply(reply);
    }

    /// Sends bytes as fast as the client takes them; drops them once it has gone.
    pub(super) async fn data(&self, output: Output, bytes: &[u8]) {
        for chunk in bytes.chunks(MAX_DATA_BYTES) {
            let size = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            match self.window(output).acquire_many(size).await {
                Ok(permits) => permits.forget(),
                Err(_) => return,
            }
            let mut frame = Vec::with_capacity(chunk.len() + 16);
            Reply::encode_data(self.id, output, chunk, &mut frame);
            let _ = self.out.send(frame);
        }
    }

    /// Takes input from the client.
    fn take(&self, bytes: Vec<u8>) -> Result<(), Broken> {
        let mut gate = self.input.lock();
        let size = u32::try_from(bytes.len()).map_err(|_| Broken)?;
        gate.left = gate.left.checked_sub(size).ok_or(Broken)?;
        if let Some(sender) = &gate.sender {
            // A call that has ended takes no more; what is on its way is dropped.
            let _ = sender.send(bytes);
        }
        Ok(())
    }

    fn notify(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// The connection has ended.
    fn lose(&self) {
        self.windows.iter().for_each(Semaphore::close);
        self.notify(Event::Lost);
    }
}

impl Input {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        let chunk = self.chunks.recv().await?;
        self.taken += u32::try_from(chunk.len()).unwrap_or(0);
        if self.taken >= CREDIT_BYTES {
            let credit = std::mem::take(&mut self.taken);
            self.channel.input.lock().left += credit;
            self.channel.reply(&Reply::Credit(credit));
        }
        Some(chunk)
    }
}

fn send(out: &mpsc::UnboundedSender<Vec<u8>>, stream: u32, reply: &Reply) {
    let mut frame = Vec::new();
    reply.encode(stream, &mut frame);
    // Without a connection nobody is there to hear it.
    let _ = out.send(frame);
}

/// One client.
struct Connection {
    container: Arc<Container>,
    life: Arc<Life>,
    out: mpsc::UnboundedSender<Vec<u8>>,
    streams: Arc<Streams>,
}

/// Serves one client; gives its stream back when the container stops.
///
/// What waits to be written is bounded by the windows and by what the client asks for at once.
pub(super) async fn serve(
    container: Arc<Container>,
    life: Arc<Life>,
    stream: DuplexStream,
) -> Option<DuplexStream> {
    let (mut source, mut sink) = tokio::io::split(stream);
    let (out, mut frames) = mpsc::unbounded_channel::<Vec<u8>>();
    let connection = Connection {
        container,
        life: Arc::clone(&life),
        out,
        streams: Arc::default(),
    };
    let ours = Arc::clone(&life);
    let writing = async move {
        while let Some(frame) = frames.recv().await {
            ours.thawed().await;
            if sink.write_all(&frame).await.is_err() {
                return None;
            }
        }
        Some(sink)
    };
    tokio::pin!(writing);
    tokio::select! {
        reason = life.stopping() => send(&connection.out, 0, &Reply::Closing(reason)),
        () = connection.read(&mut source) => return connection.lose(),
        // It ends only when it fails: this connection keeps a sender.
        _ = &mut writing => return connection.lose(),
    }
    // The calls end by themselves, and with the last of them its last word is written.
    drop(connection);
    writing.await.map(|sink| source.unsplit(sink))
}

impl Connection {
    /// Reads until the client goes, or breaks the protocol.
    async fn read(&self, source: &mut (impl AsyncRead + Unpin)) {
        let mut frames = FrameBuffer::new();
        let mut buffer = vec![0; MAX_DATA_BYTES];
        let mut greeted = false;
        while let Ok(count @ 1..) = source.read(&mut buffer).await {
            self.life.thawed().await;
            frames.push(buffer.get(..count).unwrap_or_default());
            loop {
                let Ok(frame) = frames.next_frame() else {
                    return;
                };
                let Some((kind, stream, payload)) = frame else {
                    break;
                };
                let Ok(request) = Request::decode(kind, payload) else {
                    return;
                };
                let taken = match request {
                    Request::Hello {
                        version,
                        version_min,
                    } if !greeted && stream == 0 => {
                        self.greet();
                        // A client that is too old or too new hears so, and is heard no more.
                        greeted = compatible(version, version_min);
                        Ok(())
                    }
                    _ if !greeted => Err(Broken),
                    request if stream == 0 => self.ask(&request),
                    request => self.receive(stream, request),
                };
                if taken.is_err() {
                    return;
                }
            }
        }
    }

    fn greet(&self) {
        let hello = Reply::Hello {
            version: PROTOCOL_VERSION,
            version_min: PROTOCOL_VERSION_MIN,
            boot_token: self.life.boot_token,
            kernel_tree_kill: true,
        };
        send(&self.out, 0, &hello);
    }

    /// Answers what belongs to the container as a whole.
    fn ask(&self, request: &Request) -> Result<(), Broken> {
        let reply = match request {
            Request::Ping => Reply::Pong,
            Request::Status => Reply::Status(self.life.status()),
            Request::Touch => {
                self.life.touch();
                Reply::Done
            }
            Request::SetClocks(clocks) => {
                self.life.set_clocks(*clocks);
                Reply::Done
            }
            Request::Stop { .. } => {
                self.life.stop(podkit_agent::StopReason::Requested);
                return Ok(());
            }
            _ => return Err(Broken),
        };
        send(&self.out, 0, &reply);
        Ok(())
    }

    /// Takes a message of one stream.
    fn receive(&self, stream: u32, request: Request) -> Result<(), Broken> {
        if matches!(
            request,
            Request::Exec(_)
                | Request::File { .. }
                | Request::Spawn(_)
                | Request::Processes
                | Request::Process { .. }
                | Request::Port { .. }
        ) {
            return self.begin(stream, request);
        }
        let channel = self.streams.lock().get(&stream).map(Arc::clone);
        // What was on its way when the call ended is dropped.
        let Some(channel) = channel else {
            return Ok(());
        };
        match request {
            Request::Stdin(bytes) => {
                self.life.touch();
                channel.take(bytes)?;
            }
            Request::StdinEnd => channel.input.lock().sender = None,
            Request::Credit(output, bytes) => {
                channel.window(output).add_permits(bytes as usize);
            }
            Request::Signal(_, signal) => {
                self.life.touch();
                channel.notify(Event::Signal(signal));
            }
            Request::Cancel => channel.notify(Event::Cancelled),
            _ => return Err(Broken),
        }
        Ok(())
    }

    /// Begins a call on a stream of its own.
    fn begin(&self, id: u32, request: Request) -> Result<(), Broken> {
        let ends = self.open(id)?;
        if let Some((kind, message)) = self.refusal(&request) {
            let failure = Failure {
                kind,
                errno: 0,
                message: message.to_owned(),
            };
            ends.channel.end(&Reply::Failed(failure));
            return Ok(());
        }
        let (container, life) = (Arc::clone(&self.container), Arc::clone(&self.life));
        match request {
            Request::Exec(spec) => {
                let hold = (!spec.passive).then(|| self.life.hold());
                self.life.spawn(Box::pin(async move {
                    let channel = Arc::clone(&ends.channel);
                    let last = exec::run(&container, &life, ends, spec).await;
                    drop(hold);
                    channel.end(&last);
                    None
                }));
            }
            Request::File {
                call,
                path,
                user,
                timeout_ms,
            } => {
                self.life.touch();
                self.life.spawn(Box::pin(async move {
                    let channel = Arc::clone(&ends.channel);
                    let transfer = Transfer {
                        container,
                        path,
                        user,
                        timeout_ms,
                    };
                    let last = transfer.run(&life, call, ends).await;
                    life.touch();
                    channel.end(&last);
                    None
                }));
            }
            _ => return Err(Broken),
        }
        Ok(())
    }

    /// What keeps a call from beginning.
    fn refusal(&self, request: &Request) -> Option<(FailureKind, &'static str)> {
        if self.life.is_stopping() {
            return Some((FailureKind::Closing, "the container is stopping"));
        }
        let what = match request {
            Request::Exec(spec) => spec
                .terminal
                .map(|_| "simulated containers have no terminals"),
            Request::File { .. } => None,
            Request::Port { .. } => Some("simulated containers have no network"),
            _ => Some("simulated containers have no background processes"),
        };
        what.map(|what| (FailureKind::Unsupported, what))
    }

    fn open(&self, id: u32) -> Result<Ends, Broken> {
        let window = || Semaphore::new(INITIAL_WINDOW_BYTES as usize);
        let (events, event_ends) = mpsc::unbounded_channel();
        let (sender, chunks) = mpsc::unbounded_channel();
        let channel = Arc::new(Channel {
            id,
            out: self.out.clone(),
            streams: Arc::downgrade(&self.streams),
            windows: [window(), window()],
            input: Lock::new(Gate {
                sender: Some(sender),
                left: INITIAL_WINDOW_BYTES,
            }),
            events,
        });
        match self.streams.lock().entry(id) {
            Entry::Vacant(entry) => entry.insert(Arc::clone(&channel)),
            Entry::Occupied(_) => return Err(Broken),
        };
        let input = Input {
            channel: Arc::clone(&channel),
            chunks,
            taken: 0,
        };
        Ok(Ends {
            channel,
            input,
            events: event_ends,
        })
    }

    /// Tells every call that its client has gone.
    fn lose(self) -> Option<DuplexStream> {
        let streams = std::mem::take(&mut *self.streams.lock());
        streams.values().for_each(|channel| channel.lose());
        None
    }
}
