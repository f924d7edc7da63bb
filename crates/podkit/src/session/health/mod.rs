//! Watching over sessions: what is not well is recovered, what is not used expires.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

use self::look::Look;
pub use self::options::HealthOptions;
use super::{
    GcOptions, labels,
    manager::{Inner, SessionManager},
    slot::Slot,
};
use crate::{
    container::{ContainerEventKind, Watched, jittered},
    error::Result,
    id::{ContainerId, SessionKey},
    sync::Lock,
};

mod look;
mod options;

/// Sessions that are looked at at the same time.
const PARALLEL: usize = 16;

/// How soon what the engine has told of is looked at.
const SOON: Duration = Duration::from_millis(20);

/// How long an engine takes to stop its containers before it ends.
const SHUTDOWN: Duration = Duration::from_secs(15);

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

/// What a look comes to: what is remembered of the session, if it is watched on. Nothing for the
/// cleaning.
type Looked = Option<(SessionKey, Option<Chart>)>;

/// The one who watches.
struct Monitor {
    manager: Weak<Inner>,
    options: HealthOptions,
    began: SystemTime,
    charts: HashMap<SessionKey, Chart>,
    /// Looks and recoveries that go on; one that takes long holds no other session up.
    looks: FuturesUnordered<BoxFuture<'static, Looked>>,
    busy: HashSet<SessionKey>,
    places: Arc<Semaphore>,
    cleaning: bool,
}

/// What the engine has told.
#[derive(Debug, Default)]
struct Told {
    /// The containers that it was about.
    names: Lock<HashSet<ContainerId>>,
    notify: Notify,
    outage: Lock<Option<Outage>>,
}

/// When the engine was last gone: from its last word to its first.
#[derive(Clone, Copy, Debug)]
struct Outage {
    began: SystemTime,
    ended: Option<SystemTime>,
}

impl Outage {
    /// Whether what stopped then may have been stopped by the engine's own end, or as it began again.
    fn covers(self, stopped: SystemTime) -> bool {
        let before = stopped + SHUTDOWN < self.began;
        let after = self.ended.is_some_and(|ended| stopped > ended);
        !before && !after
    }
}

impl Told {
    fn lost(&self) {
        let began = SystemTime::now();
        *self.outage.lock() = Some(Outage { began, ended: None });
    }

    fn found(&self) {
        if let Some(outage) = &mut *self.outage.lock() {
            outage.ended.get_or_insert_with(SystemTime::now);
        }
    }
}

