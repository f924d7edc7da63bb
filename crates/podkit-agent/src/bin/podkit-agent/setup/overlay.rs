//! The root: an overlay on the layers, in the way that this kernel knows.
//!
//! Each way is tried where the one before it is refused: with `EINVAL`, which is what a kernel says
//! to a parameter that it does not know, to a layer that it cannot use, and to an upper that is on
//! the wrong file system, or with what it says to descriptors. Then all of them again with a tmpfs
//! as upper.

use alloc::{format, string::String, vec::Vec};

use podkit_agent::plan::RootPlan;
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, chownat, fstatvfs, mkdirat, openat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, fsconfig_create,
        fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    },
    process::{Gid, Uid, chdir},
};

use super::{
    Failed, Result, Step,
    layers::{detach, open_directory, tmpfs},
    root::attach,
};
use crate::sys::container::unshare_mounts;

/// How the layers are named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By descriptor; detached mounts can be layers. Kernels from 6.15.
    Descriptors,
    /// One by one, by name. Kernels from 6.5.
    Names,
    /// All in one string.
    List,
}

/// Longest string that `fsconfig` takes.
const MAX_OPTION_BYTES: usize = 255;

/// Mounts the overlay; the second value says whether its upper is a tmpfs.
///
/// `outside` tells that this process is in the host's mount namespace, which it leaves when layers
/// have to be attached somewhere, and who the container's root is there.
pub(super) fn build(
    plan: &RootPlan,
    lowers: &[OwnedFd],
    writable: OwnedFd,
    flags: MountAttrFlags,
    outside: Option<(Uid, Gid)>,
) -> Result<(OwnedFd, bool)> {
    let mut layers = Layers {
        plan,
        lowers,
        flags,
        outside,
        attached: false,
    };
    let refused = match layers.mount_on(writable, Some(&plan.writable)) {
        Err(failed) if may_differ(&failed) && plan.fallback_bytes > 0 => failed,
        other => return other.map(|root| (root, false)),
    };
    match layers.mount_on(tmpfs(plan.fallback_bytes, 0o755)?, None) {
        Ok(root) => Ok((root, true)),
        // The upper was not the reason.
        Err(_) => Err(refused),
    }
}

/// Whether another way could still work. Kernels before 6.15 do not take descriptors like these
/// (`BADF`), and before 6.5 none (`OPNOTSUPP`).
fn may_differ(failed: &Failed) -> bool {
    [Errno::INVAL, Errno::OPNOTSUPP, Errno::BADF]
        .iter()
        .any(|errno| errno.raw_os_error() == failed.errno)
}

struct Layers<'a> {
    plan: &'a RootPlan,
    lowers: &'a [OwnedFd],
    flags: MountAttrFlags,
    outside: Option<(Uid, Gid)>,
    attached: bool,
}

