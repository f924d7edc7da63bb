//! Connections to agents: one for each container, opened once, shared.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use podkit_agent::AgentStatus;
use rustix::process::{Resource, getrlimit};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use super::manager::{ContainerManager, Repeat};
use crate::{
    agent::AgentClient,
    backend::ContainerInfo,
    error::{Error, ErrorKind, Result},
    id::ContainerId,
    sync::Lock,
};

/// Connections are looked through for closed ones when there are so many of them.
const LINKS_BEFORE_PRUNING: usize = 64;

/// Fewest connections that are kept open, however few descriptors the process may have.
const LEAST_LINKS: usize = 8;

/// Most connections that are kept open, however many descriptors the process may have.
const MOST_LINKS: usize = 4096;

/// How many connections are kept open: a descriptor each, and at most half of what there are.
pub(super) fn most_links() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let half = usize::try_from(limit / 2).unwrap_or(usize::MAX);
    half.clamp(LEAST_LINKS, MOST_LINKS)
}

/// The one connection to a container's agent.
#[derive(Default)]
pub(super) struct Link {
    /// Held while connecting, so that a container is connected to once.
    gate: Mutex<()>,
    state: Lock<Option<(AgentClient, Option<Life>)>>,
}

/// Tells two lives of one container apart, as far as the engine does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Life {
    created_at: SystemTime,
    started_at: Option<SystemTime>,
    pid: Option<u32>,
}

impl Life {
    const fn of(info: &ContainerInfo) -> Self {
        Self {
            created_at: info.created_at,
            started_at: info.started_at,
            pid: info.pid,
        }
    }
}

impl ContainerManager {
    /// The connection to a running container's agent: the one there is, or a new one. `info` is
    /// what a look-up has just said, so that the connection to an earlier life is not taken.
    ///
    /// # Errors
    /// `ContainerGone` when it does not run, `AgentUnreachable` when it does and nobody answers.
    pub(crate) async fn client(
        &self,
        id: &ContainerId,
        info: Option<&ContainerInfo>,
    ) -> Result<AgentClient> {
        let life = info.map(Life::of);
        let link = self.link(id);
        if let Some(client) = link.usable(life) {
            return Ok(client);
        }
        let _gate = link.gate.lock().await;
        if let Some(client) = link.usable(life) {
            return Ok(client);
        }
        self.make_room();
        let backend = &self.0.backend;
        let once = || async { AgentClient::connect(backend.connect(id).await?).await };
        let deadline = self.0.deadlines.connect;
        let client = self
            .call(
                "reach the agent",
                Some(id),
                deadline,
                Repeat::Idempotent,
                once,
            )
            .await
            .map_err(|error| unreachable(error).with_container(id))?;
        *link.state.lock() = Some((client.clone(), life));
        Ok(client)
    }

    /// Asks the agent how it is. No activity.
    ///
    /// # Errors
    /// As [`client`](Self::client).
    pub(crate) async fn status(&self, info: &ContainerInfo) -> Result<AgentStatus> {
        let mut client = self.client(&info.id, Some(info)).await?;
        let status = self.ask("ask the agent", &info.id, client.status()).await;
        match status {
            // It has given way to another connection before it was used: the container is as it was.
            Err(error) if error.is_refused() && client.closing().is_none() => {}
            answered => return answered,
        }
        client = self.client(&info.id, Some(info)).await?;
        self.ask("ask the agent", &info.id, client.status()).await
    }

    /// Ends every exec with `SessionClosed` and everything else, at once or after `grace`, through
    /// the agent.
    ///
    /// # Errors
    /// As [`client`](Self::client).
    pub(crate) async fn end(&self, info: &ContainerInfo, grace: Duration) -> Result<()> {
        let client = self.client(&info.id, Some(info)).await?;
        self.ask("end the container", &info.id, client.stop(grace))
            .await
    }

    /// Waits for the agent's answer to one question, at most [`Deadlines::agent`].
    ///
    /// # Errors
    /// `AgentUnreachable` when none comes; the answer's own.
    pub(crate) async fn ask<T>(
        &self,
        operation: &'static str,
        id: &ContainerId,
        answer: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let limit = self.0.deadlines.agent;
        let result = match timeout_at(Instant::now() + limit, answer).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                ErrorKind::AgentUnreachable,
                format!("the agent did not answer within {limit:?}"),
            )),
        };
        result.map_err(|error| error.with_operation(operation).with_container(id))
    }

    /// Drops the connection that is kept for a container.
    pub(crate) fn forget(&self, id: &ContainerId) {
        self.0.links.lock().remove(id);
    }

    /// Says how many connections are kept open.
    pub(crate) fn set_most_links(&self, most: usize) {
        self.0.most_links.store(most, Ordering::Relaxed);
    }

    /// How many connections are open.
    #[cfg(feature = "conformance")]
    pub(crate) fn open_links(&self) -> usize {
        let links = self.0.links.lock();
        let open = links.values().filter(|link| link.usable(None).is_some());
        open.count()
    }

    /// Closes the connections that nobody has used for longest, when there are too many. Whoever needs
    /// one again gets a new one.
    fn make_room(&self) {
        let most = self.0.most_links.load(Ordering::Relaxed).max(1);
        let mut links = self.0.links.lock();
        if links.len() <= most {
            return;
        }
        links.retain(|_, link| Arc::strong_count(link) > 1 || link.usable(None).is_some());
        let open = links.values().filter_map(|link| link.usable(None));
        let open: Vec<AgentClient> = open.collect();
        drop(links);
        let Some(excess) = (open.len() + 1)
            .checked_sub(most)
            .filter(|excess| *excess > 0)
        else {
            return;
        };
        let unused = open
            .iter()
            .filter_map(|client| Some((client.unused_since()?, client)));
        let mut unused: Vec<_> = unused.collect();
        unused.sort_by_key(|(since, _)| *since);
        // Some more, so that not each one that comes looks at all.
        for (_, client) in unused.iter().take(excess + most / 16) {
            client.close_unused();
        }
    }

    fn link(&self, id: &ContainerId) -> Arc<Link> {
        let mut links = self.0.links.lock();
        if let Some(link) = links.get(id) {
            return Arc::clone(link);
        }
        if links.len() >= LINKS_BEFORE_PRUNING && links.len().is_power_of_two() {
            links.retain(|_, link| Arc::strong_count(link) > 1 || link.usable(None).is_some());
        }
        Arc::clone(links.entry(id.clone()).or_default())
    }
}

impl Link {
    /// The client, when it is open and of this life of the container.
    fn usable(&self, life: Option<Life>) -> Option<AgentClient> {
        let mut state = self.state.lock();
        let (client, known) = state.as_mut()?;
        let same_life = known.is_none() || life.is_none() || *known == life;
        if !same_life || !client.is_open() || client.closing().is_some() {
            return None;
        }
        *known = known.or(life);
        Some(client.clone())
    }
}

/// An engine that does not answer is one thing, an agent another.
fn unreachable(error: Error) -> Error {
    if error.kind() == ErrorKind::TimedOut {
        let message = "the container runs, but its agent does not answer";
        return Error::new(ErrorKind::AgentUnreachable, message)
            .with_source(error)
            .with_operation("reach the agent")
            .with_hint("close the session and open it again");
    }
    error
}
