//! Making a container: everything is written before it has its name.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use podkit_agent::plan::{Plan, TreePlan};

use crate::{
    error::{Context, Result},
    helper,
    identity::Identity,
    image,
    launch::MARK_BYTES,
    machine::Machine,
    ports,
    runtime::Runtime,
    spec::{ContainerSpec, Isolation},
    store::{Config, Directory, Draft, make_private, new_config, new_file},
    tree, validate,
};

impl Runtime {
    /// Makes a container that does not run yet. Of several callers with one name exactly one
    /// succeeds.
    ///
    /// # Errors
    /// - `InvalidInput`: something in the order cannot be.
    /// - `AlreadyExists`: the name is taken.
    /// - `Unsupported`: this machine cannot do what was asked.
    /// - `LimitExceeded`: the disk is full, or all ranges of user ids are in use.
    pub fn create(&self, spec: &ContainerSpec) -> Result<()> {
        self.options.step("create.begin")?;
        validate::order(spec)?;
        let machine = self.machine()?;
        let isolation = machine.identity.choose(spec.isolation)?;
        validate::enforceable(spec, &machine.layout)?;
        validate::sources(spec, isolation, machine.identity.privileged)?;
        let mut spec = spec.clone();
        ports::choose(&mut spec)?;
        let spec = &spec;
        let imported = image::import(&self.store, spec)?;
        self.options.step("create.draft")?;
        let draft = Draft::new(&self.store)?;
        let made = self.fill(&draft, &machine, isolation, imported, spec);
        if made.is_err() {
            // What cannot be undone now, a sweep undoes; the first failure is the one to tell.
            let _ = self.discard(&draft.path);
        }
        made
    }

    fn fill(
        &self,
        draft: &Draft,
        machine: &Machine,
        isolation: Isolation,
        imported: Option<String>,
        spec: &ContainerSpec,
    ) -> Result<()> {
        self.options.step("create.range")?;
        let first = self.first_id(draft, &machine.identity, isolation)?;
        let config = new_config(&draft.token, (isolation, first), imported, spec);
        draft.write(&config)?;
        self.options.step("create.files")?;
        self.write_files(&draft.path, &machine.identity, &config)?;
        self.options.step("create.publish")?;
        draft.publish(&self.store, &spec.name)
    }

    /// First id of a new container's range.
    pub(crate) fn first_id(
        &self,
        draft: &Draft,
        identity: &Identity,
        isolation: Isolation,
    ) -> Result<u32> {
        match isolation {
            Isolation::OwnRange => identity
                .ranges(&self.options, self.store.state_dir())
                .take(self.store.state_dir(), &draft.token),
            Isolation::SharedRange => Ok(identity.shared_first()),
            Isolation::CallerUid => Ok(0),
        }
    }

    /// What a container's directory holds besides its config.
    pub(crate) fn write_files(
        &self,
        path: &Path,
        identity: &Identity,
        config: &Config,
    ) -> Result<()> {
        let directory = Directory {
            name: config.spec.name.clone(),
            path: path.to_owned(),
        };
        let mark = directory.exit_mark();
        new_file(&mark, 0o600)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &[b' '; MARK_BYTES]))
            .context(|| format!("write `{}`", mark.display()))?;
        let rootfs = directory.rootfs();
        make_private(&rootfs).context(|| format!("make `{}`", rootfs.display()))?;
        if identity.needs_namespace(config.isolation) {
            return self.fill_upper(&rootfs, identity, config);
        }
        let (uid, gid) = identity.root(config.isolation, config.first_id);
        for name in ["upper", "work"] {
            let path = rootfs.join(name);
            fs::create_dir(&path)
                .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
                .and_then(|()| {
                    if identity.privileged {
                        chown(&path, Some(uid), Some(gid))
                    } else {
                        Ok(())
                    }
                })
                .context(|| format!("make `{}`", path.display()))?;
        }
        Ok(())
    }

    /// Without privileges, and on some file systems, no layer can be shown with the container's ids, so what is in the image
    /// becomes the container's own: copied by its root, who makes `upper` in a directory that all
    /// may write, below one that only the caller may enter.
    fn fill_upper(&self, rootfs: &Path, identity: &Identity, config: &Config) -> Result<()> {
        fs::set_permissions(rootfs, Permissions::from_mode(0o777))
            .context(|| format!("open `{}` to the container", rootfs.display()))?;
        let image = image::resolve(&self.store, &config.spec, config.image.as_deref())?;
        let Some(lower) = image.lowers.first() else {
            return Ok(());
        };
        let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
        let plan = TreePlan {
            maps: identity.maps_with_host(config.isolation, config.first_id),
            remove: Vec::new(),
            copy: vec![(bytes(lower), bytes(&rootfs.join("upper")))],
        };
        helper::run(self.store.state_dir(), &Plan::Tree(plan))
    }

    /// Removes a draft of a trial, which may have failed before its config was written.
    pub(crate) fn discard_draft(&self, draft: &Draft, identity: &Identity) -> Result<()> {
        let directory = Directory {
            name: String::new(),
            path: draft.path.clone(),
        };
        match directory.config() {
            Ok(config) => self.delete_files_as(&draft.path, &config, identity),
            Err(_) => tree::remove(&draft.path),
        }
    }

    /// Removes a draft with its range.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        let directory = Directory {
            name: String::new(),
            path: path.to_owned(),
        };
        match directory.config() {
            Ok(config) => self.delete_files(path, &config),
            // Nothing was made that belongs to a range; one that was taken is found by its token.
            Err(_) => {
                tree::remove(path)?;
                self.sweep_ranges().map(drop)
            }
        }
    }
}
