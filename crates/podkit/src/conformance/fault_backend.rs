//! A backend that fails on request, around any other.

use std::{
    collections::BTreeMap,
    fmt, future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{
    ContainerId, Error, ErrorKind, Result,
    backend::{
        AgentStream, Backend, BackendRef, Capabilities, ContainerInfo, ContainerSpec, Limits,
        SweepReport,
        events::{ContainerEvent, Events, Watched},
        images::{ImageInfo, Images, Observer, PullRequest},
        parent::{ParentInfo, Parents},
        stats::ContainerStats,
    },
};

/// A call of the [`Backend`] trait, or of one of its optional parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named as the methods of the trait are")]
pub enum Method {
    Ping,
    Create,
    Start,
    Stop,
    Pause,
    Resume,
    SetLimits,
    Stats,
    Remove,
    Inspect,
    List,
    Connect,
    Logs,
    Sweep,
    Pull,
    ListImages,
    InspectImage,
    RemoveImage,
    ImportImage,
    Watch,
    Parent,
}

impl Method {
    /// Every method.
    pub const ALL: &[Self] = &[
        Self::Ping,
        Self::Create,
        Self::Start,
        Self::Stop,
        Self::Pause,
        Self::Resume,
        Self::SetLimits,
        Self::Stats,
        Self::Remove,
        Self::Inspect,
        Self::List,
        Self::Connect,
        Self::Logs,
        Self::Sweep,
        Self::Pull,
        Self::ListImages,
        Self::InspectImage,
        Self::RemoveImage,
        Self::ImportImage,
        Self::Watch,
        Self::Parent,
    ];
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has no effect.
    Fail(ErrorKind),
    /// It has its effect, and the answer is an error: a reply that was lost.
    FailAfter(ErrorKind),
    /// It never ends and has no effect: the caller's deadline drops it.
    Hang,
    /// It has its effect and never ends.
    HangAfter,
}

/// When something goes wrong.
#[derive(Clone, Copy, Debug)]
struct Plan {
    method: Method,
    /// Calls of the method that still go well.
    after: u32,
    /// Calls that go wrong then.
    times: u32,
    fault: Fault,
}

/// Wraps a backend and lets chosen calls go wrong; all others pass.
pub struct FaultBackend {
    inner: BackendRef,
    plans: Mutex<Vec<Plan>>,
    fired: Mutex<BTreeMap<Method, u32>>,
}

impl fmt::Debug for FaultBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultBackend({:?})", self.inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultBackend {
    /// Wraps a backend; nothing goes wrong yet.
    #[must_use]
    pub fn new(inner: BackendRef) -> Arc<Self> {
        Arc::new(Self {
            inner,
            plans: Mutex::default(),
            fired: Mutex::default(),
        })
    }

    /// Lets `times` calls of `method` go wrong, after `after` more that go well.
    pub fn inject(&self, method: Method, after: u32, times: u32, fault: Fault) {
        lock(&self.plans).push(Plan {
            method,
            after,
            times,
            fault,
        });
    }

    /// Forgets what was to go wrong.
    pub fn heal(&self) {
        lock(&self.plans).clear();
    }

    /// How many calls of `method` went wrong.
    #[must_use]
    pub fn fired(&self, method: Method) -> u32 {
        lock(&self.fired).get(&method).copied().unwrap_or_default()
    }

    /// The fault of this call, if it has one.
    fn fault(&self, method: Method) -> Option<Fault> {
        let mut plans = lock(&self.plans);
        let plan = plans
            .iter_mut()
            .find(|plan| plan.method == method && plan.times > 0)?;
        if plan.after > 0 {
            plan.after -= 1;
            return None;
        }
        plan.times -= 1;
        *lock(&self.fired).entry(method).or_default() += 1;
        Some(plan.fault)
    }

    async fn pass<T: Send>(
        &self,
        method: Method,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let error = |kind| Error::new(kind, format!("injected into {method:?}"));
        match self.fault(method) {
            None => call.await,
            Some(Fault::Fail(kind)) => Err(error(kind)),
            Some(Fault::FailAfter(kind)) => {
                call.await?;
                Err(error(kind))
            }
            Some(Fault::Hang) => future::pending().await,
            Some(Fault::HangAfter) => {
                call.await?;
                future::pending().await
            }
        }
    }
}

