//! Mounts that are not in any tree yet: the root, devices, binds.
//!
//! Where the helper is privileged it builds them outside, because only the host's root may make an
//! overlay of idmapped layers; otherwise PID 1 builds them in its own namespaces.

use alloc::vec::Vec;

use podkit_agent::plan::{ContainerPlan, IdMaps, MountPlan, SHOW_IDS};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
    fs::{AtFlags, CWD, Mode, OFlags, openat, statat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create,
        fsconfig_set_string, fsmount, fsopen, open_tree,
    },
    process::{Gid, Uid},
};

use super::{Failed, Result, Step, maps, overlay, process::raw, text};
use crate::sys::container::{adopt, attribute, set_mount_attributes};

/// Devices that every container has.
pub(super) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// All of them.
pub(super) struct Built {
    pub(super) root: OwnedFd,
    pub(super) volatile_root: bool,
    pub(super) devices: Vec<OwnedFd>,
    /// The host's `/sys`, for a container without a network namespace of its own.
    pub(super) sys: Option<OwnedFd>,
    /// One for each bind of the plan, in order.
    pub(super) binds: Vec<OwnedFd>,
}

impl Built {
    /// As numbers of the shared descriptor table.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        out.push(u8::from(self.volatile_root));
        out.push(u8::from(self.sys.is_some()));
        for fd in [&self.root]
            .into_iter()
            .chain(&self.devices)
            .chain(&self.sys)
            .chain(&self.binds)
        {
            out.extend_from_slice(&raw(fd));
        }
    }

    /// Takes over what the helper has built; `None` when it left that to PID 1.
    pub(super) fn decode(message: &[u8]) -> Result<Option<Self>> {
        let (header, numbers) = match message {
            [0] => return Ok(None),
            [1, rest @ ..] => rest
                .split_first_chunk::<2>()
                .ok_or(Errno::PROTO)
                .step("take the mounts over")?,
            _ => return Err(Errno::PROTO).step("take the mounts over"),
        };
        let mut fds = numbers
            .as_chunks::<4>()
            .0
            .iter()
            .map(|number| adopt(RawFd::from_le_bytes(*number)));
        let root = fds
            .next()
            .ok_or(Errno::PROTO)
            .step("take the mounts over")?;
        let devices = fds.by_ref().take(DEVICES.len()).collect();
        let sys = if header[1] == 1 { fds.next() } else { None };
        Ok(Some(Self {
            root,
            volatile_root: header[0] == 1,
            devices,
            sys,
            binds: fds.collect(),
        }))
    }
}

/// What is opened while this process is still the caller, whose files others may not reach.
pub(super) struct Loose {
    lowers: Vec<OwnedFd>,
    writable: OwnedFd,
    devices: Vec<OwnedFd>,
    sys: Option<OwnedFd>,
    binds: Vec<OwnedFd>,
    /// The container's root as it is called out here, where this process is outside.
    outside: Option<(Uid, Gid)>,
}

impl Loose {
    /// Opens all that the plan names; `userns` is the container's where this process is privileged.
    pub(super) fn gather(plan: &ContainerPlan, userns: Option<BorrowedFd<'_>>) -> Result<Self> {
        let mut lowers = Vec::new();
        for lower in &plan.root.lowers {
            let layer = detach(lower, false)?;
            if let (true, Some(userns)) = (plan.root.idmap_lowers, userns) {
                set_mount_attributes(layer.as_fd(), 0, Some(userns), false).step(
                    alloc::format!("show {} with the container's ids", text(lower)),
                )?;
            }
            lowers.push(layer);
        }
        let mut devices = Vec::with_capacity(DEVICES.len());
        for device in DEVICES {
            let mount = detach(alloc::format!("/dev/{device}").as_bytes(), false)?;
            // Flags that an outer container has locked cannot be set again, and are set then.
            let quiet = attribute::NO_SUID | attribute::NO_EXEC;
            let _ = set_mount_attributes(mount.as_fd(), quiet, None, false);
            devices.push(mount);
        }
        let mut binds = Vec::new();
        for mount in &plan.mounts {
            if let MountPlan::Bind { .. } = mount {
                binds.push(build_bind(mount, &plan.maps, userns.is_some())?);
            }
        }
        Ok(Self {
            lowers,
            writable: open_directory(&plan.root.writable)?,
            devices,
            sys: if plan.own_network {
                None
            } else {
                Some(host_sys(userns.is_none())?)
            },
            binds,
            outside: match userns {
                Some(_) => Some(maps::root_of(&plan.maps)?),
                None => None,
            },
        })
    }

