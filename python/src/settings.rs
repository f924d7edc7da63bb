//! What the environment and the configuration file say, as Python hands the one and names the other.

use std::path::PathBuf;

use podkit::settings::{Environment, Given};
use pyo3::{prelude::*, types::PyDict};

use crate::{failure::raised, request::json};

/// What holds for this program.
#[pyclass(frozen)]
pub(crate) struct Settings(pub(crate) podkit::settings::Settings);

#[pymethods]
impl Settings {
    /// Reads the configuration file; `environment` has the variables that matter, by their names.
    #[new]
    fn new(py: Python<'_>, environment: &Bound<'_, PyDict>) -> PyResult<Self> {
        // As on the command line: empty is not set, and a text that is none neither.
        let path = |name: &str| -> PyResult<Option<PathBuf>> {
            let value = environment.get_item(name)?;
            let value = value.map(|value| value.extract::<PathBuf>()).transpose()?;
            Ok(value.filter(|path| !path.as_os_str().is_empty()))
        };
        let text = |name: &str| -> PyResult<Option<String>> {
            Ok(path(name)?.and_then(|path| path.into_os_string().into_string().ok()))
        };
        let xdg = |name: &str| -> PyResult<Option<PathBuf>> {
            Ok(path(name)?.filter(|path| path.is_absolute()))
        };
        let mut read = Environment::default();
        read.home = path("HOME")?;
        read.xdg_config_home = xdg("XDG_CONFIG_HOME")?;
        read.xdg_data_home = xdg("XDG_DATA_HOME")?;
        read.xdg_runtime_dir = xdg("XDG_RUNTIME_DIR")?;
        read.login = text("USER")?;
        read.backend = text("PODKIT_BACKEND")?;
        read.image = text("PODKIT_IMAGE")?;
        read.prefix = text("PODKIT_PREFIX")?;
        read.user = text("PODKIT_USER")?;
        read.workspace = path("PODKIT_WORKSPACE")?;
        read.workspace_host = path("PODKIT_WORKSPACE_HOST")?;
        read.inherit_image = text("PODKIT_INHERIT_IMAGE")?;
        read.inherit_networks = text("PODKIT_INHERIT_NETWORKS")?;
        read.state_dir = path("PODKIT_STATE_DIR")?;
        read.run_dir = path("PODKIT_RUN_DIR")?;
        read.audit = path("PODKIT_AUDIT")?;
        read.docker.host = text("DOCKER_HOST")?;
        read.docker.context = text("DOCKER_CONTEXT")?;
        read.docker.config_dir = path("DOCKER_CONFIG")?;
        read.docker.cert_path = path("DOCKER_CERT_PATH")?;
        read.docker.tls = path("DOCKER_TLS_VERIFY")?.is_some();
        read.docker.container_host = text("CONTAINER_HOST")?;
        let settings = podkit::settings::Settings::read(&Given::default(), &read);
        settings.map(Self).map_err(|error| raised(py, &error))
    }

    /// Name of the engine, where one is named.
    #[getter]
    fn backend(&self) -> Option<&str> {
        self.0.backend.as_deref()
    }

    #[getter]
    fn prefix(&self) -> &str {
        self.0.prefix.as_str()
    }

    /// User of a session that is given without one.
    #[getter]
    fn user(&self) -> &str {
        &self.0.user
    }

    #[getter]
    fn audit(&self) -> Option<PathBuf> {
        self.0.audit.clone()
    }

    /// What new sessions are like where nothing else is said, as JSON.
    #[getter]
    fn spec(&self, py: Python<'_>) -> PyResult<String> {
        json(py, &self.0.spec)
    }
}
