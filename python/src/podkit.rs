//! Everybody's sessions under one prefix.

use std::time::Duration;

use podkit::{
    Error, GcOptions, LimitChange, OnConflict, OpenSession, Readiness, RunOnce, SessionKey,
    SessionSpec, StartupCheck,
};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};

use crate::{
    call::{Call, Owned, runtime},
    convert,
    failure::{exception, raised},
    images::Images,
    request::{Request, seconds},
    session::Session,
    stream::{Events, Stats},
};

/// Everybody's sessions under one prefix.
#[pyclass(frozen)]
pub(crate) struct Podkit(pub(crate) Owned<podkit::Podkit>);

impl Podkit {
    fn get(&self, py: Python<'_>) -> PyResult<podkit::Podkit> {
        Ok(self.0.get(py)?.clone())
    }
}

fn key(py: Python<'_>, user: String, session: String) -> PyResult<SessionKey> {
    SessionKey::new(user, session).map_err(|error| raised(py, &error))
}

pub(crate) fn spec(py: Python<'_>, json: &str) -> PyResult<SessionSpec> {
    serde_json::from_str(json).map_err(|error| {
        let text = format!("the configuration cannot be used: {error}");
        raised(py, &Error::invalid_input(text))
    })
}

/// When a session is ready, as Python gives it: a port and a page at it, or a command.
type Ready = (Option<u16>, Option<String>, Option<Vec<String>>, f64);

fn readiness(ready: Ready) -> (Readiness, f64) {
    let (port, path, command, limit) = ready;
    let readiness = match (command, path) {
        (Some(argv), _) => Readiness::Command(argv),
        (None, Some(path)) => Readiness::http(port.unwrap_or_default(), path),
        (None, None) => Readiness::Port(port.unwrap_or_default()),
    };
    (readiness, limit)
}

/// Looks at a start, as Python gives them: how many, seconds between them, lines of the log.
type Startup = (u32, f64, usize);

fn startup_check(py: Python<'_>, startup: Startup) -> PyResult<StartupCheck> {
    let (checks, interval, lines) = startup;
    let check = StartupCheck::new().checks(checks).log_lines(lines);
    Ok(check.interval(seconds(py, interval)?))
}

