//! One connection: what is open on it, and the two tasks that serve it.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use podkit_agent::{AgentStatus, Failure, FrameBuffer, MAX_DATA_BYTES, Reply, Request, StopReason};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::{Semaphore, oneshot, watch},
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{
    MAX_QUESTIONS, MAX_STREAMS, OUTBOX_BYTES,
    failure::{Ended, Sent},
    inbox::Credit,
    outbox::Outbox,
    pulse::{Beat, Pulse, TICK},
    stream::{Call, Stream, Streams},
};
use crate::{
    error::{Error, ErrorKind, Result},
    sync::Lock,
};

/// What the agent says of itself at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting {
    pub(super) version: u16,
    pub(super) version_min: u16,
    pub(super) boot_token: [u8; 16],
}

/// Answer to a question on stream 0.
#[derive(Debug)]
pub(super) enum Answer {
    Status(AgentStatus),
    Done,
    Failed(Failure),
}

/// Which answer a question has, unless it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    Status,
    Done,
}

#[derive(Debug)]
struct Question {
    wants: Wants,
    answer: oneshot::Sender<Answer>,
}

/// One connection to one agent.
#[derive(Debug)]
pub(super) struct Connection {
    state: Lock<State>,
    outbox: Lock<Outbox>,
    /// Room in the outbox, in bytes; given out in the order of asking.
    room: Semaphore,
    heard: AtomicBool,
    over: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    streams: Streams,
    last_id: u32,
    questions: VecDeque<Question>,
    greeting: Option<oneshot::Sender<Greeting>>,
    /// The greeting that came, until what came with it is taken in: whether the container stops.
    greeted: Option<(oneshot::Sender<Greeting>, Greeting)>,
    ended: Option<Ended>,
    closing: Option<StopReason>,
    pulse: Pulse,
    /// When something was last begun or asked.
    used: Option<Instant>,
    /// Whether the agent has been told to stop the container: somebody waits for the end.
    stopping: bool,
    reader: Option<AbortHandle>,
}

impl Connection {
    pub(super) fn new(
        sink: Box<dyn AsyncWrite + Send + Unpin>,
        greeting: oneshot::Sender<Greeting>,
    ) -> Self {
        let state = State {
            greeting: Some(greeting),
            used: Some(Instant::now()),
            ..State::default()
        };
        Self {
            state: Lock::new(state),
            outbox: Lock::new(Outbox::new(sink)),
            room: Semaphore::new(OUTBOX_BYTES),
            heard: AtomicBool::new(false),
            over: watch::Sender::new(false),
        }
    }

    /// Names the task that reads, so that the end of the connection ends it.
    pub(super) fn set_reader(&self, reader: AbortHandle) {
        self.state.lock().reader = Some(reader);
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.lock().ended.is_none()
    }

    pub(super) fn closing(&self) -> Option<StopReason> {
        self.state.lock().closing
    }

    /// The error of a call that was under way, or had not begun, when the connection ended.
    pub(super) fn error(&self, sent: Sent) -> Error {
        let state = self.state.lock();
        let ended = state.ended.clone().unwrap_or(Ended::Dropped);
        ended.error(state.closing, sent)
    }

