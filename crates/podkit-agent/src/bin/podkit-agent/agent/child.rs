//! A command's process between the fork and its program.

use alloc::{borrow::Cow, ffi::CString, format, vec::Vec};

use podkit_agent::{ExecSpec, Failure, FailureKind, Reply};
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{Mode, OFlags, fchown, openat},
    io::{Errno, write},
    process::{DumpableBehavior, Uid, chdir, ioctl_tiocsctty, set_dumpable_behavior, setsid},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
    thread::CapabilitySet,
};

use super::{Config, requests::failure};
use crate::{
    capabilities,
    sys::{
        container::{close_others, execute as replace, exit_group, load_filter, unblock_signals},
        serve::standard,
    },
    users,
};

/// Where programs are looked for when the environment does not say.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a terminal is taken for when the environment does not say.
const TERMINAL: &[u8] = b"TERM=xterm-256color";

/// What is written to `oom_score_adj`: commands go before the agent does.
const OOM_SCORE: &[u8] = b"500";

/// The command's ends of its pipes.
pub(super) struct Ends {
    /// `/dev/null` without.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    /// Standard output's without.
    pub(super) stderr: Option<OwnedFd>,
    /// Says why the program could not be executed, and ends when it is.
    pub(super) report: OwnedFd,
    /// Whether the streams are a terminal, which the command is to be in charge of.
    pub(super) terminal: bool,
}

/// What is to be executed, and how.
pub(super) struct Order<'a> {
    pub(super) spec: &'a ExecSpec,
    pub(super) config: &'a Config,
    pub(super) processes: &'a OwnedFd,
    pub(super) ends: &'a Ends,
}

/// Becomes the command. A program that is missing is said on standard error, as a shell does; what
/// is wrong before is reported.
pub(super) fn execute(order: &Order<'_>) -> ! {
    match prepare(order) {
        Ok(environment) => exit_group(replace_self(order.spec, &environment)),
        Err(failure) => {
            report(order, failure);
            exit_group(127)
        }
    }
}

/// Reports that there is no process for the command.
pub(super) fn refuse(order: &Order<'_>, errno: Errno) {
    let kind = if super::start::is_want(errno) {
        FailureKind::LimitExceeded
    } else {
        FailureKind::Unexpected
    };
    let text = "start a process: the kernel refused";
    report(order, failure(kind, errno.raw_os_error(), text));
}

fn report(order: &Order<'_>, failure: Failure) {
    let mut frame = Vec::new();
    Reply::Failed(failure).encode(0, &mut frame);
    let _ = write(&order.ends.report, &frame);
}

trait Step<T> {
    fn step(self, what: &str) -> Result<T, Failure>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, what: &str) -> Result<T, Failure> {
        self.map_err(|errno| {
            let kind = FailureKind::Unexpected;
            let number = errno.raw_os_error();
            failure(kind, number, format!("{what}: error {number}"))
        })
    }
}

fn prepare(order: &Order<'_>) -> Result<Vec<CString>, Failure> {
    let Order {
        spec,
        config,
        processes,
        ends,
    } = order;
    unblock_signals();
    let _ = setsid();
    if let Some(stdin) = &ends.stdin {
        dup2_stdin(stdin).step("give standard input")?;
    }
    dup2_stdout(&ends.stdout).step("give standard output")?;
    dup2_stderr(ends.stderr.as_ref().unwrap_or(&ends.stdout)).step("give standard error")?;
    if ends.terminal {
        ioctl_tiocsctty(&ends.stdout).step("take charge of the terminal")?;
    }
    enter_groups(config)?;
    // Whatever else the agent has open is out of reach before anybody else could look.
    close_others(3, &[ends.report.as_raw_fd(), processes.as_raw_fd()]);
    raise_oom_score(processes);
    let user = if spec.user.is_empty() {
        &config.user
    } else {
        &spec.user
    };
    let identity = users::resolve(user)?;
    let kept = config.capabilities.map(CapabilitySet::from_bits_retain);
    if let Some(kept) = kept {
        capabilities::bound(kept).step("bound capabilities")?;
    }
    if ends.terminal {
        // So that the user may open it by its name. It works without.
        let _ = fchown(standard(0), Some(Uid::from_raw(identity.uid)), None);
    }
    users::become_user(&identity)?;
    if let Some(kept) = kept {
        capabilities::hold_at_most(kept).step("give up capabilities")?;
    }
    let cwd = if spec.cwd.is_empty() {
        &config.cwd
    } else {
        &spec.cwd
    };
    enter(cwd)?;
    if !config.exec_filter.is_empty() {
        load_filter(&config.exec_filter).step("load the command's system call filter")?;
    }
    environment(spec, config, &identity)
}

/// Enters the version 1 groups of commands. A process may move itself without waiting for all the
/// others of the machine, as moving another one does.
pub(super) fn enter_groups(config: &Config) -> Result<(), Failure> {
    for tasks in &config.tasks {
        write(tasks, b"0").step("enter the commands' cgroup")?;
    }
    Ok(())
}

