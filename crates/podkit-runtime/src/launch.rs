//! Brings a container to the point where nothing can fail any more.

use std::{
    fs,
    io::ErrorKind as IoErrorKind,
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use podkit_agent::plan::{Descriptors, Plan, Report};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::{
    cgroup::Groups,
    error::{Context, Error, ErrorKind, Result},
    helper::Helper,
    options::RuntimeOptions,
    plan::Order,
    store::{Directory, Store, make_private},
    sys::{self, Process},
};

/// Name of the socket in a container's own directory below the run directory.
const SOCKET: &str = "agent";

/// How long a process that was killed may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container that waits for its commit, and ends without.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) helper: Helper,
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) volatile_root: bool,
    pub(crate) layer: String,
}

/// Starts the helper and hears it out.
pub(crate) fn launch(
    store: &Store,
    options: &RuntimeOptions,
    key: &str,
    order: Order<'_>,
    lock: BorrowedFd<'_>,
) -> Result<Ready> {
    let config = order.config;
    let layout = order.layout;
    let layer = order.image.layer.clone();
    options.step("start.socket")?;
    let listener = listen(store, key)?;
    options.step("start.cgroup")?;
    let owner = order.identity.root(config.isolation, config.first_id);
    let groups = layout.make(key, &config.spec, owner)?;
    let mark = blank_mark(order.directory)?;
    let output = match config.spec.main {
        Some(_) => Some(open_log(order.directory)?),
        None => None,
    };
    let (names, fds) = number(
        &listener,
        &mark,
        lock,
        output.as_ref(),
        &groups,
        order.ports,
    )?;
    options.step("start.helper")?;
    let plan = Plan::Container(Box::new(order.plan(names)?));
    let mut helper = Helper::start(store.state_dir(), &plan, &fds)?;
    drop(groups);
    let mut known = None;
    let heard = hear(&mut helper, &mut known).and_then(|volatile_root| {
        options.step("start.ready")?;
        // Its groups are entered, so they can be closed for good.
        layout.finish(key, &config.spec)?;
        Ok(volatile_root)
    });
    match (heard, known) {
        (Ok(volatile_root), Some((pid, start_time))) => Ok(Ready {
            helper,
            pid,
            start_time,
            volatile_root,
            layer,
        }),
        (Ok(_), None) => Err(Error::new(
            ErrorKind::Unexpected,
            "the helper did not say which process it made",
        )),
        (Err(error), known) => {
            give_up(helper, known);
            Err(error)
        }
    }
}

/// Lets go of a container that was not committed, and waits for its end.
pub(crate) fn give_up(helper: Helper, known: Option<(u32, u64)>) {
    let process = known.and_then(|(pid, started)| Process::find(pid, started));
    // It ends by itself when the socket closes; one that hangs in the kernel's hands is killed.
    if let Some(process) = &process {
        let _ = process.kill();
    }
    helper.finish();
    if let Some(process) = process {
        process.wait(PATIENCE);
    }
}

fn hear(helper: &mut Helper, known: &mut Option<(u32, u64)>) -> Result<bool> {
    loop {
        match helper.hear()? {
            Report::Pid(pid) => *known = sys::start_time(pid).map(|started| (pid, started)),
            Report::Ready { volatile_root } => return Ok(volatile_root),
            Report::Done | Report::Failed { .. } => {
                return Err(Error::new(
                    ErrorKind::Unexpected,
                    "the helper ended without a container",
                ));
            }
        }
    }
}

/// A container's directory for its socket.
pub(crate) fn socket_directory(store: &Store, key: &str) -> PathBuf {
    store.run_dir().join(key)
}

/// Removes a container's socket with its directory.
pub(crate) fn remove_socket(store: &Store, key: &str) -> Result<()> {
    let directory = socket_directory(store, key);
    for removed in [
        fs::remove_file(directory.join(SOCKET)),
        fs::remove_dir(&directory),
    ] {
        match removed {
            Err(error) if error.kind() == IoErrorKind::NotFound => {}
            other => other.context(|| format!("remove `{}`", directory.display()))?,
        }
    }
    Ok(())
}

