//! Watching over sessions: what is not well is recovered, what is not used expires.

use std::{
    collections::{HashMap, HashSet},
    sync::Weak,
    time::{Duration, SystemTime},
};

use futures::{StreamExt, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::warn;

use self::look::Look;
pub use self::options::HealthOptions;
use super::{
    GcOptions, labels,
    manager::{Inner, SessionManager},
};
use crate::{
    container::{ContainerEventKind, Watched, jittered},
    error::Result,
    id::SessionKey,
};

mod look;
mod options;

/// Sessions that are looked at at the same time.
const PARALLEL: usize = 16;

/// What is remembered of one session from look to look.
#[derive(Debug, Default)]
struct Chart {
    /// Attempts that failed since it was well, and when the next one is due.
    failures: u32,
    retry_at: Option<Instant>,
    /// The use of the session after which its expiry was told.
    warned: Option<SystemTime>,
    /// When it expires, as far as was known at the last look.
    expires_at: Option<SystemTime>,
    /// Stops that were told.
    stopped: bool,
    /// Processes whose end was told.
    ended: HashSet<String>,
}

/// The one who watches.
struct Monitor {
    manager: Weak<Inner>,
    options: HealthOptions,
    began: SystemTime,
    charts: HashMap<SessionKey, Chart>,
}

impl SessionManager {
    /// Begins to watch, until the manager is shut down or gone.
    pub(crate) fn watch_health(&self, options: HealthOptions) -> Result<()> {
        let mut monitor = Monitor {
            manager: self.downgrade(),
            options,
            began: SystemTime::now(),
            charts: HashMap::new(),
        };
        let mut stopping = self.tasks().stopping();
        let (hurry, mut hurried) = watch::channel(());
        self.tasks().spawn(async move {
            let watching = monitor.run(&mut hurried);
            tokio::select! {
                () = watching => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        })?;
        self.listen(hurry)
    }

    /// Has the monitor look at once when the engine tells of something.
    fn listen(&self, hurry: watch::Sender<()>) -> Result<()> {
        let weak = self.downgrade();
        let mut stopping = self.tasks().stopping();
        self.tasks().spawn(async move {
            let listening = async {
                while let Some(manager) = weak.upgrade().map(Self::from_inner) {
                    let about = Watched::Labels(labels::filter(manager.prefix()));
                    let told = manager.containers().watch(&about, SystemTime::now()).await;
                    drop(manager);
                    let Some(told) = told else {
                        return;
                    };
                    if let Ok(mut told) = told {
                        while let Some(Ok(event)) = told.next().await {
                            use ContainerEventKind::{Ended, OutOfMemory, Paused, Removed};
                            if matches!(event.kind, Ended | OutOfMemory | Paused | Removed) {
                                hurry.send_replace(());
                            }
                        }
                    }
                    // The engine is restarting, say.
                    sleep(jittered(Duration::from_secs(1))).await;
                }
            };
            tokio::select! {
                () = listening => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        })
    }
}

impl Monitor {
    async fn run(&mut self, hurried: &mut watch::Receiver<()>) {
        let interval = self.options.interval.max(Duration::from_millis(10));
        let mut cleaned = Instant::now();
        loop {
            tokio::select! {
                () = sleep(jittered(interval)) => {}
                Ok(()) = hurried.changed() => {
                    // What was done on purpose is on record in a moment.
                    sleep(jittered(interval.min(Duration::from_millis(20)))).await;
                }
            }
            let Some(manager) = self.manager.upgrade().map(SessionManager::from_inner) else {
                return;
            };
            self.round(&manager).await;
            if let Some(idle) = self.options.clean_orphans
                && cleaned.elapsed() >= interval
            {
                cleaned = Instant::now();
                let options = GcOptions::new().with_idle(idle);
                if let Err(error) = manager.collect_here(options).await {
                    warn!(%error, "orphans cannot be looked for");
                }
            }
        }
    }

    async fn round(&mut self, manager: &SessionManager) {
        let mut slots = manager.known_slots();
        if self.options.all_sessions {
            match manager.prefix_slots().await {
                Ok(all) => slots.extend(all),
                Err(error) => warn!(%error, "sessions cannot be listed"),
            }
        }
        slots.sort_by(|one, other| one.key.cmp(&other.key));
        slots.dedup_by(|one, other| one.key == other.key);
        let mut old = std::mem::take(&mut self.charts);
        let (options, began) = (self.options, self.began);
        let looks: Vec<_> = slots
            .into_iter()
            .map(|slot| {
                let chart = old.remove(&slot.key).unwrap_or_default();
                let look = Look {
                    manager: manager.clone(),
                    slot,
                    options,
                    began,
                    chart,
                };
                Box::pin(look.run())
            })
            .collect();
        let mut looks = stream::iter(looks).buffer_unordered(PARALLEL);
        while let Some((key, chart)) = looks.next().await {
            self.charts.extend(chart.map(|chart| (key, chart)));
        }
    }
}