impl Layers<'_> {
    /// Tries every way with `upper` and `work` in `place`, which has a path or is detached.
    fn mount_on(&mut self, mut place: OwnedFd, path: Option<&[u8]>) -> Result<OwnedFd> {
        let mut refused: Option<Failed> = None;
        for way in [Way::Descriptors, Way::Names, Way::List] {
            if way == Way::Names {
                self.attach()?;
                place = match path {
                    // What was opened in the host's mount namespace is no layer in this one.
                    Some(path) if self.outside.is_some() => open_directory(path)?,
                    Some(_) => place,
                    None => {
                        attach_anywhere(&place)?;
                        place
                    }
                };
            }
            // One that knows no descriptors knows no single names either, and writes to its log.
            let old = |failed: &Failed| failed.errno == Errno::OPNOTSUPP.raw_os_error();
            if way == Way::Names && refused.as_ref().is_some_and(old) {
                continue;
            }
            match self.mount(way, &place) {
                Err(failed) if may_differ(&failed) => {
                    refused.get_or_insert(failed);
                }
                other => return other,
            }
        }
        Err(refused.unwrap_or(Failed::because(String::from("mount the overlay root"))))
    }

    /// Kernels before 6.15 take no layer whose mount is in no tree.
    fn attach(&mut self) -> Result<()> {
        if self.attached {
            return Ok(());
        }
        if self.outside.is_some() {
            unshare_mounts().step("make a mount namespace for the layers")?;
            mount_change(
                "/",
                MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
            )
            .step("cut mount propagation")?;
        }
        for lower in self.lowers {
            attach_anywhere(lower)?;
        }
        self.attached = true;
        Ok(())
    }

    fn mount(&self, way: Way, place: &OwnedFd) -> Result<OwnedFd> {
        let upper = make_directory(place, "upper", self.outside)?;
        let work = make_directory(place, "work", self.outside)?;
        let named = way != Way::Descriptors;
        if named {
            // Names as short as these let many layers into one string.
            chdir("/proc/self/fd").step("enter the list of descriptors")?;
        }
        let root = self.configure(way, &upper, &work);
        if named {
            chdir("/").step("leave the list of descriptors")?;
        }
        let root = root?;
        // Where overlay cannot use the work directory it mounts all the same, without a word.
        let state = fstatvfs(&root).step("look at the overlay root")?;
        if state.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(Errno::ROFS).step("mount the overlay root so that it can be written");
        }
        Ok(root)
    }

    fn configure(&self, way: Way, upper: &OwnedFd, work: &OwnedFd) -> Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).step("use overlay")?;
        let name = |fd: &OwnedFd| format!("{}", fd.as_raw_fd());
        let list = self.lowers.iter().map(name).collect::<Vec<_>>().join(":");
        if way == Way::List && list.len() > MAX_OPTION_BYTES {
            return Err(Failed::because(format!(
                "mount the overlay root: this kernel cannot take {} layers",
                self.lowers.len()
            )));
        }
        let configure = || {
            match way {
                Way::Descriptors => {
                    for lower in self.lowers {
                        fsconfig_set_fd(&context, "lowerdir+", lower)?;
                    }
                    fsconfig_set_fd(&context, "upperdir", upper)?;
                    fsconfig_set_fd(&context, "workdir", work)?;
                }
                Way::Names | Way::List => {
                    if way == Way::List {
                        fsconfig_set_string(&context, "lowerdir", list.as_str())?;
                    } else {
                        for lower in self.lowers {
                            fsconfig_set_string(&context, "lowerdir+", name(lower))?;
                        }
                    }
                    fsconfig_set_string(&context, "upperdir", name(upper))?;
                    fsconfig_set_string(&context, "workdir", name(work))?;
                }
            }
            if self.plan.userxattr {
                fsconfig_set_flag(&context, "userxattr")?;
            }
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, self.flags)
        };
        configure().step("mount the overlay root")
    }
}

/// Puts a detached mount into this process's tree, over the host's `/dev`: every machine has that,
/// and the devices are opened before. Never over the root, which is to go with all on it.
fn attach_anywhere(mount: &OwnedFd) -> Result<()> {
    let place = openat(
        CWD,
        "/dev",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open /dev")?;
    attach(mount, place.as_fd()).step("attach a layer")
}

fn make_directory(parent: &OwnedFd, name: &str, owner: Option<(Uid, Gid)>) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(parent, name, flags, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {
            mkdirat(parent, name, Mode::from_raw_mode(0o755))
                .step(format!("make the {name} directory"))?;
            if let Some((uid, gid)) = owner {
                chownat(
                    parent,
                    name,
                    Some(uid),
                    Some(gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )
                .step(format!("give the {name} directory to the container"))?;
            }
            open()
        }
        other => other,
    }
    .step(format!("open the {name} directory"))
}

/// An overlay of empty directories, as a probe tries it.
pub(super) fn probe(path: &[u8], writable: OwnedFd) -> Result<()> {
    drop(make_directory(&writable, "lower", None)?);
    let lower = detach(&[path, b"/lower"].concat(), false)?;
    let plan = RootPlan {
        writable: path.to_vec(),
        userxattr: true,
        ..RootPlan::default()
    };
    build(&plan, &[lower], writable, MountAttrFlags::empty(), None).map(drop)
}
