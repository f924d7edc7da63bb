//! The engine.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{error::Result, facts::Facts, machine::Machine, options::RuntimeOptions, store::Store};

/// The embedded engine: makes, starts, stops and removes containers of one state directory.
///
/// Any number of processes may work on one state directory at once. All methods but `create` are
/// idempotent. They stand in the module of what they do: `create`, `start`, `stop`, `inspect`,
/// `sweep`, `checks`.
#[derive(Debug)]
pub struct Runtime {
    pub(crate) options: RuntimeOptions,
    pub(crate) store: Store,
    machine: Mutex<Option<Arc<Machine>>>,
}

impl Runtime {
    /// Opens the engine, makes its directories when they are missing, and removes what crashed
    /// callers left half made.
    ///
    /// # Errors
    /// The directories cannot be made: `PermissionDenied`, `LimitExceeded` (full), `Unavailable`
    /// (read-only).
    pub fn open(options: RuntimeOptions) -> Result<Self> {
        let store = Store::open(&options)?;
        let runtime = Self {
            options,
            store,
            machine: Mutex::new(None),
        };
        runtime.sweep_lightly();
        Ok(runtime)
    }

    /// What holds on this machine. Tried on first use, and remembered until the machine restarts.
    ///
    /// # Errors
    /// Containers cannot work here at all: the cause, and what helps.
    pub fn facts(&self) -> Result<Facts> {
        self.machine().map(|machine| machine.facts.clone())
    }

    /// How the engine was opened.
    #[must_use]
    pub const fn options(&self) -> &RuntimeOptions {
        &self.options
    }

    /// What was found out about this machine; a failure is not remembered.
    pub(crate) fn machine(&self) -> Result<Arc<Machine>> {
        let mut known = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(machine) = &*known {
            return Ok(Arc::clone(machine));
        }
        let machine = Arc::new(Machine::of(self)?);
        *known = Some(Arc::clone(&machine));
        Ok(machine)
    }
}
