//! Engines, and the sessions of a prefix on one of them.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

use podkit::{
    AuditLog, HealthOptions, Prefix, Result, SessionKey,
    backend::{BackendRef, connect as connect_engine},
};
use pyo3::{prelude::*, types::PyDict};
use tokio::sync::OnceCell;

use crate::{
    call::{Call, Owned},
    failure::raised,
    images::pull_teller,
    podkit::{Podkit, spec},
    request::seconds,
    settings::Settings,
};

/// Connects to an engine by its name, or the one of the settings.
#[pyfunction]
pub(crate) fn connect(name: String, settings: &Settings) -> Call {
    let options = settings.0.connect.clone();
    let work = async move { connect_engine::connect(&name, &options).await };
    Call::new(work, |py, engine| {
        Ok(Py::new(py, Engine(Owned::new(engine)))?.into_any())
    })
}

/// The name of a session's container; also checks the ids.
#[pyfunction]
pub(crate) fn container_name(
    py: Python<'_>,
    prefix: String,
    user: String,
    session: String,
) -> PyResult<String> {
    let name = || -> Result<String> {
        let prefix = Prefix::new(prefix)?;
        Ok(SessionKey::new(user, session)?.container_name(&prefix))
    };
    name().map_err(|error| raised(py, &error))
}

/// The number of bytes that a text such as `512m` means.
#[pyfunction]
pub(crate) fn parse_bytes(py: Python<'_>, text: &str) -> PyResult<u64> {
    podkit::parse_bytes(text).map_err(|error| raised(py, &error))
}

/// What many want at once, and is made once.
#[pyclass(frozen)]
pub(crate) struct Shared(Owned<Arc<OnceCell<podkit::Podkit>>>);

#[pymethods]
impl Shared {
    #[new]
    fn new() -> Self {
        Self(Owned::new(Arc::default()))
    }
}

/// An engine that is connected to.
#[pyclass(frozen)]
pub(crate) struct Engine(Owned<BackendRef>);

#[pymethods]
impl Engine {
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.0.get(py)?.name())
    }

    /// What the engine can do, as far as Python decides on it.
    fn capabilities<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let can = self.0.get(py)?.capabilities();
        let facts = PyDict::new(py);
        facts.set_item("default_image", can.default_image.to_string())?;
        facts.set_item("image_references", can.image_references)?;
        facts.set_item("local_images", can.local_images)?;
        facts.set_item("memory_limit", can.memory_limit)?;
        facts.set_item("cpu_limit", can.cpu_limit)?;
        facts.set_item("pids_limit", can.pids_limit)?;
        facts.set_item("pause", can.pause)?;
        facts.set_item("stats", can.stats)?;
        facts.set_item("ports", can.ports)?;
        facts.set_item("volumes", can.volumes)?;
        facts.set_item("named_networks", can.named_networks)?;
        facts.set_item("outbound", can.outbound)?;
        facts.set_item("inherit", can.inherit)?;
        facts.set_item("outlives_client", can.outlives_client)?;
        facts.set_item("isolation", can.isolation.map(podkit::Isolation::as_str))?;
        facts.set_item("limitations", can.limitations)?;
        Ok(facts)
    }

    fn ping(&self, py: Python<'_>) -> PyResult<Call> {
        let engine = BackendRef::clone(self.0.get(py)?);
        Ok(Call::done(async move { engine.ping().await }))
    }

    /// The sessions of `prefix` on this engine. `health` is the interval, the agents' deadline, lines of
    /// the log, whether all sessions are watched, the time of a warning, and after which orphans go.
    /// Those that are asked for with the same `shared` are one.
    #[pyo3(signature = (prefix, *, defaults = None, health = None, audit = None,
        audit_arguments = true, on_pull = None, max_connections = None, shared = None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they are named in Python, where this is one call"
    )]
    fn podkit(
        &self,
        py: Python<'_>,
        prefix: String,
        defaults: Option<&str>,
        health: Option<Health>,
        audit: Option<PathBuf>,
        audit_arguments: bool,
        on_pull: Option<Py<PyAny>>,
        max_connections: Option<usize>,
        shared: Option<&Shared>,
    ) -> PyResult<Call> {
        let mut builder = podkit::Podkit::builder().engine(BackendRef::clone(self.0.get(py)?));
        if let Some(defaults) = defaults {
            builder = builder.default_spec(spec(py, defaults)?);
        }
        if let Some(health) = health {
            builder = builder.health(watching(py, health)?);
        }
        if let Some(most) = max_connections.and_then(NonZeroUsize::new) {
            builder = builder.max_connections(most);
        }
        if let Some(tell) = on_pull {
            builder = builder.on_pull(pull_teller(tell));
        }
        let build = Box::pin(async move {
            if let Some(path) = audit {
                let log = AuditLog::append(path)?;
                builder = builder.audit(if audit_arguments {
                    log
                } else {
                    log.without_arguments()
                });
            }
            builder.prefix(Prefix::new(prefix)?).build().await
        });
        let shared = shared.map(|shared| shared.0.get(py)).transpose()?.cloned();
        let work = async move {
            match shared {
                None => build.await,
                Some(shared) => shared.get_or_try_init(|| build).await.cloned(),
            }
        };
        Ok(Call::new(work, |py, podkit| {
            Ok(Py::new(py, Podkit(Owned::new(podkit)))?.into_any())
        }))
    }
}

/// How sessions are watched over, as Python gives it.
type Health = (f64, f64, usize, bool, f64, Option<f64>);

fn watching(py: Python<'_>, health: Health) -> PyResult<HealthOptions> {
    let (interval, probe, log_lines, all, warn, orphans) = health;
    let options = HealthOptions::new()
        .interval(seconds(py, interval)?)
        .probe_deadline(seconds(py, probe)?)
        .log_lines(log_lines)
        .all_sessions(all)
        .warn_before(seconds(py, warn)?);
    match orphans {
        Some(idle) => Ok(options.clean_orphans(seconds(py, idle)?)),
        None => Ok(options),
    }
}
