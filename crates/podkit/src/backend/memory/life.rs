//! What runs in a simulated container from one start to the next stop, and its clocks.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use podkit_agent::{AgentStatus, Clocks, StopReason};
use tokio::{
    io::DuplexStream,
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::engine::End;
use crate::{backend::StopCause, sync::Lock};

/// How long a stopping container waits for clients that do not read.
const FAREWELL: Duration = Duration::from_secs(1);

/// What runs in a container; a connection gives its stream back, to be closed at the very end.
pub(super) type Task = BoxFuture<'static, Option<DuplexStream>>;

/// What runs in a container from one start to the next stop.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) boot_token: [u8; 16],
    begun: Instant,
    work: mpsc::UnboundedSender<Task>,
    stopping: watch::Sender<Option<StopReason>>,
    pub(super) frozen: watch::Sender<bool>,
    changed: Notify,
    killed: Notify,
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
    pub(super) fn new(clocks: Clocks) -> (Arc<Self>, mpsc::UnboundedReceiver<Task>) {
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
            killed: Notify::new(),
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

    /// Ends everything at once, without a word.
    pub(super) fn kill(&self) {
        self.killed.notify_one();
    }

    /// Waits until the container stops.
    pub(super) async fn stopping(&self) -> StopReason {
        let mut stopping = self.stopping.subscribe();
        match stopping
            .wait_for(Option::is_some)
            .await
            .map(|reason| *reason)
        {
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

    pub(super) fn last_active_at(&self) -> SystemTime {
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
            idle_ms: if pulse.holding > 0 {
                0
            } else {
                milliseconds(pulse.active.elapsed())
            },
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
    pub(super) async fn run(
        self: Arc<Self>,
        mut work: mpsc::UnboundedReceiver<Task>,
        mut end: End,
    ) {
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
                    () = self.killed.notified() => {
                        // Every stream is closed before anybody hears of the end.
                        running.shutdown().await;
                        return drop(end);
                    }
                    () = &mut clocks => {}
                }
            }
        };
        // Everything has seen that the container stops, and ends by itself.
        work.close();
        while let Ok(task) = work.try_recv() {
            running.spawn(task);
        }
        let mut open = Vec::new();
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
