//! Stopping and removing.

use std::{
    fs,
    io::{ErrorKind as IoErrorKind, Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use podkit_agent::{
    FrameBuffer, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Reply, Request,
    plan::{Plan, TreePlan},
};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    helper,
    identity::Identity,
    launch,
    runtime::Runtime,
    store::{Config, Directory, Record, token},
    sys::Process,
    tree, validate,
};

/// How long a process that was killed may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the agent gets on top of the grace to end what it was asked to end.
const MARGIN: Duration = Duration::from_secs(1);

impl Runtime {
    /// Asks a container to stop, and kills it once `grace` has passed. Succeeds when it does not
    /// run.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container.
    /// - `TimedOut`: it was killed but does not end.
    pub fn stop(&self, name: &str, grace: Duration) -> Result<()> {
        validate::name(name)?;
        self.options.step("stop.begin")?;
        let directory = self.store.container(name);
        let _lock = directory.lock()?;
        let record = directory.record()?;
        let key = self.store.key(name);
        if let Some(process) = record.process() {
            // So that its end is not taken for an accident, should it have to be killed.
            let asked = Record {
                stopping: true,
                ..record.next()
            };
            directory.write_record(&asked)?;
            if record.cgroups.is_frozen(&key) {
                record.cgroups.freeze(&key, false)?;
            }
            self.options.step("stop.ask")?;
            let asked = launch::connect(&self.store, &key)
                .ok()
                .flatten()
                .is_some_and(|stream| ask_to_stop(stream, grace).is_ok());
            if !asked || !process.wait(grace.saturating_add(MARGIN)) {
                self.options.step("stop.kill")?;
                self.kill(name, &record, &process)?;
            }
        }
        record.cgroups.remove(&key)?;
        launch::remove_socket(&self.store, &key)
    }

    /// Kills a container and waits for its end.
    fn kill(&self, name: &str, record: &Record, process: &Process) -> Result<()> {
        // The group first: that also ends what is frozen.
        if !record.cgroups.kill(&self.store.key(name)) {
            process
                .kill()
                .context(|| format!("kill container `{name}`"))?;
        }
        if process.wait(PATIENCE) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TimedOut,
            format!(
                "container `{name}` was killed and has not ended within {} s",
                PATIENCE.as_secs()
            ),
        ))
    }

    /// Kills a container and deletes it with all its files. Succeeds when there is none.
    ///
    /// # Errors
    /// - `InvalidInput`: this is no name.
    /// - `TimedOut`: it was killed but does not end.
    /// - Anything that keeps its files from being deleted; its name is free all the same, and a
    ///   sweep tries again.
    pub fn remove(&self, name: &str) -> Result<()> {
        validate::name(name)?;
        self.options.step("remove.begin")?;
        let directory = self.store.container(name);
        // Without the lock: whoever holds it waits for nothing better than this end.
        self.kill_if_running(&directory)?;
        let Some(_lock) = lock_to_remove(&directory)? else {
            return Ok(());
        };
        self.options.step("remove.kill")?;
        // It may have been started while we waited.
        self.kill_if_running(&directory)?;
        let key = self.store.key(name);
        // While the name is still taken: the next one with this name has the same key.
        self.options.step("remove.cgroup")?;
        let mut layouts = vec![self.machine().map(|machine| machine.layout.clone())];
        layouts.push(directory.record().map(|record| record.cgroups));
        for layout in layouts.into_iter().flatten() {
            layout.remove(&key)?;
        }
        self.options.step("remove.socket")?;
        launch::remove_socket(&self.store, &key)?;
        self.options.step("remove.trash")?;
        let config = directory.config();
        let trash = match &config {
            Ok(config) => self.store.trash().join(&config.token),
            Err(_) => self.store.trash().join(token()?),
        };
        match renameat_with(CWD, &directory.path, CWD, &trash, RenameFlags::NOREPLACE) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.context(|| format!("remove `{}`", directory.path.display()))?,
        }
        self.options.step("remove.files")?;
        match config {
            Ok(config) => self.delete_files(&trash, &config),
            Err(_) => tree::remove(&trash),
        }
    }

    fn kill_if_running(&self, directory: &Directory) -> Result<()> {
        match directory.record() {
            Ok(record) => match record.process() {
                Some(process) => self.kill(&directory.name, &record, &process),
                None => Ok(()),
            },
            // A broken record names no process; its groups are emptied by the check below them.
            Err(_) => Ok(()),
        }
    }

    /// Deletes the files of a container that has no name any more, and frees its range once none
    /// of them is left.
    pub(crate) fn delete_files(&self, path: &Path, config: &Config) -> Result<()> {
        self.delete_files_as(path, config, &Identity::of_caller())
    }

    pub(crate) fn delete_files_as(
        &self,
        path: &Path,
        config: &Config,
        identity: &Identity,
    ) -> Result<()> {
        let directory = Directory {
            name: config.spec.name.clone(),
            path: path.to_owned(),
        };
        let rootfs = directory.rootfs();
        let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
        // Root removes them itself. Where its ids cannot be had, nothing of it was made.
        let theirs: Vec<_> = ["upper", "work", "lower"]
            .map(|name| rootfs.join(name))
            .iter()
            .filter(|path| path.exists())
            .map(|path| bytes(path))
            .collect();
        let others = !identity.privileged && identity.needs_namespace(config.isolation);
        if others && !theirs.is_empty() {
            let plan = TreePlan {
                maps: identity.maps(config.isolation, config.first_id),
                remove: theirs,
                copy: Vec::new(),
            };
            helper::run(self.store.state_dir(), &Plan::Tree(plan))?;
        }
        tree::remove(&rootfs)?;
        self.options.step("remove.range")?;
        if config.isolation == crate::spec::Isolation::OwnRange {
            identity
                .ranges(&self.options, self.store.state_dir())
                .free(config.first_id, &config.token)?;
        }
        self.options.step("remove.end")?;
        tree::remove(path)
    }
}

