//! What the parent knows of a session: what its files may hold, and whether it may be disturbed.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// How long after it was killed a container may still be the cause of an error.
const AFTERMATH: Duration = Duration::from_secs(3);

/// How long the engine may go on with a removal whose client is dead.
const LATE_REMOVAL: Duration = Duration::from_secs(20);

/// What one write has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) sequence: u64,
    pub(crate) hash: u64,
}

/// One file: what was acknowledged last, and what was begun after it.
#[derive(Debug, Default)]
struct File {
    acknowledged: Option<Value>,
    pending: Vec<Value>,
}

/// Whether a session has a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Container {
    #[default]
    No,
    Yes,
    /// A client was killed while it made or removed it.
    Unsure,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Whether `/workspace` outlives the container.
    workspace: bool,
    files: BTreeMap<String, File>,
    container: Container,
    /// Until when the container may be taken away by the close of a dead client.
    removal_until: Option<Instant>,
    disturbances: VecDeque<(Instant, Instant)>,
}

impl Session {
    pub(crate) fn new(workspace: bool) -> Self {
        Self {
            workspace,
            files: BTreeMap::new(),
            container: Container::No,
            removal_until: None,
            disturbances: VecDeque::new(),
        }
    }

    pub(crate) fn write_begun(&mut self, path: &str, value: Value) {
        let file = self.files.entry(path.to_owned()).or_default();
        file.pending.push(value);
    }

    pub(crate) fn write_acknowledged(&mut self, path: &str, value: Value) {
        let file = self.files.entry(path.to_owned()).or_default();
        file.settle(value);
    }

    /// Judges what a read found: a hash, or nothing.
    pub(crate) fn read(&mut self, path: &str, found: Option<u64>) -> Result<(), String> {
        let lasts = self.lasts(path);
        let may_vanish = !lasts && self.may_be_removed();
        let file = self.files.entry(path.to_owned()).or_default();
        let Some(hash) = found else {
            return match file.acknowledged {
                Some(lost) if !may_vanish => {
                    file.acknowledged = None;
                    Err(format!("lost write {}: the file is gone", lost.sequence))
                }
                _ => {
                    file.acknowledged = None;
                    Ok(())
                }
            };
        };
        let mut known = file.acknowledged.iter().chain(&file.pending);
        if let Some(&value) = known.find(|value| value.hash == hash) {
            file.settle(value);
            return Ok(());
        }
        let last = file.acknowledged.map(|value| value.sequence);
        let pending: Vec<u64> = file.pending.iter().map(|value| value.sequence).collect();
        Err(format!(
            "it is neither the last acknowledged write {last:?} nor one of {pending:?}"
        ))
    }

    /// A container is being made, or found.
    pub(crate) fn open_begun(&mut self) {
        if self.container == Container::No {
            self.container = Container::Unsure;
        }
    }

    /// A container was found, or `anew` made.
    pub(crate) fn opened(&mut self, anew: bool) -> Result<(), String> {
        let expected = self.container != Container::Yes || self.may_be_removed();
        self.container = Container::Yes;
        if !anew {
            return Ok(());
        }
        self.removal_until = None;
        self.forget_files();
        if expected {
            Ok(())
        } else {
            Err("the container was made anew, and nobody had removed it".to_owned())
        }
    }

    pub(crate) fn close_begun(&mut self) {
        self.container = Container::Unsure;
    }

    pub(crate) fn closed(&mut self) {
        self.container = Container::No;
        self.removal_until = None;
        self.forget_files();
    }

    /// The client that was closing it is dead.
    pub(crate) fn close_abandoned(&mut self, begun: Instant) {
        let until = Instant::now() + LATE_REMOVAL;
        self.container = Container::Unsure;
        self.removal_until = Some(until);
        self.disturbed(begun, until);
    }

    /// Something from outside happens to it; of what began at one instant the last word holds.
    pub(crate) fn disturbed(&mut self, from: Instant, to: Instant) {
        self.disturbances.retain(|&(known, _)| known != from);
        self.disturbances.push_back((from, to));
        if self.disturbances.len() > 32 {
            self.disturbances.pop_front();
        }
    }

    /// Whether something from outside explains that a call failed which began at `begun`.
    pub(crate) fn was_disturbed_since(&self, begun: Instant) -> bool {
        let after = |&(_, to): &(Instant, Instant)| to + AFTERMATH >= begun;
        self.disturbances.iter().any(after)
    }

    fn may_be_removed(&self) -> bool {
        self.container == Container::Unsure
            || self
                .removal_until
                .is_some_and(|until| Instant::now() < until)
    }

    fn lasts(&self, path: &str) -> bool {
        self.workspace && path.starts_with("/workspace/")
    }

    /// What was in the container is gone, and has to be.
    fn forget_files(&mut self) {
        let workspace = self.workspace;
        self.files
            .retain(|path, _| workspace && path.starts_with("/workspace/"));
    }
}

impl File {
    /// Nothing before this value may be seen any more.
    fn settle(&mut self, value: Value) {
        self.acknowledged = Some(value);
        self.pending
            .retain(|pending| pending.sequence > value.sequence);
    }
}
