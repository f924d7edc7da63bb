//! One opening: rounds of look, act, look again.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    labels,
    manager::SessionManager,
    open::{Effort, OnConflict, Opened, Wish},
    slot::{Live, Slot},
    spec::{differences, merged},
};
use crate::{
    config::{HostPort, Limit, Port, SessionSpec},
    container::{ContainerInfo, ContainerRequest, ContainerState, StopCause, jittered},
    error::{Error, ErrorKind, Result},
    id::ContainerId,
};

/// Pause after the first round in which the container was found changing; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Longest pause between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How often one opening starts a container that was killed again: by a closer, most likely, whose
/// removal is under way, so that it is worth looking again.
const STARTS: u32 = 20;

/// How often one opening makes a container whose start is refused for a port that the engine had chosen.
const CHOICES: u32 = 8;

/// How often one opening meets an agent that is gone before it has answered, of a container that runs: it is
/// being killed, most likely, and looking again tells.
const UNREACHABLE: u32 = 20;

/// Lines of a program that ends at once that are shown.
const LAST_LINES: usize = 5;

/// Rounds after which a container that runs, and takes no callers, has lost its socket.
const UNSERVED: u32 = 10;

/// One opening in progress: rounds of look, act, look again, until a running container answers.
pub(super) struct Opening<'a> {
    manager: &'a SessionManager,
    slot: &'a Slot,
    wish: Wish,
    opened: Opened,
    config_lost: bool,
    /// The configuration of a container that had to be removed.
    salvaged: Option<SessionSpec>,
    /// The labels of the container that this opening has made: they hold the moment.
    made: Option<BTreeMap<String, String>>,
    /// Whether what this process remembers is not to be used.
    afresh: bool,
    starts: u32,
    unreachable: u32,
    /// Rounds in which a container ran and nobody listened for its agent.
    unserved: u32,
    /// When this opening first tried to reach the agent.
    reaching_since: Option<Instant>,
    settling_since: Option<Instant>,
}

/// What one round came to.
enum Round {
    Done(Arc<Live>),
    /// The container changed under our hands: look again.
    Again,
    /// Somebody else is at it: look again a little later.
    Wait,
}

impl<'a> Opening<'a> {
    pub(super) fn new(manager: &'a SessionManager, slot: &'a Slot, wish: Wish) -> Self {
        Self {
            manager,
            slot,
            wish,
            opened: Opened::Reconnected,
            config_lost: false,
            salvaged: None,
            made: None,
            afresh: false,
            starts: 0,
            unreachable: 0,
            unserved: 0,
            reaching_since: None,
            settling_since: None,
        }
    }

    pub(super) async fn run(&mut self) -> Result<(Arc<Live>, Opened)> {
        let deadlines = *self.manager.containers().deadlines();
        let until = Instant::now() + deadlines.create + deadlines.settle;
        let mut pause = FIRST_PAUSE;
        let mut rounds = 0_u32;
        self.inherit().await?;
        loop {
            let looked = SystemTime::now();
            let round = match self.round().await {
                Ok(Round::Done(live)) => {
                    self.verify(&live).await?;
                    return Ok((live, self.opened));
                }
                Ok(round) => round,
                Err(error) if vanished(&error) && Instant::now() < until => Round::Again,
                Err(error) => return Err(error),
            };
            let since = *self.settling_since.get_or_insert_with(Instant::now);
            if Instant::now() > until || since.elapsed() > deadlines.settle {
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    format!("the container did not settle within {:?}", deadlines.settle),
                )
                .with_container(&self.slot.name)
                .with_hint(
                    "look at it with `podkit inspect`; another process may be removing it",
                ));
            }
            // The first round again is at once: a lost race is most often won the second time.
            rounds += 1;
            if rounds > 1 || matches!(round, Round::Wait) {
                let containers = self.manager.containers();
                let id = &self.slot.name;
                containers.changed(id, looked, jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Looks whether what this opening has started stays up, and is ready.
    async fn verify(&self, live: &Arc<Live>) -> Result<()> {
        if matches!(self.opened, Opened::Reconnected | Opened::Resumed) {
            return Ok(());
        }
        let (manager, slot) = (self.manager, self.slot);
        let look = async {
            if let Some(check) = self.wish.startup {
                manager.verify_startup(slot, check).await?;
            }
            match &self.wish.ready {
                Some((readiness, limit)) => manager.wait_until_ready(live, readiness, *limit).await,
                None => Ok(()),
            }
        };
        match look.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.without_own(error).await),
        }
    }

