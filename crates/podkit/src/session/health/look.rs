//! One look at one session, and what it leads to.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::{
    super::{
        labels,
        manager::SessionManager,
        open::{Asker, Effort, Opened},
        slot::Slot,
    },
    Chart, HealthOptions, Outage,
};
use crate::{
    config::Limit,
    container::{ContainerInfo, ContainerState, StopCause},
    error::{Error, ErrorKind, Result},
    event::{EventKind, Illness, ProcessRef, Symptom, told_words},
    id::SessionKey,
    process::ProcessState,
};

/// What is found not to be well is looked at again after so long: it may be on its way out.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// Longest time between two attempts to recover one session, in intervals.
const LONGEST_WAIT: u32 = 64;

/// One look at one session.
pub(super) struct Look {
    pub(super) manager: SessionManager,
    pub(super) slot: Arc<Slot>,
    pub(super) options: HealthOptions,
    pub(super) began: SystemTime,
    pub(super) outage: Option<Outage>,
    pub(super) chart: Chart,
}

impl Look {
    /// Looks, and does what has to be done; what is remembered, unless there is nothing to watch any
    /// more.
    pub(super) async fn run(mut self) -> (SessionKey, Option<Chart>) {
        let key = self.slot.key.clone();
        // Whoever opens or closes it knows better.
        let gate = self.slot.gate.try_lock().is_ok();
        if !gate {
            return (key, Some(self.chart));
        }
        let keep = match self.look().await {
            Ok(keep) => keep,
            Err(error) => {
                debug!(%error, %key, "a session cannot be looked at");
                true
            }
        };
        (key, keep.then_some(self.chart))
    }

    async fn look(&mut self) -> Result<bool> {
        let closings = self.slot.closings();
        let found = self.manager.containers().find(&self.slot.name).await?;
        if self.slot.closings() != closings {
            return Ok(false);
        }
        let Some(info) = found else {
            // Whoever it was that found it expired.
            let expired = self
                .chart
                .expires_at
                .is_some_and(|at| at <= SystemTime::now());
            if self.slot.known().is_none() || self.slot.is_resting() || expired {
                return Ok(false);
            }
            self.recover(None, Symptom::Removed, closings).await;
            return Ok(true);
        };
        if labels::owner(self.manager.prefix(), &info).as_ref() != Some(&self.slot.key) {
            return Ok(false);
        }
        match info.state {
            ContainerState::Running => return self.probe(&info, closings).await,
            ContainerState::Paused if self.slot.is_resting() => {}
            ContainerState::Paused => self.recover(Some(&info), Symptom::Frozen, closings).await,
            ContainerState::Exited => self.exited(&info, closings).await,
            ContainerState::Dead => self.recover(Some(&info), Symptom::Broken, closings).await,
            ContainerState::Created | ContainerState::Removing => {}
        }
        Ok(true)
    }

    /// One that ended on purpose, or by its clock, is left alone.
    async fn exited(&mut self, info: &ContainerInfo, closings: u64) {
        let on_purpose = match info.stop_cause {
            Some(StopCause::AutoStop | StopCause::MaxLifetime) => true,
            // An engine that ends, or begins again, stops its containers as anybody would.
            Some(StopCause::Requested) => {
                let stopped = info.finished_at.zip(self.outage);
                !stopped.is_some_and(|(at, outage)| outage.covers(at))
            }
            Some(StopCause::MainExited) => info.exit_code == Some(0),
            Some(StopCause::Killed) | None => false,
        };
        let on_purpose = on_purpose || self.slot.is_resting();
        if !on_purpose {
            return self.recover(Some(info), Symptom::Died, closings).await;
        }
        let told = std::mem::replace(&mut self.chart.stopped, true);
        let by_itself = info.stop_cause != Some(StopCause::Requested) && !self.slot.is_resting();
        if !told && by_itself {
            let cause = EventKind::ContainerStopped(info.stop_cause);
            self.manager.tell(&self.slot, cause);
        }
        self.expire(info, None).await;
    }

    async fn probe(&mut self, info: &ContainerInfo, closings: u64) -> Result<bool> {
        self.chart.stopped = false;
        let asked = self.manager.containers().status(info);
        match timeout(self.options.probe_deadline, asked).await {
            Ok(Ok(status)) => {
                if std::mem::take(&mut self.chart.failures) > 0 {
                    // An attempt that failed at its last step, or somebody else, has mended it.
                    let well = EventKind::Recovered(Opened::Reconnected);
                    self.manager.tell(&self.slot, well);
                }
                self.chart.retry_at = None;
                self.look_at_processes(info).await;
                let idle = Duration::from_millis(status.idle_ms);
                self.chart.expires_at = None;
                if status.running_execs == 0 {
                    self.expire(info, Some(idle)).await;
                }
            }
            Ok(Err(error)) if error.kind() == ErrorKind::ContainerGone => {
                // It is ending; the next look tells how.
            }
            Ok(Err(error)) if error.kind() != ErrorKind::AgentUnreachable => return Err(error),
            Ok(Err(_)) | Err(_) => {
                let now = self.manager.containers().find(&info.id).await?;
                let same = now.is_some_and(|now| {
                    now.state == ContainerState::Running && now.started_at == info.started_at
                });
                if same {
                    self.recover(Some(info), Symptom::Silent, closings).await;
                }
            }
        }
        Ok(true)
    }

