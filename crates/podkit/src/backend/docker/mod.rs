//! Docker and Podman, through the Engine API.
//!
//! The agent comes in by a volume ([`agent_volume`]) and is reached by a socket to which it dials
//! out, or through the engine ([`link`]); after that no command is a request to the engine.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::PathBuf,
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use bollard::{
    Docker,
    container::LogOutput,
    query_parameters::{
        ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
        StatsOptionsBuilder, StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use self::{
    agent_volume::AgentVolume,
    credentials::Credentials,
    facts::{Facts, Memory},
    inspect::Reach,
    link::Links,
};
use super::{
    AgentStream, Backend, Capabilities, ContainerInfo, ContainerSpec, Limits, SweepReport,
    admission::Admission, events::Events, images::Images, parent::Parents, stats::ContainerStats,
};
use crate::{
    container::jittered,
    error::{Error, ErrorKind, Result},
    id::ContainerId,
    sync::Lock,
};

mod agent_volume;
mod convert;
mod create;
mod credentials;
mod endpoint;
mod events;
mod facts;
mod failure;
mod images;
mod inspect;
mod link;
mod networks;
mod open;
mod parent;
mod reach;
mod reference;
mod resources;
mod ssh;

/// How long what a look-up said of a container is good for connecting to its agent.
const FRESH: Duration = Duration::from_secs(1);

/// How long an agent has to dial out before the engine is asked for a stream to it.
const DIAL: Duration = Duration::from_millis(150);

/// Pause between two looks at a container in the middle of its end.
const LOOK: Duration = Duration::from_millis(20);

/// Most of them.
const LOOKS: u32 = 100;

/// Containers that are looked at at the same time.
const PARALLEL: usize = 8;

/// How often one start fills the agent's volume, which others may prune meanwhile.
const FILLINGS: u32 = 3;

/// Most names for which refused starts are remembered.
const MOST_REFUSED: usize = 256;

/// Lines of a log that are read for its last bytes.
const LOG_LINES: &str = "10000";

/// Which engine speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Flavor {
    /// Docker, or what takes its place.
    Docker,
    /// Podman's service.
    Podman,
}

impl Flavor {
    const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// Which engine was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Docker,
    Podman,
    Url(String),
}

/// Docker or Podman.
pub struct DockerBackend {
    docker: Docker,
    url: String,
    facts: Facts,
    memory: Option<Memory>,
    admission: Admission,
    agent: AgentVolume,
    credentials: Credentials,
    /// Directories for sockets, where the engine is on this machine.
    links: Option<Links>,
    dials: Dials,
    seen: Lock<HashMap<ContainerId, (Instant, Reach)>>,
    /// Directories for the sockets of containers that were looked at.
    directories: Lock<HashMap<ContainerId, PathBuf>>,
    /// How often a start was refused for a port that this backend had chosen, so that the next order under
    /// this name has another one.
    refused: Lock<HashMap<ContainerId, usize>>,
}

/// Calls that an agent has to miss before it is taken not to reach sockets of this machine: one may
/// be late because the machine is busy.
const MISSES: u8 = 3;

/// Whether agents reach sockets of this machine: not known, yes, no.
#[derive(Debug)]
struct Dials {
    known: AtomicU8,
    missed: AtomicU8,
}

impl Dials {
    const fn new(known: Option<bool>) -> Self {
        let known = match known {
            None => 0,
            Some(true) => 1,
            Some(false) => 2,
        };
        Self {
            known: AtomicU8::new(known),
            missed: AtomicU8::new(0),
        }
    }

    fn known(&self) -> Option<bool> {
        match self.known.load(Ordering::Relaxed) {
            1 => Some(true),
            2 => Some(false),
            _ => None,
        }
    }

    /// Notes what was seen; whether that is news.
    fn note(&self, yes: bool) -> bool {
        let new = if yes { 1 } else { 2 };
        self.known.swap(new, Ordering::Relaxed) != new
    }

    /// Counts a call that did not come: whether that is enough to know.
    fn miss(&self) -> bool {
        let before = self.missed.fetch_add(1, Ordering::Relaxed);
        self.known().is_none() && before + 1 >= MISSES
    }
}

impl fmt::Debug for DockerBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerBackend")
            .field("url", &self.url)
            .field("flavor", &self.facts.flavor)
            .finish_non_exhaustive()
    }
}

impl DockerBackend {
    /// A failure of the engine's; one that says that what is remembered of it does not hold any
    /// more is remembered instead.
    fn failed(&self, error: bollard::errors::Error) -> Error {
        if failure::says(&error, &["client version", "api version"])
            && let Some(memory) = &self.memory
        {
            memory.forget();
        }
        let error = failure::error(error);
        if error.kind() == ErrorKind::Unavailable {
            let message = format!("{}, at `{}`", error.message(), self.url);
            let hint = open::start_hint(self.facts.flavor);
            return Error::new(ErrorKind::Unavailable, message).with_hint(hint);
        }
        error
    }