    /// Removes the container if this opening has made it, and keeps the first error.
    async fn without_own(&self, error: Error) -> Error {
        let Some(made) = &self.made else {
            return error;
        };
        match self.manager.containers().find(&self.slot.name).await {
            Ok(Some(info)) if bears(&info, made) => self.take_away(error).await,
            Ok(_) => error,
            Err(failure) => error.with_cleanup(failure),
        }
    }

    /// Removes what this opening made, and keeps the first error.
    async fn take_away(&self, error: Error) -> Error {
        let (manager, slot) = (self.manager, self.slot);
        match manager.remove_container(slot, &slot.name).await {
            Ok(()) => error,
            Err(failure) => error.with_cleanup(failure),
        }
    }

    /// Turns a wish to inherit into what it comes to here: a container is compared with that.
    async fn inherit(&mut self) -> Result<()> {
        let wish = &mut self.wish.spec;
        if !wish.inherit_networks && !wish.inherit_image {
            return Ok(());
        }
        let containers = self.manager.containers();
        containers.check(wish)?;
        *wish = containers.inherit(std::mem::take(wish)).await?;
        Ok(())
    }

    async fn round(&mut self) -> Result<Round> {
        let containers = self.manager.containers();
        let Some(info) = containers.find(&self.slot.name).await? else {
            return self.create().await;
        };
        // What is left of a container may have lost its labels; the name is the session's alone.
        let wreck = info.state == ContainerState::Dead && info.labels.is_empty();
        if !wreck && labels::owner(self.manager.prefix(), &info).as_ref() != Some(&self.slot.key) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "a container of this name exists that does not carry this session's labels",
            )
            .with_container(&info.id)
            .with_hint("remove that container, or use another prefix"));
        }
        let alive = matches!(info.state, ContainerState::Running | ContainerState::Paused);
        if self.wish.effort == Effort::Connect && !alive {
            return Err(
                Error::new(ErrorKind::NotFound, "the container does not run")
                    .with_container(&info.id),
            );
        }
        match info.state {
            ContainerState::Removing => return Ok(Round::Wait),
            ContainerState::Dead => {
                self.salvaged = labels::config(&info);
                self.config_lost |= self.salvaged.is_none();
                self.opened = Opened::Recovered;
                self.manager.remove_container(self.slot, &info.id).await?;
                return Ok(Round::Again);
            }
            ContainerState::Created
            | ContainerState::Running
            | ContainerState::Paused
            | ContainerState::Exited => {}
        }
        let stored = labels::config(&info);
        let wished = labels::wish(&info, &self.slot.key, &self.wish.spec);
        let conflict = self.conflict(&info, wished.as_ref().or(stored.as_ref()))?;
        if !conflict.is_empty() && self.wish.on_conflict == OnConflict::Replace {
            info!(fields = conflict.join(", "), "replacing the container");
            (self.opened, self.afresh) = (Opened::Created, true);
            self.slot.stopped();
            self.manager.remove_ours(self.slot, &info).await?;
            return Ok(Round::Again);
        }
        self.adopt(&info, stored).await
    }

    /// The fields in which the container differs from the wish, unless that is an error.
    fn conflict(&self, info: &ContainerInfo, stored: Option<&SessionSpec>) -> Result<Vec<String>> {
        let wish = &self.wish.spec;
        if *wish == SessionSpec::default() {
            return Ok(Vec::new());
        }
        let containers = self.manager.containers();
        containers.check(wish)?;
        let Some(stored) = stored else {
            warn!("the container's configuration cannot be read, so it was not compared");
            return Ok(Vec::new());
        };
        let fields = differences(wish, stored, info, &containers.capabilities().default_image);
        if fields.is_empty() {
            return Ok(fields);
        }
        let names = fields.join("`, `");
        match self.wish.on_conflict {
            OnConflict::Fail => Err(Error::new(
                ErrorKind::Conflict,
                format!("the session's container was made with other values of `{names}`"),
            )
            .with_container(&info.id)
            .with_hint("leave these fields out, or use the session as it is (`--reuse`) or make its container anew (`--replace`)")),
            OnConflict::Reuse => {
                warn!(
                    fields = fields.join(", "),
                    "using a container of another configuration"
                );
                Ok(fields)
            }
            OnConflict::Replace => Ok(fields),
        }
    }

    /// Brings a container that is there to life and connects to it.
    async fn adopt(&mut self, info: &ContainerInfo, stored: Option<SessionSpec>) -> Result<Round> {
        let containers = self.manager.containers();
        let lost = stored.is_none();
        let spec = match stored {
            Some(spec) => spec,
            None => merged(self.manager.defaults(), &self.wish.spec),
        };
        let mut seen = Some(info);
        match info.state {
            ContainerState::Running => {}
            ContainerState::Paused => {
                self.manager.resume_container(self.slot).await?;
                self.became(Opened::Resumed);
            }
            _ => {
                self.may_start(info, &spec).await?;
                if spec.workspace.is_some() {
                    self.manager.mounts(&self.slot.key, &spec).await?;
                }
                self.start(info).await?;
                self.became(Opened::Started);
                seen = None;
            }
        }
        self.config_lost |= lost;
        if seen.is_none() {
            containers.forget(&info.id);
        }
        self.connect(&info.id, seen, spec).await
    }

    async fn start(&self, info: &ContainerInfo) -> Result<()> {
        let containers = self.manager.containers();
        let Err(error) = self.manager.start_container(self.slot).await else {
            return Ok(());
        };
        let missing = error.kind() == ErrorKind::NotFound;
        let found = if missing {
            containers.find(&info.id).await?
        } else {
            None
        };
        if found.is_some_and(|found| found.labels == info.labels) {
            return Err(unstartable(&info.id, error));
        }
        if error.kind() == ErrorKind::Conflict {
            return Err(error.with_hint("free what is taken, or close the session: opening it again makes a fresh container"));
        }
        Err(error)
    }

    /// Refuses to start what cannot stay up.
    async fn may_start(&mut self, info: &ContainerInfo, spec: &SessionSpec) -> Result<()> {
        let lifetime = spec.max_lifetime.and_then(Limit::duration);
        let age = SystemTime::now()
            .duration_since(info.created_at)
            .unwrap_or_default();
        if lifetime.is_some_and(|lifetime| age >= lifetime) {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "the session's `max_lifetime` is over",
            )
            .with_container(&info.id)
            .with_hint("close the session; opening it again makes a fresh container"));
        }
        let main_ended = info.stop_cause == Some(StopCause::MainExited);
        let ended = info.state == ContainerState::Exited && self.starts > 0;
        if ended && (main_ended || self.starts >= STARTS) {
            let what = "the container ends as soon as it starts";
            let lines = self
                .wish
                .startup
                .map_or(LAST_LINES, |check| check.log_lines);
            let error = self
                .manager
                .did_not_stay_up(self.slot, Some(info), what, lines)
                .await;
            return Err(match self.wish.startup {
                Some(_) => self.without_own(error).await,
                None => error,
            });
        }
        self.starts += 1;
        Ok(())
    }

    /// Makes the container; of several openers exactly one succeeds, the others look again.
    async fn create(&mut self) -> Result<Round> {
        let (manager, slot) = (self.manager, self.slot);
        if self.wish.effort < Effort::Create {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("the session `{}` has no container", slot.key),
            )
            .with_hint("list the sessions with `podkit ls`, or open it with creation allowed"));
        }
        let known = slot.known().filter(|_| !self.afresh);
        if known.is_some() && self.opened == Opened::Reconnected {
            self.opened = Opened::Recovered;
        }
        let base = self.salvaged.as_ref().or(known.as_deref());
        let wish = base.map_or_else(|| self.wish.spec.clone(), |b| merged(b, &self.wish.spec));
        let spec = merged(manager.defaults(), &wish);
        let name = slot.name.clone();
        let containers = manager.containers();
        // What cannot be is refused before anybody else is asked.
        containers.resolve(&ContainerRequest::new(name.clone(), spec.clone()))?;
        let spec = containers.inherit(spec).await?;
        let wish = spec.clone();
        let spec = manager.events().creating(&slot.key, spec).await?;
        let spec = containers.inherit(spec).await?;
        let mut request = ContainerRequest::new(name, spec);
        containers.resolve(&request)?;
        request.mounts = manager.mounts(&slot.key, &request.spec).await?;
        let now = SystemTime::now();
        request.labels = labels::write(manager.prefix(), &slot.key, (&wish, &request.spec), now)?;
        let order = containers.resolve(&request)?;
        let id = match manager.create_container(slot, &order).await {
            Ok(id) => id,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // However long the other one takes: its deadline is the one for creations.
                self.settling_since = None;
                return Ok(Round::Again);
            }
            Err(error) => return Err(error),
        };
        containers.forget(&id);
        self.made = Some(request.labels.clone());
        self.starts += 1;
        if let Err(error) = manager.start_container(slot).await {
            let taken = error.kind() == ErrorKind::Conflict && may_choose(&request.spec, &error);
            return match self.undo(&request, error).await {
                // The next container gets other numbers.
                Err(_) if taken && self.starts < CHOICES => Ok(Round::Again),
                round => round,
            };
        }
        if self.opened != Opened::Recovered {
            self.opened = Opened::Created;
        }
        match self.connect(&id, None, request.spec.clone()).await {
            Err(error) if !vanished(&error) => self.undo(&request, error).await,
            round => round,
        }
    }

    /// Removes what this opening made and could not bring to life, and keeps the first error. What
    /// another opener has started meanwhile, or made under the same name, is left to it, and taken
    /// over.
    async fn undo(&mut self, made: &ContainerRequest, error: Error) -> Result<Round> {
        let (containers, id) = (self.manager.containers(), &self.slot.name);
        let agent_silent = error.kind() == ErrorKind::AgentUnreachable;
        match containers.find(id).await {
            Ok(None) if vanished(&error) => return Ok(Round::Again),
            // The labels hold the time at which it was made.
            Ok(Some(info)) if !bears(&info, &made.labels) => return Ok(Round::Again),
            Ok(Some(info)) if info.state == ContainerState::Running && !agent_silent => {
                return Ok(Round::Again);
            }
            _ => {}
        }
        let error = if vanished(&error) {
            unstartable(id, error)
        } else {
            error
        };
        Err(self.take_away(error).await)
    }

    async fn connect(
        &mut self,
        id: &ContainerId,
        seen: Option<&ContainerInfo>,
        spec: SessionSpec,
    ) -> Result<Round> {
        let containers = self.manager.containers();
        // One deadline for all rounds: a caller is told within it, however the agent is silent.
        let begin = *self.reaching_since.get_or_insert_with(Instant::now);
        let client = match containers.client(id, seen).await {
            Ok(client) => client,
            // It may be being killed. One that goes on like that has lost its socket: to somebody
            // who cleaned up, most likely. It is started again, with its files.
            Err(error) if error.kind() == ErrorKind::ContainerGone && seen.is_some() => {
                self.unserved += 1;
                if self.unserved < UNSERVED {
                    return Ok(Round::Wait);
                }
                self.unserved = 0;
                warn!(container.id = id.as_str(), "restarting: its socket is gone");
                self.manager
                    .stop_container(self.slot, Duration::ZERO)
                    .await?;
                return Ok(Round::Again);
            }
            // Killed while it was being connected to, or an agent that is gone: the next round
            // tells. One that is silent is not asked again.
            Err(error)
                if error.kind() == ErrorKind::AgentUnreachable
                    && self.unreachable < UNREACHABLE
                    && begin.elapsed() < containers.deadlines().connect / 5 =>
            {
                self.unreachable += 1;
                return Ok(Round::Wait);
            }
            Err(error) => return Err(error),
        };
        if client.closing().is_some() || !client.is_open() {
            return Ok(Round::Wait);
        }
        Ok(Round::Done(Arc::new(Live {
            container: id.clone(),
            client,
            spec: Arc::new(spec),
            config_lost: self.config_lost,
        })))
    }

    /// The first thing that was done to the container is what the caller is told.
    fn became(&mut self, opened: Opened) {
        if self.opened == Opened::Reconnected {
            self.opened = opened;
        }
    }
}

