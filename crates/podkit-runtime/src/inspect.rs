//! Looking at containers: from disk, with one look at the process.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime},
};

use podkit_agent::{StopReason, plan::ExitMark};

use crate::{
    error::{Context, ErrorKind, Result},
    info::{ContainerInfo, ContainerState, StopCause},
    runtime::Runtime,
    store::{Config, Directory, Record, time_of},
    validate,
};

/// How often a name that changes hands is looked at.
const LOOKS: u32 = 8;

/// Tells a container from another one of its name.
fn identity(directory: &Directory) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(&directory.path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl Runtime {
    /// Looks one container up.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container.
    pub fn inspect(&self, name: &str) -> Result<ContainerInfo> {
        validate::name(name)?;
        let directory = self.store.container(name);
        // The name may have passed from a container that was removed to a new one between two
        // looks at its files; nobody takes a name over and over.
        for _ in 0..LOOKS {
            let was = identity(&directory);
            match self.look(&directory) {
                Err(error) if error.kind() == ErrorKind::NotFound && was.is_none() => {
                    return Err(error);
                }
                Err(_) => {}
                Ok(found) if identity(&directory) == was => return Ok(found),
                Ok(_) => {}
            }
            if identity(&directory) == was && was.is_some() {
                break;
            }
        }
        if crate::stop::exists(&directory.path) {
            Ok(dead(&directory))
        } else {
            Err(directory.missing())
        }
    }

    /// Lists the containers that carry all of `labels`, in any state, in the order of their names.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerInfo>> {
        let path = self.store.containers();
        let entries = fs::read_dir(&path).context(|| format!("read `{}`", path.display()))?;
        let mut all = Vec::new();
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            match self.inspect(&name) {
                Ok(info)
                    if labels
                        .iter()
                        .all(|(key, value)| info.labels.get(key) == Some(value)) =>
                {
                    all.push(info);
                }
                Ok(_) => {}
                // Removed meanwhile, or no container at all.
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    fn look(&self, directory: &Directory) -> Result<ContainerInfo> {
        let config = directory.config()?;
        let record = directory.record()?;
        let lives = record.lives();
        let state = if lives {
            if record.cgroups.is_frozen(&self.store.key(&directory.name)) {
                ContainerState::Paused
            } else {
                ContainerState::Running
            }
        } else if record.started_at_ms == 0 {
            ContainerState::Created
        } else {
            ContainerState::Exited
        };
        let mut info = describe(directory, config, &record, state);
        if state == ContainerState::Exited {
            let killed = if record.stopping {
                StopCause::Requested
            } else {
                StopCause::Killed
            };
            info.stop_cause = Some(killed);
            if let Some((mark, at)) = read_mark(directory) {
                let ended = mark.reason == StopReason::MainExited;
                info.stop_cause = Some(cause(mark.reason));
                info.exit_code = ended.then_some(i32::from(mark.code));
                // Times of files lag behind the clock by a tick.
                info.finished_at = Some(at).max(info.started_at);
                let active = at.checked_sub(Duration::from_millis(mark.idle_ms));
                info.last_active_at = active.max(info.started_at);
            }
        }
        Ok(info)
    }
}

fn describe(
    directory: &Directory,
    config: Config,
    record: &Record,
    state: ContainerState,
) -> ContainerInfo {
    let lives = matches!(state, ContainerState::Running | ContainerState::Paused);
    ContainerInfo {
        name: directory.name.clone(),
        labels: config.spec.labels,
        env: config.spec.env,
        state,
        stop_cause: None,
        exit_code: None,
        created_at: time_of(config.created_at_ms),
        started_at: (record.started_at_ms != 0).then(|| time_of(record.started_at_ms)),
        finished_at: None,
        last_active_at: None,
        pid: lives.then_some(record.pid),
        ports: if lives { config.spec.ports } else { Vec::new() },
        isolation: Some(config.isolation),
        volatile_root: record.volatile_root,
    }
}

/// A container whose files cannot be read: its labels are lost, its name is not.
fn dead(directory: &Directory) -> ContainerInfo {
    let made = fs::metadata(&directory.path).and_then(|metadata| metadata.modified());
    ContainerInfo {
        name: directory.name.clone(),
        labels: BTreeMap::new(),
        env: Vec::new(),
        state: ContainerState::Dead,
        stop_cause: None,
        exit_code: None,
        created_at: made.unwrap_or(SystemTime::UNIX_EPOCH),
        started_at: None,
        finished_at: None,
        last_active_at: None,
        pid: None,
        ports: Vec::new(),
        isolation: None,
        volatile_root: false,
    }
}

/// The mark, and when it was left.
fn read_mark(directory: &Directory) -> Option<(ExitMark, SystemTime)> {
    let path = directory.exit_mark();
    let mark = ExitMark::parse(&fs::read_to_string(&path).ok()?)?;
    Some((mark, fs::metadata(&path).ok()?.modified().ok()?))
}

const fn cause(reason: StopReason) -> StopCause {
    match reason {
        StopReason::Requested => StopCause::Requested,
        StopReason::AutoStop => StopCause::AutoStop,
        StopReason::MaxLifetime => StopCause::MaxLifetime,
        StopReason::MainExited => StopCause::MainExited,
    }
}