/// The lock of what is to be removed: `None` when nothing is there. A directory that lost its lock
/// file is nobody's, and is its own proof of that.
fn lock_to_remove(directory: &Directory) -> Result<Option<Option<fs::File>>> {
    let inode = || {
        fs::symlink_metadata(&directory.path)
            .ok()
            .map(|found| found.ino())
    };
    loop {
        let before = inode();
        match directory.lock() {
            Ok(lock) => return Ok(Some(Some(lock))),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Err(_) if before.is_none() => return Ok(None),
            Err(_) => {}
        }
        // Removed while we waited, and perhaps made again; or it never had one.
        if !exists(&directory.path.join("lock")) && inode() == before {
            return Ok(Some(None));
        }
    }
}

/// Tells the agent to stop; whether it heard.
fn ask_to_stop(mut stream: UnixStream, grace: Duration) -> std::io::Result<()> {
    let patience = grace.saturating_add(MARGIN);
    let deadline = Instant::now() + patience;
    stream.set_write_timeout(Some(MARGIN))?;
    let mut bytes = Vec::new();
    Request::Hello {
        version: PROTOCOL_VERSION,
        version_min: PROTOCOL_VERSION_MIN,
    }
    .encode(0, &mut bytes);
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    Request::Stop { grace_ms }.encode(0, &mut bytes);
    stream.write_all(&bytes)?;
    let mut buffer = FrameBuffer::new();
    let mut chunk = [0_u8; 1024];
    loop {
        while let Ok(Some((kind, _, payload))) = buffer.next_frame() {
            if let Ok(Reply::Closing(_)) = Reply::decode(kind, payload) {
                return Ok(());
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(IoErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            // It may have ended before it could answer; the caller sees that.
            Ok(0) => return Ok(()),
            Ok(length) => buffer.push(chunk.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == IoErrorKind::Interrupted => {}
            Err(error) if error.kind() == IoErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Whether a directory is there.
pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
