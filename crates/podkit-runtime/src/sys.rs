//! What the rest of the crate asks of the kernel about this process and others; no `unsafe`.

use std::{
    fs,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// The calling user.
pub(crate) fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The calling user's group.
pub(crate) fn gid() -> u32 {
    rustix::process::getegid().as_raw()
}

/// Lets a moment pass between two looks at something that tells of no change.
pub(crate) fn pause(time: Duration) {
    let _ = poll(&mut [], timespec(time).as_ref());
}

fn timespec(time: Duration) -> Option<Timespec> {
    Timespec::try_from(time).ok()
}

/// Names this run of the machine.
pub(crate) fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned()
    })
}

/// Clock ticks by which the boot lies back further for this process than for the machine: those of its
/// time namespace, which are in all that it reads of other processes' starts.
fn ticks_ahead() -> i64 {
    static TICKS: OnceLock<i64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        parse_ticks_ahead(&offsets).unwrap_or(0)
    })
}

/// A line `boottime SECONDS NANOSECONDS`.
fn parse_ticks_ahead(offsets: &str) -> Option<i64> {
    let line = offsets
        .lines()
        .find_map(|line| line.strip_prefix("boottime"))?;
    let mut numbers = line.split_whitespace().map(str::parse::<i64>);
    let (seconds, nanoseconds) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(seconds.checked_mul(100)? + nanoseconds / 10_000_000)
}

/// When a process started, in clock ticks after the machine's boot, whatever the time namespace of who
/// asks; `None` when it is gone or a zombie.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in the second field may hold anything, also brackets.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let ticks: i64 = fields.nth(18)?.parse().ok()?;
    Some(ticks.wrapping_sub(ticks_ahead()).cast_unsigned())
}

/// Whether a process is on its way out: `PF_EXITING` of the kernel's `sched.h`. What it had open may
/// be closed already.
pub(crate) fn is_ending(pid: u32) -> bool {
    const EXITING: u64 = 0x4;
    let flags = || -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(6)?
            .parse()
            .ok()
    };
    flags().is_none_or(|flags| flags & EXITING != 0)
}

/// A process that cannot be mistaken for another one.
#[derive(Debug)]
pub(crate) struct Process(OwnedFd);

impl Process {
    /// The process with this pid, if it is the one that started then.
    pub(crate) fn find(pid: u32, started: u64) -> Option<Self> {
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let fd = pidfd_open(raw, PidfdFlags::empty()).ok()?;
        // Held first and looked at then: the pid cannot pass to another one in between.
        (start_time(pid) == Some(started)).then_some(Self(fd))
    }

    /// Kills it, and with it, as it is PID 1, its whole pid namespace.
    pub(crate) fn kill(&self) -> Result<(), Errno> {
        match pidfd_send_signal(&self.0, Signal::KILL) {
            Err(Errno::SRCH) => Ok(()),
            other => other,
        }
    }

    /// Waits until it has ended: `false` when it has not by then.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, timespec(left).as_ref()) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Connects to a local socket without waiting for anybody.
pub(crate) fn connect(path: &Path) -> Result<UnixStream, Errno> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_not_ending_and_one_that_is_gone_is() {
        assert!(!is_ending(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(is_ending(pid));
    }

    #[test]
    fn ticks_ahead_are_read_as_the_kernel_writes_them() {
        let offsets = "monotonic    -5         0\nboottime      1000000  20000000\n";
        assert_eq!(parse_ticks_ahead(offsets), Some(100_000_002));
        assert_eq!(parse_ticks_ahead("boottime -7 0\n"), Some(-700));
        assert_eq!(parse_ticks_ahead(""), None);
    }

    #[test]
    fn own_start_time_is_found_and_another_one_is_not_us() {
        let pid = std::process::id();
        let started = start_time(pid).unwrap();
        assert!(Process::find(pid, started).is_some());
        assert!(Process::find(pid, started + 1).is_none());
    }
}
