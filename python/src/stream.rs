//! What comes piece by piece: a running command, logs, events, stats.

use std::sync::Arc;

use bytes::Bytes;
use podkit::{
    CommandEnd, Event, EventKind, EventStream, ExecEvent, ExecHandle, ExecStdin, LogEvents,
    PortForward, Reason, Result, StatsStream, TerminalSize,
};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};
use tokio::{
    select,
    sync::{Mutex, mpsc, oneshot},
};

use crate::{
    call::{Call, Owned, runtime},
    convert,
    failure::raised,
    process::stream_name,
};

/// Pieces that wait for Python; then the command is held back.
const WAITING: usize = 4;

/// A command that runs. When the object goes, the command is killed, unless it is detached.
#[pyclass(frozen)]
pub(crate) struct Running(Owned<Parts>);

struct Parts {
    pid: u32,
    events: Arc<Mutex<mpsc::Receiver<Result<ExecEvent>>>>,
    stdin: Arc<Mutex<Option<ExecStdin>>>,
    orders: mpsc::Sender<(Order, oneshot::Sender<Result<()>>)>,
}

enum Order {
    Signal(i32),
    Kill,
    Resize(TerminalSize),
}

impl Running {
    pub(crate) fn new(py: Python<'_>, mut handle: ExecHandle) -> PyResult<Self> {
        let (pid, stdin) = (handle.pid(), handle.take_stdin());
        let (send, events) = mpsc::channel(WAITING);
        let (orders, given) = mpsc::channel(1);
        let runtime = runtime(py).map_err(|error| raised(py, &error))?;
        runtime.spawn(drive(handle, send, given));
        Ok(Self(Owned::new(Parts {
            pid,
            events: Arc::new(Mutex::new(events)),
            stdin: Arc::new(Mutex::new(stdin)),
            orders,
        })))
    }

    fn order(&self, py: Python<'_>, order: Order) -> PyResult<Call> {
        let orders = self.0.get(py)?.orders.clone();
        Ok(Call::done(async move {
            let (told, done) = oneshot::channel();
            if orders.send((order, told)).await.is_err() {
                return Ok(()); // It has ended.
            }
            done.await.unwrap_or(Ok(()))
        }))
    }
}

/// Passes events on and does what is ordered, until the command has ended or nobody is there.
async fn drive(
    mut handle: ExecHandle,
    events: mpsc::Sender<Result<ExecEvent>>,
    mut orders: mpsc::Receiver<(Order, oneshot::Sender<Result<()>>)>,
) {
    let mut event = None;
    loop {
        let order = match event.take() {
            None => select! {
                order = orders.recv() => order,
                next = handle.next() => match next {
                    None => return,
                    next => {
                        event = next;
                        continue;
                    }
                },
            },
            Some(waiting) => select! {
                order = orders.recv() => {
                    event = Some(waiting);
                    order
                }
                room = events.reserve() => match room {
                    Ok(room) => {
                        room.send(waiting);
                        continue;
                    }
                    Err(_) => return,
                },
            },
        };
        let Some((order, told)) = order else { return };
        let done = match order {
            Order::Signal(number) => handle.signal(number).await,
            Order::Kill => handle.kill().await,
            Order::Resize(size) => handle.resize(size).await,
        };
        let _ = told.send(done);
    }
}