    /// Has the agent stop the container, whose end ends the connection.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(super) fn stop(&self, grace_ms: u64) -> Result<()> {
        let result = {
            let mut state = self.state.lock();
            if let Some(ended) = &state.ended {
                return Err(ended.error(state.closing, Sent::No));
            }
            // Nothing else is under way, and still it must not give way to another one.
            state.stopping = true;
            self.write(0, &Request::Stop { grace_ms }, 0)
        };
        self.check_write(result);
        Ok(())
    }

    /// Waits for the end of the connection.
    pub(super) async fn over(&self) {
        // The sender is in `self`, so that it cannot be gone.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Begins a call on a stream of its own.
    ///
    /// # Errors
    /// `ContainerGone` when the container stops or the connection ended before; `LimitExceeded`.
    pub(super) async fn begin(
        &self,
        call: Call,
        request: &Request,
        size: usize,
    ) -> Result<Arc<Stream>> {
        let size = self.reserve(size).await?;
        let mut state = self.state.lock();
        let opened = match state.refusal() {
            Some(error) => Err(error),
            None => state.open(call),
        };
        let stream = match opened {
            Ok(stream) => stream,
            Err(error) => {
                self.room.add_permits(size);
                return Err(error);
            }
        };
        drop(state);
        match self.write(stream.id, request, size) {
            Ok(()) => Ok(stream),
            // The agent cannot have got all of it, so it has not begun.
            Err(error) => {
                self.end(Ended::Lost(error.to_string()));
                Err(self.error(Sent::No))
            }
        }
    }

    /// Asks on stream 0 and waits for the answer.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), and `AgentUnreachable` when the connection ends first.
    pub(super) async fn ask(&self, request: &Request, wants: Wants) -> Result<Answer> {
        let (answer, receiver) = oneshot::channel();
        let result = {
            // Held over both, so that answers come in the order of `questions`.
            let mut state = self.state.lock();
            state.used = Some(Instant::now());
            if let Some(error) = state.refusal() {
                return Err(error);
            }
            if state.questions.len() >= MAX_QUESTIONS {
                let message = format!("{MAX_QUESTIONS} questions to the agent have no answer yet");
                return Err(Error::new(ErrorKind::LimitExceeded, message));
            }
            state.questions.push_back(Question { wants, answer });
            self.write(0, request, 0)
        };
        self.check_write(result);
        receiver.await.map_err(|_| self.error(Sent::Yes))
    }

    /// Waits for room for `size` bytes and takes it; what is larger than all room takes all of it.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(super) async fn reserve(&self, size: usize) -> Result<usize> {
        let size = size.min(OUTBOX_BYTES);
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        match self.room.acquire_many(permits).await {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(self.error(Sent::No)),
        }
        Ok(size)
    }

    /// Sends a frame: at once what the socket takes, the rest by the task.
    pub(super) fn send(&self, stream: u32, request: &Request, reserved: usize) {
        let result = self.write(stream, request, reserved);
        self.check_write(result);
    }

    fn write(&self, stream: u32, request: &Request, reserved: usize) -> std::io::Result<()> {
        let mut outbox = self.outbox.lock();
        if outbox.push(stream, request, reserved)? {
            outbox.write_now(&self.room)?;
        }
        Ok(())
    }

    fn check_write(&self, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.end(Ended::Lost(error.to_string()));
        }
    }

    /// Queues a frame for the writing task: for `Drop`, which does no IO.
    pub(super) fn post(&self, stream: u32, request: &Request) {
        let mut outbox = self.outbox.lock();
        if outbox.push(stream, request, 0).is_ok() {
            outbox.wake();
        }
    }

    /// Grants the agent more output of a stream.
    pub(super) fn grant(&self, stream: u32, credit: Credit) {
        if let Some((output, bytes)) = credit {
            self.send(stream, &Request::Credit(output, bytes), 0);
        }
    }

    /// Gives a stream up: what comes is dropped, and with `cancel` the agent is told to end it.
    pub(super) fn abandon(&self, stream: &Stream, cancel: bool) {
        let (credits, open) = stream.discard();
        if !open {
            return;
        }
        for (output, bytes) in credits.into_iter().flatten() {
            self.post(stream.id, &Request::Credit(output, bytes));
        }
        if cancel {
            self.post(stream.id, &Request::Cancel);
        }
    }

    /// When it was last used, if it is open and nothing is under way on it.
    pub(super) fn unused_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.used.filter(|_| state.is_free())
    }

    /// Ends the connection unless something is under way on it.
    pub(super) fn end_if_unused(&self) {
        self.end_if(Ended::Unused, State::is_free);
    }

    /// Ends the connection for everybody; only the first reason counts.
    pub(super) fn end(&self, why: Ended) {
        self.end_if(why, |_| true);
    }

    fn end_if(&self, why: Ended, may_end: impl Fn(&State) -> bool) {
        let mut state = self.state.lock();
        if state.ended.is_some() || !may_end(&state) {
            return;
        }
        let why = state.ended.insert(why).clone();
        let closing = state.closing;
        let streams = std::mem::take(&mut state.streams);
        let (reader, greeting) = (state.reader.take(), state.greeting.take());
        let greeted = state.greeted.take();
        let questions = std::mem::take(&mut state.questions);
        drop(state);
        self.outbox.lock().close();
        self.room.close();
        for stream in streams.values() {
            stream.lose(&why, closing);
        }
        drop((greeting, greeted, questions));
        if let Some(reader) = reader {
            reader.abort();
        }
        self.over.send_replace(true);
    }

    /// Takes one frame in.
    ///
    /// # Errors
    /// What is wrong with it; the connection cannot be trusted any more.
    fn receive(&self, kind: u8, id: u32, payload: &[u8]) -> Result<(), String> {
        let data = Reply::decode_data(kind, payload);
        if id == 0 || data.is_none() {
            let reply = Reply::decode(kind, payload).map_err(|error| error.to_string())?;
            if id == 0 || matches!(reply, Reply::Hello { .. }) {
                return self.state.lock().receive(id, reply);
            }
            let stream = self.stream(id)?;
            let after = stream.receive(reply, payload.len())?;
            if after.last {
                self.state.lock().streams.remove(&id);
            }
            if after.cancel {
                self.send(id, &Request::Cancel, 0);
            }
            return Ok(());
        }
        if let Some((output, bytes)) = data {
            let after = self.stream(id)?.receive_data(output, bytes)?;
            self.grant(id, after.credit);
        }
        Ok(())
    }

    fn stream(&self, id: u32) -> Result<Arc<Stream>, String> {
        let state = self.state.lock();
        if state.greeting.is_some() {
            return Err("the first message was no greeting".to_owned());
        }
        let stream = state.streams.get(&id).map(Arc::clone);
        stream.ok_or_else(|| format!("a message came on stream {id}, which is not open"))
    }

    fn tick(&self) {
        let beat = {
            let mut state = self.state.lock();
            let busy = !state.questions.is_empty()
                || state.greeting.is_some()
                || state.streams.values().any(|stream| stream.is_awaited());
            let heard = self.heard.swap(false, Ordering::Relaxed);
            let sent = self.outbox.lock().take_sent();
            state.pulse.tick(heard, sent, busy)
        };
        match beat {
            Beat::Rest => {}
            Beat::Ping => self.send(0, &Request::Ping, 0),
            Beat::Dead => self.end(Ended::Silent),
        }
    }

    /// Reads until the connection ends.
    pub(super) async fn read_task(self: Arc<Self>, mut source: impl AsyncRead + Send + Unpin) {
        let mut frames = FrameBuffer::new();
        let mut buffer = vec![0; MAX_DATA_BYTES];
        loop {
            let count = match source.read(&mut buffer).await {
                Ok(0) => return self.end(Ended::Lost("it was closed".to_owned())),
                Ok(count) => count,
                Err(error) => return self.end(Ended::Lost(error.to_string())),
            };
            self.heard.store(true, Ordering::Relaxed);
            frames.push(buffer.get(..count).unwrap_or_default());
            loop {
                let result = match frames.next_frame() {
                    Ok(Some((kind, id, payload))) => self.receive(kind, id, payload),
                    Ok(None) => break,
                    Err(error) => Err(error.to_string()),
                };
                if let Err(what) = result {
                    return self.end(Ended::Protocol(what));
                }
            }
            let greeted = self.state.lock().greeted.take();
            if let Some((sender, greeting)) = greeted {
                // The caller of `connect` may have gone; so does the connection then.
                let _gone = sender.send(greeting);
            }
        }
    }

    /// Writes what callers could not write at once, and keeps the pulse.
    pub(super) async fn write_task(self: Arc<Self>) {
        let mut ticks = interval_at(Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll_fn(|context| {
            while ticks.poll_tick(context).is_ready() {
                self.tick();
            }
            let written = self.outbox.lock().poll_task(context, &self.room);
            if let Poll::Ready(result) = written {
                self.check_write(result);
            }
            if self.is_open() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }
}

impl State {
    /// Why nothing can be begun, if so.
    fn refusal(&self) -> Option<Error> {
        match (&self.ended, self.closing) {
            (Some(ended), closing) => Some(ended.error(closing, Sent::No)),
            (None, Some(reason)) => Some(super::failure::stopped(reason)),
            (None, None) => None,
        }
    }

    /// Whether it is open and nothing is under way on it.
    fn is_free(&self) -> bool {
        let waiting = !self.questions.is_empty() || self.greeting.is_some() || self.stopping;
        self.ended.is_none() && self.streams.is_empty() && !waiting && self.greeted.is_none()
    }

    fn open(&mut self, call: Call) -> Result<Arc<Stream>> {
        self.used = Some(Instant::now());
        if self.streams.len() >= MAX_STREAMS {
            let message = format!("{MAX_STREAMS} commands and file calls run in this container");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        let mut id = self.last_id;
        loop {
            id = id.wrapping_add(1).max(1);
            if !self.streams.contains_key(&id) {
                break;
            }
        }
        self.last_id = id;
        let stream = Arc::new(Stream::new(id, call));
        self.streams.insert(id, Arc::clone(&stream));
        Ok(stream)
    }

    /// Takes in a message of the connection as a whole.
    fn receive(&mut self, id: u32, reply: Reply) -> Result<(), String> {
        if let Reply::Hello {
            version,
            version_min,
            boot_token,
            ..
        } = reply
        {
            let greeting = Greeting {
                version,
                version_min,
                boot_token,
            };
            return match self.greeting.take() {
                Some(sender) if id == 0 => {
                    self.greeted = Some((sender, greeting));
                    Ok(())
                }
                _ => Err("a second greeting came".to_owned()),
            };
        }
        if self.greeting.is_some() {
            return Err("the first message was no greeting".to_owned());
        }
        let (wants, answer) = match reply {
            // The answer to the pulse; an agent that has said nothing for a while sends one unasked.
            Reply::Pong => return Ok(()),
            Reply::Status(status) => (Wants::Status, Answer::Status(status)),
            Reply::Done => (Wants::Done, Answer::Done),
            Reply::Failed(failure) => return self.receive_failed(failure),
            Reply::Closing(reason) => {
                self.closing.get_or_insert(reason);
                return Ok(());
            }
            _ => return Err("a message of a stream came on stream 0".to_owned()),
        };
        let found = self
            .questions
            .iter()
            .position(|question| question.wants == wants);
        match found.and_then(|index| self.questions.remove(index)) {
            Some(question) => drop(question.answer.send(answer)),
            None => return Err("an answer came that nobody had asked for".to_owned()),
        }
        Ok(())
    }

    fn receive_failed(&mut self, failure: Failure) -> Result<(), String> {
        let question = self.questions.pop_front();
        let question = question.ok_or("an answer came that nobody had asked for")?;
        drop(question.answer.send(Answer::Failed(failure)));
        Ok(())
    }
}
