//! System calls of the set-up that no safe crate offers: `clone3` with every flag,
//! `mount_setattr`, `seccomp`, taking over descriptors of a shared table.

use alloc::{ffi::CString, vec::Vec};
use core::{arch::asm, ffi::CStr, ptr};

use rustix::{
    fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    io::Errno,
    process::Pid,
};

/// `CLONE_*`, from `linux/sched.h`.
pub(crate) mod clone {
    pub(crate) const FILES: u64 = 0x400;
    pub(crate) const PARENT: u64 = 0x8000;
    pub(crate) const NEWNS: u64 = 0x2_0000;
    pub(crate) const NEWCGROUP: u64 = 0x200_0000;
    pub(crate) const NEWUTS: u64 = 0x400_0000;
    pub(crate) const NEWIPC: u64 = 0x800_0000;
    pub(crate) const NEWUSER: u64 = 0x1000_0000;
    pub(crate) const NEWPID: u64 = 0x2000_0000;
    pub(crate) const NEWNET: u64 = 0x4000_0000;
    pub(crate) const INTO_CGROUP: u64 = 0x2_0000_0000;
}

/// `MOUNT_ATTR_*`, from `linux/mount.h`.
pub(crate) mod attribute {
    pub(crate) const READ_ONLY: u64 = 0x1;
    pub(crate) const NO_SUID: u64 = 0x2;
    pub(crate) const NO_DEV: u64 = 0x4;
    pub(crate) const NO_EXEC: u64 = 0x8;
    pub(crate) const IDMAP: u64 = 0x10_0000;
}

#[cfg(target_arch = "x86_64")]
pub(super) mod number {
    pub(in crate::sys) const GETSOCKOPT: usize = 55;
    pub(in crate::sys) const FCNTL: usize = 72;
    pub(in crate::sys) const IOCTL: usize = 16;
    pub(in crate::sys) const KILL: usize = 62;
    pub(in crate::sys) const SIGNALFD4: usize = 289;
    pub(in crate::sys) const WAIT4: usize = 61;
    pub(in crate::sys) const EXECVE: usize = 59;
    pub(in crate::sys) const UNSHARE: usize = 272;
    pub(in crate::sys) const DUP3: usize = 292;
    pub(in crate::sys) const EXIT_GROUP: usize = 231;
    pub(in crate::sys) const RT_SIGACTION: usize = 13;
    pub(in crate::sys) const RT_SIGPROCMASK: usize = 14;
    pub(in crate::sys) const SECCOMP: usize = 317;
    pub(in crate::sys) const CLONE: usize = 56;
    pub(in crate::sys) const CLONE3: usize = 435;
    pub(in crate::sys) const MOUNT_SETATTR: usize = 442;
    pub(in crate::sys) const SETFSUID: usize = 122;
}
#[cfg(target_arch = "aarch64")]
pub(super) mod number {
    pub(in crate::sys) const GETSOCKOPT: usize = 209;
    pub(in crate::sys) const FCNTL: usize = 25;
    pub(in crate::sys) const IOCTL: usize = 29;
    pub(in crate::sys) const KILL: usize = 129;
    pub(in crate::sys) const SIGNALFD4: usize = 74;
    pub(in crate::sys) const WAIT4: usize = 260;
    pub(in crate::sys) const EXECVE: usize = 221;
    pub(in crate::sys) const UNSHARE: usize = 97;
    pub(in crate::sys) const DUP3: usize = 24;
    pub(in crate::sys) const EXIT_GROUP: usize = 94;
    pub(in crate::sys) const RT_SIGACTION: usize = 134;
    pub(in crate::sys) const RT_SIGPROCMASK: usize = 135;
    pub(in crate::sys) const SECCOMP: usize = 277;
    pub(in crate::sys) const CLONE: usize = 220;
    pub(in crate::sys) const CLONE3: usize = 435;
    pub(in crate::sys) const MOUNT_SETATTR: usize = 442;
    pub(in crate::sys) const SETFSUID: usize = 151;
}

/// One system call.
///
/// # Safety
/// As the call itself demands of its arguments.
pub(super) unsafe fn syscall(number: usize, args: [usize; 5]) -> Result<usize, Errno> {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel's calling convention; it changes rcx and r11, and what the caller vouches
    // for.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") args[0], in("rsi") args[1],
            in("rdx") args[2], in("r10") args[3], in("r8") args[4],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel's calling convention; it changes x0, and what the caller vouches for.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") args[0] => result, in("x1") args[1],
            in("x2") args[2], in("x3") args[3], in("x4") args[4], options(nostack));
    }
    if (-4095..0).contains(&result) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the range was just checked"
        )]
        return Err(Errno::from_raw_os_error(-result as i32));
    }
    Ok(result.cast_unsigned())
}

