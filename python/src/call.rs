//! Operations that Python waits for, and the runtime that they run on.

use std::{future::Future, pin::Pin, time::Duration};

use podkit::{Error, ErrorKind, Result};
use pyo3::{prelude::*, types::PyString};
use tokio::{
    runtime::Runtime,
    task::{AbortHandle, block_in_place},
    time::timeout,
};

use crate::failure::raised;

/// How often a wait in the main thread looks for signals such as that of Ctrl-C.
const SIGNAL_CHECK: Duration = Duration::from_millis(20);

/// Threads that keep connections and what was begun going.
const WORKERS: usize = 2;

/// Makes a result an object of Python's.
type Answer = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;
type Work = Pin<Box<dyn Future<Output = Result<Answer>> + Send>>;

/// The runtime of this process. A fork has none of its parent's threads, so it gets one of its own. The
/// lock is taken only while the interpreter is held, as a fork is: no fork finds it taken.
static RUNTIME: std::sync::Mutex<Option<(u32, &'static Runtime)>> = std::sync::Mutex::new(None);

pub(crate) fn runtime(_: Python<'_>) -> Result<&'static Runtime> {
    let mut current = RUNTIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let pid = std::process::id();
    match *current {
        Some((owner, runtime)) if owner == pid => Ok(runtime),
        _ => {
            let built = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(WORKERS)
                .thread_name("podkit")
                .enable_all()
                .build();
            let built = built.map_err(|error| {
                let text = "the threads of the runtime cannot be started";
                Error::new(ErrorKind::LimitExceeded, text).with_source(error)
            })?;
            // It lives as long as the process: there is nobody to wait for its end.
            let runtime = Box::leak(Box::new(built));
            *current = Some((pid, runtime));
            Ok(runtime)
        }
    }
}

/// Something that belongs to the runtime of the process that made it.
///
/// In a fork it cannot be used, and it is not dropped either: the sockets that it would close are
/// registered with a poller that parent and child share.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    pid: u32,
    inner: Option<T>,
}

impl<T> Owned<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self {
            pid: std::process::id(),
            inner: Some(inner),
        }
    }

    /// It, in the process that made it.
    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<&T> {
        match &self.inner {
            Some(inner) if self.pid == std::process::id() => Ok(inner),
            _ => Err(raised(
                py,
                &Error::unsupported("this object was made before the process was forked")
                    .with_hint("open the session again in the new process"),
            )),
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.pid != std::process::id()
            && let Some(inner) = self.inner.take()
        {
            Box::leak(Box::new(inner));
        }
    }
}

/// An operation that has not begun. Python waits for it, or begins it; once.
#[pyclass(frozen)]
pub(crate) struct Call(Owned<std::sync::Mutex<Option<Work>>>);

impl Call {
    /// An operation whose result becomes an object by `answer`.
    pub(crate) fn new<T: Send + 'static>(
        work: impl Future<Output = Result<T>> + Send + 'static,
        answer: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> Self {
        let work: Work = Box::pin(async move {
            let value = work.await?;
            let answer: Answer = Box::new(move |py| answer(py, value));
            Ok(answer)
        });
        Self(Owned::new(std::sync::Mutex::new(Some(work))))
    }

    /// An operation without a result.
    pub(crate) fn done(work: impl Future<Output = Result<()>> + Send + 'static) -> Self {
        Self::new(work, |py, ()| Ok(py.None()))
    }

    fn take(&self, py: Python<'_>) -> PyResult<Work> {
        let work = self.0.get(py)?.lock();
        let work = work
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        work.ok_or_else(|| {
            raised(
                py,
                &Error::invalid_input("this call was waited for already"),
            )
        })
    }
}

#[pymethods]
impl Call {
    /// Waits for the result, without holding the interpreter. A signal whose handler raises ends the
    /// wait at once, and gives the operation up.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let mut work = self.take(py)?;
        let runtime = runtime(py).map_err(|error| raised(py, &error))?;
        let ended = loop {
            // A finaliser may wait in a thread of the runtime: its other tasks go to another one.
            let wait = || block_in_place(|| runtime.block_on(turn(&mut work)));
            if let Some(ended) = py.detach(wait) {
                break ended;
            }
            // Handlers call podkit themselves, which nobody can from inside of the runtime.
            if let Err(error) = py.check_signals() {
                py.detach(|| {
                    let _entered = runtime.enter();
                    drop(work);
                });
                return Err(error);
            }
        };
        match ended {
            Ok(answer) => answer(py),
            Err(error) => Err(raised(py, &error)),
        }
    }

    /// Begins it; `done(failed, value)` is called from another thread when it has ended, unless
    /// it was cancelled.
    fn begin(&self, py: Python<'_>, done: Py<PyAny>) -> PyResult<Begun> {
        let work = self.take(py)?;
        let runtime = runtime(py).map_err(|error| raised(py, &error))?;
        let task = runtime.spawn(async move {
            let ended = work.await;
            // Nobody is told any more while the interpreter ends.
            let _: Option<()> = Python::try_attach(|py| {
                let result = match ended {
                    Ok(answer) => answer(py),
                    Err(error) => Err(raised(py, &error)),
                };
                let told = match result {
                    Ok(value) => done.call1(py, (false, value)),
                    Err(error) => done.call1(py, (true, error.into_value(py))),
                };
                if let Err(error) = told {
                    error.write_unraisable(py, None);
                }
            });
        });
        Ok(Begun(Owned::new(task.abort_handle())))
    }

    fn __repr__<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, "<podkit._native.Call>")
    }
}

/// Waits; in the thread that Python runs handlers of signals in, only until they are to be looked for.
async fn turn(work: &mut Work) -> Option<Result<Answer>> {
    if rustix::thread::gettid() == rustix::process::getpid() {
        timeout(SIGNAL_CHECK, work).await.ok()
    } else {
        Some(work.await)
    }
}

/// An operation that has begun.
#[pyclass(frozen)]
pub(crate) struct Begun(Owned<AbortHandle>);

#[pymethods]
impl Begun {
    /// Gives it up; nothing is told of its end then.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.abort();
        Ok(())
    }
}