/// Whether a container carries all of these labels; it may have others of its image.
fn bears(info: &ContainerInfo, labels: &BTreeMap<String, String>) -> bool {
    labels
        .iter()
        .all(|(name, value)| info.labels.get(name) == Some(value))
}

/// Whether another port of the host's may be had than the one that was refused: some are the engine's to
/// choose, and it does not speak of one that is not.
fn may_choose(spec: &SessionSpec, refusal: &Error) -> bool {
    let said = refusal.to_string();
    let names = |number: u16| {
        let sought = format!(":{number}");
        said.match_indices(&sought).any(|(at, _)| {
            let after = said.get(at + sought.len()..).unwrap_or_default();
            !after.starts_with(|next: char| next.is_ascii_digit())
        })
    };
    let fixed = |port: &Port| port.host_number().is_some_and(names);
    spec.ports.iter().any(|port| port.host == HostPort::Any) && !spec.ports.iter().any(fixed)
}

/// Something of the container's is missing, not the container.
fn unstartable(id: &ContainerId, error: Error) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "the container cannot be started: something it needs is gone",
    )
    .with_container(id)
    .with_source(error)
    .with_hint("close the session; opening it again makes a fresh container")
}

/// Whether the container went away under a call, so that looking again tells what to do.
fn vanished(error: &Error) -> bool {
    // A creation misses an image, a mount source or the like; the other calls miss the container.
    let creation = matches!(error.operation(), None | Some("create container"));
    match error.kind() {
        ErrorKind::ContainerGone => true,
        ErrorKind::NotFound => !creation,
        _ => false,
    }
}