/// Makes this process a better choice than the agent when memory is short; best effort.
fn raise_oom_score(processes: &OwnedFd) {
    // A process that cannot be looked at cannot be changed here either.
    let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = openat(
        processes.as_fd(),
        "self/oom_score_adj",
        flags,
        Mode::empty(),
    ) {
        let _ = write(&file, OOM_SCORE);
    }
}

fn enter(cwd: &[u8]) -> Result<(), Failure> {
    let cwd = if cwd.is_empty() { b"/" } else { cwd };
    chdir(cwd).map_err(|errno| {
        let shown = alloc::string::String::from_utf8_lossy(cwd);
        let (kind, why) = match errno {
            Errno::NOENT => (FailureKind::InvalidInput, "it does not exist"),
            Errno::NOTDIR => (FailureKind::InvalidInput, "it is not a directory"),
            Errno::ACCESS => (FailureKind::PermissionDenied, "the user may not enter it"),
            _ => (FailureKind::InvalidInput, "it cannot be entered"),
        };
        let message = format!("the working directory `{shown}` cannot be used: {why}");
        failure(kind, errno.raw_os_error(), message)
    })
}

/// The container's environment, what the command adds to it, and what every command has.
fn environment(
    spec: &ExecSpec,
    config: &Config,
    identity: &users::Identity,
) -> Result<Vec<CString>, Failure> {
    let mut entries: Vec<Cow<'_, [u8]>> = Vec::new();
    let name = |entry: &[u8]| {
        let end = entry
            .iter()
            .position(|byte| *byte == b'=')
            .unwrap_or(entry.len());
        entry.get(..end).unwrap_or_default().to_vec()
    };
    let mut put = |entry: Cow<'_, [u8]>, replace: bool| {
        let key = name(&entry);
        let entry = Cow::Owned(entry.into_owned());
        match entries.iter_mut().find(|known| name(known) == key) {
            Some(known) if replace => *known = entry,
            Some(_) => {}
            None => entries.push(entry),
        }
    };
    for entry in config.env.iter().chain(&spec.env) {
        put(Cow::Borrowed(entry), true);
    }
    put(Cow::Owned([b"PATH=", PATH].concat()), false);
    if spec.terminal.is_some() {
        put(Cow::Borrowed(TERMINAL), false);
    }
    put(
        Cow::Owned([b"HOME=", identity.home.as_slice()].concat()),
        false,
    );
    if !identity.name.is_empty() {
        put(
            Cow::Owned([b"USER=", identity.name.as_slice()].concat()),
            false,
        );
    }
    let entries = entries
        .into_iter()
        .map(|entry| CString::new(entry.into_owned()));
    entries.collect::<Result<_, _>>().map_err(|_| {
        failure(
            FailureKind::InvalidInput,
            0,
            "the environment has a NUL byte",
        )
    })
}

/// Executes the program; returns the code of a shell that could not.
fn replace_self(spec: &ExecSpec, environment: &[CString]) -> u8 {
    let argv: Result<Vec<CString>, _> = spec.argv.iter().cloned().map(CString::new).collect();
    let (Ok(argv), Some(program)) = (argv, spec.argv.first()) else {
        return 127;
    };
    let mut worst = Errno::NOENT;
    if program.contains(&b'/') {
        if let Ok(path) = CString::new(program.clone()) {
            worst = replace(&path, &argv, environment);
            if worst == Errno::ACCESS && is_directory(program) {
                worst = Errno::ISDIR;
            }
        }
    } else {
        let path = environment
            .iter()
            .find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="))
            .unwrap_or(PATH);
        for directory in path.split(|byte| *byte == b':') {
            let directory = if directory.is_empty() {
                b"."
            } else {
                directory
            };
            let Ok(path) = CString::new([directory, b"/", program].concat()) else {
                continue;
            };
            match replace(&path, &argv, environment) {
                Errno::NOENT | Errno::NOTDIR => {}
                // The next directory may have one that can be executed.
                Errno::ACCESS if is_directory(path.to_bytes()) => {}
                errno @ Errno::ACCESS => worst = errno,
                errno => {
                    worst = errno;
                    break;
                }
            }
        }
    }
    let (code, why) = match worst {
        Errno::NOENT | Errno::NOTDIR if program.contains(&b'/') => {
            (127, "no such file, or its interpreter is missing")
        }
        Errno::NOENT | Errno::NOTDIR => (127, "not found"),
        Errno::ISDIR => (126, "is a directory"),
        Errno::ACCESS => (126, "permission denied"),
        Errno::NOEXEC => (126, "is not a program for this machine"),
        Errno::TOOBIG => (126, "arguments and environment are too long"),
        Errno::TXTBSY => (126, "is being written"),
        Errno::NOMEM | Errno::AGAIN => (126, "there is not enough memory"),
        _ => (126, "cannot be executed"),
    };
    let text = [
        b"podkit: ",
        program.as_slice(),
        b": ",
        why.as_bytes(),
        b"\n",
    ]
    .concat();
    let _ = write(standard(2), &text);
    code
}

fn is_directory(path: &[u8]) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
    })
}