/// Makes the socket on which the agent will listen. The container never sees its directory.
fn listen(store: &Store, key: &str) -> Result<UnixListener> {
    let directory = socket_directory(store, key);
    let made = match make_private(&directory) {
        // The run directory goes with each restart of the machine.
        Err(error) if error.kind() == IoErrorKind::NotFound => {
            fs::create_dir_all(store.run_dir()).and_then(|()| make_private(&directory))
        }
        other => other,
    };
    match made {
        Err(error) if error.kind() == IoErrorKind::AlreadyExists => {}
        other => other.context(|| format!("make `{}`", directory.display()))?,
    }
    let path = directory.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == IoErrorKind::NotFound => {}
        other => other.context(|| format!("remove `{}`", path.display()))?,
    }
    let directory = open_directory(&directory)?;
    let make = || -> std::io::Result<UnixListener> {
        let listener = UnixListener::bind(short_path(&directory))?;
        // The agent takes callers until there is none, and must not wait for the next one.
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    make().context(|| format!("make `{}`", path.display()))
}

/// Connects to the agent; `None` when nobody listens.
pub(crate) fn connect(store: &Store, key: &str) -> Result<Option<std::os::unix::net::UnixStream>> {
    use rustix::io::Errno;
    let Ok(directory) = open_directory(&socket_directory(store, key)) else {
        return Ok(None);
    };
    match sys::connect(&short_path(&directory)) {
        Ok(stream) => Ok(Some(stream)),
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => Ok(None),
        Err(Errno::AGAIN) => Err(Error::new(
            ErrorKind::Unavailable,
            "the agent has more callers than it answers",
        )),
        Err(errno) => Err(errno).context(|| "connect to the agent".to_owned()),
    }
}

/// A socket's path has at most 107 bytes; through a descriptor it always fits.
fn short_path(directory: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    openat(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .context(|| format!("open `{}`", path.display()))
}

/// Bytes of the mark that a stopped container leaves. They are there before, so that a full disk
/// cannot keep it from being left.
pub(crate) const MARK_BYTES: usize = 128;

fn blank_mark(directory: &Directory) -> Result<fs::File> {
    use std::os::unix::fs::FileExt;
    let path = directory.exit_mark();
    let file = fs::File::options()
        .write(true)
        .open(&path)
        .context(|| format!("open `{}`", path.display()))?;
    file.write_all_at(&[b' '; MARK_BYTES], 0)
        .context(|| format!("write `{}`", path.display()))?;
    Ok(file)
}

/// Read and written at places: the agent drops the older half of a log that grows too long.
fn open_log(directory: &Directory) -> Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = directory.log();
    fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .context(|| format!("open `{}`", path.display()))
}

/// Puts the descriptors in a row.
fn number<'a>(
    listener: &'a UnixListener,
    mark: &'a fs::File,
    lock: BorrowedFd<'a>,
    output: Option<&'a fs::File>,
    groups: &'a Groups,
    ports: &'a [TcpListener],
) -> Result<(Descriptors, Vec<BorrowedFd<'a>>)> {
    let mut fds: Vec<BorrowedFd<'a>> = Vec::new();
    let mut place = |fd: BorrowedFd<'a>| {
        let place = u8::try_from(fds.len()).unwrap_or(u8::MAX);
        fds.push(fd);
        place
    };
    let names = Descriptors {
        listener: Some(place(listener.as_fd())),
        exit_mark: Some(place(mark.as_fd())),
        lock: Some(place(lock)),
        output: output.map(|output| place(output.as_fd())),
        agent_tasks: groups
            .agent_tasks
            .iter()
            .map(|fd| place(fd.as_fd()))
            .collect(),
        work_tasks: groups
            .work_tasks
            .iter()
            .map(|fd| place(fd.as_fd()))
            .collect(),
        agent_group: groups.agent.as_ref().map(|fd| place(fd.as_fd())),
        work_group: groups.work.as_ref().map(|fd| place(fd.as_fd())),
        namespace_group: groups.namespace.as_ref().map(|fd| place(fd.as_fd())),
        oom: groups.oom.as_ref().map(|fd| place(fd.as_fd())),
        ports: ports.iter().map(|port| place(port.as_fd())).collect(),
    };
    if fds.len() > podkit_agent::plan::MAX_DESCRIPTORS {
        return Err(Error::new(ErrorKind::Unexpected, "too many descriptors"));
    }
    Ok((names, fds))
}
