//! One simulated container: what the engine knows of it, and the life of what runs in it.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use podkit_agent::{AgentStatus, Clocks, StopReason};
use tokio::{
    io::DuplexStream,
    sync::{Notify, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use super::files::Tree;
use crate::{
    backend::{ContainerInfo, ContainerSpec, ContainerState, StopCause},
    id::ContainerId,
    sync::Lock,
};

/// How long a stopping container waits for clients that do not read.
const FAREWELL: Duration = Duration::from_secs(1);

/// What runs in a container; a connection gives its stream back, to be closed at the very end.
pub(super) type Task = BoxFuture<'static, Option<DuplexStream>>;

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
    life: Option<(Arc<Life>, AbortHandle)>,
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
            last_active_at: life.map(|(life, _)| life.last_active_at()).or(facts.last_active_at),
            pid: None,
            isolation: None,
        }
    }

    /// What runs, unless the container is stopped or frozen or about to be.
    pub(super) fn life(&self) -> Option<Arc<Life>> {
        let facts = self.facts.lock();
        facts.life.as_ref().map(|(life, _)| Arc::clone(life))
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
        let end = End { container: Arc::clone(self), cause: StopCause::Killed };
        let abort = tasks.spawn(Arc::clone(&life).run(work, end));
        facts.state = ContainerState::Running;
        facts.stop_cause = None;
        facts.started_at = Some(SystemTime::now());
        facts.finished_at = None;
        facts.life = Some((life, abort));
        true
    }

    /// Freezes or thaws what runs; `false` when nothing does.
    pub(super) fn set_frozen(&self, frozen: bool) -> bool {
        let mut facts = self.facts.lock();
        let Some((life, _)) = &facts.life else {
            return false;
        };
        life.frozen.send_replace(frozen);
        facts.state = if frozen { ContainerState::Paused } else { ContainerState::Running };
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
            facts.life.as_ref().map(|(_, abort)| abort.clone())
        };
        if let Some(abort) = life {
            abort.abort();
            let _ = ended.changed().await;
        }
    }
}

/// Records how a life ended: also when its task was aborted, or its runtime went away.
struct End {
    container: Arc<Container>,
    cause: StopCause,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut facts = self.container.facts.lock();
        if facts.state != ContainerState::Removing {
            facts.state = ContainerState::Exited;
        }
        facts.stop_cause = Some(self.cause);
        facts.finished_at = Some(SystemTime::now());
        facts.last_active_at = facts.life.take().map(|(life, _)| life.last_active_at());
        drop(facts);
        self.container.ended.send_modify(|ended| *ended += 1);
    }
}

/// What runs in a container from one start to the next stop.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) boot_token: [u8; 16],
    begun: Instant,
    work: mpsc::UnboundedSender<Task>,
    stopping: watch::Sender<Option<StopReason>>,
    frozen: watch::Sender<bool>,
    changed: Notify,
    pulse: Lock<Pulse>,
}

#[derive(Debug)]
struct Pulse {
    auto_stop: Option<Duration>,
    stop_at: Option<Instant>,
    active: Instant,
    active_at: SystemTime,
    holding: u32,
    last_pid: u32,
}

impl Life {
    fn new(clocks: Clocks) -> (Arc<Self>, mpsc::UnboundedReceiver<Task>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let now = Instant::now();
        let pulse = Pulse {
            auto_stop: None,
            stop_at: None,
            active: now,
            active_at: SystemTime::now(),
            holding: 0,
            last_pid: 1,
        };
        let life = Self {
            boot_token: boot_token(),
            begun: now,
            work: sender,
            stopping: watch::Sender::new(None),
            frozen: watch::Sender::new(false),
            changed: Notify::new(),
            pulse: Lock::new(pulse),
        };
        life.set_clocks(clocks);
        (Arc::new(life), receiver)
    }

    /// Runs something as long as the container does.
    pub(super) fn spawn(&self, task: Task) {
        // What comes after the end is dropped, as it would be killed.
        let _ = self.work.send(task);
    }

    pub(super) fn stop(&self, reason: StopReason) {
        self.stopping.send_if_modified(|stopping| {
            let first = stopping.is_none();
            stopping.get_or_insert(reason);
            first
        });
    }

