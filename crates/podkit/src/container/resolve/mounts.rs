//! Mounts of a complete order: targets, sources, and sizes of what is memory.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{ContainerRequest, need};
use crate::{
    backend::Capabilities,
    config::{DEFAULT_MEMORY_BYTES, DEFAULT_SHM_BYTES, Mount, MountSource},
    container::paths,
    error::{Error, Result},
    id::ContainerId,
};

/// Parts of the container's file system that are not the caller's to mount on.
const RESERVED_TARGETS: &[&str] = &["/proc", "/sys", "/.podkit", "/.podkit-link"];

/// Volumes whose names begin with this hold the agent.
const RESERVED_VOLUMES: &str = "podkit-agent-";

/// All mounts with normalized targets and sizes, and the size of `/dev/shm`.
pub(super) fn mounts(
    request: &ContainerRequest,
    capabilities: &Capabilities,
    memory_bytes: Option<u64>,
) -> Result<(Vec<Mount>, u64)> {
    let mut targets = BTreeSet::new();
    let mut mounts = Vec::new();
    for mount in request.mounts.iter().chain(&request.spec.mounts) {
        let target = mount_target(mount)?;
        if !targets.insert(target.clone()) {
            return Err(Error::invalid_input(format!(
                "two mounts have the target `{}`",
                target.display()
            )));
        }
        match &mount.source {
            MountSource::Bind(source) => {
                need(capabilities.bind_mounts, true, "mounts (bind)")?;
                need(
                    capabilities.writable_binds,
                    !mount.read_only,
                    "mounts (writable bind)",
                )?;
                if !source.is_absolute() {
                    return Err(Error::invalid_input(format!(
                        "the mount source {source:?} is not absolute"
                    )));
                }
                paths::normalize(source)?;
            }
            MountSource::Volume(name) => {
                need(capabilities.volumes, true, "mounts (volume)")?;
                ContainerId::new(name.clone())
                    .map_err(|_| Error::invalid_input(format!("{name:?} is not a volume name")))?;
                if name.starts_with(RESERVED_VOLUMES) {
                    return Err(Error::invalid_input(format!(
                        "the volume `{name}` is podkit's own: it holds the agent of every container"
                    )));
                }
            }
            MountSource::Tmpfs { .. } => {}
        }
        mounts.push(Mount {
            target,
            ..mount.clone()
        });
    }
    let memory = memory_bytes.unwrap_or(DEFAULT_MEMORY_BYTES);
    let shm = match &request.spec.shm {
        Some(shm) => shm.resolve()?,
        None => DEFAULT_SHM_BYTES.min(memory / 4),
    };
    share_tmpfs(&mut mounts, shm, memory)?;
    Ok((mounts, shm))
}

fn mount_target(mount: &Mount) -> Result<PathBuf> {
    let target = &mount.target;
    let bad = |why: &str| {
        Err(Error::invalid_input(format!(
            "the mount target {target:?} {why}"
        )))
    };
    if !target.is_absolute() {
        return bad("is not absolute");
    }
    let normal = paths::normalize(target)?;
    if normal == Path::new("/") {
        return bad("is the root");
    }
    if normal == Path::new("/dev") || RESERVED_TARGETS.iter().any(|at| normal.starts_with(at)) {
        return bad("belongs to podkit or the kernel");
    }
    Ok(normal)
}

/// Gives every tmpfs a size. Together with `/dev/shm` they get at most half the memory, since what
/// is in them counts as memory and a full one must not end the session.
fn share_tmpfs(mounts: &mut [Mount], shm_bytes: u64, memory_bytes: u64) -> Result<()> {
    let sizes = mounts.iter().filter_map(|mount| match mount.source {
        MountSource::Tmpfs { size_bytes } => Some(size_bytes),
        MountSource::Bind(_) | MountSource::Volume(_) => None,
    });
    let (mut asked, mut open) = (shm_bytes, 0);
    for size in sizes {
        match size {
            Some(0) => return Err(Error::invalid_input("a tmpfs of 0 bytes holds nothing")),
            Some(size) => asked = asked.saturating_add(size),
            None => open += 1,
        }
    }
    let half = memory_bytes / 2;
    if asked > half || (open > 0 && (half - asked) / open < 4096) {
        return Err(Error::invalid_input(format!(
            "`shm` and tmpfs mounts of {asked} bytes together exceed half the memory ({half} bytes)"
        ))
        .with_hint("raise `memory`, or lower the sizes"));
    }
    for mount in mounts {
        if let MountSource::Tmpfs {
            size_bytes: size @ None,
        } = &mut mount.source
        {
            *size = Some((memory_bytes / 4).min((half - asked) / open));
        }
    }
    Ok(())
}
