//! System calls of the agent's service: signals as a descriptor, children with what they used, and
//! who is at the other end of a socket.

use core::ptr;

use rustix::{
    fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    io::Errno,
    process::Pid,
};

use super::container::{number, syscall};

/// Blocks every signal and gives those of `numbers` through a descriptor instead.
///
/// A blocked signal is never thrown away because PID 1 has no handler for it, so the sender has to
/// be looked at.
pub(crate) fn signals(numbers: &[u32]) -> Result<OwnedFd, Errno> {
    const NON_BLOCKING_AND_CLOSED: usize = 0x800 | 0x8_0000;
    block_signals();
    let mask = numbers
        .iter()
        .fold(0_u64, |mask, number| mask | 1 << (number - 1));
    // SAFETY: the mask has 8 bytes and lives across the call; -1 asks for a new descriptor.
    let fd = unsafe {
        syscall(
            number::SIGNALFD4,
            [
                usize::MAX,
                ptr::from_ref(&mask) as usize,
                8,
                NON_BLOCKING_AND_CLOSED,
                0,
            ],
        )
    }?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Blocks every signal that can be blocked.
pub(crate) fn block_signals() {
    let all = u64::MAX;
    // SAFETY: SIG_BLOCK (0) with a mask of 8 bytes that lives across the call.
    let _ = unsafe {
        syscall(
            number::RT_SIGPROCMASK,
            [0, ptr::from_ref(&all) as usize, 0, 8, 0],
        )
    };
}

/// What a child used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Microseconds in user mode.
    pub(crate) user_us: u64,
    /// Microseconds in the kernel.
    pub(crate) system_us: u64,
    /// Largest resident set of it or any of its children, in bytes.
    pub(crate) resident_bytes: u64,
}

/// A child that ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) pid: i32,
    /// As of `wait`.
    pub(crate) status: i32,
    pub(crate) used: Used,
}

impl Ended {
    /// Whether it has not ended at all, but was stopped; only [`reap`] without waiting tells.
    pub(crate) const fn is_stopped(&self) -> bool {
        self.status & 0xff == 0x7f
    }
}

/// Takes one ended child away: `Ok(None)` when none has ended, `CHILD` when there is none. Without
/// waiting, children that were stopped are told, too.
pub(crate) fn reap(wait: bool) -> Result<Option<Ended>, Errno> {
    const NO_HANG: usize = 1;
    const UNTRACED: usize = 2;
    const ALL: usize = 0x4000_0000;
    let mut status = 0_i32;
    let mut usage = [0_i64; 18];
    // SAFETY: the status and the usage, which has the size of `struct rusage`, live across the
    // call.
    let pid = unsafe {
        syscall(
            number::WAIT4,
            [
                usize::MAX,
                ptr::from_mut(&mut status) as usize,
                ALL | if wait { 0 } else { NO_HANG | UNTRACED },
                usage.as_mut_ptr() as usize,
                0,
            ],
        )
    }?;
    let pid = i32::try_from(pid).map_err(|_| Errno::CHILD)?;
    let micros = |seconds: i64, micros: i64| {
        u64::try_from(seconds.saturating_mul(1_000_000).saturating_add(micros)).unwrap_or(0)
    };
    let [user_s, user_us, system_s, system_us, resident, ..] = usage;
    Ok((pid > 0).then(|| Ended {
        pid,
        status,
        used: Used {
            user_us: micros(user_s, user_us),
            system_us: micros(system_s, system_us),
            resident_bytes: u64::try_from(resident).unwrap_or(0).saturating_mul(1024),
        },
    }))
}

/// Has SIGIO sent to this process whenever something is made or renamed in a directory, for as long
/// as the descriptor is open.
pub(crate) fn notify_of_names(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    const F_NOTIFY: usize = 1026;
    const CREATED_RENAMED_AND_AGAIN: usize = 0x4 | 0x10 | 0x8000_0000;
    let fd = usize::try_from(directory.as_raw_fd()).map_err(|_| Errno::BADF)?;
    // SAFETY: takes no pointer.
    unsafe {
        syscall(
            number::FCNTL,
            [fd, F_NOTIFY, CREATED_RENAMED_AND_AGAIN, 0, 0],
        )
    }?;
    Ok(())
}

/// Sends a signal to a process, to a group (the negative number of it), or with -1 to every process
/// of this pid namespace but this one.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    let pid = isize::try_from(pid).map_err(|_| Errno::SRCH)?;
    let signal = usize::try_from(signal).map_err(|_| Errno::INVAL)?;
    // SAFETY: takes no pointer.
    unsafe { syscall(number::KILL, [pid.cast_unsigned(), signal, 0, 0, 0]) }?;
    Ok(())
}

/// Who is at the other end of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// As seen in this pid namespace; 0 for a process outside of it.
    pub(crate) pid: i32,
    pub(crate) uid: u32,
}

/// Asks the kernel who made the other end. The safe crate's call cannot tell the pid 0.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> Result<Peer, Errno> {
    const SOL_SOCKET: usize = 1;
    const SO_PEERCRED: usize = 17;
    let fd = usize::try_from(socket.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let mut credentials = [0_u32; 3];
    let mut length = 12_u32;
    // SAFETY: the credentials have the size of `struct ucred`, which is what `length` says, and
    // both live across the call.
    unsafe {
        syscall(
            number::GETSOCKOPT,
            [
                fd,
                SOL_SOCKET,
                SO_PEERCRED,
                credentials.as_mut_ptr() as usize,
                ptr::from_mut(&mut length) as usize,
            ],
        )
    }?;
    let [pid, uid, _] = credentials;
    Ok(Peer {
        pid: pid.cast_signed(),
        uid,
    })
}

/// Standard input, output or error: 0, 1 or 2.
pub(crate) fn standard(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the kernel and every engine start a program with the three of them open, and nothing
    // here ever closes them: they are only replaced.
    unsafe { BorrowedFd::borrow_raw(number.clamp(0, 2)) }
}

/// The number of a process as the safe crate takes it.
pub(crate) fn pid(number: i32) -> Option<Pid> {
    Pid::from_raw(number)
}