    /// Makes the root out of the layers.
    pub(super) fn assemble(self, plan: &ContainerPlan) -> Result<Built> {
        let flags = if plan.no_new_privileges {
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV
        } else {
            MountAttrFlags::MOUNT_ATTR_NODEV
        };
        let (root, volatile_root) =
            overlay::build(&plan.root, &self.lowers, self.writable, flags, self.outside)?;
        Ok(Built {
            root,
            volatile_root,
            devices: self.devices,
            sys: self.sys,
            binds: self.binds,
        })
    }
}

fn host_sys(recursive: bool) -> Result<OwnedFd> {
    let mount = detach(b"/sys", recursive)?;
    let set = attribute::READ_ONLY | attribute::NO_SUID | attribute::NO_DEV | attribute::NO_EXEC;
    set_mount_attributes(mount.as_fd(), set, None, true).step("make /sys read-only")?;
    Ok(mount)
}

/// A copy of the mount at a host path, in no tree.
pub(super) fn detach(path: &[u8], recursive: bool) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let deep = flags | OpenTreeFlags::AT_RECURSIVE;
    let first = open_tree(CWD, path, if recursive { deep } else { flags });
    match first {
        // In a user namespace a mount with others on it that are locked can only be copied whole.
        Err(Errno::INVAL) if !recursive => open_tree(CWD, path, deep),
        other => other,
    }
    .step(alloc::format!("bind {}", text(path)))
}

fn build_bind(mount: &MountPlan, maps: &IdMaps, privileged: bool) -> Result<OwnedFd> {
    let MountPlan::Bind {
        source,
        identity,
        read_only,
        no_exec,
        recursive,
        owner,
        ..
    } = mount
    else {
        return Err(Errno::INVAL).step("build a bind");
    };
    let detached = detach(source, *recursive)?;
    let stat = statat(&detached, c"", AtFlags::EMPTY_PATH)
        .step(alloc::format!("look at {}", text(source)))?;
    if (stat.st_dev, stat.st_ino) != *identity {
        return Err(Failed::because(alloc::format!(
            "bind {}: it was replaced while the container started",
            text(source)
        )));
    }
    let mut set = attribute::NO_SUID | attribute::NO_DEV;
    if *read_only {
        set |= attribute::READ_ONLY;
    }
    if *no_exec {
        set |= attribute::NO_EXEC;
    }
    let userns = match owner {
        Some(owner) if privileged => Some(maps::namespace_with(&maps::owner_maps(maps, *owner))?),
        _ => None,
    };
    let ids = userns.as_ref().map(AsFd::as_fd);
    // Recursive: whatever came with it, wanted or not.
    match set_mount_attributes(detached.as_fd(), set, ids, true) {
        // Of all that was asked for, only the ids can be refused like this.
        Err(Errno::INVAL) if ids.is_some() => Err(Errno::OPNOTSUPP).step(alloc::format!(
            "{SHOW_IDS} {}, whose file system cannot",
            text(source)
        )),
        other => other.step(alloc::format!("set the attributes of {}", text(source))),
    }?;
    Ok(detached)
}

/// A tmpfs in no tree.
pub(super) fn tmpfs(bytes: u64, mode: u32) -> Result<OwnedFd> {
    let size = alloc::format!("{bytes}");
    let mode = alloc::format!("{mode:o}");
    file_system(
        "tmpfs",
        &[("size", &size), ("mode", &mode)],
        attribute::NO_DEV,
    )
}

/// A file system without a device, in no tree; nosuid, and what `extra` says.
pub(super) fn file_system(name: &str, options: &[(&str, &str)], extra: u64) -> Result<OwnedFd> {
    let make = || {
        let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            fsconfig_set_string(&context, *key, *value)?;
        }
        fsconfig_create(&context)?;
        let flags = u32::try_from(attribute::NO_SUID | extra).unwrap_or_default();
        fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::from_bits_retain(flags),
        )
    };
    make().step(alloc::format!("mount {name}"))
}

pub(super) fn open_directory(path: &[u8]) -> Result<OwnedFd> {
    openat(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step(alloc::format!("open {}", text(path)))
}
