//! Removing what crashed callers left. A lock tells what a living process works on.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::ErrorKind as IoErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::FlockOperation;

use crate::{
    error::{Context, Error, Result},
    image,
    info::SweepReport,
    launch,
    runtime::Runtime,
    spec::Isolation,
    store::{Config, Directory, lock_directory, lock_file},
    tree,
};

/// Age from which opening an engine takes half-made things for left behind.
const STALE: Duration = Duration::from_secs(600);

impl Runtime {
    /// Removes what crashed callers left: half-made containers older than `min_age`, files of
    /// removed ones, control groups, sockets, ranges of ids. Never touches a container that has
    /// a name, nor anything that a living process works on.
    ///
    /// # Errors
    /// The state directory cannot be read. What cannot be removed is in the report.
    pub fn sweep(&self, min_age: Duration) -> Result<SweepReport> {
        let mut report = SweepReport::default();
        self.sweep_half(&self.store.temporary(), min_age, &mut report)?;
        self.sweep_half(&self.store.trash(), Duration::ZERO, &mut report)?;
        match self.sweep_ranges() {
            Ok(freed) => report
                .removed
                .extend(freed.iter().map(|first| format!("range of ids at {first}"))),
            Err(error) => report.failed.push(error.to_string()),
        }
        self.sweep_outside(&mut report);
        self.sweep_layers(&mut report);
        Ok(report)
    }

    /// What opening does: two looks that find nothing as a rule. A failure shows in a sweep.
    pub(crate) fn sweep_lightly(&self) {
        let mut report = SweepReport::default();
        let _ = self.sweep_half(&self.store.temporary(), STALE, &mut report);
        let _ = self.sweep_half(&self.store.trash(), Duration::ZERO, &mut report);
    }

    /// Half-made and half-removed containers.
    fn sweep_half(
        &self,
        directory: &Path,
        min_age: Duration,
        report: &mut SweepReport,
    ) -> Result<()> {
        let claimed = claim_all(directory, min_age)?;
        for (path, _lock) in claimed {
            record(report, &path.display().to_string(), self.discard(&path));
        }
        Ok(())
    }

    /// Ranges whose container is gone.
    pub(crate) fn sweep_ranges(&self) -> Result<Vec<u32>> {
        let identity = crate::identity::Identity::of_caller();
        if identity.best() != Isolation::OwnRange {
            return Ok(Vec::new());
        }
        let known = self.tokens();
        // A container goes from `tmp` to `containers` to `trash`; looked for in this order it
        // cannot slip past. What is not known may be newer than the list.
        let lives = |token: &str| {
            known.contains(token)
                || exists(&self.store.temporary().join(token))
                || self.tokens().contains(token)
                || exists(&self.store.trash().join(token))
        };
        identity
            .ranges(&self.options, self.store.state_dir())
            .sweep(self.store.state_dir(), lives)
    }

    fn tokens(&self) -> BTreeSet<String> {
        entries(&self.store.containers())
            .unwrap_or_default()
            .iter()
            .filter_map(|path| named(path).config().ok())
            .map(|config: Config| config.token)
            .collect()
    }

    /// Groups and sockets of containers that do not run.
    fn sweep_outside(&self, report: &mut SweepReport) {
        let prefix = self.store.key_prefix();
        let layout = match self.machine() {
            Ok(machine) => machine.layout.clone(),
            // No container can have been started here.
            Err(_) => return,
        };
        let mut keys: BTreeSet<String> = layout.keys(&prefix).into_iter().collect();
        let sockets = entries(self.store.run_dir()).unwrap_or_default();
        keys.extend(sockets.iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            name.starts_with(&prefix).then(|| name.to_owned())
        }));
        for key in keys {
            let name = key.strip_prefix(&prefix).unwrap_or_default();
            let directory = self.store.container(name);
            // Somebody who holds the lock is at work on it. A container's groups go before its name
            // does, so without a directory there is nothing but what a killed trial left; a name
            // that is free may be taken at this moment.
            let _lock = if exists(&directory.path) {
                match claim(&directory.path, Duration::ZERO) {
                    Some(lock) => Some(lock),
                    None => continue,
                }
            } else {
                match name.strip_prefix('.') {
                    Some(token) if !exists(&self.store.temporary().join(token)) => None,
                    _ => continue,
                }
            };
            if directory.record().is_ok_and(|record| record.lives()) {
                continue;
            }
            let groups = layout.remove(&key);
            let done = groups.and(launch::remove_socket(&self.store, &key));
            record(report, &format!("groups and socket of `{name}`"), done);
        }
    }

    /// Layers of the host as it was, which no running container stands on.
    fn sweep_layers(&self, report: &mut SweepReport) {
        let current = image::current_host_layer();
        let old: Vec<PathBuf> = entries(&self.store.images())
            .unwrap_or_default()
            .into_iter()
            .filter(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| image::is_host_layer(name) && name != current)
            })
            .collect();
        if old.is_empty() {
            return;
        }
        let used: BTreeSet<String> = entries(&self.store.containers())
            .unwrap_or_default()
            .iter()
            .filter_map(|path| named(path).record().ok())
            .filter(crate::store::Record::lives)
            .map(|record| record.layer)
            .collect();
        for path in old {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !used.contains(&name) {
                record(report, &path.display().to_string(), tree::remove(&path));
            }
        }
    }
}

fn record(report: &mut SweepReport, what: &str, done: std::result::Result<(), Error>) {
    match done {
        Ok(()) => report.removed.push(what.to_owned()),
        Err(error) => report.failed.push(format!("{what}: {error}")),
    }
}

fn named(path: &Path) -> Directory {
    Directory {
        name: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        path: path.to_owned(),
    }
}

fn exists(path: &Path) -> bool {
    crate::stop::exists(path)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = match fs::read_dir(directory) {
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(|| format!("read `{}`", directory.display()))?,
    };
    Ok(read.flatten().map(|entry| entry.path()).collect())
}

/// Takes the locks of all below `directory` that no living process works on.
fn claim_all(directory: &Path, min_age: Duration) -> Result<Vec<(PathBuf, Claim)>> {
    let found = entries(directory)?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    // Nobody is between making a directory and locking it then.
    let _makers = lock_directory(directory, FlockOperation::LockExclusive)?;
    Ok(found
        .into_iter()
        .filter_map(|path| claim(&path, min_age).map(|lock| (path, lock)))
        .collect())
}

/// Takes the lock of what no living process works on and is old enough; `None` otherwise.
fn claim(path: &Path, min_age: Duration) -> Option<Claim> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let age = metadata.modified().ok()?.elapsed().unwrap_or_default();
    if age < min_age {
        return None;
    }
    match File::open(path.join("lock")) {
        Ok(file) => {
            lock_file(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
            Some(Claim(Some(file)))
        }
        // Its maker died between two calls, or its remover is near the end, whom this helps.
        Err(error) if error.kind() == IoErrorKind::NotFound => Some(Claim(None)),
        Err(_) => None,
    }
}

/// Holds the lock of something that is swept.
#[derive(Debug)]
struct Claim(#[expect(dead_code, reason = "held, not used")] Option<File>);
