//! A lock that a panic elsewhere cannot take away.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A mutex without poisoning: what it guards is replaced as a whole, so that a panic in between
/// leaves the old or the new value.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    /// Guards `value`.
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Locks; never across an `await`.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
