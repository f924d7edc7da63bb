//! Ids of user namespaces.

use alloc::{ffi::CString, format, string::String, vec::Vec};
use core::fmt::Write;

use podkit_agent::plan::{IdMaps, IdRange};
use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags, openat},
    io::{Errno, read, write},
    pipe::{PipeFlags, pipe_with},
    process::{Gid, Pid, Signal, Uid, WaitOptions, kill_process, waitpid},
};

use super::{Failed, Result, Step};
use crate::sys::container::{clone, clone_process, execute, exit_group};

/// Gives the user namespace of `pid` its ids.
pub(super) fn write_maps(pid: Pid, maps: &IdMaps) -> Result<()> {
    let raw = pid.as_raw_nonzero();
    if maps.deny_setgroups {
        write_file(&format!("/proc/{raw}/setgroups"), b"deny").step("deny setgroups")?;
    }
    if let Some((uid_writer, gid_writer)) = &maps.writers {
        run_writer(uid_writer, pid, &maps.uids)?;
        return run_writer(gid_writer, pid, &maps.gids);
    }
    write_file(&format!("/proc/{raw}/uid_map"), &lines(&maps.uids)).step("map user ids")?;
    write_file(&format!("/proc/{raw}/gid_map"), &lines(&maps.gids)).step("map group ids")
}

fn lines(ranges: &[IdRange]) -> Vec<u8> {
    let mut lines = String::new();
    for range in ranges {
        let _ = writeln!(lines, "{} {} {}", range.inside, range.outside, range.count);
    }
    lines.into_bytes()
}

pub(super) fn write_file(path: &str, bytes: &[u8]) -> core::result::Result<(), Errno> {
    let file = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let written = write(&file, bytes)?;
    if written == bytes.len() {
        Ok(())
    } else {
        Err(Errno::IO)
    }
}

/// Runs `newuidmap` or `newgidmap`.
fn run_writer(writer: &[u8], pid: Pid, ranges: &[IdRange]) -> Result<()> {
    let name = super::text(writer);
    let mut argv = Vec::from([name.clone(), format!("{}", pid.as_raw_nonzero())]);
    for range in ranges {
        for number in [range.inside, range.outside, range.count] {
            argv.push(format!("{number}"));
        }
    }
    let argv: Vec<CString> = argv
        .into_iter()
        .filter_map(|arg| CString::new(arg).ok())
        .collect();
    let Some(path) = argv.first().cloned() else {
        return Err(Errno::INVAL).step("name the program that maps ids");
    };
    let Some(child) = clone_process(0, None).step("start the program that maps ids")? else {
        execute(&path, &argv, &[]);
        exit_group(127);
    };
    let status = waitpid(Some(child), WaitOptions::empty()).step("wait for the id mapper")?;
    match status.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        code => Err(Failed::because(format!(
            "map ids with {name}: it ended with {code:?}"
        ))),
    }
}

/// The user namespace of a process.
pub(super) fn namespace_of(pid: Pid) -> Result<OwnedFd> {
    let path = format!("/proc/{}/ns/user", pid.as_raw_nonzero());
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step("open the user namespace")
}

/// A user namespace that only serves to show ids of mounts.
pub(super) fn namespace_with(maps: &IdMaps) -> Result<OwnedFd> {
    let (hear, tell) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let Some(child) = clone_process(clone::NEWUSER, None).step("make a user namespace")? else {
        drop(tell);
        wait_for_end(&hear);
        exit_group(0);
    };
    let namespace = write_maps(child, maps).and_then(|()| namespace_of(child));
    let _ = kill_process(child, Signal::KILL);
    let _ = waitpid(Some(child), WaitOptions::empty());
    namespace
}

fn wait_for_end(hear: &OwnedFd) {
    let mut byte = [0_u8];
    while matches!(read(hear, &mut byte), Err(Errno::INTR)) {}
}

/// Who outside is root inside.
pub(super) fn root_of(maps: &IdMaps) -> Result<(Uid, Gid)> {
    let root = |ranges: &[IdRange]| {
        let range = ranges.iter().find(|range| range.inside == 0);
        range
            .map(|range| range.outside)
            .ok_or(Errno::INVAL)
            .step("find the container's root among its ids")
    };
    Ok((
        Uid::from_raw(root(&maps.uids)?),
        Gid::from_raw(root(&maps.gids)?),
    ))
}

/// The maps with which a bind's owner is shown as root of the container.
///
/// The others have ids on disk that no process on the host has, the same for every container, so
/// that a workspace that outlives its container keeps its owners, and a set-id file made in it is
/// harmless outside.
pub(super) fn owner_maps(maps: &IdMaps, owner: podkit_agent::plan::OwnerMap) -> IdMaps {
    let shown = |ranges: &[IdRange], root: u32| {
        let Some(range) = ranges.first() else {
            return Vec::new();
        };
        Vec::from([
            IdRange {
                inside: root,
                outside: range.outside,
                count: 1,
            },
            IdRange {
                inside: owner.others,
                outside: range.outside + 1,
                count: range.count.saturating_sub(1).max(1),
            },
        ])
    };
    IdMaps {
        uids: shown(&maps.uids, owner.uid),
        gids: shown(&maps.gids, owner.gid),
        deny_setgroups: false,
        writers: None,
    }
}

/// Moves this thread to root of its user namespace.
pub(super) fn become_root(deny_setgroups: bool) -> Result<()> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    if !deny_setgroups {
        set_thread_groups(&[]).step("drop supplementary groups")?;
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).step("become the root group")?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).step("become root")
}
