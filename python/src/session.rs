//! One user's session.

use std::net::{Ipv4Addr, SocketAddr};

use podkit::{RestartPolicy, SpawnRequest};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    call::{Call, Owned, runtime},
    convert,
    failure::{exception, raised},
    files::Files,
    process::Process,
    request::{Request, seconds},
    stream::{Forward, Running},
};

/// One user's container.
#[pyclass(frozen)]
pub(crate) struct Session(pub(crate) Owned<podkit::Session>);

impl Session {
    fn get(&self, py: Python<'_>) -> PyResult<podkit::Session> {
        Ok(self.0.get(py)?.clone())
    }
}

#[pymethods]
impl Session {
    #[getter]
    fn user_id(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.0.get(py)?.key().user().as_str().to_owned())
    }

    #[getter]
    fn session_id(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.0.get(py)?.key().session().as_str().to_owned())
    }

    #[getter]
    fn container(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.0.get(py)?.container().as_str().to_owned())
    }

    /// How the opening went: `created`, `reconnected` and so on.
    #[getter]
    fn opened(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.0.get(py)?.opened().as_str())
    }

    #[getter]
    fn config_lost(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.0.get(py)?.config_lost())
    }

    /// Runs a command to its end.
    fn exec(&self, py: Python<'_>, request: &Request) -> PyResult<Call> {
        let exec = self.get(py)?.execute(request.0.clone());
        Ok(Call::new(async move { exec.await }, |py, output| {
            Ok(Py::new(py, convert::Output(output))?.into_any())
        }))
    }

    /// Begins a command and gives what it tells while it runs.
    fn stream(&self, py: Python<'_>, request: &Request) -> PyResult<Call> {
        let exec = self.get(py)?.execute(request.0.clone());
        Ok(Call::new(
            async move { exec.stream().await },
            |py, handle| Ok(Py::new(py, Running::new(py, handle)?)?.into_any()),
        ))
    }

    #[pyo3(signature = (user = None))]
    fn files(&self, py: Python<'_>, user: Option<String>) -> PyResult<Files> {
        let files = self.get(py)?.files();
        Ok(Files(Owned::new(match user {
            Some(user) => files.user(user),
            None => files,
        })))
    }

    /// Begins a program in the background. `restart` is a policy and how often at most.
    #[pyo3(signature = (request, *, name = None, keep_alive = false, restart = None,
        log_directory = None, log_limit = None))]
    #[expect(
        clippy::too_many_arguments,
        clippy::needless_pass_by_value,
        reason = "they are named in Python, where this is one call, and made for it"
    )]
    fn spawn(
        &self,
        py: Python<'_>,
        request: &Request,
        name: Option<String>,
        keep_alive: bool,
        restart: Option<(String, Option<u32>)>,
        log_directory: Option<String>,
        log_limit: Option<u64>,
    ) -> PyResult<Call> {
        let mut spawn = SpawnRequest::new(request.0.clone());
        spawn.name = name;
        spawn.keep_alive = keep_alive;
        spawn.log_directory = log_directory;
        spawn.log_limit_bytes = log_limit;
        spawn.restart = match restart
            .as_ref()
            .map(|(policy, most)| (policy.as_str(), *most))
        {
            None | Some(("never", _)) => RestartPolicy::Never,
            Some(("always", _)) => RestartPolicy::Always,
            Some(("on_failure", max_restarts)) => RestartPolicy::OnFailure { max_restarts },
            Some((other, _)) => {
                let text = format!("restart is `never`, `on_failure` or `always`, not `{other}`");
                return Err(raised(py, &podkit::Error::invalid_input(text)));
            }
        };
        let spawn = self.get(py)?.spawn_request(spawn);
        Ok(Call::new(async move { spawn.await }, |py, process| {
            Ok(Py::new(py, Process(Owned::new(process)))?.into_any())
        }))
    }

    fn process(&self, py: Python<'_>, id: String) -> PyResult<Process> {
        Ok(Process(Owned::new(self.get(py)?.process(id))))
    }

    fn processes(&self, py: Python<'_>) -> PyResult<Call> {
        let session = self.get(py)?;
        let work = async move { session.processes().await };
        Ok(Call::new(work, |py, found| {
            let found = found.iter().map(|info| convert::process(py, info));
            let found = found.collect::<PyResult<Vec<_>>>()?;
            Ok(found.into_pyobject(py)?.unbind())
        }))
    }

    fn info(&self, py: Python<'_>) -> PyResult<Call> {
        let session = self.get(py)?;
        let work = async move { session.info().await };
        Ok(Call::new(work, |py, info| {
            Ok(convert::info(py, &info)?.into_any().unbind())
        }))
    }

    fn touch(&self, py: Python<'_>) -> PyResult<Call> {
        let session = self.get(py)?;
        Ok(Call::done(async move { session.touch().await }))
    }

    fn url(&self, py: Python<'_>, port: u16) -> PyResult<Call> {
        let session = self.get(py)?;
        let work = async move { session.url(port).await };
        Ok(Call::new(work, |py, url| {
            Ok(url.into_pyobject(py)?.into_any().unbind())
        }))
    }

    fn ports(&self, py: Python<'_>) -> PyResult<Call> {
        let session = self.get(py)?;
        let work = async move { session.ports().await };
        Ok(Call::new(work, |py, ports| convert::ports(py, &ports)))
    }

    /// What listens in the container, published or not.
    fn listening_ports(&self, py: Python<'_>) -> PyResult<Call> {
        let session = self.get(py)?;
        let work = async move { session.listening_ports().await };
        Ok(Call::new(work, |py, found| {
            let mut ports = Vec::new();
            for port in found {
                let facts = PyDict::new(py);
                facts.set_item("port", port.port)?;
                facts.set_item("address", port.address.to_string())?;
                facts.set_item("pid", port.pid)?;
                facts.set_item("name", port.name)?;
                ports.push(facts);
            }
            Ok(ports.into_pyobject(py)?.unbind())
        }))
    }

    fn wait_for_port(&self, py: Python<'_>, port: u16, limit: f64) -> PyResult<Call> {
        let (session, limit) = (self.get(py)?, seconds(py, limit)?);
        Ok(Call::done(async move {
            session.wait_for_port(port, limit).await
        }))
    }

    /// Has a port of this machine lead to one of the container's.
    fn forward(&self, py: Python<'_>, port: u16, local: u16) -> PyResult<Call> {
        let session = self.get(py)?;
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), local);
        let work = async move { session.forward_port(local, port).await };
        Ok(Call::new(work, |py, forward| {
            Ok(Py::new(py, Forward::new(forward))?.into_any())
        }))
    }

    fn stop(&self, py: Python<'_>, grace: f64) -> PyResult<Call> {
        let (session, grace) = (self.get(py)?, seconds(py, grace)?);
        Ok(Call::done(async move { session.stop(grace).await }))
    }

    /// Removes the container; gives whether there was one, and what could not be removed.
    fn close(&self, py: Python<'_>) -> PyResult<Call> {
        let session = self.get(py)?;
        let work = async move { session.close().await };
        Ok(Call::new(work, |py, report| {
            let failed = report.failed.iter().map(|error| exception(py, error));
            let failed = failed.collect::<PyResult<Vec<_>>>()?;
            Ok((report.existed, failed)
                .into_pyobject(py)?
                .into_any()
                .unbind())
        }))
    }

    /// Where the container has what this process has at `path`.
    fn to_container_path(&self, py: Python<'_>, path: &str) -> PyResult<std::path::PathBuf> {
        let _entered = runtime(py).map_err(|error| raised(py, &error))?.enter();
        let found = self.0.get(py)?.to_container_path(path);
        found.map_err(|error| raised(py, &error))
    }

    /// Where this process finds what the container has at `path`.
    fn to_host_path(&self, py: Python<'_>, path: &str) -> PyResult<std::path::PathBuf> {
        let _entered = runtime(py).map_err(|error| raised(py, &error))?.enter();
        let found = self.0.get(py)?.to_host_path(path);
        found.map_err(|error| raised(py, &error))
    }
}
