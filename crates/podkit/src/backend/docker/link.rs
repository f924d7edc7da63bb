//! The ways to a container's agent: a socket of this machine to which it dials out, or a stream of
//! the engine's to a process that the engine starts beside it.

use std::{
    fs::DirBuilder,
    hash::{BuildHasher, RandomState},
    io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        net::UnixListener as StdListener,
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bollard::{
    Docker,
    container::LogOutput,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::{StreamExt, future};
use rustix::fs::{CWD, Mode, OFlags, openat, renameat};
use sha2::{Digest, Sha256};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::io::StreamReader;

use super::{agent_volume, failure};
use crate::{
    backend::AgentStream,
    error::{Error, ErrorKind, Result},
    id::ContainerId,
};

/// Where the container sees the directory of its clients' sockets.
pub(super) const TARGET: &str = "/.podkit-link";

/// Bytes of a frame of the engine's stream that are taken at once.
const FRAME_BYTES: usize = 64 * 1024;

/// Makes a directory that is its owner's alone, with its parents.
pub(super) fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let metadata = directory.symlink_metadata()?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    if metadata.is_dir() && own && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "the directory is not this user's alone",
    ))
}

/// The directories, one for each container of one engine, in which clients wait for its agent.
/// Containers see theirs read-only, so nothing in it can be replaced from inside.
#[derive(Clone, Debug)]
pub(super) struct Links {
    base: PathBuf,
}

impl Links {
    /// The directories for the engine at `url`, below the user's directory for sockets.
    pub(super) fn new(run_dir: &Path, url: &str) -> Self {
        let engine = HEXLOWER.encode(&Sha256::digest(url.as_bytes())[..6]);
        Self {
            base: run_dir.join("links").join(engine),
        }
    }

    /// Makes a directory for a container that is to be made: `None` where that is not possible. Each
    /// life of a name has one of its own, so that the end of one takes nothing from the next.
    pub(super) fn make(&self, container: &ContainerId) -> Option<PathBuf> {
        let number = RandomState::new().hash_one(0_u8);
        let directory = self.base.join(format!("{container}.{number:016x}"));
        make_private(&directory).ok().map(|()| directory)
    }

    /// Whether a directory is one of these: other users' are elsewhere.
    pub(super) fn has(&self, directory: &Path) -> bool {
        directory.parent() == Some(&self.base)
    }

    /// Removes a directory.
    pub(super) fn remove(&self, directory: &Path) {
        if self.has(directory) {
            let _ = std::fs::remove_dir_all(directory);
        }
    }

    /// Directories older than `min_age`, with the containers that they were made for.
    pub(super) fn older_than(&self, min_age: Duration) -> Vec<(ContainerId, PathBuf)> {
        let Ok(entries) = std::fs::read_dir(&self.base) else {
            return Vec::new();
        };
        let old = |entry: &std::fs::DirEntry| {
            let changed = entry.metadata().and_then(|metadata| metadata.modified());
            let age = changed
                .ok()
                .and_then(|at| SystemTime::now().duration_since(at).ok());
            age.is_some_and(|age| age >= min_age)
        };
        let named = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let (container, _) = name.rsplit_once('.')?;
            Some((ContainerId::new(container).ok()?, entry.path()))
        };
        entries.flatten().filter(old).filter_map(named).collect()
    }
}

/// A socket to which an agent dials out.
#[derive(Debug)]
pub(super) struct Waiting {
    listener: UnixListener,
    path: PathBuf,
}

impl Waiting {
    /// Listens in a container's directory.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let opened = openat(CWD, directory, flags, Mode::empty())?;
        let number = RandomState::new().hash_one(0_u8);
        let (hidden, shown) = (format!(".{number:016x}"), format!("{number:016x}"));
        // A socket's path has room for some hundred bytes only; this one is short.
        let short = format!(
            "/proc/self/fd/{}/{hidden}",
            std::os::fd::AsRawFd::as_raw_fd(&opened)
        );
        let listener = StdListener::bind(short)?;
        let waiting = Self {
            listener: {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener)?
            },
            path: directory.join(&shown),
        };
        // It listens before it is seen.
        renameat(&opened, &hidden, &opened, &shown)?;
        Ok(waiting)
    }

    /// The first connection of PID 1 of the container, which has this pid here. What else inside
    /// may reach the socket is turned away.
    pub(super) async fn dialled(&self, pid: u32) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let peer = stream.peer_cred()?.pid();
            if peer.and_then(|peer| u32::try_from(peer).ok()) == Some(pid) {
                return Ok(stream);
            }
        }
    }
}

/// Takes the socket's name away.
impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A stream through the engine, to a process that passes bytes to the agent: two requests.
///
/// # Errors
/// `ContainerGone` when it does not run; what the engine says.
pub(super) async fn through_engine(
    docker: &Docker,
    container: &ContainerId,
) -> Result<AgentStream> {
    let order = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(false),
        user: Some("0:0"),
        // Wherever the image's programs work: it may be gone.
        working_dir: Some("/"),
        cmd: Some(vec![agent_volume::PROGRAM, "connect"]),
        ..CreateExecOptions::default()
    };
    let gone = |error: bollard::errors::Error| {
        let missing = failure::is_missing(&error);
        let paused = failure::says(&error, &["is paused"]);
        let error = failure::error(error);
        if missing {
            return Error::new(ErrorKind::ContainerGone, error.message());
        }
        if paused {
            return Error::new(ErrorKind::AgentUnreachable, "the container is paused");
        }
        error
    };
    let exec = docker
        .create_exec(container.as_str(), order)
        .await
        .map_err(gone)?;
    let options = StartExecOptions {
        detach: false,
        tty: false,
        output_capacity: Some(FRAME_BYTES),
    };
    let started = docker.start_exec(&exec.id, Some(options)).await;
    let StartExecResults::Attached { output, input } = started.map_err(gone)? else {
        return Err(Error::new(
            ErrorKind::Unexpected,
            "the engine gave no stream to the agent",
        ));
    };
    let bytes = output.filter_map(|frame| {
        future::ready(match frame {
            Ok(LogOutput::StdOut { message }) => Some(Ok::<Bytes, io::Error>(message)),
            // It says why it ends, which the end of the stream says as well.
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let reader = StreamReader::new(Box::pin(bytes));
    Ok(AgentStream::new(tokio::io::join(reader, input)))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn caller_of_another_pid_is_turned_away() {
        let place = tempfile::tempdir().unwrap();
        let waiting = Waiting::new(place.path()).unwrap();
        let own = std::process::id();
        for other in [own - 1, own + 1] {
            let mut caller = UnixStream::connect(&waiting.path).await.unwrap();
            let mut byte = [0];
            tokio::select! {
                taken = waiting.dialled(other) => panic!("{taken:?} was taken for the agent"),
                heard = caller.read(&mut byte) => assert_eq!(heard.unwrap(), 0),
            }
        }
        let _caller = UnixStream::connect(&waiting.path).await.unwrap();
        waiting.dialled(own).await.unwrap();
    }
}
