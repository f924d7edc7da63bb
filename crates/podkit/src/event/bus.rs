//! Who is told of events, and how.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{broadcast, oneshot},
    time::{sleep, timeout},
};
use tracing::{error, warn};

use super::{AuditLog, Event, EventKind};
use crate::{
    config::SessionSpec,
    error::{Error, ErrorKind, Result},
    id::{ContainerId, SessionKey},
};

/// Events that wait for a slow listener; more are counted and dropped.
const WAITING: usize = 1024;

/// How long a handler may take to look at what is being made.
const CREATING: Duration = Duration::from_secs(10);

/// How long a shutdown waits for handlers to be told of everything.
const FLUSHING: Duration = Duration::from_secs(2);

/// How often a full queue is looked at while somebody waits for room.
const ROOM: Duration = Duration::from_millis(5);

/// Hears of events.
///
/// Each handler is called from a thread of its own, for one event after the other. One that panics
/// goes on with the next event; one that hangs misses those that no longer fit its queue of 1024, and
/// is told how many they were. Nobody waits for it.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> podkit::Result<()> {
/// use podkit::{Event, EventHandler, Podkit, SessionKey, SessionSpec};
///
/// struct Policy;
///
/// impl EventHandler for Policy {
///     fn on_event(&self, event: &Event) {
///         println!("{}", event.kind.as_str());
///     }
///
///     fn container_creating(
///         &self,
///         _: &SessionKey,
///         spec: SessionSpec,
///     ) -> podkit::Result<SessionSpec> {
///         Ok(spec.env("MADE_BY", "policy"))
///     }
/// }
///
/// let podkit = Podkit::builder().backend("memory").event_handler(Policy).build().await?;
/// let session = podkit.session("bob", "123").await?;
/// assert_eq!(session.info().await?.spec.env["MADE_BY"], "policy");
/// # Ok(())
/// # }
/// ```
pub trait EventHandler: Send + Sync + 'static {
    /// Something happened.
    fn on_event(&self, event: &Event) {
        let _ = event;
    }

    /// A container is about to be made from `spec`: what is returned is made, and is on record.
    /// Called from a thread that may block, for at most 10 s.
    ///
    /// # Errors
    /// What is returned is what the opening fails with. A panic, or no answer in time, changes
    /// nothing and is logged.
    fn container_creating(&self, key: &SessionKey, spec: SessionSpec) -> Result<SessionSpec> {
        let _ = key;
        Ok(spec)
    }
}

/// Those who listen to one `Podkit`.
pub(crate) struct EventBus {
    streams: broadcast::Sender<Event>,
    handlers: Vec<Handler>,
    audit: Option<Sender<ForAudit>>,
    /// Whether anybody has ever listened: nothing is put together for nobody.
    listened: AtomicBool,
    commands: AtomicU64,
}

struct Handler {
    handler: Arc<dyn EventHandler>,
    queue: SyncSender<ForHandler>,
    missed: AtomicU64,
}

enum ForHandler {
    Event(Arc<Event>),
    Flush(oneshot::Sender<()>),
}

enum ForAudit {
    Event(Arc<Event>),
    Flush(oneshot::Sender<()>),
}

impl EventBus {
    pub(crate) fn new(
        handlers: Vec<Arc<dyn EventHandler>>,
        audit: Option<AuditLog>,
    ) -> Result<Self> {
        let listened = AtomicBool::new(!handlers.is_empty() || audit.is_some());
        let handlers = handlers.into_iter().map(Handler::begin);
        Ok(Self {
            streams: broadcast::Sender::new(WAITING),
            handlers: handlers.collect::<Result<_>>()?,
            audit: audit.map(begin_audit).transpose()?,
            listened,
            commands: AtomicU64::new(1),
        })
    }

    pub(crate) fn subscribe(&self) -> EventStream {
        self.listened.store(true, Ordering::Relaxed);
        EventStream(self.streams.subscribe())
    }

    /// Whether anybody listens.
    pub(crate) fn is_heard(&self) -> bool {
        self.listened.load(Ordering::Relaxed)
    }

