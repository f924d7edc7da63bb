//! Root file systems: what a container's lower layers are.

mod directory;
mod etc;
mod host;
mod layer;
mod tar;

use std::path::{Path, PathBuf};

use podkit_agent::plan::MountPlan;

use crate::{
    error::{Context, Error, ErrorKind, Result},
    spec::{ContainerSpec, Rootfs},
    store::{Draft, Store},
};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::tar::unpack;

/// What a container's root is made of.
#[derive(Debug, Default)]
pub(crate) struct Image {
    /// Read-only layers, uppermost first.
    pub(crate) lowers: Vec<PathBuf>,
    /// Further parts of the host, in order.
    pub(crate) binds: Vec<MountPlan>,
    /// Name of the engine's own layer that this container must keep.
    pub(crate) layer: String,
    /// Files of `/etc` that may be written.
    pub(crate) writable_etc: Vec<&'static str>,
}

/// Files that a container gets at its first start.
const ETC_FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Imports what has to be imported; returns the name it has then.
pub(crate) fn import(store: &Store, spec: &ContainerSpec) -> Result<Option<String>> {
    match &spec.rootfs {
        Rootfs::Host { paths } => {
            host::check_paths(store, paths)?;
            host::layer(store)?;
            Ok(None)
        }
        Rootfs::Directory(_) => Ok(None),
        Rootfs::Tar(path) => tar::import(store, path).map(Some),
    }
}

/// The layers of a container; `imported` is what [`import`] returned when it was made.
pub(crate) fn resolve(
    store: &Store,
    spec: &ContainerSpec,
    imported: Option<&str>,
) -> Result<Image> {
    let base = || layer::base(store);
    match &spec.rootfs {
        Rootfs::Host { paths } => host::resolve(store, paths),
        Rootfs::Directory(path) => directory::resolve(path, base()?),
        Rootfs::Tar(path) => {
            let name = imported.unwrap_or_default();
            let imported = store.images().join(name);
            if name.is_empty() || !imported.is_dir() {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("what was imported from `{}` is gone", path.display()),
                ));
            }
            directory::resolve(&imported, base()?)
        }
    }
}

/// Name of the layer that host containers get now; nothing else of that kind is needed.
pub(crate) fn current_host_layer() -> String {
    host::layer_name()
}

/// Whether an image is a layer of the host that can be made again.
pub(crate) fn is_host_layer(name: &str) -> bool {
    name.starts_with(host::PREFIX)
}

/// Makes a layer under its name, once: of several makers one wins, and its layer is used.
fn publish(store: &Store, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    use rustix::{
        fs::{CWD, RenameFlags, renameat_with},
        io::Errno,
    };
    let path = store.images().join(name);
    if path.is_dir() {
        return Ok(path);
    }
    let draft = Draft::new(store)?;
    let made = draft.path.join("layer");
    let result = layer::directory(&made, 0o755)
        .and_then(|()| fill(&made))
        .and_then(
            |()| match renameat_with(CWD, &made, CWD, &path, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(()),
                other => other.context(|| format!("publish `{}`", path.display())),
            },
        );
    // Also after a success: the draft itself. A sweep removes what cannot be removed now.
    let removed = crate::tree::remove(&draft.path);
    result.and(removed)?;
    Ok(path)
}
