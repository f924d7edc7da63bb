//! Throw-away sessions that are closed whatever happens.

use std::{collections::hash_map::RandomState, hash::BuildHasher, time::Duration};

use futures::future::{Either, select};
use tokio::sync::oneshot;
use tracing::error;

use super::{
    handle::Session,
    manager::SessionManager,
    open::{Effort, OnConflict, Wish},
};
use crate::{
    config::{Limit, SessionSpec},
    error::Result,
    id::SessionKey,
};

/// User id of throw-away sessions.
const USER: &str = "_scoped";

/// `gc` removes a throw-away session whose process was killed after so much idleness.
pub(crate) const LEFT_BEHIND: Duration = Duration::from_secs(600);

impl SessionManager {
    /// Opens a session of its own, lends it to `body`, and closes it: when the body is done, fails,
    /// panics or is dropped.
    pub(crate) async fn scoped<T>(
        &self,
        spec: SessionSpec,
        body: impl AsyncFnOnce(&Session) -> Result<T>,
    ) -> Result<T> {
        let (key, spec) = (throw_away_key()?, throw_away_spec(spec));
        let (alive, released) = oneshot::channel::<()>();
        let (closed, closing) = oneshot::channel();
        let (manager, owned_key) = (self.clone(), key.clone());
        let mut stopping = self.tasks().stopping();
        self.tasks().spawn(async move {
            // Whichever comes first: the scope ends, or the whole `Podkit` is shut down.
            let shutdown = Box::pin(async move {
                // An error means that the manager is gone, which it is not: this task holds it.
                let _ = stopping.wait_for(|stopping| *stopping).await;
            });
            match select(released, shutdown).await {
                Either::Left(_) | Either::Right(_) => {}
            }
            let report = manager.close_owned(&owned_key).await;
            if let Err(Err(error)) = closed.send(report) {
                error!(%error, "a throw-away session could not be closed");
            }
        })?;
        let wish = Wish::new(spec, OnConflict::Fail, Effort::Create);
        let result = match self.open(&key, wish).await {
            Ok(session) => body(&session).await,
            Err(error) => Err(error),
        };
        drop(alive);
        let ended = closing.await.unwrap_or(Ok(()));
        match (result, ended) {
            (Ok(value), Ok(())) => Ok(value),
            (Ok(_), Err(error)) | (Err(error), Ok(())) => Err(error),
            (Err(error), Err(failure)) => Err(error.with_cleanup(failure)),
        }
    }

    /// Closes from within a task of the manager's own.
    async fn close_owned(&self, key: &SessionKey) -> Result<()> {
        let slot = self.slot(key)?;
        let _gate = slot.gate.lock().await;
        slot.closed();
        let mut failed = self.close_now(&slot).await?.failed.into_iter();
        let Some(first) = failed.next() else {
            return Ok(());
        };
        Err(failed.fold(first, crate::error::Error::with_cleanup))
    }
}

/// A key that nobody else has.
pub(crate) fn throw_away_key() -> Result<SessionKey> {
    SessionKey::new(USER, random_id())
}

/// A wish for a session that `gc` removes by itself if nobody else can any more.
pub(crate) fn throw_away_spec(mut spec: SessionSpec) -> SessionSpec {
    spec.idle_timeout.get_or_insert(Limit::After(LEFT_BEHIND));
    spec
}

/// 128 bits that no two calls share: the hasher's keys are the system's randomness.
pub(super) fn random_id() -> String {
    let bits = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", bits(), bits())
}
