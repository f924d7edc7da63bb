//! The engine that needs no daemon: `podkit_runtime`, which is synchronous, behind the contract.
//!
//! What writes, starts or waits runs on tokio's threads for blocking work, and runs to its end
//! there also when its caller is gone. Looking one container up and connecting to its agent read
//! two small files and make one non-blocking call; they are made in place, since handing them over
//! would take longer than they do.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use podkit_runtime::{ErrorKind as RuntimeErrorKind, Facts, Runtime, RuntimeOptions};
use tokio::{net::UnixStream, task::spawn_blocking};

use super::{
    AgentStream, Backend, BackendRef, Capabilities, ContainerInfo, ContainerSpec, Limits,
    SweepReport, admission::Admission, connect::ConnectOptions, images::Images,
    stats::ContainerStats,
};
use crate::{
    error::{Error, ErrorKind, Result},
    id::ContainerId,
};

mod convert;
mod place;

/// The embedded engine.
#[derive(Debug)]
pub struct EmbeddedBackend {
    runtime: Arc<Runtime>,
    capabilities: Capabilities,
    admission: Admission,
}

impl EmbeddedBackend {
    /// Opens the engine: makes its directories when they are missing, and finds out what this
    /// machine can do.
    ///
    /// # Errors
    /// - `InvalidInput` when there is no directory to keep state in.
    /// - `Unavailable`, `PermissionDenied` or `LimitExceeded` when the directories cannot be made.
    /// - `Unsupported` when containers cannot work here, with the cause and what helps.
    ///
    /// # Cancel safety
    /// A dropped call leaves directories at most.
    pub async fn open(options: &ConnectOptions) -> Result<BackendRef> {
        let admission = Admission::new(options.reserve_memory);
        let options = options.clone();
        let (runtime, facts) = off_thread(move || open(place::runtime_options(&options)?)).await?;
        Ok(Arc::new(Self {
            runtime: Arc::new(runtime),
            capabilities: convert::capabilities(&facts),
            admission,
        }))
    }

    /// Makes a call of the runtime's where it may block.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Runtime) -> podkit_runtime::Result<T> + Send + 'static,
    ) -> Result<T> {
        let runtime = Arc::clone(&self.runtime);
        off_thread(move || call(&runtime).map_err(|error| convert::error(&error))).await
    }
}

fn open(options: RuntimeOptions) -> Result<(Runtime, Facts)> {
    let runtime = Runtime::open(options).map_err(|error| convert::error(&error))?;
    let facts = runtime.facts().map_err(|error| convert::error(&error))?;
    Ok((runtime, facts))
}

/// Runs a call to its end on a thread for blocking work.
async fn off_thread<T: Send + 'static>(
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(call).await.unwrap_or_else(|error| {
        let (kind, message) = if error.is_cancelled() {
            (ErrorKind::Unavailable, "the program's async runtime ends")
        } else {
            (ErrorKind::Unexpected, "the embedded engine panicked")
        };
        Err(Error::new(kind, message).with_source(error))
    })
}

/// What needs a running container, and found none.
fn gone(error: &podkit_runtime::Error) -> Error {
    if error.kind() == RuntimeErrorKind::NotFound {
        Error::new(ErrorKind::ContainerGone, error.message())
    } else {
        convert::error(error)
    }
}

#[async_trait]
impl Backend for EmbeddedBackend {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    async fn ping(&self) -> Result<()> {
        let directory: PathBuf = self.runtime.options().state_dir.clone();
        off_thread(move || {
            std::fs::read_dir(&directory).map(drop).map_err(|error| {
                let directory = directory.display();
                Error::new(
                    ErrorKind::Unavailable,
                    format!("cannot read the state directory `{directory}`: {error}"),
                )
                .with_source(error)
            })
        })
        .await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        self.admission.check()?;
        let order = convert::spec(spec)?;
        self.run(move |runtime| runtime.create(&order)).await?;
        Ok(spec.name.clone())
    }

    async fn start(&self, id: &ContainerId) -> Result<()> {
        self.admission.check()?;
        let name = id.to_string();
        self.run(move |runtime| runtime.start(&name)).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let name = id.to_string();
        self.run(move |runtime| runtime.stop(&name, grace)).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        let name = id.to_string();
        self.run(move |runtime| runtime.pause(&name)).await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        let name = id.to_string();
        self.run(move |runtime| runtime.resume(&name)).await
    }

    async fn set_limits(&self, id: &ContainerId, limits: Limits) -> Result<()> {
        let (name, change) = (id.to_string(), convert::limits(limits));
        self.run(move |runtime| runtime.set_limits(&name, change))
            .await
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats> {
        if !self.capabilities.stats {
            return Err(Error::unsupported(
                "what a container uses is not counted here: there is no control group",
            ));
        }
        let at = SystemTime::now();
        let usage = self
            .runtime
            .usage(id.as_str())
            .map_err(|error| gone(&error))?;
        Ok(convert::stats(at, usage))
    }

    async fn remove(&self, id: &ContainerId) -> Result<()> {
        let name = id.to_string();
        self.run(move |runtime| runtime.remove(&name)).await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerInfo> {
        let info = self.runtime.inspect(id.as_str());
        convert::info(info.map_err(|error| convert::error(&error))?)
    }

    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerInfo>> {
        let labels = labels.clone();
        let all = self.run(move |runtime| runtime.list(&labels)).await?;
        all.into_iter().map(convert::info).collect()
    }

    async fn connect(&self, id: &ContainerId) -> Result<AgentStream> {
        let stream = self
            .runtime
            .connect(id.as_str())
            .map_err(|error| gone(&error))?;
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(stream));
        let stream = stream.map_err(|error| {
            Error::new(
                ErrorKind::Unexpected,
                format!("cannot use the connection to the agent: {error}"),
            )
            .with_source(error)
        })?;
        Ok(AgentStream::new(stream))
    }

    async fn logs(&self, id: &ContainerId, tail_bytes: u64) -> Result<Vec<u8>> {
        let name = id.to_string();
        self.run(move |runtime| runtime.logs(&name, tail_bytes))
            .await
    }

    async fn sweep(&self, min_age: Duration) -> Result<SweepReport> {
        let report = self.run(move |runtime| runtime.sweep(min_age)).await?;
        Ok(SweepReport {
            removed: report.removed,
            failed: report.failed,
        })
    }

    fn images(&self) -> Option<&dyn Images> {
        None
    }

    fn events(&self) -> Option<&dyn super::events::Events> {
        None
    }

    fn parents(&self) -> Option<&dyn super::parent::Parents> {
        None
    }
}