    /// Makes the directory for a container's sockets again, which went with the machine's last life:
    /// whether it was gone.
    async fn make_link_again(&self, id: &ContainerId) -> Result<bool> {
        let Some(links) = &self.links else {
            return Ok(false);
        };
        let directory = inspect::reach(&self.look(id).await?).link;
        let gone = directory.filter(|directory| links.has(directory) && !directory.exists());
        Ok(gone.is_some_and(|directory| link::make_private(&directory).is_ok()))
    }

    /// Remembers that a start met a port that is taken.
    fn note_refusal(&self, id: &ContainerId) {
        let mut refused = self.refused.lock();
        if refused.len() >= MOST_REFUSED {
            refused.clear();
        }
        *refused.entry(id.clone()).or_default() += 1;
    }

    async fn look(&self, id: &ContainerId) -> Result<bollard::models::ContainerInspectResponse> {
        let answer = settled(|| self.docker.inspect_container(id.as_str(), None))
            .await
            .map_err(|error| self.failed(error))?;
        let reach = inspect::reach(&answer);
        if let Some(directory) = &reach.link {
            let mut directories = self.directories.lock();
            directories.insert(id.clone(), directory.clone());
        }
        let mut seen = self.seen.lock();
        if seen.len() > 256 {
            seen.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        seen.insert(id.clone(), (Instant::now(), reach));
        Ok(answer)
    }

    /// Waits until a removal by somebody else is over.
    async fn removed_by_another(&self, id: &ContainerId) -> Result<()> {
        let options = WaitContainerOptionsBuilder::new()
            .condition("removed")
            .build();
        let mut ends = Box::pin(self.docker.wait_container(id.as_str(), Some(options)));
        match ends.next().await {
            None | Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => {
                Ok(())
            }
            Some(Err(error)) if failure::is_missing(&error) => Ok(()),
            Some(Err(error)) => Err(self.failed(error)),
        }
    }
}

/// Repeats a request that met a container in the middle of its end.
async fn settled<T, F>(request: impl Fn() -> F) -> Result<T, bollard::errors::Error>
where
    F: Future<Output = Result<T, bollard::errors::Error>>,
{
    let mut looks = 0;
    loop {
        match request().await {
            Err(error) if failure::is_between(&error) && looks < LOOKS => {
                looks += 1;
                sleep(jittered(LOOK)).await;
            }
            other => return other,
        }
    }
}

#[async_trait]
impl Backend for DockerBackend {
    fn name(&self) -> &'static str {
        self.facts.flavor.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.facts.capabilities()
    }

    async fn ping(&self) -> Result<()> {
        self.docker
            .ping()
            .await
            .map(drop)
            .map_err(|error| self.failed(error))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        self.admission.check()?;
        self.order(spec).await?;
        let further = convert::further_networks(&spec.network, &self.facts);
        let endpoint = convert::endpoint(&spec.aliases);
        if let Err(error) = self.connect_networks(&spec.name, further, endpoint).await {
            return Err(match Backend::remove(self, &spec.name).await {
                Ok(()) => error,
                Err(failure) => error.with_cleanup(failure),
            });
        }
        Ok(spec.name.clone())
    }

