//! Effects of several steps run here, so that a caller who goes away leaves nothing half made.

use std::future::Future;

use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};
use tracing::{Instrument, Span};

use crate::{
    error::{Error, ErrorKind, Result},
    sync::Lock,
};

/// The tasks of one manager.
#[derive(Debug)]
pub(super) struct Tasks {
    set: Lock<JoinSet<()>>,
    stopping: watch::Sender<bool>,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self {
            set: Lock::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Begins a task that nobody waits for.
    ///
    /// # Errors
    /// `Unavailable` after [`shutdown`](Self::shutdown).
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let mut set = self.set.lock();
        if *self.stopping.borrow() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "this `Podkit` was shut down",
            ));
        }
        while set.try_join_next().is_some() {}
        set.spawn(task.instrument(Span::current()));
        Ok(())
    }

    /// Runs a task to its end, also when the returned future is dropped.
    ///
    /// # Errors
    /// The task's own; `Unavailable` after a shutdown; `Unexpected` when it panics.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.spawn(async move {
            // The caller may have gone; the effect is what counts.
            let _gone = sender.send(task.await);
        })?;
        receiver.await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Unexpected,
                "an inner task ended without a result",
            ))
        })
    }

    /// Becomes true when a shutdown begins.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Takes no more tasks and waits for those that there are.
    pub(super) async fn shutdown(&self) {
        self.stopping.send_replace(true);
        let mut set = std::mem::take(&mut *self.set.lock());
        while set.join_next().await.is_some() {}
    }
}
