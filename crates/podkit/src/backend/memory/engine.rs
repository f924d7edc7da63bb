//! One simulated container: what the engine knows of it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use podkit_agent::{Clocks, StopReason};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{files::Tree, life::Life};
use crate::{
    backend::{ContainerInfo, ContainerSpec, ContainerState, StopCause},
    id::ContainerId,
    sync::Lock,
};

/// One container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: ContainerId,
    pub(super) spec: ContainerSpec,
    pub(super) tree: Lock<Tree>,
    created_at: SystemTime,
    created: Instant,
    facts: Lock<Facts>,
    /// Counts the lives that ended.
    ended: watch::Sender<u64>,
}

#[derive(Debug)]
struct Facts {
    state: ContainerState,
    stop_cause: Option<StopCause>,
    started_at: Option<SystemTime>,
    finished_at: Option<SystemTime>,
    last_active_at: Option<SystemTime>,
    life: Option<Arc<Life>>,
}

impl Container {
    pub(super) fn new(spec: &ContainerSpec) -> Self {
        let facts = Facts {
            state: ContainerState::Created,
            stop_cause: None,
            started_at: None,
            finished_at: None,
            last_active_at: None,
            life: None,
        };
        Self {
            id: spec.name.clone(),
            tree: Lock::new(Tree::new(spec)),
            spec: spec.clone(),
            created_at: SystemTime::now(),
            created: Instant::now(),
            facts: Lock::new(facts),
            ended: watch::Sender::new(0),
        }
    }

    pub(super) fn state(&self) -> ContainerState {
        self.facts.lock().state
    }

    pub(super) fn info(&self) -> ContainerInfo {
        let facts = self.facts.lock();
        let life = facts.life.as_ref();
        ContainerInfo {
            id: self.id.clone(),
            name: self.id.to_string(),
            labels: self.spec.labels.clone(),
            env: self.spec.env.clone(),
            state: facts.state,
            stop_cause: facts.stop_cause,
            exit_code: None,
            created_at: self.created_at,
            started_at: facts.started_at,
            finished_at: facts.finished_at,
            last_active_at: life
                .map(|life| life.last_active_at())
                .or(facts.last_active_at),
            pid: None,
            isolation: None,
            ports: Vec::new(),
        }
    }

    /// What runs, unless the container is stopped or frozen or about to be.
    pub(super) fn life(&self) -> Option<Arc<Life>> {
        let facts = self.facts.lock();
        facts.life.clone()
    }

    /// Begins a life among `tasks`; `false` when the container is being removed.
    pub(super) fn start(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> bool {
        let mut facts = self.facts.lock();
        match facts.state {
            ContainerState::Created | ContainerState::Exited => {}
            state => return state != ContainerState::Removing,
        }
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let clocks = Clocks {
            auto_stop_ms: self.spec.auto_stop.map(milliseconds),
            max_lifetime_ms: self
                .spec
                .max_lifetime
                .map(|time| milliseconds(time.saturating_sub(self.created.elapsed()))),
        };
        let (life, work) = Life::new(clocks);
        let end = End {
            container: Arc::clone(self),
            cause: StopCause::Killed,
        };
        tasks.spawn(Arc::clone(&life).run(work, end));
        facts.state = ContainerState::Running;
        facts.stop_cause = None;
        facts.started_at = Some(SystemTime::now());
        facts.finished_at = None;
        facts.life = Some(life);
        true
    }

    /// Freezes or thaws what runs; `false` when nothing does.
    pub(super) fn set_frozen(&self, frozen: bool) -> bool {
        let mut facts = self.facts.lock();
        let Some(life) = &facts.life else {
            return false;
        };
        life.frozen.send_replace(frozen);
        facts.state = if frozen {
            ContainerState::Paused
        } else {
            ContainerState::Running
        };
        true
    }

    /// Asks what runs to stop, and waits until it has.
    pub(super) async fn stop(&self) {
        let mut ended = self.ended.subscribe();
        let life = self.life();
        if let Some(life) = life {
            self.set_frozen(false);
            life.stop(StopReason::Requested);
            // The sender is in `self`, so that it cannot be gone.
            let _ = ended.changed().await;
        }
    }

    /// Ends what runs without a word, for ever.
    pub(super) async fn kill(&self) {
        let mut ended = self.ended.subscribe();
        let life = {
            let mut facts = self.facts.lock();
            facts.state = ContainerState::Removing;
            facts.life.clone()
        };
        if let Some(life) = life {
            life.kill();
            let _ = ended.changed().await;
        }
    }
}

/// Records how a life ended: also when its task was aborted, or its runtime went away.
pub(super) struct End {
    container: Arc<Container>,
    pub(super) cause: StopCause,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut facts = self.container.facts.lock();
        if facts.state != ContainerState::Removing {
            facts.state = ContainerState::Exited;
        }
        facts.stop_cause = Some(self.cause);
        facts.finished_at = Some(SystemTime::now());
        facts.last_active_at = facts.life.take().map(|life| life.last_active_at());
        drop(facts);
        self.container.ended.send_modify(|ended| *ended += 1);
    }
}

/// Every container by name.
pub(super) type Containers = BTreeMap<String, Arc<Container>>;
