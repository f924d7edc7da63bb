//! What was found out about this machine, and how: by making a container that is never committed.

use std::{
    fs::{self, File},
    io::Write,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::thread::{CapabilitySet, capability_is_in_bounding_set, no_new_privs};
use serde::{Deserialize, Serialize};

use crate::{
    cgroup::Layout,
    error::{Error, ErrorKind, Result},
    facts::{Cgroups, Facts},
    identity::Identity,
    image, launch,
    plan::Order,
    runtime::Runtime,
    spec::{ContainerSpec, Isolation, Mount},
    store::{Directory, Draft, Record, fnv, make_private, new_config},
    sys, validate,
};

/// What was found out about this machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) identity: Identity,
    pub(crate) layout: Layout,
    pub(crate) facts: Facts,
    less: usize,
}

/// As it is kept from one process to the next.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// All that the rest depends on.
    key: String,
    layout: Layout,
    facts: Facts,
    /// How much of what the caller may give can be used here.
    less: usize,
}

/// What a trial showed.
#[derive(Clone, Copy, Debug)]
struct Trial {
    volatile_root: bool,
    from_memory: bool,
}

impl Machine {
    /// From what was kept, or by trial.
    pub(crate) fn of(runtime: &Runtime) -> Result<Self> {
        let identity = Identity::of_caller();
        let key = key(runtime);
        let path = kept_path(runtime);
        let kept = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        if let Some(kept) = kept.filter(|kept| kept.key == key) {
            let less =
                |identity: Identity, _| identity.with_less().map_or(identity, |(less, _)| less);
            return Ok(Self {
                identity: (0..kept.less).fold(identity, less),
                layout: kept.layout,
                facts: kept.facts,
                less: kept.less,
            });
        }
        let machine = Self::by_trial(runtime, identity)?;
        let kept = Kept {
            key,
            layout: machine.layout.clone(),
            facts: machine.facts.clone(),
            less: machine.less,
        };
        // Without it the next process tries again.
        let _ = keep(&path, &kept);
        Ok(machine)
    }

    /// By trial.
    pub(crate) fn by_trial(runtime: &Runtime, identity: Identity) -> Result<Self> {
        let refused = match Self::with(runtime, identity.clone(), Vec::new()) {
            Err(error) if is_refusal(&error) => error,
            other => return other,
        };
        let (mut identity, mut limitations) = (identity, Vec::new());
        while let Some((less, lost)) = identity.with_less() {
            identity = less;
            limitations.push(format!("{lost}: {refused}."));
            match Self::with(runtime, identity.clone(), limitations.clone()) {
                Ok(mut machine) => {
                    machine.less = limitations.len();
                    return Ok(machine);
                }
                Err(error) if is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// By trial, with all that the caller may give.
    fn with(runtime: &Runtime, identity: Identity, mut limitations: Vec<String>) -> Result<Self> {
        let mut layout = Layout::find();
        if !identity.privileged && identity.best() != Isolation::CallerUid && layout.drop_unified()
        {
            limitations.push(
                "Delegated control groups are not used by containers with sub-ids, whose root could \
                 not enter them."
                    .to_owned(),
            );
        }
        let mut idmapped_binds = identity.shows_layers;
        let first = attempt(runtime, &identity, &layout, idmapped_binds);
        let trial = match first {
            Ok(trial) => trial,
            // What can be done without is left out, one by one, until it works or nothing is left.
            Err(error) if passes(&error) => return Err(error),
            Err(error) if idmapped_binds => match attempt(runtime, &identity, &layout, false) {
                Ok(trial) => {
                    idmapped_binds = false;
                    limitations.push(format!(
                        "Directories of the host cannot be shared for writing: {error}."
                    ));
                    trial
                }
                Err(error) => {
                    without_groups(runtime, &identity, &mut layout, &mut limitations, error)?
                }
            },
            Err(error) => without_groups(runtime, &identity, &mut layout, &mut limitations, error)?,
        };
        let facts = facts(&identity, &layout, trial, idmapped_binds, limitations);
        Ok(Self {
            identity,
            layout,
            facts,
            less: 0,
        })
    }
}

/// Whether the machine says no, and will the next time.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unsupported | ErrorKind::PermissionDenied
    )
}

/// Whether something was short, which says nothing of what the machine can do.
fn passes(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::LimitExceeded | ErrorKind::TimedOut)
}

fn without_groups(
    runtime: &Runtime,
    identity: &Identity,
    layout: &mut Layout,
    limitations: &mut Vec<String>,
    error: Error,
) -> Result<Trial> {
    if layout.kind() == Cgroups::None || passes(&error) {
        return Err(error);
    }
    let trial = match attempt(runtime, identity, &Layout::default(), identity.shows_layers) {
        Ok(trial) => trial,
        // Groups can be done without: this cannot.
        Err(other) if is_refusal(&other) => return Err(other),
        Err(_) => return Err(error),
    };
    *layout = Layout::default();
    limitations.push(format!("Control groups cannot be used: {error}."));
    Ok(trial)
}