    async fn start(&self, id: &ContainerId) -> Result<()> {
        self.admission.check()?;
        let seen = self.seen.lock().get(id).map(|(_, reach)| reach.clone());
        if let Some(reach) = seen {
            let endpoint = convert::endpoint(&reach.aliases);
            self.connect_networks(id, &reach.networks, endpoint).await?;
        }
        let (mut filled, mut networked, mut linked) = (0, false, false);
        loop {
            let Err(error) = self.docker.start_container(id.as_str(), None).await else {
                return Ok(());
            };
            if AgentVolume::is_missing(&error) && filled < FILLINGS {
                filled += 1;
                let image = self.look(id).await?.config.and_then(|config| config.image);
                self.agent
                    .fill(&self.docker, &image.unwrap_or_default())
                    .await?;
            } else if networks::is_missing(&error) && !networked {
                networked = true;
                networks::ensure(&self.docker, self.facts.flavor).await?;
            } else if failure::says(&error, &["already running"]) {
                return Ok(());
            } else if failure::says(&error, &["marked for removal"]) {
                return Err(Error::new(
                    ErrorKind::ContainerGone,
                    "the container is being removed",
                ));
            } else if !linked && self.make_link_again(id).await? {
                linked = true;
            } else {
                let error = self.failed(error);
                if error.kind() == ErrorKind::Conflict {
                    self.note_refusal(id);
                }
                return Err(error);
            }
        }
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        match self.docker.stop_container(id.as_str(), Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if failure::says(&error, &["is not running", "state improper"]) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        match self.docker.pause_container(id.as_str()).await {
            Ok(()) => Ok(()),
            Err(error) if failure::says(&error, &["already paused"]) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        match self.docker.unpause_container(id.as_str()).await {
            Ok(()) => Ok(()),
            Err(error) if failure::says(&error, &["is not paused"]) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn set_limits(&self, id: &ContainerId, limits: Limits) -> Result<()> {
        if self.facts.flavor == Flavor::Podman {
            return Err(Error::unsupported(
                "limits of a Podman container are set when it is made",
            ));
        }
        let change = resources::change(limits, &self.look(id).await?);
        match self.docker.update_container(id.as_str(), change).await {
            Ok(()) => Ok(()),
            Err(error)
                if failure::says(&error, &["unable to set memory limit", "resource busy"]) =>
            {
                Err(Error::new(
                    ErrorKind::LimitExceeded,
                    "the container uses more memory than that",
                ))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats> {
        let options = StatsOptionsBuilder::new()
            .stream(false)
            .one_shot(true)
            .build();
        let at = SystemTime::now();
        let answer = self.docker.stats(id.as_str(), Some(options)).next().await;
        match answer {
            Some(Ok(answer)) => resources::stats(at, &answer),
            Some(Err(error)) => Err(self.failed(error)),
            None => Err(Error::new(
                ErrorKind::ContainerGone,
                "the container does not run",
            )),
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let removed = settled(|| {
            self.docker
                .remove_container(id.as_str(), Some(options.clone()))
        })
        .await;
        match removed {
            Ok(()) => {}
            Err(error) if failure::is_missing(&error) => {}
            Err(error) if failure::says(&error, &["already in progress"]) => {
                self.removed_by_another(id).await?;
            }
            Err(error) => return Err(self.failed(error)),
        }
        self.seen.lock().remove(id);
        let directory = self.directories.lock().remove(id);
        if let (Some(links), Some(directory)) = (&self.links, directory) {
            links.remove(&directory);
        }
        Ok(())
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerInfo> {
        inspect::info(self.look(id).await?)
    }

    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerInfo>> {
        let pairs: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let filters = HashMap::from([("label", pairs)]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let found = settled(|| self.docker.list_containers(Some(options.clone())))
            .await
            .map_err(|error| self.failed(error))?;
        let ids = found.into_iter().filter_map(|one| {
            // Podman takes several labels for alternatives.
            let own = one.labels.unwrap_or_default();
            if labels
                .iter()
                .any(|(name, value)| own.get(name) != Some(value))
            {
                return None;
            }
            let name = one.names?.into_iter().next()?;
            ContainerId::new(name.trim_start_matches('/')).ok()
        });
        let ids: Vec<ContainerId> = ids.collect();
        stream::iter(ids)
            .map(|id| async move {
                match Backend::inspect(self, &id).await {
                    Ok(info) => Ok(Some(info)),
                    // It went away meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .buffer_unordered(PARALLEL)
            .try_filter_map(|info| async { Ok(info) })
            .try_collect()
            .await
    }

    async fn connect(&self, id: &ContainerId) -> Result<AgentStream> {
        let known = self.seen.lock().remove(id);
        let reach = match known.filter(|(at, _)| at.elapsed() < FRESH) {
            Some((_, reach)) => reach,
            None => {
                let answer = self.look(id).await.map_err(|error| {
                    if error.kind() == ErrorKind::NotFound {
                        Error::new(ErrorKind::ContainerGone, error.message())
                    } else {
                        error
                    }
                })?;
                self.seen.lock().remove(id);
                inspect::reach(&answer)
            }
        };
        if reach.pid == 0 {
            return Err(Error::new(
                ErrorKind::ContainerGone,
                "the container does not run",
            ));
        }
        match &reach.link {
            Some(directory) if self.dials.known() != Some(false) => {
                self.dial(id, reach.pid, directory).await
            }
            _ => link::through_engine(&self.docker, id).await,
        }
    }

    async fn logs(&self, id: &ContainerId, tail_bytes: u64) -> Result<Vec<u8>> {
        let options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .tail(LOG_LINES)
            .build();
        let most = usize::try_from(tail_bytes).unwrap_or(usize::MAX);
        let mut tail = Vec::new();
        let mut output = Box::pin(self.docker.logs(id.as_str(), Some(options)));
        while let Some(part) = output.next().await {
            match part.map_err(|error| self.failed(error))? {
                LogOutput::StdIn { .. } => {}
                LogOutput::StdErr { message }
                | LogOutput::StdOut { message }
                | LogOutput::Console { message } => tail.extend_from_slice(&message),
            }
            if tail.len() / 2 > most {
                tail.drain(..tail.len() - most);
            }
        }
        tail.drain(..tail.len().saturating_sub(most));
        Ok(tail)
    }

    async fn sweep(&self, min_age: Duration) -> Result<SweepReport> {
        let mut report = SweepReport::default();
        self.agent.sweep(&self.docker, min_age, &mut report).await?;
        let Some(links) = &self.links else {
            return Ok(report);
        };
        for (id, directory) in links.older_than(min_age) {
            let unused = match self.docker.inspect_container(id.as_str(), None).await {
                Ok(answer) => inspect::reach(&answer).link.as_ref() != Some(&directory),
                Err(error) => failure::is_missing(&error),
            };
            if unused {
                links.remove(&directory);
                report
                    .removed
                    .push(format!("directory of sockets of `{id}`"));
            }
        }
        Ok(report)
    }

    fn images(&self) -> Option<&dyn Images> {
        Some(self)
    }

    fn events(&self) -> Option<&dyn Events> {
        Some(self)
    }

    fn parents(&self) -> Option<&dyn Parents> {
        Some(self)
    }
}