#[async_trait]
impl Backend for FaultBackend {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn ping(&self) -> Result<()> {
        self.pass(Method::Ping, self.inner.ping()).await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        self.pass(Method::Create, self.inner.create(spec)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<()> {
        self.pass(Method::Start, self.inner.start(id)).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        self.pass(Method::Stop, self.inner.stop(id, grace)).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.pass(Method::Pause, self.inner.pause(id)).await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.pass(Method::Resume, self.inner.resume(id)).await
    }

    async fn set_limits(&self, id: &ContainerId, limits: Limits) -> Result<()> {
        self.pass(Method::SetLimits, self.inner.set_limits(id, limits))
            .await
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats> {
        self.pass(Method::Stats, self.inner.stats(id)).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<()> {
        self.pass(Method::Remove, self.inner.remove(id)).await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerInfo> {
        self.pass(Method::Inspect, self.inner.inspect(id)).await
    }

    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerInfo>> {
        self.pass(Method::List, self.inner.list(labels)).await
    }

    async fn connect(&self, id: &ContainerId) -> Result<AgentStream> {
        self.pass(Method::Connect, self.inner.connect(id)).await
    }

    async fn logs(&self, id: &ContainerId, tail_bytes: u64) -> Result<Vec<u8>> {
        self.pass(Method::Logs, self.inner.logs(id, tail_bytes))
            .await
    }

    async fn sweep(&self, min_age: Duration) -> Result<SweepReport> {
        self.pass(Method::Sweep, self.inner.sweep(min_age)).await
    }

    fn images(&self) -> Option<&dyn Images> {
        self.inner.images().map(|_| self as &dyn Images)
    }

    fn events(&self) -> Option<&dyn Events> {
        self.inner.events().map(|_| self as &dyn Events)
    }

    fn parents(&self) -> Option<&dyn Parents> {
        self.inner.parents().map(|_| self as &dyn Parents)
    }
}

/// A part that was offered because the inner engine has it.
fn part<T: ?Sized>(part: Option<&T>) -> Result<&T> {
    part.ok_or_else(|| Error::unsupported("the engine has lost a part of itself"))
}

#[async_trait]
impl Images for FaultBackend {
    async fn pull(&self, request: &PullRequest, tell: &Observer<'_>) -> Result<()> {
        let images = part(self.inner.images())?;
        self.pass(Method::Pull, images.pull(request, tell)).await
    }

    async fn list(&self) -> Result<Vec<ImageInfo>> {
        let images = part(self.inner.images())?;
        self.pass(Method::ListImages, images.list()).await
    }

    async fn inspect(&self, name: &str) -> Result<ImageInfo> {
        let images = part(self.inner.images())?;
        self.pass(Method::InspectImage, images.inspect(name)).await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let images = part(self.inner.images())?;
        self.pass(Method::RemoveImage, images.remove(name)).await
    }

    async fn import(
        &self,
        name: &str,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<()> {
        let images = part(self.inner.images())?;
        self.pass(Method::ImportImage, images.import(name, archive))
            .await
    }
}

#[async_trait]
impl Events for FaultBackend {
    async fn watch(
        &self,
        about: &Watched,
        since: SystemTime,
    ) -> Result<BoxStream<'static, Result<ContainerEvent>>> {
        let events = part(self.inner.events())?;
        self.pass(Method::Watch, events.watch(about, since)).await
    }
}

#[async_trait]
impl Parents for FaultBackend {
    async fn parent(&self) -> Result<Option<ParentInfo>> {
        let parents = part(self.inner.parents())?;
        self.pass(Method::Parent, parents.parent()).await
    }
}
