//! What the helper is told about one container.

use std::{
    collections::BTreeMap, fmt::Write, fs, net::TcpListener, os::unix::fs::MetadataExt,
    time::Duration,
};

use podkit_agent::{
    Clocks,
    plan::{ContainerPlan, Descriptors, FilePlan, MountPlan, OwnerMap, RootPlan},
    seccomp,
};

use crate::{
    cgroup::Layout,
    error::{Error, ErrorKind, Result},
    identity::Identity,
    image::Image,
    ranges::BIND_IDS,
    spec::{ContainerSpec, Isolation, Mount, Network, Seccomp},
    store::{Config, Directory, Record, now_ms, random},
    validate,
};

/// Search path of commands whose container names none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Size of a root in memory, where no disk can hold it and there is no memory limit to go by.
const FALLBACK_BYTES: u64 = 512 * 1024 * 1024;

/// What tells of the host. As Docker's list, less what does not exist any more.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What could change the host.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Everything that a plan is made from.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) config: &'a Config,
    pub(crate) record: &'a Record,
    pub(crate) identity: &'a Identity,
    pub(crate) layout: &'a Layout,
    pub(crate) image: Image,
    /// Sockets of the ports that the host offers.
    pub(crate) ports: &'a [TcpListener],
}

impl Order<'_> {
    /// The plan, for descriptors in the order that [`Descriptors`] says.
    pub(crate) fn plan(self, descriptors: Descriptors) -> Result<ContainerPlan> {
        let spec = &self.config.spec;
        let isolation = self.config.isolation;
        let mut mounts = self.image.binds.clone();
        for mount in &spec.mounts {
            mounts.push(mount_plan(mount, self.identity, isolation)?);
        }
        let confined = spec.seccomp == Seccomp::Default;
        // Without `no_new_privs` a command has no right to load a filter of its own.
        let two_filters = confined && spec.no_new_privileges;
        let exactly_pids = self.layout.limits_pids();
        Ok(ContainerPlan {
            descriptors,
            privileged: self.identity.privileged,
            maps: self.identity.maps(isolation, self.config.first_id),
            own_network: spec.network == Network::None,
            hostname: spec.hostname.clone().into_bytes(),
            root: self.root(),
            mounts,
            shm_bytes: validate::shm_bytes(spec),
            files: self.files(),
            directories: vec![b"/etc".to_vec(), spec.cwd.clone().into_bytes()],
            masked: MASKED.map(|path| path.as_bytes().to_vec()).to_vec(),
            read_only: READ_ONLY.map(|path| path.as_bytes().to_vec()).to_vec(),
            capabilities: validate::capabilities(&spec.capabilities)?,
            no_new_privileges: spec.no_new_privileges,
            filter: if confined {
                seccomp::filter(seccomp::Passes {
                    clone3: true,
                    set_ids: !spec.mounts.iter().any(Mount::is_writable_bind),
                })
            } else {
                Vec::new()
            },
            exec_filter: if two_filters {
                seccomp::command_filter()
            } else {
                Vec::new()
            },
            processes_max: spec.pids_max.filter(|_| !exactly_pids).map(u64::from),
            clocks: clocks(self.config)?,
            cwd: spec.cwd.clone().into_bytes(),
            user: spec.user.clone().into_bytes(),
            env: environment(spec),
            main: spec
                .main
                .as_ref()
                .map(|main| main.iter().map(|arg| arg.clone().into_bytes()).collect()),
            boot_token: random()?,
            ports: spec.ports.iter().map(|port| port.container).collect(),
        })
    }

    fn root(&self) -> RootPlan {
        let spec = &self.config.spec;
        let path = |path: &std::path::Path| path.as_os_str().as_encoded_bytes().to_vec();
        let ranged = self.config.isolation != Isolation::CallerUid;
        RootPlan {
            lowers: self.image.lowers.iter().map(|lower| path(lower)).collect(),
            idmap_lowers: self.identity.shows_layers && ranged,
            writable: path(&self.directory.rootfs()),
            read_only: spec.read_only_root,
            userxattr: !self.identity.privileged,
            // A copy of the image is what is written to.
            fallback_bytes: match spec.memory_bytes {
                _ if self.identity.needs_namespace(self.config.isolation) => 0,
                None => FALLBACK_BYTES,
                Some(limit) => limit / 4,
            },
        }
    }

    /// Written at the first start only: what the container made of them afterwards is its own
    /// affair, and may be something that must not be opened.
    fn files(&self) -> Vec<FilePlan> {
        let spec = &self.config.spec;
        if self.record.started_at_ms != 0 && !self.record.volatile_root {
            return Vec::new();
        }
        self.image
            .writable_etc
            .iter()
            .filter_map(|name| {
                let bytes = match *name {
                    "hosts" => hosts(spec).into_bytes(),
                    "hostname" => format!("{}\n", spec.hostname).into_bytes(),
                    _ if spec.network == Network::Host => fs::read("/etc/resolv.conf").ok()?,
                    _ => return None,
                };
                Some(FilePlan {
                    path: format!("/etc/{name}").into_bytes(),
                    bytes,
                })
            })
            .collect()
    }
}

