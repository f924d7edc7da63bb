//! An engine that counts its calls and goes wrong on request.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use podkit::{
    ContainerId, Error, ErrorKind, Podkit, PodkitBuilder, Result,
    backend::{
        AgentStream, Backend, BackendRef, Capabilities, ContainerInfo, ContainerSpec, Limits,
        SweepReport, memory::MemoryBackend, stats::ContainerStats,
    },
};
use tokio::io::{AsyncRead, ReadBuf};

type Fault = Box<dyn FnMut(&str) -> Option<Error> + Send>;
type Edit = Box<dyn FnMut(&mut ContainerInfo) + Send>;

/// The memory engine, watched.
pub(crate) struct Engine {
    inner: BackendRef,
    calls: Mutex<BTreeMap<&'static str, usize>>,
    fault: Mutex<Option<Fault>>,
    edit: Mutex<Option<Edit>>,
    hanging: AtomicUsize,
    /// How often all connections were cut.
    cuts: Arc<AtomicUsize>,
}

/// A connection's reading half, which ends with the next byte once all connections are cut.
struct Cut<R> {
    inner: R,
    cuts: Arc<AtomicUsize>,
    made_after: usize,
}

impl<R: AsyncRead + Unpin> AsyncRead for Cut<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if self.cuts.load(Ordering::SeqCst) > self.made_after {
            buffer.set_filled(filled);
        }
        read
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryBackend::shared(),
            calls: Mutex::default(),
            fault: Mutex::default(),
            edit: Mutex::default(),
            hanging: AtomicUsize::new(0),
            cuts: Arc::default(),
        })
    }

    /// A builder of a front door of its own, as another process has one.
    pub(crate) fn builder(self: &Arc<Self>) -> PodkitBuilder {
        Podkit::builder().engine(Arc::clone(self) as BackendRef)
    }

    pub(crate) async fn podkit(self: &Arc<Self>) -> Podkit {
        self.builder().build().await.unwrap()
    }

    /// Calls of one kind since the last [`reset`](Self::reset).
    pub(crate) fn count(&self, call: &str) -> usize {
        self.calls.lock().unwrap().get(call).copied().unwrap_or(0)
    }

    /// All calls since the last [`reset`](Self::reset).
    pub(crate) fn total(&self) -> usize {
        self.calls.lock().unwrap().values().sum()
    }

    pub(crate) fn reset(&self) {
        self.calls.lock().unwrap().clear();
    }

    /// Asks this before every call, by its name.
    pub(crate) fn set_fault(&self, fault: impl FnMut(&str) -> Option<Error> + Send + 'static) {
        *self.fault.lock().unwrap() = Some(Box::new(fault));
    }

    /// Lets one kind of call fail every time.
    pub(crate) fn fail(&self, call: &'static str, kind: ErrorKind) {
        self.set_fault(move |name| (name == call).then(|| Error::new(kind, "injected")));
    }

    /// Changes what look-ups say.
    pub(crate) fn set_edit(&self, edit: impl FnMut(&mut ContainerInfo) + Send + 'static) {
        *self.edit.lock().unwrap() = Some(Box::new(edit));
    }

    /// Lets everything work again.
    pub(crate) fn heal(&self) {
        *self.fault.lock().unwrap() = None;
        *self.edit.lock().unwrap() = None;
        self.hanging.store(0, Ordering::SeqCst);
    }

    /// Cuts every connection that is there when something comes on it.
    pub(crate) fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
    }

    /// Lets every look-up hang for ever.
    pub(crate) fn hang(&self) {
        self.hanging.store(1, Ordering::SeqCst);
    }

    fn enter(&self, call: &'static str) -> Result<()> {
        *self.calls.lock().unwrap().entry(call).or_default() += 1;
        match self
            .fault
            .lock()
            .unwrap()
            .as_mut()
            .and_then(|fault| fault(call))
        {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn edited(&self, mut info: ContainerInfo) -> ContainerInfo {
        if let Some(edit) = self.edit.lock().unwrap().as_mut() {
            edit(&mut info);
        }
        info
    }
}

#[async_trait]
impl Backend for Engine {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn ping(&self) -> Result<()> {
        self.enter("ping")?;
        self.inner.ping().await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        self.enter("create")?;
        self.inner.create(spec).await
    }

    async fn start(&self, id: &ContainerId) -> Result<()> {
        self.enter("start")?;
        self.inner.start(id).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        self.enter("stop")?;
        self.inner.stop(id, grace).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.enter("pause")?;
        self.inner.pause(id).await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.enter("resume")?;
        self.inner.resume(id).await
    }

    async fn set_limits(&self, id: &ContainerId, limits: Limits) -> Result<()> {
        self.enter("set_limits")?;
        self.inner.set_limits(id, limits).await
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats> {
        self.enter("stats")?;
        self.inner.stats(id).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<()> {
        self.enter("remove")?;
        self.inner.remove(id).await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerInfo> {
        self.enter("inspect")?;
        if self.hanging.load(Ordering::SeqCst) > 0 {
            std::future::pending::<()>().await;
        }
        Ok(self.edited(self.inner.inspect(id).await?))
    }

    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerInfo>> {
        self.enter("list")?;
        Ok(self
            .inner
            .list(labels)
            .await?
            .into_iter()
            .map(|info| self.edited(info))
            .collect())
    }

    async fn connect(&self, id: &ContainerId) -> Result<AgentStream> {
        self.enter("connect")?;
        let (inner, writer) = self.inner.connect(id).await?.split();
        let reader = Cut {
            inner,
            cuts: Arc::clone(&self.cuts),
            made_after: self.cuts.load(Ordering::SeqCst),
        };
        Ok(AgentStream::new(tokio::io::join(reader, writer)))
    }

    async fn logs(&self, id: &ContainerId, tail_bytes: u64) -> Result<Vec<u8>> {
        self.enter("logs")?;
        self.inner.logs(id, tail_bytes).await
    }

    async fn sweep(&self, min_age: Duration) -> Result<SweepReport> {
        self.enter("sweep")?;
        self.inner.sweep(min_age).await
    }

    fn images(&self) -> Option<&dyn podkit::backend::images::Images> {
        self.inner.images()
    }

    fn events(&self) -> Option<&dyn podkit::backend::events::Events> {
        self.inner.events()
    }

    fn parents(&self) -> Option<&dyn podkit::backend::parent::Parents> {
        self.inner.parents()
    }
}