    /// A number for a command.
    pub(crate) fn next_command(&self) -> u64 {
        self.commands.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells everybody, and waits for nobody.
    pub(crate) fn tell(&self, key: &SessionKey, container: &ContainerId, kind: EventKind) {
        if !self.is_heard() {
            return;
        }
        let event = Arc::new(Event {
            at: SystemTime::now(),
            key: Some(key.clone()),
            container: Some(container.clone()),
            kind,
        });
        for handler in &self.handlers {
            handler.tell(&event);
        }
        if let Some(audit) = &self.audit {
            // Its thread ends with this sender only.
            let _ = audit.send(ForAudit::Event(Arc::clone(&event)));
        }
        if self.streams.receiver_count() > 0 {
            // The last of them has gone meanwhile, at most.
            let _ = self.streams.send(Arc::unwrap_or_clone(event));
        }
    }

    /// Has all handlers look at what is being made, in their order.
    pub(crate) async fn creating(
        &self,
        key: &SessionKey,
        mut spec: SessionSpec,
    ) -> Result<SessionSpec> {
        for one in &self.handlers {
            let (handler, key, wish) = (Arc::clone(&one.handler), key.clone(), spec.clone());
            let (sender, receiver) = oneshot::channel();
            // A thread that hangs must not keep the program's runtime from ending.
            begin_thread("podkit-creating", move || {
                // Nobody waits any more, at most.
                let _ = sender.send(handler.container_creating(&key, wish));
            })?;
            match timeout(CREATING, receiver).await {
                Ok(Ok(changed)) => {
                    spec = changed.map_err(|error| error.with_operation("open session"))?;
                }
                Ok(Err(_)) => {
                    error!("an event handler panicked; what is made was not changed");
                }
                Err(_) => error!("an event handler hangs; what is made was not changed"),
            }
        }
        Ok(spec)
    }

    /// Waits until handlers and the audit have been told of everything, for 2 s at most.
    pub(crate) async fn flush(&self) {
        let handlers = futures::future::join_all(self.handlers.iter().map(Handler::flush));
        let audit = async {
            let Some(audit) = &self.audit else { return };
            let (sender, done) = oneshot::channel();
            if audit.send(ForAudit::Flush(sender)).is_ok() {
                // Its thread has ended, at worst.
                let _ = done.await;
            }
        };
        let all = futures::future::join(handlers, audit);
        if timeout(FLUSHING, all).await.is_err() {
            warn!("an event handler did not take all events");
        }
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus")
            .field("handlers", &self.handlers.len())
            .finish_non_exhaustive()
    }
}

impl Handler {
    fn begin(handler: Arc<dyn EventHandler>) -> Result<Self> {
        let (queue, events) = sync_channel(WAITING);
        let called = Arc::clone(&handler);
        begin_thread("podkit-events", move || serve(&*called, &events))?;
        Ok(Self {
            handler,
            queue,
            missed: AtomicU64::new(0),
        })
    }