fn mount_plan(mount: &Mount, identity: &Identity, isolation: Isolation) -> Result<MountPlan> {
    match mount {
        Mount::Bind {
            source,
            target,
            read_only,
        } => {
            let metadata = validate::look(source)?;
            // With the container's ids only what it may write: else its root could read files that
            // on the host are root's alone.
            let shown = identity.privileged && !read_only && isolation != Isolation::CallerUid;
            Ok(MountPlan::Bind {
                source: source.as_os_str().as_encoded_bytes().to_vec(),
                identity: (metadata.dev(), metadata.ino()),
                directory: metadata.is_dir(),
                target: target.as_os_str().as_encoded_bytes().to_vec(),
                read_only: *read_only,
                no_exec: false,
                recursive: false,
                owner: shown.then(|| OwnerMap {
                    uid: metadata.uid(),
                    gid: metadata.gid(),
                    others: BIND_IDS,
                }),
            })
        }
        Mount::Tmpfs {
            target,
            size_bytes,
            mode,
        } => Ok(MountPlan::Tmpfs {
            target: target.as_os_str().as_encoded_bytes().to_vec(),
            bytes: *size_bytes,
            mode: *mode,
        }),
    }
}

fn clocks(config: &Config) -> Result<Clocks> {
    let spec = &config.spec;
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    let max_lifetime_ms = match spec.max_lifetime {
        None => None,
        Some(lifetime) => {
            let age = now_ms().saturating_sub(config.created_at_ms);
            match ms(lifetime).checked_sub(age) {
                Some(left) if left > 0 => Some(left),
                _ => {
                    return Err(Error::new(
                        ErrorKind::LimitExceeded,
                        format!("the lifetime of container `{}` is over", spec.name),
                    )
                    .with_hint("remove it and make another one"));
                }
            }
        }
    };
    Ok(Clocks {
        auto_stop_ms: spec.auto_stop.map(ms),
        max_lifetime_ms,
    })
}

fn environment(spec: &ContainerSpec) -> Vec<Vec<u8>> {
    let mut all = BTreeMap::from([("PATH", PATH)]);
    all.extend(
        spec.env
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    );
    all.iter()
        .map(|(key, value)| format!("{key}={value}").into_bytes())
        .collect()
}

fn hosts(spec: &ContainerSpec) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{}\n",
        spec.hostname
    );
    for (name, address) in &spec.hosts {
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_has_a_search_path_unless_the_order_names_one() {
        let mut spec = ContainerSpec::new("a");
        assert_eq!(environment(&spec), [format!("PATH={PATH}").into_bytes()]);
        spec.env = vec![("PATH".into(), "/x".into()), ("A".into(), "1".into())];
        assert_eq!(environment(&spec), [b"A=1".to_vec(), b"PATH=/x".to_vec()]);
    }

    #[test]
    fn hosts_name_the_container_and_what_was_ordered() {
        let mut spec = ContainerSpec::new("box");
        spec.hosts = vec![("db".into(), [10, 0, 0, 1].into())];
        let text = hosts(&spec);
        assert!(text.contains("127.0.1.1\tbox\n") && text.ends_with("10.0.0.1\tdb\n"));
    }
}
