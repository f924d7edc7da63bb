//! Starting, and everything else that is said to a running container.

use std::{
    fs::File,
    io::{ErrorKind as IoErrorKind, Read, Seek, SeekFrom},
    net::TcpListener,
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;

use crate::{
    error::{Context, Error, ErrorKind, Result},
    image,
    launch::{self, Ready},
    machine::Machine,
    plan::Order,
    ports,
    runtime::Runtime,
    store::{Config, Directory, Record, lock_file, now_ms},
    sys::{self, Process},
    validate,
};

/// How long freezing, or an end that has begun, may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Record {
    /// The container's PID 1, while it lives.
    pub(crate) fn process(&self) -> Option<Process> {
        if self.pid == 0 || self.boot_id != sys::boot_id() {
            return None;
        }
        Process::find(self.pid, self.start_time)
    }

    /// Whether it lives; without holding it.
    pub(crate) fn lives(&self) -> bool {
        self.pid != 0
            && self.boot_id == sys::boot_id()
            && sys::start_time(self.pid) == Some(self.start_time)
    }
}

impl Runtime {
    /// Starts a container; succeeds when it runs already.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container.
    /// - `InvalidInput`: a mount's source is gone.
    /// - `LimitExceeded`: its lifetime is over, or something bounded ran out.
    /// - `Unsupported`, `PermissionDenied`: the kernel refuses, with the cause and what helps.
    pub fn start(&self, name: &str) -> Result<()> {
        validate::name(name)?;
        self.options.step("start.begin")?;
        let directory = self.store.container(name);
        let lock = directory.lock()?;
        let record = directory.record()?;
        if record.lives() {
            if !sys::is_ending(record.pid) {
                return Ok(());
            }
            // Its maker was killed before it had let it go, and so it ends; it holds the lock until
            // then, but not to its last moment.
            if let Some(process) = record.process() {
                process.wait(PATIENCE);
            }
        }
        let mut config = directory.config()?;
        let machine = self.machine()?;
        machine.identity.choose(Some(config.isolation))?;
        let (listeners, changed) = ports::listen(&mut config.spec)?;
        if changed {
            directory.replace_config(&config)?;
        }
        let started =
            self.launch_and_commit(&directory, &config, &record, &machine, &lock, &listeners);
        if started.is_err() {
            // The first process is dead; what cannot be undone now, the next start or a sweep does.
            let _ = machine.layout.remove(&self.store.key(name));
            let _ = launch::remove_socket(&self.store, &self.store.key(name));
        }
        // The first process has a copy of this descriptor for a moment, and with it the lock.
        let _ = lock_file(&lock, FlockOperation::Unlock);
        started
    }

    fn launch_and_commit(
        &self,
        directory: &Directory,
        config: &Config,
        record: &Record,
        machine: &Machine,
        lock: &File,
        ports: &[TcpListener],
    ) -> Result<()> {
        let order = Order {
            ports,
            directory,
            config,
            record,
            identity: &machine.identity,
            layout: &machine.layout,
            image: image::resolve(&self.store, &config.spec, config.image.as_deref())?,
        };
        let key = self.store.key(&directory.name);
        let ready = launch::launch(&self.store, &self.options, &key, order, lock.as_fd())?;
        let known = (ready.pid, ready.start_time);
        match self.commit(directory, record, machine, ready) {
            Ok(()) => Ok(()),
            Err(failed) => {
                let (helper, error) = *failed;
                launch::give_up(helper, Some(known));
                Err(error)
            }
        }
    }

    fn commit(
        &self,
        directory: &Directory,
        record: &Record,
        machine: &Machine,
        ready: Ready,
    ) -> std::result::Result<(), Box<(crate::helper::Helper, Error)>> {
        let Ready {
            mut helper,
            pid,
            start_time,
            volatile_root,
            layer,
        } = ready;
        let next = Record {
            pid,
            start_time,
            boot_id: sys::boot_id().to_owned(),
            started_at_ms: now_ms(),
            volatile_root,
            stopping: false,
            cgroups: machine.layout.clone(),
            layer,
            ..record.next()
        };
        let done = self
            .options
            .step("start.record")
            .and_then(|()| directory.write_record(&next))
            .and_then(|()| self.options.step("start.commit"))
            .and_then(|()| helper.commit());
        match done {
            Ok(()) => {
                helper.finish();
                Ok(())
            }
            Err(error) => Err(Box::new((helper, error))),
        }
    }

    /// Freezes every process of a running container.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container, or it does not run.
    /// - `Unsupported`: there is no control group for that here.
    pub fn pause(&self, name: &str) -> Result<()> {
        self.freeze(name, true)
    }

    /// Thaws a paused container; succeeds when it is not paused.
    ///
    /// # Errors
    /// As [`Runtime::pause`].
    pub fn resume(&self, name: &str) -> Result<()> {
        self.freeze(name, false)
    }

    fn freeze(&self, name: &str, frozen: bool) -> Result<()> {
        validate::name(name)?;
        let directory = self.store.container(name);
        let _lock = directory.lock()?;
        let record = directory.record()?;
        if !record.lives() {
            return Err(not_running(name));
        }
        let key = self.store.key(name);
        record.cgroups.freeze(&key, frozen)?;
        let deadline = Instant::now() + PATIENCE;
        while frozen && !record.cgroups.has_frozen(&key) {
            if Instant::now() > deadline {
                record.cgroups.freeze(&key, false)?;
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    format!("container `{name}` does not come to rest"),
                ));
            }
            sys::pause(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Opens a byte stream to the agent of a running container.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container, or it does not run.
    /// - `Unavailable`: it does not take callers at the moment.
    pub fn connect(&self, name: &str) -> Result<UnixStream> {
        validate::name(name)?;
        if let Some(stream) = launch::connect(&self.store, &self.store.key(name))? {
            return Ok(stream);
        }
        // Which of the two it is matters to who reads it.
        self.store.container(name).record()?;
        Err(not_running(name))
    }

    /// The last bytes that the container's own program wrote, at most `tail_bytes`.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container.
    pub fn logs(&self, name: &str, tail_bytes: u64) -> Result<Vec<u8>> {
        validate::name(name)?;
        let directory = self.store.container(name);
        directory.record()?;
        let path = directory.log();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            // It has no program of its own.
            Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(|| format!("open `{}`", path.display())),
        };
        let mut tail = Vec::new();
        file.metadata()
            .and_then(|metadata| {
                let from = metadata.len().saturating_sub(tail_bytes);
                file.seek(SeekFrom::Start(from))?;
                file.take(tail_bytes).read_to_end(&mut tail)
            })
            .context(|| format!("read `{}`", path.display()))?;
        Ok(tail)
    }
}

pub(crate) fn not_running(name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("container `{name}` does not run"),
    )
}
