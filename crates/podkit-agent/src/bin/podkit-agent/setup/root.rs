//! Puts the root file system together inside the container's mount namespace.

use alloc::{format, vec::Vec};

use podkit_agent::plan::{ContainerPlan, MountPlan};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, symlinkat, unlinkat},
    io::{Errno, write},
    mount::{
        MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change,
        move_mount, open_tree, unmount,
    },
    process::{chdir, fchdir, pivot_root},
};

use super::{
    Result, Step,
    layers::{Built, DEVICES, file_system, tmpfs},
    text,
};
use crate::sys::container::{attribute, set_mount_attributes};

/// Links below `/dev`.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Bytes of `/dev` itself, which holds nothing but empty files and links.
const DEV_BYTES: u64 = 64 * 1024;

/// Makes the plan's root the root of this process and everything below it.
pub(super) fn enter(plan: &ContainerPlan, built: &Built) -> Result<()> {
    let old = openat(
        CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open the host's root")?;
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .step("cut mount propagation")?;
    attach(&built.root, old.as_fd()).step("attach the root")?;
    let root = built.root.as_fd();
    // Before the host's tree goes: the kernel gives a user namespace a new /proc or /sys only
    // where an unobstructed one can be seen.
    let limits = mount_kernel(plan, built, root)?;
    mount_devices(plan, built, root)?;
    mount_all(plan, built, root)?;
    write_files(plan, root)?;
    cover(plan, built, root)?;
    forbid_namespaces(&limits)?;
    if plan.root.read_only {
        set_mount_attributes(root, attribute::READ_ONLY, None, false)
            .step("make the root read-only")?;
    }
    fchdir(root).step("enter the root")?;
    pivot_root(".", ".").step("switch the root")?;
    fchdir(&old).step("enter the host's root")?;
    unmount(".", UnmountFlags::DETACH).step("let the host's root go")?;
    // That was the uppermost mount there. If anything lay over the host's root, the root itself
    // would still be ours; once it is gone the kernel says that this is no mount.
    loop {
        match unmount(".", UnmountFlags::DETACH) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).step("let the host's root go"),
        }
    }
    chdir("/").step("enter the root")
}

/// Moves a mount that is in no tree onto a place in ours.
pub(super) fn attach(mount: &OwnedFd, target: BorrowedFd<'_>) -> core::result::Result<(), Errno> {
    move_mount(
        mount,
        c"",
        target,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

fn mount_kernel(plan: &ContainerPlan, built: &Built, root: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    const QUIET: u64 = attribute::NO_DEV | attribute::NO_EXEC;
    let proc = file_system("proc", &[], QUIET)?;
    attach(&proc, directory(root, b"/proc")?.as_fd()).step("mount /proc")?;
    let limits = open_limits(plan, &proc)?;
    let sys = directory(root, b"/sys")?;
    match &built.sys {
        Some(mount) => attach(mount, sys.as_fd()),
        None => attach(
            &file_system("sysfs", &[], QUIET | attribute::READ_ONLY)?,
            sys.as_fd(),
        ),
    }
    .step("mount /sys")?;
    Ok(limits)
}

const CAP_SYS_ADMIN: u64 = 1 << 21;

/// The files with which [`forbid_namespaces`] works, before they are covered.
fn open_limits(plan: &ContainerPlan, proc: &OwnedFd) -> Result<Vec<OwnedFd>> {
    let mut files = Vec::new();
    if plan.capabilities & CAP_SYS_ADMIN == 0 {
        for kind in ["user", "mnt", "net", "pid", "uts", "ipc", "cgroup", "time"] {
            let path = format!("sys/user/max_{kind}_namespaces");
            match openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(file) => files.push(file),
                // Kernels before 5.6 have no time namespaces.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).step(format!("forbid {kind} namespaces")),
            }
        }
    }
    Ok(files)
}

/// Nobody inside makes namespaces of any kind. Root of a namespace that may do more inside than
/// here is the way to most of the kernel's bugs. Last, because a mount that is in no tree counts
/// as a mount namespace.
fn forbid_namespaces(limits: &[OwnedFd]) -> Result<()> {
    for file in limits {
        write(file, b"0").step("forbid namespaces")?;
    }
    Ok(())
}

fn mount_devices(plan: &ContainerPlan, built: &Built, root: BorrowedFd<'_>) -> Result<()> {
    // Devices come as binds, so /dev itself need not have any.
    let dev = tmpfs(DEV_BYTES, 0o755)?;
    attach(&dev, directory(root, b"/dev")?.as_fd()).step("mount /dev")?;
    let dev = dev.as_fd();
    for (name, device) in DEVICES.iter().zip(&built.devices) {
        let target = file_in(dev, *name).step(format!("make /dev/{name}"))?;
        attach(device, target.as_fd()).step(format!("bind /dev/{name}"))?;
    }
    for (name, target) in DEVICE_LINKS {
        symlinkat(target, dev, name).step(format!("make /dev/{name}"))?;
    }
    // Group 5 is tty; where there is only one id, terminals belong to that one.
    let has_tty = plan
        .maps
        .gids
        .iter()
        .any(|range| range.inside <= 5 && 5 - range.inside < range.count);
    let mut options = Vec::from([("ptmxmode", "0666"), ("mode", "0620")]);
    if has_tty {
        options.push(("gid", "5"));
    }
    let terminals = file_system("devpts", &options, attribute::NO_EXEC)?;
    attach(&terminals, directory(dev, b"pts")?.as_fd()).step("mount /dev/pts")?;
    let shared = tmpfs(plan.shm_bytes, 0o1777)?;
    attach(&shared, directory(dev, b"shm")?.as_fd()).step("mount /dev/shm")?;
    let queues = file_system("mqueue", &[], attribute::NO_DEV | attribute::NO_EXEC)?;
    attach(&queues, directory(dev, b"mqueue")?.as_fd()).step("mount /dev/mqueue")
}

fn mount_all(plan: &ContainerPlan, built: &Built, root: BorrowedFd<'_>) -> Result<()> {
    let mut binds = built.binds.iter();
    for mount in &plan.mounts {
        match mount {
            MountPlan::Bind {
                target,
                directory: is_directory,
                ..
            } => {
                let bind = binds.next().ok_or(Errno::PROTO).step("find a bind")?;
                let place = if *is_directory {
                    directory(root, target)?
                } else {
                    file(root, target)?
                };
                attach(bind, place.as_fd()).step(format!("bind to {}", text(target)))?;
            }
            MountPlan::Tmpfs {
                target,
                bytes,
                mode,
            } => {
                let memory = tmpfs(*bytes, *mode)?;
                attach(&memory, directory(root, target)?.as_fd())
                    .step(format!("mount {}", text(target)))?;
            }
        }
    }
    Ok(())
}

fn write_files(plan: &ContainerPlan, root: BorrowedFd<'_>) -> Result<()> {
    for path in &plan.directories {
        directory(root, path)?;
    }
    for one in &plan.files {
        let path = text(&one.path);
        let file = open_new(root, &one.path).step(format!("make {path}"))?;
        let written = write(&file, &one.bytes).step(format!("write {path}"))?;
        if written != one.bytes.len() {
            return Err(Errno::NOSPC).step(format!("write {path}"));
        }
    }
    Ok(())
}

/// Opens an empty file in place of whatever the image has there, which may be a link or a FIFO.
fn open_new(root: BorrowedFd<'_>, path: &[u8]) -> core::result::Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    let first = openat2(
        root,
        path,
        flags | OFlags::TRUNC | OFlags::NONBLOCK,
        mode,
        resolve,
    );
    if !matches!(first, Err(Errno::LOOP | Errno::NXIO | Errno::ACCESS)) {
        return first;
    }
    let (parent, name) = split(path);
    let above = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = openat2(root, parent, above, Mode::empty(), resolve)?;
    unlinkat(&parent, name, AtFlags::empty())?;
    openat(&parent, name, flags | OFlags::EXCL, mode)
}