#[pymethods]
impl Running {
    #[getter]
    fn pid(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.0.get(py)?.pid)
    }

    /// What happens next, as a name and its value; `None` after the last.
    fn next(&self, py: Python<'_>) -> PyResult<Call> {
        let events = Arc::clone(&self.0.get(py)?.events);
        let work = async move { events.lock().await.recv().await.transpose() };
        Ok(Call::new(work, |py, event| {
            Ok(match event {
                None => py.None(),
                Some(ExecEvent::Started(pid)) => {
                    ("started", pid).into_pyobject(py)?.into_any().unbind()
                }
                Some(ExecEvent::Stdout(bytes)) => ("stdout", PyBytes::new(py, &bytes))
                    .into_pyobject(py)?
                    .into_any()
                    .unbind(),
                Some(ExecEvent::Stderr(bytes)) => ("stderr", PyBytes::new(py, &bytes))
                    .into_pyobject(py)?
                    .into_any()
                    .unbind(),
                Some(ExecEvent::Exited(result)) => ("exited", convert::result(py, &result)?)
                    .into_pyobject(py)?
                    .into_any()
                    .unbind(),
                Some(_) => ("other", ()).into_pyobject(py)?.into_any().unbind(),
            })
        }))
    }

    fn write_stdin(&self, py: Python<'_>, content: &[u8]) -> PyResult<Call> {
        let stdin = Arc::clone(&self.0.get(py)?.stdin);
        let content = Bytes::copy_from_slice(content);
        Ok(Call::done(async move {
            match &mut *stdin.lock().await {
                Some(stdin) => stdin.write_all(content).await,
                None => Err(podkit::Error::invalid_input(
                    "the command has no standard input stream here",
                )),
            }
        }))
    }

    fn close_stdin(&self, py: Python<'_>) -> PyResult<Call> {
        let stdin = Arc::clone(&self.0.get(py)?.stdin);
        Ok(Call::done(async move {
            match stdin.lock().await.take() {
                Some(stdin) => stdin.close().await,
                None => Ok(()),
            }
        }))
    }

    fn signal(&self, py: Python<'_>, number: i32) -> PyResult<Call> {
        self.order(py, Order::Signal(number))
    }

    fn kill(&self, py: Python<'_>) -> PyResult<Call> {
        self.order(py, Order::Kill)
    }

    fn resize(&self, py: Python<'_>, rows: u16, columns: u16) -> PyResult<Call> {
        self.order(py, Order::Resize(TerminalSize::new(rows, columns)))
    }
}

/// A log as it comes.
#[pyclass(frozen)]
pub(crate) struct Logs(Owned<Arc<Mutex<LogEvents>>>);

impl Logs {
    pub(crate) fn new(events: LogEvents) -> Self {
        Self(Owned::new(Arc::new(Mutex::new(events))))
    }
}

#[pymethods]
impl Logs {
    fn next(&self, py: Python<'_>) -> PyResult<Call> {
        let events = Arc::clone(self.0.get(py)?);
        let work = async move { events.lock().await.next().await };
        Ok(Call::new(work, |py, chunk| match chunk {
            None => Ok(py.None()),
            Some(chunk) => Ok((stream_name(chunk.stream), PyBytes::new(py, &chunk.bytes))
                .into_pyobject(py)?
                .into_any()
                .unbind()),
        }))
    }
}

/// What a session uses, now and then.
#[pyclass(frozen)]
pub(crate) struct Stats(Owned<Arc<Mutex<StatsStream>>>);

impl Stats {
    pub(crate) fn new(stream: StatsStream) -> Self {
        Self(Owned::new(Arc::new(Mutex::new(stream))))
    }
}

#[pymethods]
impl Stats {
    fn next(&self, py: Python<'_>) -> PyResult<Call> {
        let stream = Arc::clone(self.0.get(py)?);
        let work = async move { stream.lock().await.next().await };
        Ok(Call::new(work, |py, stats| match stats {
            None => Ok(py.None()),
            Some(stats) => Ok(convert::stats(py, &stats)?.into_any().unbind()),
        }))
    }
}

/// What happens to sessions.
#[pyclass(frozen)]
pub(crate) struct Events(Owned<Arc<Mutex<EventStream>>>);

impl Events {
    pub(crate) fn new(stream: EventStream) -> Self {
        Self(Owned::new(Arc::new(Mutex::new(stream))))
    }
}

#[pymethods]
impl Events {
    fn next(&self, py: Python<'_>) -> PyResult<Call> {
        let stream = Arc::clone(self.0.get(py)?);
        let work = async move { Ok(stream.lock().await.next().await) };
        Ok(Call::new(work, |py, event| match event {
            None => Ok(py.None()),
            Some(event) => Ok(told(py, &event)?.into_any().unbind()),
        }))
    }
}

