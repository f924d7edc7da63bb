//! A background process.

use podkit::{LogStream, TerminalSize};
use pyo3::{prelude::*, types::PyBytes};

use crate::{
    call::{Call, Owned},
    convert,
    request::seconds,
    stream::{Logs, Running},
};

/// A process in the background.
#[pyclass(frozen)]
pub(crate) struct Process(pub(crate) Owned<podkit::Process>);

impl Process {
    fn get(&self, py: Python<'_>) -> PyResult<podkit::Process> {
        Ok(self.0.get(py)?.clone())
    }
}

fn told(work: impl Future<Output = podkit::Result<podkit::ProcessInfo>> + Send + 'static) -> Call {
    Call::new(work, |py, info| {
        Ok(convert::process(py, &info)?.into_any().unbind())
    })
}

#[pymethods]
impl Process {
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.0.get(py)?.id().to_owned())
    }

    fn info(&self, py: Python<'_>) -> PyResult<Call> {
        let process = self.get(py)?;
        Ok(told(async move { process.info().await }))
    }

    fn wait(&self, py: Python<'_>) -> PyResult<Call> {
        let process = self.get(py)?;
        Ok(told(async move { process.wait().await }))
    }

    fn stop(&self, py: Python<'_>, grace: f64) -> PyResult<Call> {
        let (process, grace) = (self.get(py)?, seconds(py, grace)?);
        Ok(told(async move { process.stop(grace).await }))
    }

    fn signal(&self, py: Python<'_>, number: i32) -> PyResult<Call> {
        let process = self.get(py)?;
        Ok(Call::done(async move { process.signal(number).await }))
    }

    fn kill(&self, py: Python<'_>) -> PyResult<Call> {
        let process = self.get(py)?;
        Ok(Call::done(async move { process.kill().await }))
    }

    fn forget(&self, py: Python<'_>) -> PyResult<Call> {
        let process = self.get(py)?;
        Ok(Call::done(async move { process.forget().await }))
    }

    fn set_keep_alive(&self, py: Python<'_>, keep: bool) -> PyResult<Call> {
        let process = self.get(py)?;
        Ok(Call::done(
            async move { process.set_keep_alive(keep).await },
        ))
    }

    /// Joins in with a process that has a terminal; letting go of it leaves the process as it is.
    #[pyo3(signature = (size = None))]
    fn attach(&self, py: Python<'_>, size: Option<(u16, u16)>) -> PyResult<Call> {
        let process = self.get(py)?;
        let size = size.map(|(rows, columns)| TerminalSize::new(rows, columns));
        Ok(Call::new(
            async move { process.attach(size).await },
            |py, handle| Ok(Py::new(py, Running::new(py, handle)?)?.into_any()),
        ))
    }

    fn wait_for_log(&self, py: Python<'_>, text: String, limit: f64) -> PyResult<Call> {
        let (process, limit) = (self.get(py)?, seconds(py, limit)?);
        let work = async move { process.wait_for_log(&text, limit).await };
        Ok(Call::new(work, |py, line| {
            Ok(line.into_pyobject(py)?.into_any().unbind())
        }))
    }

    /// Its log so far, as pairs of the stream's name and bytes.
    #[pyo3(signature = (*, tail = None, only = None))]
    fn logs(&self, py: Python<'_>, tail: Option<u64>, only: Option<&str>) -> PyResult<Call> {
        let logs = query(&self.get(py)?, tail, only);
        Ok(Call::new(async move { logs.await }, |py, chunks| {
            let chunks: Vec<_> = chunks
                .iter()
                .map(|chunk| (stream_name(chunk.stream), PyBytes::new(py, &chunk.bytes)))
                .collect();
            Ok(chunks.into_pyobject(py)?.unbind())
        }))
    }

    /// Its log as it comes, until it has ended.
    #[pyo3(signature = (*, tail = None, only = None))]
    fn follow(&self, py: Python<'_>, tail: Option<u64>, only: Option<&str>) -> PyResult<Call> {
        let logs = query(&self.get(py)?, tail, only).follow();
        Ok(Call::new(
            async move { logs.stream().await },
            |py, events| Ok(Py::new(py, Logs::new(events))?.into_any()),
        ))
    }
}

fn query(process: &podkit::Process, tail: Option<u64>, only: Option<&str>) -> podkit::Logs {
    let mut logs = process.logs();
    if let Some(lines) = tail {
        logs = logs.tail(lines);
    }
    match only {
        Some("stderr") => logs.only(LogStream::Stderr),
        Some(_) => logs.only(LogStream::Stdout),
        None => logs,
    }
}

pub(crate) const fn stream_name(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    }
}
