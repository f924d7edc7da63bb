//! The helper process: how it is started, told what to do, and heard.

use std::{
    fs::{self, File},
    io::{IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use podkit_agent::{
    FrameBuffer,
    plan::{COMMIT, Plan, Report, SHOW_IDS},
};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

use crate::error::{Context, Error, ErrorKind, Result};

/// How long the helper may be silent before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running helper.
#[derive(Debug)]
pub(crate) struct Helper {
    stream: UnixStream,
    child: Child,
    buffer: FrameBuffer,
    /// Whether the agent runs from memory.
    pub(crate) from_memory: bool,
}

impl Helper {
    /// Starts it and tells it what to do.
    pub(crate) fn start(
        state_dir: &Path,
        plan: &Plan,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Self> {
        let (stream, theirs) = UnixStream::pair().context(|| "make a socket".to_owned())?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .context(|| "set a deadline".to_owned())?;
        let (child, from_memory) = spawn(state_dir, theirs.into())?;
        let mut helper = Self {
            stream,
            child,
            buffer: FrameBuffer::new(),
            from_memory,
        };
        helper.tell(plan, descriptors)?;
        Ok(helper)
    }

    fn tell(&mut self, plan: &Plan, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        let mut bytes = Vec::with_capacity(16 * 1024);
        plan.encode(&mut bytes);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(Error::new(ErrorKind::Unexpected, "too many descriptors"));
        }
        let sent = loop {
            match sendmsg(
                &self.stream,
                &[IoSlice::new(&bytes)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            ) {
                Err(Errno::INTR) => {}
                other => break other.context(|| "send the plan".to_owned())?,
            }
        };
        // The rest of a large plan; standard library streams never raise SIGPIPE here, because
        // they send with MSG_NOSIGNAL.
        self.stream
            .write_all(bytes.get(sent..).unwrap_or_default())
            .context(|| "send the plan".to_owned())
    }

    /// Waits for the next report. A failure that it reports is an error here.
    pub(crate) fn hear(&mut self) -> Result<Report> {
        let mut bytes = [0_u8; 1024];
        loop {
            let report = Report::take(&mut self.buffer).map_err(|error| {
                Error::new(ErrorKind::Unexpected, format!("read the report: {error}"))
            })?;
            match report {
                Some(Report::Failed { step, errno }) => return Err(explain(&step, errno)),
                Some(report) => return Ok(report),
                None => {}
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    // Somebody killed it: who removes the container, most likely.
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        "the container's first process ended before it was ready",
                    ));
                }
                Ok(length) => self.buffer.push(bytes.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Err(Error::new(
                        ErrorKind::TimedOut,
                        format!("the helper was silent for {} s", PATIENCE.as_secs()),
                    ));
                }
                Err(error) => return Err(error).context(|| "read the report".to_owned()),
            }
        }
    }

    /// Lets the container run on its own.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.stream
            .write_all(&[COMMIT])
            .context(|| "commit the container".to_owned())
    }

    /// Hangs up and takes the helper's status away. A program that waits for any child of its
    /// own may have taken it before, which is fine.
    pub(crate) fn finish(self) {
        let Self {
            stream, mut child, ..
        } = self;
        drop(stream);
        let _ = child.wait();
    }
}

/// Does one job that ends with the helper.
pub(crate) fn run(state_dir: &Path, plan: &Plan) -> Result<()> {
    let mut helper = Helper::start(state_dir, plan, &[])?;
    let result = loop {
        match helper.hear() {
            Ok(Report::Done) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    helper.finish();
    result
}

/// Says in the user's words what the kernel refused.
fn explain(step: &str, errno: i32) -> Error {
    if errno == 0 {
        return crate::surroundings::explain_mapper(step)
            .unwrap_or_else(|| Error::new(ErrorKind::Unexpected, step));
    }
    let source = std::io::Error::from_raw_os_error(errno);
    let errno = Errno::from_raw_os_error(errno);
    if let Some(error) = crate::surroundings::explain(step, errno) {
        return error.with_source(source);
    }
    let kind = match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => ErrorKind::InvalidInput,
        _ => crate::error::kind_of(&source),
    };
    let error = Error::new(kind, format!("{step}: {source}"));
    let error = if step.starts_with(SHOW_IDS) {
        error.with_hint(
            "mount it read-only, or keep it where idmapped mounts work: ext4, XFS, Btrfs; tmpfs \
             from Linux 6.3 on",
        )
    } else {
        error
    };
    error.with_source(source)
}

/// The agent in one sealed memory file for the whole process.
fn agent_in_memory() -> Option<PathBuf> {
    static MEMORY: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let memory = MEMORY.get_or_init(|| memory_file().ok()).as_ref()?;
    Some(PathBuf::from(format!(
        "/proc/self/fd/{}",
        memory.as_raw_fd()
    )))
}

/// The agent as a file in the state directory, for where memory files cannot be executed.
fn agent_on_disk(state_dir: &Path) -> Result<PathBuf> {
    let binary = binary()?;
    let path = state_dir.join(format!("agent-{}", binary.sha256.get(..16).unwrap_or("")));
    if !path.exists() {
        let part = state_dir.join(format!("agent-{}.part", crate::store::token()?));
        let written = File::options()
            .write(true)
            .create_new(true)
            .mode(0o555)
            .open(&part)
            .and_then(|mut file| file.write_all(binary.bytes))
            .and_then(|()| fs::rename(&part, &path));
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written.context(|| format!("write the agent to `{}`", path.display()))?;
    }
    Ok(path)
}

/// Starts the agent as helper: from memory, or from a file where that is forbidden.
fn spawn(state_dir: &Path, stdin: OwnedFd) -> Result<(Child, bool)> {
    let copy = stdin
        .try_clone()
        .context(|| "copy a descriptor".to_owned())?;
    // Whether a memory file can be executed shows only when it is tried.
    if let Some(program) = agent_in_memory()
        && let Ok(child) = execute(&program, copy)
    {
        return Ok((child, true));
    }
    let program = agent_on_disk(state_dir)?;
    execute(&program, stdin)
        .map(|child| (child, false))
        .context(|| format!("start the agent at `{}`", program.display()))
}

/// Never forks this process's memory: the standard library starts a program without a hook in
/// between by `posix_spawn`.
fn execute(program: &Path, stdin: OwnedFd) -> std::io::Result<Child> {
    Command::new(program)
        .arg0("podkit-agent")
        .arg("setup")
        .env_clear()
        .process_group(0)
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn memory_file() -> Result<OwnedFd> {
    const MFD_EXEC: u32 = 0x10;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let executable = flags | MemfdFlags::from_bits_retain(MFD_EXEC);
    let memory = match memfd_create(c"podkit-agent", executable) {
        // A kernel that does not know the flag makes them executable anyway.
        Err(Errno::INVAL) => memfd_create(c"podkit-agent", flags),
        other => other,
    }
    .context(|| "make a memory file".to_owned())?;
    let mut file = File::from(memory);
    file.write_all(binary()?.bytes)
        .context(|| "fill a memory file".to_owned())?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(file.as_fd(), seals).context(|| "seal a memory file".to_owned())?;
    Ok(OwnedFd::from(file))
}

fn binary() -> Result<&'static podkit_agent::AgentBinary> {
    let arch = std::env::consts::ARCH;
    podkit_agent::binary(arch).ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            format!("this build has no agent for `{arch}`"),
        )
    })
}
