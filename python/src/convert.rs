//! Facts of the library as objects of Python's: plain dictionaries, which Python's own classes read.

use std::time::{Duration, SystemTime};

use podkit::{
    ContainerStats, ExecOutput, ExecResult, FileEntry, MemorySource, Outcome, ProcessInfo,
    ProcessState, PublishedPort, SessionInfo, Usage,
};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyModule, PyString},
};

/// Seconds since 1970.
pub(crate) fn epoch(time: SystemTime) -> f64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// Name, code, and exit code or signal of an end.
pub(crate) fn outcome(outcome: Outcome) -> (&'static str, u8) {
    (outcome.as_str(), outcome.code())
}

pub(crate) fn usage<'py>(py: Python<'py>, usage: &Usage) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("wall", usage.wall.as_secs_f64())?;
    facts.set_item("cpu_user", usage.cpu_user.as_secs_f64())?;
    facts.set_item("cpu_system", usage.cpu_system.as_secs_f64())?;
    facts.set_item("peak_memory_bytes", usage.peak_memory_bytes)?;
    let source = match usage.peak_memory_source {
        MemorySource::Cgroup => "cgroup",
        _ => "largest_process",
    };
    facts.set_item("peak_memory_source", source)?;
    Ok(facts)
}

pub(crate) fn result<'py>(py: Python<'py>, result: &ExecResult) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    let (name, code) = outcome(result.outcome);
    facts.set_item("outcome", name)?;
    facts.set_item("exit_code", code)?;
    facts.set_item("stdout_truncated", result.stdout_truncated)?;
    facts.set_item("stderr_truncated", result.stderr_truncated)?;
    facts.set_item("container_restarted", result.container_restarted)?;
    facts.set_item("usage", usage(py, &result.usage)?)?;
    Ok(facts)
}

/// Standard output, standard error, and both in the order of their arrival.
type Streams<'py> = (
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
);

/// A command's whole result. Its bytes are copied only when they are asked for.
#[pyclass(frozen)]
pub(crate) struct Output(pub(crate) ExecOutput);

#[pymethods]
impl Output {
    /// How it ended, as a dictionary.
    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        result(py, &self.0.result)
    }

    #[getter]
    fn exit_code(&self) -> u8 {
        self.0.code()
    }

    #[getter]
    fn outcome(&self) -> &'static str {
        self.0.outcome.as_str()
    }

    fn stdout_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.stdout)
    }

    fn stderr_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.stderr)
    }

    fn output_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.output())
    }

    fn stdout_text<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, &String::from_utf8_lossy(&self.0.stdout))
    }

    fn stderr_text<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, &String::from_utf8_lossy(&self.0.stderr))
    }

    fn output_text<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, &String::from_utf8_lossy(&self.0.output()))
    }

    #[getter]
    fn stderr_empty(&self) -> bool {
        self.0.stderr.is_empty()
    }

    /// Copies, also those for other processes, are Python's own.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Streams<'py>)> {
        let streams = (
            self.stdout_bytes(py),
            self.stderr_bytes(py),
            self.output_bytes(py),
        );
        let copied = PyModule::import(py, "podkit.results")?.getattr("_Copied")?;
        Ok((copied, streams))
    }
}

fn port<'py>(py: Python<'py>, port: &PublishedPort) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("container", port.container)?;
    facts.set_item("host", port.host)?;
    facts.set_item("address", port.address.to_string())?;
    facts.set_item("protocol", port.protocol.as_str())?;
    Ok(facts)
}

pub(crate) fn ports(py: Python<'_>, ports: &[PublishedPort]) -> PyResult<Py<PyAny>> {
    let found = ports.iter().map(|known| port(py, known));
    let found = found.collect::<PyResult<Vec<_>>>()?;
    Ok(found.into_pyobject(py)?.unbind())
}

pub(crate) fn info<'py>(py: Python<'py>, info: &SessionInfo) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("user_id", info.key.user().as_str())?;
    facts.set_item("session_id", info.key.session().as_str())?;
    facts.set_item("container", info.container.as_str())?;
    facts.set_item("state", info.state.as_str())?;
    let cause = info.stop_cause.map(podkit::StopCause::as_str);
    facts.set_item("stop_cause", cause)?;
    facts.set_item("created_at", epoch(info.created_at))?;
    facts.set_item("started_at", info.started_at.map(epoch))?;
    facts.set_item("last_active_at", info.last_active_at.map(epoch))?;
    facts.set_item("stops_at", info.expires.stops_at.map(epoch))?;
    facts.set_item("idle_at", info.expires.idle_at.map(epoch))?;
    facts.set_item("ends_at", info.expires.ends_at.map(epoch))?;
    facts.set_item("workspace", info.workspace.as_deref())?;
    let isolation = info.isolation.map(podkit::Isolation::as_str);
    facts.set_item("isolation", isolation)?;
    facts.set_item("ports", ports(py, &info.ports)?)?;
    facts.set_item("config_lost", info.config_lost)?;
    // A spec is made of what JSON has.
    let spec = serde_json::to_string(&info.spec).unwrap_or_default();
    facts.set_item("spec", spec)?;
    Ok(facts)
}

pub(crate) fn entry<'py>(py: Python<'py>, entry: &FileEntry) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("name", &entry.name)?;
    facts.set_item("kind", entry.kind.as_str())?;
    facts.set_item("mode", entry.mode)?;
    facts.set_item("uid", entry.uid)?;
    facts.set_item("gid", entry.gid)?;
    facts.set_item("size", entry.size_bytes)?;
    facts.set_item("modified", epoch(entry.modified))?;
    facts.set_item("link_target", entry.link_target.as_deref())?;
    Ok(facts)
}

pub(crate) fn process<'py>(py: Python<'py>, info: &ProcessInfo) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("id", &info.id)?;
    facts.set_item("name", info.name.as_deref())?;
    facts.set_item("argv", &info.argv)?;
    facts.set_item("log_directory", info.log_directory.as_deref())?;
    facts.set_item("pid", info.pid)?;
    facts.set_item("state", info.state.as_str())?;
    let ended = match info.state {
        ProcessState::Ended(end) => Some(outcome(end)),
        _ => None,
    };
    facts.set_item("outcome", ended.map(|(name, _)| name))?;
    facts.set_item("exit_code", ended.map(|(_, code)| code))?;
    facts.set_item("restarts", info.restarts)?;
    facts.set_item("started_at", epoch(info.started_at))?;
    facts.set_item("ended_at", info.ended_at.map(epoch))?;
    facts.set_item("terminal", info.terminal)?;
    facts.set_item("keep_alive", info.keep_alive)?;
    facts.set_item("usage", usage(py, &info.usage)?)?;
    Ok(facts)
}

pub(crate) fn stats<'py>(py: Python<'py>, stats: &ContainerStats) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("at", epoch(stats.at))?;
    facts.set_item(
        "cpu_time",
        stats.cpu_time.map(|time: Duration| time.as_secs_f64()),
    )?;
    facts.set_item("memory_bytes", stats.memory_bytes)?;
    facts.set_item("memory_limit_bytes", stats.memory_limit_bytes)?;
    facts.set_item("pids", stats.pids)?;
    facts.set_item("pids_limit", stats.pids_limit)?;
    facts.set_item("network_rx_bytes", stats.network_rx_bytes)?;
    facts.set_item("network_tx_bytes", stats.network_tx_bytes)?;
    facts.set_item("disk_read_bytes", stats.disk_read_bytes)?;
    facts.set_item("disk_written_bytes", stats.disk_written_bytes)?;
    Ok(facts)
}