/// `struct clone_args`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Makes a child that goes on from here with a copy of the memory: `None` in the child.
///
/// With `clone::FILES` both sides share one descriptor table, so the parent must not drop any
/// descriptor that it owned before; [`core::mem::ManuallyDrop`] is the way.
pub(crate) fn clone_process(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Option<Pid>, Errno> {
    let mut args = CloneArgs {
        flags,
        // SIGCHLD, so that an ordinary wait sees the child; a sibling has this process's own.
        exit_signal: if flags & clone::PARENT == 0 { 17 } else { 0 },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= clone::INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    let pointer = ptr::from_mut(&mut args) as usize;
    // SAFETY: the structure lives across the call and has the size that is given. Without CLONE_VM
    // and with no stack the child has a copy of this memory; this process has one thread, so
    // no lock is held by another one.
    let made = unsafe { syscall(number::CLONE3, [pointer, size_of::<CloneArgs>(), 0, 0, 0]) };
    let pid = match made {
        // Engines' filters cannot look into its structure, and so refuse it.
        Err(Errno::NOSYS | Errno::PERM) if cgroup.is_none() && flags == 0 => {
            // SAFETY: as above; the flags are the signal alone, so no pointer is read.
            unsafe { syscall(number::CLONE, [17, 0, 0, 0, 0]) }?
        }
        other => other?,
    };
    Ok(i32::try_from(pid).ok().and_then(Pid::from_raw))
}

/// `struct mount_attr`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Sets attributes of the mount behind a descriptor; with `userns` its ids are shown as there.
pub(crate) fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    set: u64,
    userns: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> Result<(), Errno> {
    const AT_EMPTY_PATH: usize = 0x1000;
    const AT_RECURSIVE: usize = 0x8000;
    let mut attr = MountAttr {
        set,
        ..MountAttr::default()
    };
    if let Some(userns) = userns {
        attr.set |= attribute::IDMAP;
        attr.userns = u64::from(userns.as_raw_fd().cast_unsigned());
    }
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let fd = usize::try_from(mount.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let pointer = ptr::from_ref(&attr) as usize;
    // SAFETY: the path is an empty C string and the structure has the size that is given; both
    // live across the call.
    unsafe {
        syscall(
            number::MOUNT_SETATTR,
            [
                fd,
                c"".as_ptr() as usize,
                flags,
                pointer,
                size_of::<MountAttr>(),
            ],
        )
    }?;
    Ok(())
}

/// Loads a system call filter: `struct sock_filter` after `struct sock_filter`.
pub(crate) fn load_filter(program: &[u8]) -> Result<(), Errno> {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const u8,
    }
    const SET_MODE_FILTER: usize = 1;
    let program = Program {
        length: u16::try_from(program.len() / 8).map_err(|_| Errno::INVAL)?,
        instructions: program.as_ptr(),
    };
    let pointer = ptr::from_ref(&program) as usize;
    // SAFETY: the structure and the instructions it points to live across the call, and the length
    // is theirs; the kernel checks the program.
    unsafe { syscall(number::SECCOMP, [SET_MODE_FILTER, 0, pointer, 0, 0]) }?;
    Ok(())
}

/// Switches the loopback interface of this network namespace on.
pub(crate) fn raise_loopback(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    const SIOCSIFFLAGS: usize = 0x8914;
    const IFF_UP_RUNNING: u16 = 0x41;
    // `struct ifreq`: a name of 16 bytes, then the flags.
    let mut request = [0_u8; 40];
    let flags = IFF_UP_RUNNING.to_ne_bytes();
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&flags);
    let fd = usize::try_from(socket.as_raw_fd()).map_err(|_| Errno::BADF)?;
    // SAFETY: the request has the size of `struct ifreq` and lives across the call.
    unsafe {
        syscall(
            number::IOCTL,
            [fd, SIOCSIFFLAGS, request.as_ptr() as usize, 0, 0],
        )
    }?;
    Ok(())
}

/// Gives every signal its default action and blocks none. Children of the agent, which has no
/// other actions, only have to [unblock](unblock_signals) them.
pub(crate) fn reset_signals() {
    // `struct kernel_sigaction` with SIG_DFL, no flags, no restorer, an empty mask.
    let action = [0_usize; 4];
    for signal in 1..=64_usize {
        // SAFETY: the structure has the kernel's size and asks for the default action, which runs
        // none of our code. KILL, STOP and numbers that do not exist are refused, which is fine.
        let _ = unsafe {
            syscall(
                number::RT_SIGACTION,
                [signal, action.as_ptr() as usize, 0, 8, 0],
            )
        };
    }
    unblock_signals();
}

/// Blocks no signal.
pub(crate) fn unblock_signals() {
    let none = 0_u64;
    // SAFETY: SIG_SETMASK (2) with a mask of 8 bytes that lives across the call.
    let _ = unsafe {
        syscall(
            number::RT_SIGPROCMASK,
            [2, ptr::from_ref(&none) as usize, 0, 8, 0],
        )
    };
}

/// Replaces this process; returns only when that failed.
pub(crate) fn execute(path: &CStr, argv: &[CString], environment: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const core::ffi::c_char> {
        let strings = strings.iter().map(|string| string.as_ptr());
        strings.chain([ptr::null()]).collect()
    };
    let (argv, environment) = (pointers(argv), pointers(environment));
    // SAFETY: the path, all arguments and all entries of the environment are C strings, and both
    // lists end with a null pointer.
    let result = unsafe {
        syscall(
            number::EXECVE,
            [
                path.as_ptr() as usize,
                argv.as_ptr() as usize,
                environment.as_ptr() as usize,
                0,
                0,
            ],
        )
    };
    result.err().unwrap_or(Errno::NOEXEC)
}

/// Makes this process's cgroups the roots of a new cgroup namespace.
pub(crate) fn unshare_cgroup() -> Result<(), Errno> {
    unshare(clone::NEWCGROUP)
}

/// Opens files as root again, whoever this thread is else.
pub(crate) fn open_files_as_root() -> Result<(), Errno> {
    // SAFETY: takes no pointer and changes nothing but who this thread's files are opened as.
    unsafe { syscall(number::SETFSUID, [0; 5]) }.map(drop)
}

/// Leaves the mount namespace for a copy of it.
pub(crate) fn unshare_mounts() -> Result<(), Errno> {
    unshare(clone::NEWNS)
}

fn unshare(namespace: u64) -> Result<(), Errno> {
    let flags = usize::try_from(namespace).map_err(|_| Errno::INVAL)?;
    // SAFETY: takes no pointer, and neither a cgroup nor a mount namespace shares anything with
    // memory or descriptors.
    unsafe { syscall(number::UNSHARE, [flags, 0, 0, 0, 0]) }?;
    Ok(())
}

/// Ends this process. No destructor runs, so descriptors of a shared table stay open.
pub(crate) fn exit_group(code: u8) -> ! {
    loop {
        // SAFETY: takes no pointer, and does not return.
        let _ = unsafe { syscall(number::EXIT_GROUP, [usize::from(code), 0, 0, 0, 0]) };
    }
}

/// The socket to the engine: standard input.
pub(crate) fn control() -> BorrowedFd<'static> {
    // SAFETY: the engine always gives standard input, and nothing closes it before PID 1 puts
    // `/dev/null` in its place.
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// Makes the three standard streams copies of `with`.
pub(crate) fn replace_standard_streams(with: BorrowedFd<'_>) -> Result<(), Errno> {
    let from = usize::try_from(with.as_raw_fd()).map_err(|_| Errno::BADF)?;
    for standard in 0..=2 {
        if from != standard {
            // SAFETY: takes no pointer; the standard streams have no owner that drops them.
            unsafe { syscall(number::DUP3, [from, standard, 0, 0, 0]) }?;
        }
    }
    Ok(())
}

/// Takes over a descriptor that the other process of a shared table has opened for this one.
pub(crate) fn adopt(raw: RawFd) -> OwnedFd {
    // SAFETY: the helper opened it after the clone, never drops it, and names it once.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Closes every descriptor from `first` on but these.
pub(crate) fn close_others(first: RawFd, keep: &[RawFd]) {
    let mut keep = Vec::from(keep);
    keep.sort_unstable();
    let mut from = first;
    for fd in keep {
        if fd > from {
            close_range(from, fd - 1);
        }
        from = from.max(fd + 1);
    }
    close_range(from, RawFd::MAX);
}

fn close_range(first: RawFd, last: RawFd) {
    const CLOSE_RANGE: usize = 436;
    // SAFETY: the caller names what it uses; everything else in the range has no owner that is
    // used again.
    let _ = unsafe {
        syscall(
            CLOSE_RANGE,
            [
                first.cast_unsigned() as usize,
                last.cast_unsigned() as usize,
                0,
                0,
                0,
            ],
        )
    };
}
