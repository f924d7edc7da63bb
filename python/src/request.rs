//! What a command is run with.

use std::time::Duration;

use podkit::{
    Device, Error, ErrorKind, ExecRequest, Gpus, Mount, Network, Port, PullPolicy, Stdin,
    TerminalSize, Ulimit,
};
use pyo3::{prelude::*, types::PyBytes};
use serde::Serialize;

use crate::failure::raised;

/// A command and its options.
#[pyclass(frozen)]
pub(crate) struct Request(pub(crate) ExecRequest);

#[pymethods]
impl Request {
    #[new]
    #[pyo3(signature = (argv, *, env = Vec::new(), cwd = None, user = None, stdin = None,
        stdin_stream = false, timeout = None, output_limit = None, merge_output = false,
        detached = false, terminal = None))]
    #[expect(
        clippy::too_many_arguments,
        clippy::needless_pass_by_value,
        reason = "they are named in Python, where this is one call, and made for it"
    )]
    fn new(
        py: Python<'_>,
        argv: Vec<Bound<'_, PyBytes>>,
        env: Vec<(String, String)>,
        cwd: Option<String>,
        user: Option<String>,
        stdin: Option<&[u8]>,
        stdin_stream: bool,
        timeout: Option<f64>,
        output_limit: Option<u64>,
        merge_output: bool,
        detached: bool,
        terminal: Option<(u16, u16)>,
    ) -> PyResult<Self> {
        let mut request = ExecRequest::new(argv.iter().map(|word| word.as_bytes()));
        request.env = env;
        request.cwd = cwd;
        request.user = user;
        request.stdin = match stdin {
            Some(bytes) => Stdin::Bytes(bytes::Bytes::copy_from_slice(bytes)),
            None if stdin_stream => Stdin::Stream,
            None => Stdin::None,
        };
        request.timeout = timeout.map(|time| seconds(py, time)).transpose()?;
        request.output_limit_bytes = output_limit;
        request.merge_output = merge_output;
        request.detached = detached;
        request.terminal = terminal.map(|(rows, columns)| TerminalSize::new(rows, columns));
        request.check().map_err(|error| raised(py, &error))?;
        Ok(Self(request))
    }
}

/// A length of time that Python gives in seconds.
pub(crate) fn seconds(py: Python<'_>, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        let text = format!("{seconds} is not a length of time in seconds");
        raised(py, &Error::invalid_input(text))
    })
}

pub(crate) fn json(py: Python<'_>, value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| {
        let error = Error::new(ErrorKind::Unexpected, "it cannot be written").with_source(error);
        raised(py, &error)
    })
}

/// A part of a configuration as the command line writes it, as JSON.
#[pyfunction]
pub(crate) fn parse(py: Python<'_>, what: &str, text: &str) -> PyResult<String> {
    fn read<T: Serialize>(py: Python<'_>, parsed: podkit::Result<T>) -> PyResult<String> {
        json(py, &parsed.map_err(|error| raised(py, &error))?)
    }
    match what {
        "device" => read(py, Device::parse(text)),
        "gpus" => read(py, Gpus::parse(text)),
        "mount" => read(py, Mount::parse(text)),
        "network" => read(py, Network::parse(text)),
        "port" => read(py, Port::parse(text)),
        "pull" => read(py, PullPolicy::parse(text)),
        "ulimit" => read(py, Ulimit::parse(text)),
        other => {
            let text = format!("`{other}` is not a part of a configuration");
            Err(raised(py, &Error::invalid_input(text)))
        }
    }
}
