//! The library's errors as exceptions of `podkit.errors`.

use std::error::Error as _;

use podkit::Error;
use pyo3::{
    prelude::*,
    types::{PyModule, PyTuple},
};

/// The exception for an error: its class is Python's choice, by the kind.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    match exception(py, error) {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

/// The exception itself.
pub(crate) fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    let cleanup = error
        .cleanup()
        .iter()
        .map(|failure| exception(py, failure))
        .collect::<PyResult<Vec<_>>>()?;
    let arguments = (
        error.kind().as_str(),
        text,
        error.message(),
        error.hint(),
        error.operation(),
        error.container().map(podkit::ContainerId::as_str),
        PyTuple::new(py, cleanup)?,
        error.is_retryable(),
    );
    PyModule::import(py, "podkit.errors")?
        .getattr("_from_native")?
        .call1(arguments)
}