impl SessionManager {
    /// Begins to watch, until the manager is shut down or gone.
    pub(crate) fn watch_health(&self, options: HealthOptions) -> Result<()> {
        let mut monitor = Monitor {
            manager: self.downgrade(),
            options,
            began: SystemTime::now(),
            charts: HashMap::new(),
            looks: FuturesUnordered::new(),
            busy: HashSet::new(),
            places: Arc::new(Semaphore::new(PARALLEL)),
            cleaning: false,
        };
        let mut stopping = self.tasks().stopping();
        let told = Arc::new(Told::default());
        let heard = Arc::clone(&told);
        let abandoned = self.abandoned();
        self.tasks().spawn(async move {
            tokio::select! {
                () = monitor.run(&heard) => {}
                () = abandoned => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        })?;
        self.listen(told)
    }

    /// Has the monitor look at once at what the engine tells of.
    fn listen(&self, told: Arc<Told>) -> Result<()> {
        let weak = self.downgrade();
        let mut stopping = self.tasks().stopping();
        let abandoned = self.abandoned();
        self.tasks().spawn(async move {
            let listening = async {
                while let Some(manager) = weak.upgrade().map(Self::from_inner) {
                    let about = Watched::Labels(labels::filter(manager.prefix()));
                    let events = manager.containers().watch(&about, SystemTime::now()).await;
                    drop(manager);
                    let Some(events) = events else {
                        return;
                    };
                    if let Ok(mut events) = events {
                        told.found();
                        while let Some(Ok(event)) = events.next().await {
                            use ContainerEventKind::{Ended, OutOfMemory, Paused, Removed};
                            if matches!(event.kind, Ended | OutOfMemory | Paused | Removed) {
                                told.names.lock().insert(event.container);
                                told.notify.notify_one();
                            }
                        }
                        told.lost();
                    }
                    // The engine is restarting, say.
                    sleep(jittered(Duration::from_secs(1))).await;
                }
            };
            tokio::select! {
                () = listening => {}
                () = abandoned => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        })
    }
}

impl Monitor {
    async fn run(&mut self, told: &Told) {
        let interval = self.options.interval.max(Duration::from_millis(10));
        let mut next = Instant::now() + jittered(interval);
        loop {
            let named = tokio::select! {
                () = sleep_until(next) => {
                    next = Instant::now() + jittered(interval);
                    None
                }
                () = told.notify.notified() => {
                    // What was done on purpose is on record in a moment.
                    sleep(jittered(interval.min(SOON))).await;
                    Some(std::mem::take(&mut *told.names.lock()))
                }
                Some(looked) = self.looks.next(), if !self.looks.is_empty() => {
                    self.note(looked);
                    continue;
                }
            };
            let Some(manager) = self.manager.upgrade().map(SessionManager::from_inner) else {
                return;
            };
            let slots = match &named {
                Some(names) => named_slots(&manager, names, self.options.all_sessions).await,
                None => self.all_slots(&manager).await,
            };
            let outage = *told.outage.lock();
            for slot in slots {
                self.begin_look(&manager, slot, outage);
            }
            if named.is_none() {
                self.clean(&manager);
            }
        }
    }

    fn note(&mut self, looked: Looked) {
        match looked {
            None => self.cleaning = false,
            Some((key, chart)) => {
                self.busy.remove(&key);
                self.charts.extend(chart.map(|chart| (key, chart)));
            }
        }
    }

    /// The sessions that are watched.
    async fn all_slots(&mut self, manager: &SessionManager) -> Vec<Arc<Slot>> {
        let mut slots = manager.known_slots();
        if self.options.all_sessions {
            match manager.prefix_slots().await {
                Ok(all) => slots.extend(all),
                Err(error) => warn!(%error, "sessions cannot be listed"),
            }
        }
        slots.sort_by(|one, other| one.key.cmp(&other.key));
        slots.dedup_by(|one, other| one.key == other.key);
        let there: HashSet<&SessionKey> = slots.iter().map(|slot| &slot.key).collect();
        self.charts.retain(|key, _| there.contains(key));
        slots
    }

    fn begin_look(&mut self, manager: &SessionManager, slot: Arc<Slot>, outage: Option<Outage>) {
        if !self.busy.insert(slot.key.clone()) {
            return;
        }
        let look = Look {
            manager: manager.clone(),
            chart: self.charts.remove(&slot.key).unwrap_or_default(),
            slot,
            options: self.options,
            began: self.began,
            outage,
        };
        let places = Arc::clone(&self.places);
        self.looks.push(Box::pin(async move {
            let _place = places.acquire().await;
            Some(look.run().await)
        }));
    }

    fn clean(&mut self, manager: &SessionManager) {
        let Some(idle) = self.options.clean_orphans.filter(|_| !self.cleaning) else {
            return;
        };
        self.cleaning = true;
        let manager = manager.clone();
        self.looks.push(Box::pin(async move {
            let options = GcOptions::new().with_idle(idle);
            if let Err(error) = manager.collect_here(options).await {
                warn!(%error, "orphans cannot be looked for");
            }
            None
        }));
    }
}

/// The sessions that are watched and whose containers the engine has told of.
async fn named_slots(
    manager: &SessionManager,
    names: &HashSet<ContainerId>,
    all_sessions: bool,
) -> Vec<Arc<Slot>> {
    let mut slots = manager.known_slots();
    slots.retain(|slot| names.contains(&slot.name));
    if !all_sessions {
        return slots;
    }
    for name in names {
        if slots.iter().any(|slot| slot.name == *name) {
            continue;
        }
        // One that cannot be looked at now is looked at with all others.
        if let Ok(Some(info)) = manager.containers().find(name).await
            && let Some(key) = labels::owner(manager.prefix(), &info)
            && let Ok(slot) = manager.slot(&key)
        {
            slots.push(slot);
        }
    }
    slots
}
