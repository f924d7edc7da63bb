//! Removing what has expired and what crashed callers left.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{StreamExt, stream};
use tracing::{Instrument, info, info_span};

use super::{labels, manager::SessionManager, slot::Slot};
use crate::{
    config::Limit,
    container::{ContainerInfo, ContainerState, SweepReport},
    error::{Error, ErrorKind, Result},
    event::EventKind,
    id::SessionKey,
};

/// A container that was made and not started yet is its maker's for so long.
const SPARED: Duration = Duration::from_secs(600);

/// Sessions that are looked at at the same time.
const PARALLEL: usize = 8;

/// What to collect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcOptions {
    /// Removes every session that was not active for so long; without, only those whose own
    /// `idle_timeout` is over.
    pub idle: Option<Duration>,
    /// Says what would be removed, and removes nothing.
    pub dry_run: bool,
}

impl GcOptions {
    /// Collects what its own clock has ended.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`idle`](Self::idle).
    #[must_use]
    pub const fn with_idle(mut self, idle: Duration) -> Self {
        self.idle = Some(idle);
        self
    }

    /// Sets [`dry_run`](Self::dry_run).
    #[must_use]
    pub const fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

/// What was collected.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct GcReport {
    /// Sessions whose container was removed, or would be.
    pub removed: Vec<SessionKey>,
    /// Number of sessions that stay.
    pub kept: usize,
    /// What else the engine removed; nothing in a dry run.
    pub swept: SweepReport,
    /// What failed.
    pub failed: Vec<Error>,
}

/// What a look at one session came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// It was made and never started.
    Unfinished,
    /// Its own time is over.
    Expired,
    /// Nobody used it for so long.
    Orphaned(Duration),
    /// It went away by itself.
    Gone,
}

impl Verdict {
    const fn removes(self) -> bool {
        matches!(self, Self::Unfinished | Self::Expired | Self::Orphaned(_))
    }
}

impl SessionManager {
    pub(crate) async fn gc(&self, options: GcOptions) -> Result<GcReport> {
        let span = info_span!("podkit.gc", backend = self.containers().backend_name());
        let manager = self.clone();
        let task = async move { manager.collect(options).await };
        let task = self.tasks().run(task.instrument(span));
        task.await
            .map_err(|error| error.with_operation("collect garbage"))
    }

    /// As [`gc`](Self::gc), within a task of the manager's own.
    pub(super) async fn collect_here(&self, options: GcOptions) -> Result<GcReport> {
        self.clone().collect(options).await
    }

    /// Removes a session whose `idle_timeout` is over; it is looked at again before.
    pub(super) async fn expire(&self, slot: &Slot) -> Result<()> {
        if let Some(info) = self.containers().find(&slot.name).await? {
            self.collect_one(&slot.key, &info, GcOptions::new()).await?;
        }
        Ok(())
    }

    /// All sessions of the prefix.
    pub(super) async fn prefix_slots(&self) -> Result<Vec<Arc<Slot>>> {
        let filter = labels::filter(self.prefix());
        let found = self.containers().list(&filter).await?;
        let keys = found
            .iter()
            .filter_map(|info| labels::owner(self.prefix(), info));
        keys.map(|key| self.slot(&key)).collect()
    }

    async fn collect(self, options: GcOptions) -> Result<GcReport> {
        let found = self
            .containers()
            .list(&labels::filter(self.prefix()))
            .await?;
        let ours = found
            .into_iter()
            .filter_map(|info| Some((labels::owner(self.prefix(), &info)?, info)));
        let looks = ours.map(|(key, info)| {
            let manager = &self;
            Box::pin(async move {
                let verdict = manager.collect_one(&key, &info, options).await;
                (key, verdict)
            })
        });
        let looks: Vec<_> = looks.collect();
        let mut looks = stream::iter(looks).buffer_unordered(PARALLEL);
        let mut report = GcReport::default();
        while let Some((key, verdict)) = looks.next().await {
            match verdict {
                Ok(verdict) if verdict.removes() => report.removed.push(key),
                Ok(Verdict::Gone) => {}
                Ok(_) => report.kept += 1,
                Err(error) => {
                    report.kept += 1;
                    report.failed.push(error);
                }
            }
        }
        drop(looks);
        report.removed.sort();
        if !options.dry_run {
            match self.containers().sweep(SPARED).await {
                Ok(swept) => report.swept = swept,
                Err(error) => report.failed.push(error),
            }
        }
        info!(
            removed = report.removed.len(),
            kept = report.kept,
            "garbage collected"
        );
        Ok(report)
    }