    /// Tells of processes that ended.
    async fn look_at_processes(&mut self, info: &ContainerInfo) {
        if !self.manager.events().is_heard() {
            return;
        }
        let containers = self.manager.containers();
        let listed = async {
            let client = containers.client(&info.id, Some(info)).await?;
            client.processes().await
        };
        let Ok(Ok(processes)) = timeout(self.options.probe_deadline, listed).await else {
            return;
        };
        let mut there = HashSet::new();
        for process in processes {
            let ProcessState::Ended(outcome) = process.state else {
                continue;
            };
            let new = process.ended_at.is_some_and(|at| at >= self.began);
            if new && !self.chart.ended.contains(&process.id) {
                let about = ProcessRef {
                    id: process.id.clone(),
                    name: process.name.clone().unwrap_or_default(),
                    argv: told_words(&process.argv),
                };
                let ended = EventKind::ProcessEnded(about, outcome);
                self.manager.tell(&self.slot, ended);
            }
            there.insert(process.id);
        }
        self.chart.ended = there;
    }

    /// Lets a session expire that was not used for its `idle_timeout`, and says so before.
    async fn expire(&mut self, info: &ContainerInfo, idle: Option<Duration>) {
        let limit = labels::config(info)
            .and_then(|spec| spec.idle_timeout)
            .and_then(Limit::duration);
        let Some(limit) = limit else {
            return;
        };
        let now = SystemTime::now();
        let used = match idle {
            Some(idle) => now.checked_sub(idle),
            None => info.last_active_at.or(info.finished_at),
        };
        let Some(used) = used else {
            return;
        };
        let idle = now.duration_since(used).unwrap_or_default();
        self.chart.expires_at = used.checked_add(limit);
        if idle >= limit {
            // It is looked at again under its gate before it goes.
            if let Err(error) = self.manager.expire(&self.slot).await {
                warn!(%error, "an expired session cannot be removed");
            }
            return;
        }
        let before = self.options.warn_before.min(limit / 10);
        let warned = self.chart.warned.is_some_and(|told| used <= told);
        if idle + before >= limit && !warned {
            self.chart.warned = Some(now);
            let at = used + limit;
            self.manager
                .tell(&self.slot, EventKind::SessionExpiring(at));
        }
    }

    /// Resumes, restarts or makes anew, once a session is found not to be well; later and later when
    /// that fails.
    async fn recover(&mut self, info: Option<&ContainerInfo>, symptom: Symptom, closings: u64) {
        if self.chart.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        if let Some(info) = info {
            sleep(SECOND_LOOK).await;
            let now = self.manager.containers().find(&info.id).await;
            let same = now.is_ok_and(|now| now.is_some_and(|now| now.state == info.state));
            if !same || self.slot.closings() != closings || self.slot.is_resting() {
                return;
            }
        }
        if self.chart.failures == 0 {
            let log = match info {
                Some(info) => self.manager.last_words(info, self.options.log_lines).await,
                None => Vec::new(),
            };
            let illness = Illness {
                symptom,
                exit_code: info.and_then(|info| info.exit_code),
                log,
            };
            let failed = EventKind::HealthCheckFailed(illness);
            self.manager.tell(&self.slot, failed);
        }
        let silent = symptom == Symptom::Silent;
        match self.treat(info.filter(|_| silent), closings).await {
            Ok(()) => {
                self.chart.failures = 0;
                self.chart.retry_at = None;
            }
            // This process has closed it meanwhile, or somebody is removing it: then the next look mends
            // what was told of already.
            Err(error) if error.kind() == ErrorKind::ContainerGone => {
                if self.slot.closings() == closings {
                    self.chart.failures = self.chart.failures.max(1);
                }
            }
            Err(error) => {
                warn!(%error, key = %self.slot.key, "a session cannot be recovered");
                self.chart.failures = self.chart.failures.saturating_add(1);
                let wait = 2_u32
                    .saturating_pow(self.chart.failures.min(16))
                    .min(LONGEST_WAIT);
                self.chart.retry_at = Some(Instant::now() + self.options.interval * wait);
            }
        }
    }

    async fn treat(&self, silent: Option<&ContainerInfo>, closings: u64) -> Result<(), Error> {
        if let Some(info) = silent {
            let _gate = self.slot.gate.lock().await;
            let now = self.manager.containers().find(&info.id).await?;
            if now.is_some_and(|now| now.started_at == info.started_at) {
                self.slot.stopped();
                self.manager
                    .stop_container(&self.slot, Duration::ZERO)
                    .await?;
            }
        } else {
            self.slot.stopped();
        }
        let effort = if self.slot.known().is_some() {
            Effort::Create
        } else {
            Effort::Start
        };
        self.manager
            .reopen(&self.slot, closings, effort, Asker::Monitor)
            .await
            .map(drop)
    }
}