/// Hides what could tell of the host, and makes read-only what could change it.
fn cover(plan: &ContainerPlan, built: &Built, root: BorrowedFd<'_>) -> Result<()> {
    let Some(null) = built.devices.first() else {
        return Ok(());
    };
    for path in &plan.masked {
        let Some((target, is_directory)) = existing(root, path)? else {
            continue;
        };
        let mask = if is_directory {
            file_system(
                "tmpfs",
                &[("size", "0"), ("nr_inodes", "1"), ("mode", "755")],
                attribute::NO_DEV | attribute::NO_EXEC | attribute::READ_ONLY,
            )?
        } else {
            copy_of(null.as_fd()).step("copy /dev/null")?
        };
        attach(&mask, target.as_fd()).step(format!("cover {}", text(path)))?;
    }
    for path in &plan.read_only {
        let Some((target, _)) = existing(root, path)? else {
            continue;
        };
        let copy = copy_of(target.as_fd()).step(format!("copy {}", text(path)))?;
        set_mount_attributes(copy.as_fd(), attribute::READ_ONLY, None, true)
            .and_then(|()| attach(&copy, target.as_fd()))
            .step(format!("make {} read-only", text(path)))?;
    }
    Ok(())
}

fn copy_of(mount: BorrowedFd<'_>) -> core::result::Result<OwnedFd, Errno> {
    open_tree(
        mount,
        c"",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE,
    )
}

fn existing(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<(OwnedFd, bool)>> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let directory = openat2(
        root,
        path,
        flags | OFlags::DIRECTORY,
        Mode::empty(),
        resolve,
    );
    match directory {
        Ok(fd) => Ok(Some((fd, true))),
        Err(Errno::NOTDIR) => openat2(root, path, flags, Mode::empty(), resolve)
            .map(|fd| Some((fd, false)))
            .step(format!("open {}", text(path))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).step(format!("open {}", text(path))),
    }
}

/// Opens a directory below `root`, and makes what is missing of it. Links are followed as the
/// container would follow them, so they never lead out of it.
pub(super) fn directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &[u8]| {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(root, path, flags, Mode::empty(), resolve)
    };
    let opened = match open(path) {
        Err(Errno::NOENT) => {
            let (parent, name) = split(path);
            if name.is_empty() {
                return Err(Errno::NOENT).step(format!("open {}", text(path)));
            }
            let above = directory(root, parent)?;
            match mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => open(path),
                Err(errno) => Err(errno),
            }
        }
        other => other,
    };
    opened.step(format!("make the directory {}", text(path)))
}

/// Opens a file below `root` that something is bound over, and makes it when it is missing.
fn file(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(
        root,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    ) {
        Err(Errno::NOENT) => {
            let (parent, name) = split(path);
            let parent = directory(root, parent)?;
            file_in(parent.as_fd(), name).step(format!("make {}", text(path)))
        }
        other => other.step(format!("open {}", text(path))),
    }
}

fn file_in(
    parent: BorrowedFd<'_>,
    name: impl rustix::path::Arg,
) -> core::result::Result<OwnedFd, Errno> {
    openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o644),
    )
}

/// Parent and last name of a path; `/` for the parent of a plain name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |at| at + 1);
    let path = path.get(..end).unwrap_or_default();
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => (b"/", path.get(1..).unwrap_or_default()),
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (b"/", path),
    }
}
