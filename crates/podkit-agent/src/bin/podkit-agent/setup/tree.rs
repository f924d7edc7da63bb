//! Trees of files whose owners exist only in a user namespace.

use alloc::{format, vec, vec::Vec};

use podkit_agent::plan::{HOST_IDS, TreePlan};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, chownat, fchmod, mkdirat, openat,
        readlinkat, statat, symlinkat,
    },
    io::{Errno, read, write},
    pipe::{PipeFlags, pipe_with},
    process::{Gid, Uid, WaitOptions, waitpid},
};

use super::{Result, Step, maps, remove, text};
use crate::sys::container::{clone, clone_process, exit_group};

/// Deepest tree that is copied: each level holds two descriptors open.
const MAX_DEPTH: u32 = 400;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Does the work in a child that is root of a user namespace with the plan's ids.
pub(super) fn work(plan: &TreePlan) -> Result<()> {
    if plan.maps.uids.is_empty() {
        return all(plan, &open_parents(plan)?);
    }
    let (hear, tell) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let (result, told) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let child = clone_process(clone::NEWUSER, None).step("make a user namespace")?;
    let Some(child) = child else {
        drop((tell, result));
        let _ = read(&hear, &mut [0_u8]);
        let done = open_parents(plan)
            .and_then(|parents| maps::become_root(plan.maps.deny_setgroups).map(|()| parents))
            .and_then(|parents| all(plan, &parents));
        let _ = write(&told, &super::answer(done));
        exit_group(0);
    };
    drop(told);
    let mapped = maps::write_maps(child, &plan.maps);
    drop(tell);
    let mut message = [0_u8; 1024];
    let length = read(&result, &mut message).unwrap_or(0);
    let _ = waitpid(Some(child), WaitOptions::empty());
    mapped?;
    super::take_answer(message.get(..length).unwrap_or_default())
}

/// The directories that hold the trees, opened while this is still the caller.
fn open_parents(plan: &TreePlan) -> Result<Vec<OwnedFd>> {
    let targets = plan.remove.iter().chain(plan.copy.iter().map(|(_, to)| to));
    let mut parents = Vec::new();
    for path in targets.chain(plan.copy.iter().map(|(from, _)| from)) {
        let (parent, _) = super::root::split(path);
        parents.push(
            openat(
                CWD,
                parent,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .step(format!("open {}", text(parent)))?,
        );
    }
    Ok(parents)
}

fn all(plan: &TreePlan, parents: &[OwnedFd]) -> Result<()> {
    let (targets, sources) = parents
        .split_at_checked(plan.remove.len() + plan.copy.len())
        .ok_or(Errno::INVAL)
        .step("open the trees")?;
    let (removed, copied) = targets
        .split_at_checked(plan.remove.len())
        .ok_or(Errno::INVAL)
        .step("open the trees")?;
    for (path, parent) in plan.remove.iter().zip(removed) {
        let name = super::root::split(path).1;
        remove::tree(parent.as_fd(), name).step(format!("remove {}", text(path)))?;
    }
    for (((from, to), target), source) in plan.copy.iter().zip(copied).zip(sources) {
        let names = (super::root::split(from).1, super::root::split(to).1);
        copy(source.as_fd(), names.0, target.as_fd(), names.1, 0)
            .step(format!("copy {}", text(from)))?;
    }
    Ok(())
}

/// Names and kinds in a directory.
fn entries(directory: BorrowedFd<'_>) -> core::result::Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(8192);
    let mut raw = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = raw.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Copies directories, files and links with their modes and owners; anything else is left out.
fn copy(
    from: BorrowedFd<'_>,
    name: &[u8],
    to: BorrowedFd<'_>,
    target: &[u8],
    depth: u32,
) -> core::result::Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, target, Mode::RWXU)?;
            let source = openat(from, name, DIRECTORY, Mode::empty())?;
            let made = openat(to, target, DIRECTORY, Mode::empty())?;
            for entry in entries(source.as_fd())? {
                copy(source.as_fd(), &entry, made.as_fd(), &entry, depth + 1)?;
            }
            give(to, target, &stat)?;
            fchmod(&made, mode)
        }
        FileType::Symlink => {
            let link = readlinkat(from, name, Vec::new())?;
            symlinkat(link.as_c_str(), to, target)?;
            give(to, target, &stat)
        }
        FileType::RegularFile => {
            let made = copy_file(from, name, to, target)?;
            give(to, target, &stat)?;
            // A change of owners takes set-id bits away.
            fchmod(&made, mode)
        }
        _ => Ok(()),
    }
}

/// Gives a copy to whom the original belongs; what is of nobody that is known here stays root's.
fn give(to: BorrowedFd<'_>, target: &[u8], stat: &Stat) -> core::result::Result<(), Errno> {
    let known = |id: u32| id.checked_sub(HOST_IDS).filter(|id| *id != 0);
    let (user, group) = (known(stat.st_uid), known(stat.st_gid));
    if user.is_none() && group.is_none() {
        return Ok(());
    }
    let (user, group) = (user.map(Uid::from_raw), group.map(Gid::from_raw));
    chownat(to, target, user, group, AtFlags::SYMLINK_NOFOLLOW)
}

fn copy_file(
    from: BorrowedFd<'_>,
    name: &[u8],
    to: BorrowedFd<'_>,
    target: &[u8],
) -> core::result::Result<OwnedFd, Errno> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = openat(from, name, flags | OFlags::RDONLY, Mode::empty())?;
    let create = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let made = openat(to, target, create, Mode::RUSR | Mode::WUSR)?;
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let length = read(&source, &mut buffer)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Ok(made);
        }
        while !rest.is_empty() {
            let written = write(&made, rest)?;
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}
