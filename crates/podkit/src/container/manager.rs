//! The only caller of a backend: deadlines, retries, spans and error context, in one place.

use std::{
    collections::{BTreeMap, HashMap, hash_map::RandomState},
    fmt,
    future::Future,
    hash::BuildHasher,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};
use tracing::{Instrument, debug, debug_span};

use super::{
    Deadlines,
    images::{PullObserver, is_id},
    links::{Link, most_links},
    resolve,
};
use crate::{
    backend::{BackendRef, Capabilities, ContainerInfo, ContainerSpec, SweepReport},
    config::{Image, PullPolicy, SessionSpec},
    error::{Error, ErrorKind, Result},
    id::ContainerId,
    sync::Lock,
};

/// Most containers that are made at the same time.
const PARALLEL_CREATES: usize = 64;

/// Most attempts of an idempotent call, within its one deadline.
const ATTEMPTS: u32 = 3;

/// Runs containers on one engine. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct ContainerManager(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) backend: BackendRef,
    pub(super) deadlines: Deadlines,
    creates: Semaphore,
    pub(super) links: Lock<HashMap<ContainerId, Arc<Link>>>,
    pub(super) most_links: AtomicUsize,
    pub(super) observer: Lock<Option<PullObserver>>,
}

/// Whether a call may be repeated after a failure that may pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Never,
    Idempotent,
}

impl ContainerManager {
    /// Runs containers on `backend`, with the documented [`Deadlines`].
    #[must_use]
    pub fn new(backend: BackendRef) -> Self {
        Self::with_deadlines(backend, Deadlines::default())
    }

    /// Runs containers on `backend`, with these deadlines.
    #[must_use]
    pub fn with_deadlines(backend: BackendRef, deadlines: Deadlines) -> Self {
        Self(Arc::new(Inner {
            backend,
            deadlines,
            creates: Semaphore::new(PARALLEL_CREATES),
            links: Lock::default(),
            most_links: AtomicUsize::new(most_links()),
            observer: Lock::default(),
        }))
    }