fn told<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("at", convert::epoch(event.at))?;
    facts.set_item("kind", event.kind.as_str())?;
    let key = event.key.as_ref();
    facts.set_item("user_id", key.map(|key| key.user().as_str()))?;
    facts.set_item("session_id", key.map(|key| key.session().as_str()))?;
    let container = event.container.as_ref();
    facts.set_item("container", container.map(podkit::ContainerId::as_str))?;
    let details = PyDict::new(py);
    match &event.kind {
        EventKind::ContainerCreationFailed(reason)
        | EventKind::ContainerStartFailed(reason)
        | EventKind::ContainerStopFailed(reason)
        | EventKind::ContainerRemovalFailed(reason)
        | EventKind::SessionOpenFailed(reason)
        | EventKind::RecoveryFailed(reason) => failed(&details, reason)?,
        EventKind::ContainerStopped(cause) => {
            details.set_item("cause", cause.map(podkit::StopCause::as_str))?;
        }
        EventKind::SessionOpened(opened) | EventKind::Recovered(opened) => {
            details.set_item("opened", opened.as_str())?;
        }
        EventKind::SessionExpiring(at) => details.set_item("expires_at", convert::epoch(*at))?,
        EventKind::OrphanRemoved(idle) => details.set_item("idle", idle.as_secs_f64())?,
        EventKind::HealthCheckFailed(illness) => {
            details.set_item("symptom", illness.symptom.as_str())?;
            details.set_item("exit_code", illness.exit_code)?;
            details.set_item("log", &illness.log)?;
        }
        EventKind::ExecStarted(command) => {
            details.set_item("number", command.number)?;
            details.set_item("argv", &command.argv)?;
        }
        EventKind::ExecEnded(command, end) => {
            details.set_item("number", command.number)?;
            details.set_item("argv", &command.argv)?;
            match end {
                CommandEnd::Ended(outcome, usage) => {
                    details.set_item("outcome", outcome.as_str())?;
                    details.set_item("exit_code", outcome.code())?;
                    details.set_item("usage", convert::usage(py, usage)?)?;
                }
                CommandEnd::Failed(reason) => failed(&details, reason)?,
                _ => details.set_item("outcome", "let_go")?,
            }
        }
        EventKind::ProcessStarted(process) => {
            details.set_item("process_id", &process.id)?;
            details.set_item("name", &process.name)?;
        }
        EventKind::ProcessEnded(process, outcome) => {
            details.set_item("process_id", &process.id)?;
            details.set_item("name", &process.name)?;
            details.set_item("outcome", outcome.as_str())?;
            details.set_item("exit_code", outcome.code())?;
        }
        EventKind::Missed(count) => details.set_item("count", count)?,
        _ => {}
    }
    facts.set_item("details", details)?;
    Ok(facts)
}

fn failed(details: &Bound<'_, PyDict>, reason: &Reason) -> PyResult<()> {
    details.set_item("error_kind", reason.kind.as_str())?;
    details.set_item("message", &reason.message)?;
    details.set_item("exit_code", reason.exit_code)?;
    details.set_item("log", &reason.log)
}

/// A port of this machine that leads into a container, until the object goes or is closed.
#[pyclass(frozen)]
pub(crate) struct Forward(Owned<std::sync::Mutex<Option<PortForward>>>);

impl Forward {
    pub(crate) fn new(forward: PortForward) -> Self {
        Self(Owned::new(std::sync::Mutex::new(Some(forward))))
    }
}

#[pymethods]
impl Forward {
    /// Address and number of the port here.
    #[getter]
    fn address(&self, py: Python<'_>) -> PyResult<Option<(String, u16)>> {
        let forward = self.0.get(py)?.lock();
        let forward = forward.unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(forward.as_ref().map(|forward| {
            let address = forward.address();
            (address.ip().to_string(), address.port())
        }))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let forward = self.0.get(py)?.lock();
        forward
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        Ok(())
    }
}
