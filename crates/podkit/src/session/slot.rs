//! What this process knows of one session: a cache, never the truth.

use std::{sync::Arc, time::Duration};

use tokio::sync::Mutex;

use crate::{
    agent::AgentClient,
    config::SessionSpec,
    container::inside_workspace,
    error::{Error, ErrorKind, Result},
    id::{ContainerId, SessionKey},
    sync::Lock,
};

/// One session in this process.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: SessionKey,
    /// The container's name.
    pub(super) name: ContainerId,
    /// Held by whoever opens, closes or restarts this session; nobody else waits for it.
    pub(super) gate: Mutex<()>,
    state: Lock<State>,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Arc<Live>>,
    /// The last configuration, so that a container that vanished is made again as it was.
    known: Option<Arc<SessionSpec>>,
    /// Whether this process has paused or stopped it, or let it expire: no watcher wakes it.
    resting: bool,
    /// Counts the closings by this process: a handle from before one is closed.
    closings: u64,
}

/// A container that was running when it was last heard of.
pub(super) struct Live {
    pub(super) container: ContainerId,
    pub(super) client: AgentClient,
    pub(super) spec: Arc<SessionSpec>,
    pub(super) config_lost: bool,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("container", &self.container)
            .finish_non_exhaustive()
    }
}

impl Live {
    /// Whether its agent can still be asked.
    pub(super) fn is_usable(&self) -> bool {
        self.client.is_open() && self.client.closing().is_none()
    }

    /// Timeout of an exec that has none of its own.
    pub(super) fn exec_timeout(&self) -> Option<Duration> {
        self.spec
            .exec_timeout
            .and_then(crate::config::Limit::duration)
    }

    /// A path of the caller's as the agent takes it.
    pub(super) fn path(path: &str) -> Result<String> {
        if path.is_empty() || path.contains('\0') {
            return Err(Error::invalid_input(
                "the path is empty or contains a NUL byte",
            ));
        }
        Ok(inside_workspace(path))
    }
}

impl Slot {
    pub(super) fn new(key: SessionKey, name: ContainerId) -> Self {
        Self {
            key,
            name,
            gate: Mutex::new(()),
            state: Lock::default(),
        }
    }

    pub(super) fn closings(&self) -> u64 {
        self.state.lock().closings
    }

    /// The running container, for a handle that was made after so many closings.
    ///
    /// # Errors
    /// `ContainerGone` when the session was closed since, by this process.
    pub(super) fn live(&self, closings: u64) -> Result<Option<Arc<Live>>> {
        let state = self.state.lock();
        if state.closings != closings {
            return Err(
                Error::new(ErrorKind::ContainerGone, "the session was closed")
                    .with_container(&self.name)
                    .with_hint("open the session again"),
            );
        }
        Ok(state
            .live
            .as_ref()
            .filter(|live| live.is_usable())
            .map(Arc::clone))
    }

    pub(super) fn known(&self) -> Option<Arc<SessionSpec>> {
        self.state.lock().known.clone()
    }

    pub(super) fn set_live(&self, live: Arc<Live>) {
        let mut state = self.state.lock();
        state.known = Some(Arc::clone(&live.spec));
        state.live = Some(live);
        state.resting = false;
    }

    /// Forgets a container that turned out to be gone, unless another one has taken its place.
    pub(super) fn unset_live(&self, live: &Arc<Live>) {
        let mut state = self.state.lock();
        if state
            .live
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, live))
        {
            state.live = None;
        }
    }

    pub(super) fn set_resting(&self, resting: bool) {
        self.state.lock().resting = resting;
    }

    pub(super) fn is_resting(&self) -> bool {
        self.state.lock().resting
    }

    /// Forgets the container after somebody stopped it.
    pub(super) fn stopped(&self) {
        self.state.lock().live = None;
    }

    /// Forgets everything: the handles that there are now are closed.
    pub(super) fn closed(&self) {
        let mut state = self.state.lock();
        state.closings += 1;
        (state.live, state.known, state.resting) = (None, None, false);
    }

    /// Whether nothing would be lost with this slot.
    pub(super) fn is_idle(&self) -> bool {
        self.state
            .lock()
            .live
            .as_ref()
            .is_none_or(|live| !live.is_usable())
    }
}
