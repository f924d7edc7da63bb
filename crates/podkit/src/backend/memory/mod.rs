//! An engine in memory, for examples and unit tests: nothing runs, and nothing lasts.
//!
//! Containers, their states, clocks and files are real as far as a client can see, and each has an
//! agent that speaks the real protocol. Commands are simulated: there are `cat`, `echo`, `env`,
//! `false`, `pwd`, `sleep`, `true` and a shell for lists of these. Nothing is isolated, since
//! nothing runs.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::task::JoinSet;

use self::engine::{Container, Containers};
use super::{
    AgentStream, Backend, BackendRef, Capabilities, ContainerInfo, ContainerSpec, ContainerState,
    Limits, MainCommand, SweepReport, TreeKill, stats::ContainerStats,
};
use crate::{
    config::{Image, Network},
    error::{Error, ErrorKind, Result},
    id::ContainerId,
    sync::Lock,
};

mod agent;
mod engine;
mod exec;
mod files;
mod life;
mod place;
mod programs;
mod transfer;
mod tree;

/// The name of the only image.
const IMAGE: &str = "memory";

/// Bytes that a stream to an agent holds, as a socket does.
const STREAM_BYTES: usize = 64 * 1024;

/// An engine in memory. It is gone with its last owner.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> podkit::Result<()> {
/// use podkit::{Podkit, backend::memory::MemoryBackend};
/// let podkit = Podkit::builder().engine(MemoryBackend::shared()).build().await?;
/// let output = podkit.session("bob", "123").await?.exec(["echo", "hi"]).await?;
/// assert_eq!(output.stdout, b"hi\n");
/// # Ok(())
/// # }
/// ```
pub struct MemoryBackend {
    containers: Lock<Containers>,
    /// The lives of all containers; they end with the engine.
    lives: Lock<JoinSet<()>>,
}

impl MemoryBackend {
    /// A new engine without containers.
    #[must_use]
    pub fn shared() -> BackendRef {
        Arc::new(Self {
            containers: Lock::default(),
            lives: Lock::new(JoinSet::new()),
        })
    }

    fn find(&self, id: &ContainerId) -> Result<Arc<Container>> {
        let containers = self.containers.lock();
        containers
            .get(id.as_str())
            .map(Arc::clone)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no container `{id}`")))
    }

    /// Takes a container out of the list, unless another of its name has been made meanwhile.
    fn forget(&self, id: &ContainerId, container: &Arc<Container>) {
        let mut containers = self.containers.lock();
        if containers
            .get(id.as_str())
            .is_some_and(|found| Arc::ptr_eq(found, container))
        {
            containers.remove(id.as_str());
        }
    }

    fn set_frozen(&self, id: &ContainerId, frozen: bool) -> Result<()> {
        if self.find(id)?.set_frozen(frozen) {
            return Ok(());
        }
        Err(gone(id))
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.containers.lock().keys().cloned().collect();
        f.debug_struct("MemoryBackend")
            .field("containers", &names)
            .finish_non_exhaustive()
    }
}

fn gone(id: &ContainerId) -> Error {
    Error::new(
        ErrorKind::ContainerGone,
        format!("the container `{id}` does not run"),
    )
}

