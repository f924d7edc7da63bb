//! The native half of the Python package: calls of the library, as objects that Python waits for.
//!
//! Each operation is made once here, as a [`call::Call`]: Python's blocking functions wait for it, and
//! its coroutines begin it and are told of its end. Names, defaults and checks of arguments are
//! Python's (`python/podkit`).
#![forbid(unsafe_code)]

mod call;
mod convert;
mod engine;
mod failure;
mod files;
mod images;
mod podkit;
mod process;
mod request;
mod session;
mod settings;
mod stream;
mod transfer;

/// The module `podkit._native`.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::{
        call::{Begun, Call},
        convert::Output,
        engine::{Engine, Shared, connect, container_name, parse_bytes},
        files::{Files, Watch},
        images::Images,
        podkit::Podkit,
        process::Process,
        request::{Request, parse},
        session::Session,
        settings::Settings,
        stream::{Events, Forward, Logs, Running, Stats},
        transfer::{Sink, Source},
    };
}
