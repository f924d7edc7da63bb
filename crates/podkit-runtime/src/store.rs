//! What is on disk: where, in which form, and who may change it.

use std::{
    fs::{self, DirBuilder, File},
    io::{ErrorKind as IoErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with},
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};
use serde::{Deserialize, Serialize};

use crate::{
    cgroup::Layout,
    error::{Context, Error, ErrorKind, Result},
    options::RuntimeOptions,
    spec::{ContainerSpec, Isolation},
};

/// Version of both files.
const VERSION: u32 = 1;

/// Bytes of a state record. It is written once when the container is made and overwritten in
/// place from then on, so that a full disk cannot stop a change of state.
const RECORD_BYTES: usize = 4096;

/// How a container was made; only its limits change, under its lock.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) version: u32,
    pub(crate) token: String,
    pub(crate) created_at_ms: u64,
    pub(crate) isolation: Isolation,
    /// First host id of the container's range; 0 for the caller's own id.
    pub(crate) first_id: u32,
    /// Name of the image that was imported for it.
    pub(crate) image: Option<String>,
    pub(crate) spec: ContainerSpec,
}

/// What a container is doing; changes under its lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) version: u32,
    /// Counts changes; the same number at both ends, or it was read while it was written.
    pub(crate) sequence: u64,
    pub(crate) pid: u32,
    /// Clock ticks after the boot at which the process started.
    pub(crate) start_time: u64,
    pub(crate) boot_id: String,
    pub(crate) started_at_ms: u64,
    pub(crate) volatile_root: bool,
    pub(crate) stopping: bool,
    /// Where its control groups are; whoever ends it may be in other ones than who started it.
    pub(crate) cgroups: Layout,
    /// The engine's own layer below its root.
    pub(crate) layer: String,
    pub(crate) sequence_again: u64,
}

/// Directories of one engine.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    state_dir: PathBuf,
    run_dir: PathBuf,
    /// Tells this engine's things from another one's where they share a place.
    id: String,
}

impl Store {
    pub(crate) fn open(options: &RuntimeOptions) -> Result<Self> {
        for directory in [
            options.state_dir.clone(),
            options.state_dir.join("containers"),
            options.state_dir.join("tmp"),
            options.state_dir.join("trash"),
            options.state_dir.join("images"),
            options.run_dir.clone(),
        ] {
            private_directory(&directory)?;
        }
        let state_dir = fs::canonicalize(&options.state_dir)
            .context(|| format!("open the state directory `{}`", options.state_dir.display()))?;
        let id = format!("{:016x}", fnv(state_dir.as_os_str().as_encoded_bytes()));
        Ok(Self {
            state_dir,
            run_dir: options.run_dir.clone(),
            id: id.get(..8).unwrap_or_default().to_owned(),
        })
    }

    pub(crate) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    pub(crate) fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.state_dir.join("containers")
    }

    pub(crate) fn container(&self, name: &str) -> Directory {
        Directory {
            name: name.to_owned(),
            path: self.containers().join(name),
        }
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.state_dir.join("tmp")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.state_dir.join("trash")
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.state_dir.join("images")
    }

    /// What the keys of this engine begin with.
    pub(crate) fn key_prefix(&self) -> String {
        format!("{}-", self.id)
    }

    /// Name of a container's things outside the state directory.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }
}

/// One container's directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl Directory {
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    pub(crate) fn exit_mark(&self) -> PathBuf {
        self.path.join("exit")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Reads how the container was made.
    pub(crate) fn config(&self) -> Result<Config> {
        let path = self.path.join("config.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == IoErrorKind::NotFound => return Err(self.missing()),
            Err(error) => return Err(error).context(|| format!("read `{}`", path.display())),
        };
        let config: Config = serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(
                ErrorKind::Unexpected,
                format!("read `{}`: {error}", path.display()),
            )
        })?;
        if config.version == VERSION {
            Ok(config)
        } else {
            Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "container `{}` was made by another version of podkit",
                    self.name
                ),
            ))
        }
    }

    /// Where a changed config is written before it takes the old one's place.
    pub(crate) fn new_config(&self) -> PathBuf {
        self.path.join("config.json.new")
    }

    /// Puts another config in place, whole or not at all; only under the container's lock.
    pub(crate) fn replace_config(&self, config: &Config) -> Result<()> {
        let path = self.new_config();
        // What a change left that was killed.
        let _ = fs::remove_file(&path);
        write_config(&path, config)?;
        fs::rename(&path, self.path.join("config.json"))
            .context(|| format!("put `{}` in place", path.display()))
    }

    pub(crate) fn missing(&self) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!("there is no container `{}`", self.name),
        )
    }

    /// Reads what the container is doing.
    pub(crate) fn record(&self) -> Result<Record> {
        let path = self.path.join("state.json");
        // The record may be overwritten while it is read; the next look sees it whole.
        for _ in 0..100 {
            let mut bytes = Vec::with_capacity(RECORD_BYTES);
            let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
            match read {
                Err(error) if error.kind() == IoErrorKind::NotFound => return Err(self.missing()),
                Err(error) => return Err(error).context(|| format!("read `{}`", path.display())),
                Ok(_) => {}
            }
            if let Ok(record) = serde_json::from_slice::<Record>(&bytes)
                && record.sequence == record.sequence_again
            {
                return Ok(record);
            }
            std::thread::yield_now();
        }
        Err(Error::new(
            ErrorKind::Unexpected,
            format!("the state record of container `{}` is broken", self.name),
        ))
    }

    /// Overwrites what the container is doing; only under its lock.
    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        let path = self.path.join("state.json");
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.write_all_at(&record.bytes(), 0))
            .context(|| format!("write `{}`", path.display()))
    }

    /// Takes the lock of a container that exists; waits for whoever has it.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.path.join("lock");
        loop {
            let file = match File::options().read(true).write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == IoErrorKind::NotFound => return Err(self.missing()),
                Err(error) => return Err(error).context(|| format!("open `{}`", path.display())),
            };
            lock_file(&file, FlockOperation::LockExclusive)
                .context(|| format!("lock `{}`", path.display()))?;
            // It may have been removed, and even made again, while we waited.
            let (Ok(ours), Ok(theirs)) = (file.metadata(), fs::metadata(&path)) else {
                return Err(self.missing());
            };
            if (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) {
                return Ok(file);
            }
        }
    }
}