/// Refuses what cannot even be simulated.
fn check(spec: &ContainerSpec) -> Result<()> {
    let unable = |what: &str| {
        let message = format!("the engine in memory has no {what}");
        Err(Error::unsupported(message).with_hint("use an engine that runs real programs"))
    };
    if spec.main != MainCommand::None {
        return unable("program of a container's own");
    }
    match &spec.network {
        Network::Default | Network::None => {}
        _ => return unable("such network"),
    }
    match &spec.image {
        Image::Reference(name) if name == IMAGE => Ok(()),
        _ => unable("image but its own"),
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        let limitations = [
            "Commands are simulated: cat, echo, env, false, pwd, sleep, true and a shell for lists \
             of these.",
            "Containers are gone with the engine, and so with the process.",
            "Security settings, host names and file permissions have no effect: nothing runs.",
            "A tmpfs keeps its files as long as the container.",
        ];
        Capabilities {
            default_image: Image::Reference(IMAGE.to_owned()),
            local_images: false,
            image_references: false,
            memory_limit: false,
            swap_limit: false,
            cpu_limit: false,
            pids_limit: false,
            pause: true,
            live_limits: false,
            stats: false,
            bind_mounts: false,
            writable_binds: false,
            volumes: false,
            outbound: false,
            parts_sessions: true,
            named_networks: false,
            ports: false,
            dns: false,
            ulimits: false,
            devices: false,
            gpus: false,
            runtimes: Vec::new(),
            platforms: false,
            inherit: false,
            auto_remove: false,
            bind_flags: true,
            stop_keeps_files: true,
            outlives_client: false,
            tree_kill: TreeKill::Kernel,
            isolation: None,
            limitations: limitations.map(str::to_owned).to_vec(),
        }
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        check(spec)?;
        let mut containers = self.containers.lock();
        if containers.contains_key(spec.name.as_str()) {
            let message = format!("there is a container `{}` already", spec.name);
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        containers.insert(spec.name.to_string(), Arc::new(Container::new(spec)));
        Ok(spec.name.clone())
    }

    async fn start(&self, id: &ContainerId) -> Result<()> {
        let container = self.find(id)?;
        if let Some(life) = container.life()
            && life.is_stopping()
        {
            container.stop().await;
        }
        let mut lives = self.lives.lock();
        while lives.try_join_next().is_some() {}
        if container.start(&mut lives) {
            return Ok(());
        }
        // Whoever removes it may not be done, and what is not there is seen by nobody.
        self.forget(id, &container);
        Err(Error::new(
            ErrorKind::NotFound,
            format!("the container `{id}` was removed"),
        ))
    }

    async fn stop(&self, id: &ContainerId, _grace: Duration) -> Result<()> {
        // No simulated program resists, so that no grace is needed.
        self.find(id)?.stop().await;
        Ok(())
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.set_frozen(id, true)
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.set_frozen(id, false)
    }

    async fn set_limits(&self, _: &ContainerId, _: Limits) -> Result<()> {
        Err(Error::unsupported("the memory engine limits nothing"))
    }

    async fn stats(&self, _: &ContainerId) -> Result<ContainerStats> {
        Err(Error::unsupported("the memory engine counts nothing"))
    }

    async fn remove(&self, id: &ContainerId) -> Result<()> {
        let Ok(container) = self.find(id) else {
            return Ok(());
        };
        container.kill().await;
        self.forget(id, &container);
        Ok(())
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerInfo> {
        Ok(self.find(id)?.info())
    }

    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerInfo>> {
        let carries = |info: &ContainerInfo| {
            labels
                .iter()
                .all(|(key, value)| info.labels.get(key) == Some(value))
        };
        let containers = self.containers.lock();
        Ok(containers
            .values()
            .map(|container| container.info())
            .filter(carries)
            .collect())
    }

    async fn connect(&self, id: &ContainerId) -> Result<AgentStream> {
        let container = self.find(id)?;
        let life = container.life().filter(|life| !life.is_stopping());
        let (Some(life), ContainerState::Running | ContainerState::Paused) =
            (life, container.state())
        else {
            return Err(gone(id));
        };
        let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
        life.spawn(Box::pin(agent::serve(container, Arc::clone(&life), theirs)));
        Ok(AgentStream::new(ours))
    }

    async fn logs(&self, id: &ContainerId, _tail_bytes: u64) -> Result<Vec<u8>> {
        self.find(id)?;
        Ok(Vec::new())
    }

    async fn sweep(&self, _min_age: Duration) -> Result<SweepReport> {
        Ok(SweepReport::default())
    }

    fn images(&self) -> Option<&dyn super::images::Images> {
        None
    }

    fn events(&self) -> Option<&dyn super::events::Events> {
        None
    }

    fn parents(&self) -> Option<&dyn super::parent::Parents> {
        None
    }
}

#[cfg(test)]
mod tests;