    async fn collect_one(
        &self,
        key: &SessionKey,
        listed: &ContainerInfo,
        options: GcOptions,
    ) -> Result<Verdict> {
        let verdict = self.judge(listed, options).await?;
        if !verdict.removes() || options.dry_run {
            return Ok(verdict);
        }
        let slot = self.slot(key)?;
        // Whoever opens or closes it in this process goes first; then it is looked at again, since
        // any process may have used it meanwhile.
        let _gate = slot.gate.lock().await;
        let Some(info) = self.containers().find(&listed.id).await? else {
            return Ok(Verdict::Gone);
        };
        if labels::owner(self.prefix(), &info).as_ref() != Some(key) {
            return Ok(Verdict::Gone);
        }
        let verdict = self.judge(&info, options).await?;
        match verdict {
            Verdict::Expired => self.tell(&slot, EventKind::SessionExpired),
            Verdict::Orphaned(idle) => self.tell(&slot, EventKind::OrphanRemoved(idle)),
            _ => {}
        }
        if verdict.removes() {
            slot.stopped();
            // Nobody makes it again but who uses it.
            slot.set_resting(true);
            self.remove_ours(&slot, &info).await?;
        }
        Ok(verdict)
    }

    async fn judge(&self, info: &ContainerInfo, options: GcOptions) -> Result<Verdict> {
        let since = |then: SystemTime| SystemTime::now().duration_since(then).unwrap_or_default();
        if info.state == ContainerState::Removing {
            return Ok(Verdict::Keep);
        }
        if info.state == ContainerState::Created {
            let old = since(info.created_at) >= SPARED;
            return Ok(if old {
                Verdict::Unfinished
            } else {
                Verdict::Keep
            });
        }
        let own = labels::config(info)
            .and_then(|spec| spec.idle_timeout)
            .and_then(Limit::duration);
        let Some(limit) = own.into_iter().chain(options.idle).min() else {
            return Ok(Verdict::Keep);
        };
        let idle = match self.idle(info).await {
            Ok(idle) => idle,
            Err(_) if self.containers().find(&info.id).await?.is_none() => {
                return Ok(Verdict::Gone);
            }
            Err(error) => return Err(error),
        };
        Ok(match idle {
            Some(idle) if own.is_some_and(|own| idle >= own) => Verdict::Expired,
            Some(idle) if idle >= limit => Verdict::Orphaned(idle),
            _ => Verdict::Keep,
        })
    }

    /// Time since the last activity; none while a command runs. The agent knows while it lives;
    /// what the engine recorded counts when it does not.
    async fn idle(&self, info: &ContainerInfo) -> Result<Option<Duration>> {
        let mut info = info.clone();
        for last in [false, true] {
            if info.state != ContainerState::Running {
                break;
            }
            let error = match self.containers().status(&info).await {
                Ok(status) => {
                    let idle = Duration::from_millis(status.idle_ms);
                    return Ok((status.running_execs == 0).then_some(idle));
                }
                Err(error) => error,
            };
            // It may have stopped since it was looked at, or be about to.
            match self.containers().find(&info.id).await? {
                Some(now) if now.state != ContainerState::Running => info = now,
                Some(_) if error.kind() == ErrorKind::ContainerGone => break,
                Some(now) if !last => info = now,
                _ => return Err(error),
            }
        }
        // A container that stopped by its clock was last active before that. When it ended counts
        // only when nothing else is known.
        let known = info
            .last_active_at
            .max(info.started_at)
            .or(info.finished_at);
        let last = known.unwrap_or(info.created_at);
        Ok(Some(
            SystemTime::now().duration_since(last).unwrap_or_default(),
        ))
    }
}