fn facts(
    identity: &Identity,
    layout: &Layout,
    trial: Trial,
    idmapped_binds: bool,
    mut limitations: Vec<String>,
) -> Facts {
    let isolation = identity.best();
    match isolation {
        Isolation::OwnRange => {}
        Isolation::SharedRange => limitations.push(
            "All containers of this user share one range of user ids; give the user 131072 or more \
             sub-ids for a range each."
                .to_owned(),
        ),
        Isolation::CallerUid => limitations.push(
            "Root of a container is the calling user on the host, and there are no other users \
             inside; sub-ids and newuidmap give more."
                .to_owned(),
        ),
    }
    let swap_limit = layout.limits_swap() || layout.limits_memory() && !validate::has_swap();
    for (can, what) in [
        (layout.limits_memory(), "Memory"),
        (layout.limits_cpu(), "Processor time"),
        (layout.limits_pids(), "The number of processes"),
    ] {
        if !can {
            limitations.push(format!("{what} cannot be limited by a control group."));
        }
    }
    if !layout.kills() {
        limitations.push("The kernel does not kill trees of processes at once.".to_owned());
    }
    if trial.volatile_root {
        limitations.push(
            "The state directory's file system cannot hold what containers write; it is kept in \
             memory and lost at each stop."
                .to_owned(),
        );
    }
    let outlives_client = layout.outside_own_group();
    if !outlives_client {
        limitations.push(
            "Containers end with the service that started them, if the service manager ends it."
                .to_owned(),
        );
    }
    Facts {
        isolation,
        cgroups: layout.kind(),
        memory_limit: layout.limits_memory(),
        swap_limit,
        cpu_limit: layout.limits_cpu(),
        pids_limit: layout.limits_pids(),
        pause: layout.freezes(),
        kernel_tree_kill: layout.kills(),
        lasting_root: !trial.volatile_root,
        idmapped_binds,
        memory_exec: trial.from_memory,
        outlives_client,
        limitations,
    }
}

/// Makes a container up to the commit, and lets it end.
fn attempt(
    runtime: &Runtime,
    identity: &Identity,
    layout: &Layout,
    with_bind: bool,
) -> Result<Trial> {
    let draft = Draft::new(&runtime.store)?;
    // No container can have this name.
    let name = format!(".{}", draft.token);
    let key = runtime.store.key(&name);
    let result = attempt_in(runtime, identity, layout, (&draft, &key), with_bind);
    let cleaned = layout
        .remove(&key)
        .and(launch::remove_socket(&runtime.store, &key))
        .and(runtime.discard_draft(&draft, identity));
    let trial = result?;
    cleaned?;
    Ok(trial)
}

fn attempt_in(
    runtime: &Runtime,
    identity: &Identity,
    layout: &Layout,
    (draft, key): (&Draft, &str),
    with_bind: bool,
) -> Result<Trial> {
    let isolation = identity.best();
    let first = match runtime.first_id(draft, identity, isolation) {
        // What is there already can be started all the same. A trial runs nobody's programs, so it may
        // have the ids of one of them.
        Err(error) if error.kind() == ErrorKind::LimitExceeded && !identity.privileged => {
            identity.shared_first()
        }
        other => other?,
    };
    let mut spec = ContainerSpec::new("try");
    spec.limits_required = false;
    if with_bind {
        let shared = draft.path.join("shared");
        make_private(&shared).map_err(|error| {
            Error::new(
                crate::error::kind_of(&error),
                format!("make a directory: {error}"),
            )
        })?;
        spec.mounts = vec![Mount::Bind {
            source: shared,
            target: PathBuf::from("/mnt"),
            read_only: false,
        }];
    }
    let config = new_config(&draft.token, (isolation, first), None, &spec);
    draft.write(&config)?;
    image::import(&runtime.store, &spec)?;
    runtime.write_files(&draft.path, identity, &config)?;
    let directory = Directory {
        name: "try".to_owned(),
        path: draft.path.clone(),
    };
    let order = Order {
        directory: &directory,
        config: &config,
        record: &Record::new(),
        identity,
        layout,
        ports: &[],
        image: image::resolve(&runtime.store, &spec, None)?,
    };
    let quiet = crate::options::RuntimeOptions {
        fault: None,
        ..runtime.options.clone()
    };
    let ready = launch::launch(&runtime.store, &quiet, key, order, draft.lock.as_fd())?;
    let trial = Trial {
        volatile_root: ready.volatile_root,
        from_memory: ready.helper.from_memory,
    };
    launch::give_up(ready.helper, Some((ready.pid, ready.start_time)));
    Ok(trial)
}

fn kept_path(runtime: &Runtime) -> PathBuf {
    runtime.store.run_dir().join(format!(
        "facts-{}.json",
        runtime.store.key_prefix().trim_end_matches('-')
    ))
}

/// Names everything that the facts depend on and that may change while the machine runs.
fn key(runtime: &Runtime) -> String {
    let changed = |path: &Path| {
        fs::metadata(path).map_or((0, 0, 0), |metadata| {
            (metadata.ctime(), metadata.ctime_nsec(), metadata.ino())
        })
    };
    let mappers = Identity::mappers().map(|path| path.map(|path| changed(&path)));
    // What a set-id program gains depends on the process that starts it.
    let gains = (
        no_new_privs().unwrap_or(true),
        capability_is_in_bounding_set(CapabilitySet::SETUID).unwrap_or(false),
    );
    let own = fs::read("/proc/self/cgroup").unwrap_or_default();
    let mount = rustix::fs::statat(
        rustix::fs::CWD,
        runtime.store.state_dir(),
        rustix::fs::AtFlags::empty(),
    )
    .map_or(0, |stat| stat.st_dev);
    let parts = format!(
        "{} {} {} {:?} {:?} {mappers:?} {gains:?} {:016x} {mount} {}",
        env!("CARGO_PKG_VERSION"),
        sys::boot_id(),
        sys::uid(),
        changed(Path::new("/etc/subuid")),
        changed(Path::new("/etc/subgid")),
        fnv(&own),
        Identity::of_caller().privileged,
    );
    format!("{:016x}", fnv(parts.as_bytes()))
}

fn keep(path: &Path, kept: &Kept) -> std::io::Result<()> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let bytes = serde_json::to_vec(kept)?;
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(&bytes)?;
    fs::rename(part, path)
}