    /// Name of the engine, such as `embedded`.
    #[must_use]
    pub fn backend_name(&self) -> &'static str {
        self.0.backend.name()
    }

    /// What the engine can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.0.backend.capabilities()
    }

    /// The deadlines that every call has.
    #[must_use]
    pub fn deadlines(&self) -> &Deadlines {
        &self.0.deadlines
    }

    /// Checks a wish against what the engine can do; nothing is made.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported`, naming the field.
    pub fn check(&self, spec: &SessionSpec) -> Result<()> {
        resolve::check(spec, &self.capabilities())
    }

    /// Turns a wish into a complete order for this engine.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported`, naming the field.
    pub fn resolve(&self, request: &super::ContainerRequest) -> Result<ContainerSpec> {
        resolve::resolve(request, &self.capabilities())
    }

    /// Asks the engine whether it is there.
    ///
    /// # Errors
    /// `Unavailable` or `TimedOut`.
    pub async fn ping(&self) -> Result<()> {
        let backend = &self.0.backend;
        let deadline = self.0.deadlines.ping;
        self.call(
            "reach the engine",
            None,
            deadline,
            Repeat::Idempotent,
            || backend.ping(),
        )
        .await
    }

    /// Creates a stopped container. Its image is fetched as the order says; making the container is
    /// never repeated.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; `ImageNotFound`; whatever keeps the engine from making
    /// it.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing, or a container that carries its labels.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        let inner = &self.0;
        if spec.pull == PullPolicy::Always {
            self.fetch(spec).await?;
        }
        match self.create_once(spec).await {
            Err(error) if error.kind() == ErrorKind::ImageNotFound => match spec.pull {
                PullPolicy::Missing if fetchable(spec) && inner.backend.images().is_some() => {
                    self.fetch(spec).await?;
                    self.create_once(spec).await
                }
                PullPolicy::Missing | PullPolicy::Always => Err(error),
                PullPolicy::Never => Err(error.with_hint(
                    "fetch it with `podkit image pull`, or allow that with the policy `missing`",
                )),
            },
            result => result,
        }
    }

    async fn create_once(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        let inner = &self.0;
        let _permit = inner.creates.acquire().await;
        let once = || inner.backend.create(spec);
        let deadline = inner.deadlines.create;
        self.call(
            "create container",
            Some(&spec.name),
            deadline,
            Repeat::Never,
            once,
        )
        .await
    }

    /// Starts a created or exited container; succeeds when it runs already.
    ///
    /// # Errors
    /// `NotFound`, or whatever keeps the engine from starting it.
    pub async fn start(&self, id: &ContainerId) -> Result<()> {
        let inner = &self.0;
        let (deadline, once) = (inner.deadlines.start, || inner.backend.start(id));
        self.call(
            "start container",
            Some(id),
            deadline,
            Repeat::Idempotent,
            once,
        )
        .await
    }

    /// Asks a container to stop, and kills it once `grace` has passed.
    ///
    /// # Errors
    /// `NotFound`, or whatever keeps the engine from stopping it.
    pub async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let inner = &self.0;
        let deadline = inner.deadlines.stop.saturating_add(grace);
        let once = || inner.backend.stop(id, grace);
        self.call(
            "stop container",
            Some(id),
            deadline,
            Repeat::Idempotent,
            once,
        )
        .await?;
        self.forget(id);
        Ok(())
    }

    /// Kills a container and deletes it with its storage; succeeds when it is gone already.
    ///
    /// # Errors
    /// Whatever keeps the engine from removing it.
    pub async fn remove(&self, id: &ContainerId) -> Result<()> {
        let inner = &self.0;
        let (deadline, once) = (inner.deadlines.remove, || inner.backend.remove(id));
        self.call(
            "remove container",
            Some(id),
            deadline,
            Repeat::Idempotent,
            once,
        )
        .await?;
        self.forget(id);
        Ok(())
    }

    /// Looks one container up by name or id: one call, whatever else the engine runs.
    ///
    /// # Errors
    /// `Unavailable` or `TimedOut`. A container that is not there is `None`.
    pub async fn find(&self, id: &ContainerId) -> Result<Option<ContainerInfo>> {
        match self.inspect(id).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the engine knows of a container.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable` or `TimedOut`.
    pub async fn inspect(&self, id: &ContainerId) -> Result<ContainerInfo> {
        let inner = &self.0;
        let (deadline, once) = (inner.deadlines.inspect, || inner.backend.inspect(id));
        self.call(
            "inspect container",
            Some(id),
            deadline,
            Repeat::Idempotent,
            once,
        )
        .await
    }

    /// Lists the containers that carry all of `labels`, in any state.
    ///
    /// # Errors
    /// `Unavailable` or `TimedOut`.
    pub async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerInfo>> {
        let inner = &self.0;
        let (deadline, once) = (inner.deadlines.list, || inner.backend.list(labels));
        self.call("list containers", None, deadline, Repeat::Idempotent, once)
            .await
    }

    /// Removes what crashed callers left: half-made containers older than `min_age`, storage.
    ///
    /// # Errors
    /// Whatever keeps the engine from looking; what it could not remove is in the report.
    pub async fn sweep(&self, min_age: Duration) -> Result<SweepReport> {
        let inner = &self.0;
        let (deadline, once) = (inner.deadlines.sweep, || inner.backend.sweep(min_age));
        self.call("sweep", None, deadline, Repeat::Idempotent, once)
            .await
    }

    /// One engine call: its deadline, span and error context; repeated where that is harmless.
    pub(super) async fn call<T, F>(
        &self,
        operation: &'static str,
        id: Option<&ContainerId>,
        deadline: Duration,
        repeat: Repeat,
        once: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let span = debug_span!(
            "podkit.call",
            backend = self.backend_name(),
            operation,
            container.id = id.map(ContainerId::as_str)
        );
        let attempts = async {
            let (begin, mut attempt) = (Instant::now(), 1);
            loop {
                let error = match timeout_at(begin + deadline, once()).await {
                    Ok(Ok(value)) => {
                        debug!(attempt, elapsed_us = begin.elapsed().as_micros(), "done");
                        return Ok(value);
                    }
                    Ok(Err(error)) => error,
                    Err(_) => Error::new(
                        ErrorKind::TimedOut,
                        format!("the engine did not answer within {deadline:?}"),
                    ),
                };
                debug!(attempt, kind = error.kind().as_str(), "failed");
                let pause = jittered(Duration::from_millis(20) * 4_u32.pow(attempt - 1));
                let in_time = begin.elapsed() + pause < deadline;
                if repeat == Repeat::Never
                    || attempt == ATTEMPTS
                    || !error.is_retryable()
                    || !in_time
                {
                    return Err(error);
                }
                attempt += 1;
                sleep(pause).await;
            }
        };
        attempts.instrument(span).await.map_err(|error| {
            let error = error.with_operation(operation);
            match id {
                Some(id) => error.with_container(id),
                None => error,
            }
        })
    }
}

/// Whether a registry may have what an order is made from.
fn fetchable(spec: &ContainerSpec) -> bool {
    !matches!(&spec.image, Image::Reference(name) if is_id(name))
}

/// Between half of `pause` and one and a half of it, so that callers do not march in step.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 1000;
    pause / 2 + pause.mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 1000.0)
}

impl fmt::Debug for ContainerManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ContainerManager")
            .field(&self.0.backend)
            .finish()
    }
}