    /// Waits until the container stops.
    pub(super) async fn stopping(&self) -> StopReason {
        let mut stopping = self.stopping.subscribe();
        match stopping.wait_for(Option::is_some).await.map(|reason| *reason) {
            Ok(Some(reason)) => reason,
            // Neither can be: the sender is in `self`.
            Ok(None) | Err(_) => StopReason::Requested,
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.borrow().is_some()
    }

    /// Waits while the container is frozen.
    pub(super) async fn thawed(&self) {
        let _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
    }

    /// Counts as activity.
    pub(super) fn touch(&self) {
        let mut pulse = self.pulse.lock();
        pulse.active = Instant::now();
        pulse.active_at = SystemTime::now();
    }

    fn last_active_at(&self) -> SystemTime {
        self.pulse.lock().active_at
    }

    pub(super) fn next_pid(&self) -> u32 {
        let mut pulse = self.pulse.lock();
        pulse.last_pid = pulse.last_pid.wrapping_add(1).max(2);
        pulse.last_pid
    }

    /// Holds the `auto_stop` clock off as long as the answer lives.
    pub(super) fn hold(self: &Arc<Self>) -> Hold {
        self.touch();
        self.pulse.lock().holding += 1;
        Hold(Arc::clone(self))
    }

    pub(super) fn set_clocks(&self, clocks: Clocks) {
        let mut pulse = self.pulse.lock();
        pulse.auto_stop = clocks.auto_stop_ms.map(Duration::from_millis);
        // A time beyond what a clock can show is never.
        pulse.stop_at = clocks
            .max_lifetime_ms
            .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        self.changed.notify_one();
    }

    pub(super) fn status(&self) -> AgentStatus {
        let pulse = self.pulse.lock();
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        AgentStatus {
            uptime_ms: milliseconds(self.begun.elapsed()),
            idle_ms: milliseconds(pulse.active.elapsed()),
            running_execs: pulse.holding,
            clocks: Clocks {
                auto_stop_ms: pulse.auto_stop.map(milliseconds),
                max_lifetime_ms: pulse
                    .stop_at
                    .map(|at| milliseconds(at.saturating_duration_since(Instant::now()))),
            },
        }
    }

    /// When the container stops by itself, and why.
    fn next_stop(&self) -> Option<(Instant, StopReason)> {
        let pulse = self.pulse.lock();
        let idle = pulse.auto_stop.filter(|_| pulse.holding == 0);
        let idle = idle.and_then(|time| pulse.active.checked_add(time));
        let idle = idle.map(|at| (at, StopReason::AutoStop));
        let end = pulse.stop_at.map(|at| (at, StopReason::MaxLifetime));
        [idle, end].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Waits until a clock has run down.
    async fn run_down(&self) -> StopReason {
        loop {
            self.thawed().await;
            let next = self.next_stop();
            let wait = async {
                match next {
                    Some((at, _)) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                () = self.changed.notified() => continue,
            }
            // Activity meanwhile has moved the clock on, and a frozen agent stops nothing.
            if let Some((at, reason)) = self.next_stop()
                && at <= Instant::now()
                && !*self.frozen.borrow()
            {
                return reason;
            }
        }
    }

    /// Runs what it is given until the container stops, then ends all of it.
    async fn run(self: Arc<Self>, mut work: mpsc::UnboundedReceiver<Task>, mut end: End) {
        let mut running = JoinSet::new();
        let reason = {
            let clocks = async {
                let reason = self.run_down().await;
                self.stop(reason);
                std::future::pending::<()>().await;
            };
            tokio::pin!(clocks);
            let stopping = self.stopping();
            tokio::pin!(stopping);
            loop {
                tokio::select! {
                    biased;
                    reason = &mut stopping => break reason,
                    Some(task) = work.recv() => drop(running.spawn(task)),
                    Some(_) = running.join_next() => {}
                    () = &mut clocks => {}
                }
            }
        };
        // Everything has seen that the container stops, and ends by itself.
        work.close();
        while let Ok(task) = work.try_recv() {
            running.spawn(task);
        }
        let mut open = VecDeque::new();
        let farewell = async {
            while let Some(ended) = running.join_next().await {
                open.extend(ended.ok().flatten());
            }
        };
        // Who does not read within this time misses the rest.
        let _ = timeout(FAREWELL, farewell).await;
        end.cause = match reason {
            StopReason::Requested => StopCause::Requested,
            StopReason::AutoStop => StopCause::AutoStop,
            StopReason::MaxLifetime => StopCause::MaxLifetime,
            StopReason::MainExited => StopCause::MainExited,
        };
        // The engine knows of the end before any client sees its stream closed.
        drop(end);
        drop((open, running));
    }
}

/// Holds the `auto_stop` clock off.
#[derive(Debug)]
pub(super) struct Hold(Arc<Life>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.touch();
        let mut pulse = self.0.pulse.lock();
        pulse.holding = pulse.holding.saturating_sub(1);
        drop(pulse);
        self.0.changed.notify_one();
    }
}

/// 128 bits that no two calls share: the hasher's keys are the system's randomness.
fn boot_token() -> [u8; 16] {
    let mut token = [0; 16];
    for half in token.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(0_u8).to_le_bytes());
    }
    token
}

/// Every container by name.
pub(super) type Containers = BTreeMap<String, Arc<Container>>;
