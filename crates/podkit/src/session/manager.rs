//! The sessions of one prefix on one engine.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
};

use tokio::sync::watch;

use super::{slot::Slot, tasks::Tasks};
use crate::{
    config::Mount,
    config::SessionSpec,
    container::{
        BackendRef, ContainerManager, Deadlines, MountContext, MountStrategy, prepare_mounts,
    },
    error::{Error, ErrorKind, Result},
    event::EventBus,
    id::{ContainerId, Prefix, SessionKey},
    sync::Lock,
};

/// Slots are looked through for idle ones when there are so many of them.
const SLOTS_BEFORE_PRUNING: usize = 64;

/// Opens, closes, lists and expires sessions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SessionManager {
    inner: Arc<Inner>,
    /// Ends with the last one whom a user has: whoever watches over sessions holds none.
    user: Option<Arc<watch::Sender<()>>>,
}

pub(super) struct Inner {
    containers: ContainerManager,
    prefix: Prefix,
    defaults: SessionSpec,
    strategy: Arc<dyn MountStrategy>,
    slots: Lock<HashMap<SessionKey, Arc<Slot>>>,
    tasks: Tasks,
    events: EventBus,
}

impl SessionManager {
    pub(crate) fn new(
        backend: BackendRef,
        deadlines: Deadlines,
        prefix: Prefix,
        defaults: SessionSpec,
        strategy: Arc<dyn MountStrategy>,
        events: EventBus,
    ) -> Self {
        let inner = Inner {
            containers: ContainerManager::with_deadlines(backend, deadlines),
            prefix,
            defaults,
            strategy,
            slots: Lock::default(),
            tasks: Tasks::new(),
            events,
        };
        Self {
            inner: Arc::new(inner),
            user: Some(Arc::new(watch::Sender::new(()))),
        }
    }

    /// Waits until no user has it any more, whatever goes on.
    pub(super) fn abandoned(&self) -> impl Future<Output = ()> + Send + use<> {
        let user = self.user.as_ref().map(|user| user.subscribe());
        async move {
            if let Some(mut user) = user {
                while user.changed().await.is_ok() {}
            }
        }
    }

    /// For one who must not keep it.
    pub(super) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    pub(super) const fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner, user: None }
    }

    /// The sessions that this process has opened and not closed.
    pub(super) fn known_slots(&self) -> Vec<Arc<Slot>> {
        let slots = self.inner.slots.lock();
        let known = slots.values().filter(|slot| slot.known().is_some());
        known.cloned().collect()
    }

    pub(crate) fn containers(&self) -> &ContainerManager {
        &self.inner.containers
    }

    pub(crate) fn prefix(&self) -> &Prefix {
        &self.inner.prefix
    }

    pub(super) fn defaults(&self) -> &SessionSpec {
        &self.inner.defaults
    }

    pub(super) fn strategy(&self) -> &dyn MountStrategy {
        &*self.inner.strategy
    }

    pub(crate) fn events(&self) -> &EventBus {
        &self.inner.events
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    /// Takes no more work and waits for what has begun. Containers stay as they are.
    pub(crate) async fn shutdown(&self) {
        self.inner.tasks.shutdown().await;
        self.inner.events.flush().await;
        self.inner.slots.lock().clear();
    }

    /// What this process knows of a session.
    pub(super) fn slot(&self, key: &SessionKey) -> Result<Arc<Slot>> {
        let mut slots = self.inner.slots.lock();
        if let Some(slot) = slots.get(key) {
            return Ok(Arc::clone(slot));
        }
        if slots.len() >= SLOTS_BEFORE_PRUNING && slots.len().is_power_of_two() {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || !slot.is_idle());
        }
        let name = ContainerId::new(key.container_name(&self.inner.prefix))?;
        let slot = Arc::new(Slot::new(key.clone(), name));
        slots.insert(key.clone(), Arc::clone(&slot));
        Ok(slot)
    }

    /// Asks the strategy for the session's mounts and checks the sources of all others.
    pub(super) async fn mounts(&self, key: &SessionKey, spec: &SessionSpec) -> Result<Vec<Mount>> {
        let sources_are_here = self.inner.containers.capabilities().local_images;
        let (key, spec) = (key.clone(), spec.clone());
        let strategy = Arc::clone(&self.inner.strategy);
        let prepare = move || {
            let context = MountContext::new(key.user().as_str(), key.session().as_str(), &spec);
            prepare_mounts(&*strategy, &context, sources_are_here)
        };
        tokio::task::spawn_blocking(prepare)
            .await
            .unwrap_or_else(|error| {
                Err(
                    Error::new(ErrorKind::Unexpected, "the mount strategy panicked")
                        .with_source(error),
                )
            })
    }
}

impl fmt::Debug for SessionManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionManager")
            .field("containers", &self.inner.containers)
            .field("prefix", &self.inner.prefix)
            .finish_non_exhaustive()
    }
}