    fn tell(&self, event: &Arc<Event>) {
        self.tell_missed(event.at);
        let event = ForHandler::Event(Arc::clone(event));
        if let Err(TrySendError::Full(_)) = self.queue.try_send(event) {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells of what did not fit, if that does.
    fn tell_missed(&self, at: SystemTime) {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        if missed == 0 {
            return;
        }
        let told = Event {
            at,
            key: None,
            container: None,
            kind: EventKind::Missed(missed),
        };
        let told = ForHandler::Event(Arc::new(told));
        if self.queue.try_send(told).is_err() {
            self.missed.fetch_add(missed, Ordering::Relaxed);
        }
    }

    /// Waits until it has been told of everything, and of what it missed.
    async fn flush(&self) {
        let (sender, done) = oneshot::channel();
        let mut flush = ForHandler::Flush(sender);
        loop {
            self.tell_missed(SystemTime::now());
            match self.queue.try_send(flush) {
                Err(TrySendError::Full(back)) => flush = back,
                _ => break,
            }
            // A full queue tells nobody when there is room again.
            sleep(ROOM).await;
        }
        // Its thread has ended, at worst.
        let _ = done.await;
    }
}

fn serve(handler: &dyn EventHandler, events: &Receiver<ForHandler>) {
    while let Ok(next) = events.recv() {
        match next {
            ForHandler::Event(event) => {
                // What it left half changed is its own.
                let call = AssertUnwindSafe(|| handler.on_event(&event));
                if catch_unwind(call).is_err() {
                    error!(event = event.kind.as_str(), "an event handler panicked");
                }
            }
            ForHandler::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

fn begin_audit(mut audit: AuditLog) -> Result<Sender<ForAudit>> {
    let (queue, events) = channel();
    begin_thread("podkit-audit", move || {
        while let Ok(next) = events.recv() {
            match next {
                ForAudit::Event(event) => audit.write(&event),
                ForAudit::Flush(done) => {
                    let _ = done.send(());
                }
            }
        }
    })?;
    Ok(queue)
}

fn begin_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(|error| {
            Error::new(ErrorKind::LimitExceeded, "a thread cannot be started").with_source(error)
        })
}

/// Events as they happen, from its making on.
#[derive(Debug)]
pub struct EventStream(broadcast::Receiver<Event>);

impl EventStream {
    /// The next event; `None` once the `Podkit` and all its sessions are gone. One who falls 1024
    /// events behind gets [`Missed`](EventKind::Missed) in their place.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Event {
                at: SystemTime::now(),
                key: None,
                container: None,
                kind: EventKind::Missed(count),
            }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Takes nothing until the other end of its gate is dropped, and keeps what it is told.
    struct Slow {
        gate: Mutex<Receiver<()>>,
        told: Arc<Mutex<Vec<EventKind>>>,
    }

    impl Slow {
        fn new() -> (Self, Sender<()>) {
            let (release, gate) = channel();
            let (gate, told) = (Mutex::new(gate), Arc::default());
            (Self { gate, told }, release)
        }

        fn wait(&self) {
            let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = gate.recv();
        }
    }

    impl EventHandler for Slow {
        fn on_event(&self, event: &Event) {
            self.wait();
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.push(event.kind.clone());
        }

        fn container_creating(&self, _: &SessionKey, spec: SessionSpec) -> Result<SessionSpec> {
            self.wait();
            Ok(spec.env("LATE", "1"))
        }
    }

    fn about() -> (SessionKey, ContainerId) {
        let key = SessionKey::new("u", "a").unwrap();
        (key, ContainerId::new("a").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn handler_that_hangs_over_what_is_made_changes_nothing() {
        let (slow, release) = Slow::new();
        let bus = EventBus::new(vec![Arc::new(slow)], None).unwrap();
        let spec = SessionSpec::new().env("OWN", "1");
        let made = bus.creating(&about().0, spec.clone()).await.unwrap();
        assert_eq!(made, spec);
        drop(release);
    }

    #[tokio::test]
    async fn listeners_that_are_too_slow_are_told_how_much_they_missed() {
        let (slow, release) = Slow::new();
        let seen = Arc::clone(&slow.told);
        let bus = EventBus::new(vec![Arc::new(slow)], None).unwrap();
        let mut stream = bus.subscribe();
        let (key, container) = about();
        let sent = u64::try_from(WAITING).unwrap() + 500;
        for _ in 0..sent {
            bus.tell(&key, &container, EventKind::SessionClosing);
        }
        assert!(matches!(
            stream.next().await.unwrap().kind,
            EventKind::Missed(500)
        ));
        drop(release);
        bus.flush().await;
        bus.tell(&key, &container, EventKind::SessionClosed);
        bus.flush().await;
        let seen = seen.lock().unwrap().clone();
        let missed: u64 = seen
            .iter()
            .map(|kind| match kind {
                EventKind::Missed(count) => *count,
                _ => 0,
            })
            .sum();
        let got = seen
            .iter()
            .filter(|kind| **kind == EventKind::SessionClosing);
        assert_eq!(u64::try_from(got.count()).unwrap() + missed, sent);
        assert_eq!(seen.last(), Some(&EventKind::SessionClosed));
    }
}