impl Record {
    pub(crate) fn new() -> Self {
        Self {
            version: VERSION,
            ..Self::default()
        }
    }

    /// The next state of the same container.
    pub(crate) fn next(&self) -> Self {
        Self {
            sequence: self.sequence + 1,
            sequence_again: self.sequence + 1,
            ..self.clone()
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.resize(RECORD_BYTES.max(bytes.len()), b' ');
        bytes
    }
}

fn write_config(path: &Path, config: &Config) -> Result<()> {
    let bytes = serde_json::to_vec(config)
        .map_err(|error| Error::new(ErrorKind::Unexpected, format!("write config: {error}")))?;
    new_file(path, 0o600)
        .and_then(|mut file| file.write_all(&bytes))
        .context(|| format!("write `{}`", path.display()))
}

/// A container that is being made: nobody else sees it before it is published.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) token: String,
    pub(crate) path: PathBuf,
    /// Tells a sweep that its maker lives; the container's lock from then on.
    pub(crate) lock: File,
}

impl Draft {
    pub(crate) fn new(store: &Store) -> Result<Self> {
        let token = token()?;
        let path = store.temporary().join(&token);
        // A sweep takes what is not locked, and waits for this.
        let _making = lock_directory(&store.temporary(), FlockOperation::LockShared)?;
        make_private(&path).context(|| format!("make `{}`", path.display()))?;
        let lock = new_file(&path.join("lock"), 0o600)
            .and_then(|file| {
                lock_file(&file, FlockOperation::NonBlockingLockExclusive)?;
                Ok(file)
            })
            .context(|| format!("make `{}`", path.join("lock").display()));
        match lock {
            Ok(lock) => Ok(Self { token, path, lock }),
            Err(error) => {
                let _ = fs::remove_dir_all(&path);
                Err(error)
            }
        }
    }

    /// Writes both files.
    pub(crate) fn write(&self, config: &Config) -> Result<()> {
        write_config(&self.path.join("config.json"), config)?;
        let path = self.path.join("state.json");
        new_file(&path, 0o600)
            .and_then(|mut file| file.write_all(&Record::new().bytes()))
            .context(|| format!("write `{}`", path.display()))
    }

    /// Gives it its name, which only one of several makers gets.
    pub(crate) fn publish(&self, store: &Store, name: &str) -> Result<()> {
        let target = store.container(name).path;
        match renameat_with(CWD, &self.path, CWD, &target, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST | Errno::NOTEMPTY) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("container `{name}` exists already"),
            )),
            other => other.context(|| format!("publish `{}`", target.display())),
        }
    }
}

pub(crate) fn new_file(path: &Path, mode: u32) -> std::io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
}

pub(crate) fn make_private(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn private_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context(|| format!("make `{}`", path.display()))
}

pub(crate) fn lock_file(file: &File, operation: FlockOperation) -> std::io::Result<()> {
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

/// Locks a directory itself.
pub(crate) fn lock_directory(path: &Path, operation: FlockOperation) -> Result<File> {
    let what = || format!("lock `{}`", path.display());
    let file = File::open(path).context(what)?;
    lock_file(&file, operation).context(what)?;
    Ok(file)
}

/// 16 random bytes.
pub(crate) fn random() -> Result<[u8; 16]> {
    let mut bytes = [0_u8; 16];
    getrandom(&mut bytes, GetRandomFlags::empty()).context(|| "get random bytes".to_owned())?;
    Ok(bytes)
}

/// A random name.
pub(crate) fn token() -> Result<String> {
    Ok(format!("{:032x}", u128::from_ne_bytes(random()?)))
}

pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

pub(crate) fn time_of(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// The config of a new container.
pub(crate) fn new_config(
    token: &str,
    (isolation, first_id): (Isolation, u32),
    image: Option<String>,
    spec: &ContainerSpec,
) -> Config {
    Config {
        version: VERSION,
        token: token.to_owned(),
        created_at_ms: now_ms(),
        isolation,
        first_id,
        image,
        spec: spec.clone(),
    }
}