#[pymethods]
impl Podkit {
    #[getter]
    fn prefix(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.prefix().as_str().to_owned())
    }

    /// Opens a session.
    #[pyo3(signature = (user, session, spec_json, *, on_conflict = "fail", create = true,
        startup = None, ready = None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they are named in Python, where this is one call"
    )]
    fn open(
        &self,
        py: Python<'_>,
        user: String,
        session: String,
        spec_json: &str,
        on_conflict: &str,
        create: bool,
        startup: Option<Startup>,
        ready: Option<Ready>,
    ) -> PyResult<Call> {
        let on_conflict = match on_conflict {
            "fail" => OnConflict::Fail,
            "reuse" => OnConflict::Reuse,
            "replace" => OnConflict::Replace,
            other => {
                let text = format!("on_conflict is `fail`, `reuse` or `replace`, not `{other}`");
                return Err(raised(py, &Error::invalid_input(text)));
            }
        };
        let mut open: OpenSession = self
            .get(py)?
            .session(user, session)
            .spec(spec(py, spec_json)?)
            .on_conflict(on_conflict)
            .create(create);
        if let Some(startup) = startup {
            open = open.startup_check(startup_check(py, startup)?);
        }
        if let Some(ready) = ready {
            let (readiness, limit) = readiness(ready);
            open = open.ready_when(readiness, seconds(py, limit)?);
        }
        Ok(Call::new(async move { open.await }, |py, session| {
            Ok(Py::new(py, Session(Owned::new(session)))?.into_any())
        }))
    }

    #[pyo3(signature = (user = None))]
    fn list(&self, py: Python<'_>, user: Option<String>) -> PyResult<Call> {
        let list = self.get(py)?.list();
        let list = match user {
            Some(user) => list.user(user),
            None => list,
        };
        Ok(Call::new(async move { list.await }, |py, found| {
            let found = found.iter().map(|info| convert::info(py, info));
            let found = found.collect::<PyResult<Vec<_>>>()?;
            Ok(found.into_pyobject(py)?.unbind())
        }))
    }

    fn inspect(&self, py: Python<'_>, user: String, session: String) -> PyResult<Call> {
        let (podkit, key) = (self.get(py)?, key(py, user, session)?);
        let work = async move { podkit.inspect(&key).await };
        Ok(Call::new(work, |py, info| {
            Ok(convert::info(py, &info)?.into_any().unbind())
        }))
    }

    /// The last lines of a container's own program, and its exit code.
    fn logs(&self, py: Python<'_>, user: String, session: String, bytes: u64) -> PyResult<Call> {
        let (podkit, key) = (self.get(py)?, key(py, user, session)?);
        let work = async move {
            let name = podkit::ContainerId::new(key.container_name(podkit.prefix()))?;
            let logs = podkit.containers().logs(&name, bytes).await?;
            let code = podkit.containers().inspect(&name).await?.exit_code;
            Ok((logs, code))
        };
        Ok(Call::new(work, |py, (logs, code)| {
            Ok((PyBytes::new(py, &logs), code)
                .into_pyobject(py)?
                .into_any()
                .unbind())
        }))
    }

    fn stop(&self, py: Python<'_>, user: String, session: String, grace: f64) -> PyResult<Call> {
        let (podkit, key) = (self.get(py)?, key(py, user, session)?);
        let grace = seconds(py, grace)?;
        Ok(Call::done(async move { podkit.stop(&key, grace).await }))
    }

    fn pause(&self, py: Python<'_>, user: String, session: String) -> PyResult<Call> {
        let (podkit, key) = (self.get(py)?, key(py, user, session)?);
        Ok(Call::done(async move { podkit.pause(&key).await }))
    }

    fn resume(&self, py: Python<'_>, user: String, session: String) -> PyResult<Call> {
        let (podkit, key) = (self.get(py)?, key(py, user, session)?);
        Ok(Call::done(async move { podkit.resume(&key).await }))
    }

    #[pyo3(signature = (user, session, *, cpus = None, memory = None, swap = None, pids_max = None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they are named in Python, where this is one call"
    )]
    fn set_limits(
        &self,
        py: Python<'_>,
        user: String,
        session: String,
        cpus: Option<f64>,
        memory: Option<String>,
        swap: Option<String>,
        pids_max: Option<u32>,
    ) -> PyResult<Call> {
        let (podkit, key) = (self.get(py)?, key(py, user, session)?);
        let mut change = LimitChange::new();
        change.cpus = cpus;
        change.memory = memory.map(Into::into);
        change.swap = swap.map(Into::into);
        change.pids_max = pids_max;
        Ok(Call::done(
            async move { podkit.set_limits(&key, change).await },
        ))
    }

    fn stats(&self, py: Python<'_>, user: String, session: String) -> PyResult<Call> {
        let (podkit, key) = (self.get(py)?, key(py, user, session)?);
        let work = async move { podkit.stats(&key).await };
        Ok(Call::new(work, |py, stats| {
            Ok(convert::stats(py, &stats)?.into_any().unbind())
        }))
    }

    fn watch_stats(
        &self,
        py: Python<'_>,
        user: String,
        session: String,
        interval: f64,
    ) -> PyResult<Stats> {
        let (podkit, key) = (self.get(py)?, key(py, user, session)?);
        let interval = seconds(py, interval)?;
        let _entered = runtime(py).map_err(|error| raised(py, &error))?.enter();
        let stream = podkit.watch_stats(&key, interval);
        Ok(Stats::new(stream.map_err(|error| raised(py, &error))?))
    }

    /// Removes a session's container; gives whether there was one, and what could not be removed.
    fn close(&self, py: Python<'_>, user: String, session: String) -> PyResult<Call> {
        let (podkit, key) = (self.get(py)?, key(py, user, session)?);
        let work = async move { podkit.close(&key).await };
        Ok(Call::new(work, |py, report| {
            let failed = report.failed.iter().map(|error| exception(py, error));
            let failed = failed.collect::<PyResult<Vec<_>>>()?;
            Ok((report.existed, failed)
                .into_pyobject(py)?
                .into_any()
                .unbind())
        }))
    }

    #[pyo3(signature = (*, idle = None, dry_run = false))]
    fn gc(&self, py: Python<'_>, idle: Option<f64>, dry_run: bool) -> PyResult<Call> {
        let podkit = self.get(py)?;
        let mut options = GcOptions::new().with_dry_run(dry_run);
        if let Some(idle) = idle {
            options = options.with_idle(seconds(py, idle)?);
        }
        let work = async move { podkit.gc(options).await };
        Ok(Call::new(work, |py, report| {
            let removed: Vec<(&str, &str)> = report
                .removed
                .iter()
                .map(|key| (key.user().as_str(), key.session().as_str()))
                .collect();
            let failed = report.failed.iter().map(|error| exception(py, error));
            let failed = failed.collect::<PyResult<Vec<_>>>()?;
            let facts = PyDict::new(py);
            facts.set_item("removed", removed)?;
            facts.set_item("kept", report.kept)?;
            facts.set_item("failed", failed)?;
            Ok(facts.into_any().unbind())
        }))
    }

    /// One command, with files, in a container of its own.
    fn run_once(
        &self,
        py: Python<'_>,
        spec_json: &str,
        request: &Request,
        files: Vec<(String, Bound<'_, PyBytes>)>,
    ) -> PyResult<Call> {
        let (podkit, spec) = (self.get(py)?, spec(py, spec_json)?);
        let mut once = RunOnce::of(request.0.clone());
        for (path, bytes) in files {
            once = once.file(path, bytes.as_bytes().to_vec());
        }
        let work = async move { podkit.run_once(spec, once).await };
        Ok(Call::new(work, |py, output| {
            Ok(Py::new(py, convert::Output(output))?.into_any())
        }))
    }

    /// The images of the engine.
    fn images(&self, py: Python<'_>) -> PyResult<Images> {
        Ok(Images(Owned::new(self.get(py)?)))
    }

    fn events(&self, py: Python<'_>) -> PyResult<Events> {
        Ok(Events::new(self.get(py)?.events()))
    }

    /// The container that this process runs in: name, image and networks.
    fn parent(&self, py: Python<'_>) -> PyResult<Call> {
        let podkit = self.get(py)?;
        let work = async move { podkit.parent().await };
        Ok(Call::new(work, |py, parent| match parent {
            None => Ok(py.None()),
            Some(parent) => {
                let facts = PyDict::new(py);
                facts.set_item("container", parent.id.as_str())?;
                facts.set_item("image", parent.image.to_string())?;
                facts.set_item("networks", parent.networks.clone())?;
                Ok(facts.into_any().unbind())
            }
        }))
    }

    /// Takes no more work, and waits for what has begun.
    fn shutdown(&self, py: Python<'_>) -> PyResult<Call> {
        let podkit = self.get(py)?;
        Ok(Call::done(async move {
            // A wait without an end would hang whoever ends.
            let ended = tokio::time::timeout(Duration::from_secs(30), podkit.shutdown());
            ended
                .await
                .map_err(|_| Error::new(podkit::ErrorKind::TimedOut, "what has begun does not end"))
        }))
    }
}
