//! Whether an order can be carried out at all; before anything is made.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileTypeExt,
    path::{Component, Path},
    time::Duration,
};

use podkit_agent::MAX_EXEC_BYTES;

use crate::{
    cgroup::Layout,
    error::{Context, Error, ErrorKind, Result},
    spec::{ContainerSpec, Isolation, Mount, Network, Rootfs},
};

/// Least memory with which a container's first command can start.
const MEMORY_MIN_BYTES: u64 = 4 * 1024 * 1024;

/// Most ports of one container: each is a descriptor on its way.
const PORTS_MAX: usize = 16;

/// Memory file systems of size 0 are unlimited.
const TMPFS_MIN_BYTES: u64 = 4096;

/// Names in the order of their bits.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Everything that can be judged without the machine.
pub(crate) fn order(spec: &ContainerSpec) -> Result<()> {
    name(&spec.name)?;
    host_name(&spec.hostname)?;
    environment(spec)?;
    absolute(Path::new(&spec.cwd), "the working directory")?;
    if spec.user.is_empty() || spec.user.len() > 256 || spec.user.contains(['\0', '\n']) {
        return Err(invalid(format!(
            "`{}` is no user",
            spec.user.escape_debug()
        )));
    }
    for (name, _) in &spec.hosts {
        host_name(name)?;
    }
    capabilities(&spec.capabilities)?;
    ports(spec)?;
    limits(spec)?;
    mounts(spec)?;
    for (time, what) in [
        (spec.auto_stop, "auto_stop"),
        (spec.max_lifetime, "max_lifetime"),
    ] {
        if time == Some(Duration::ZERO) {
            return Err(invalid(format!("`{what}` cannot be zero")));
        }
    }
    Ok(())
}

fn ports(spec: &ContainerSpec) -> Result<()> {
    if spec.ports.len() > PORTS_MAX {
        return Err(invalid(format!("more than {PORTS_MAX} ports are offered")));
    }
    if !spec.ports.is_empty() && spec.network == Network::Host {
        return Err(invalid(
            "what listens on the host's network is there already: it offers no ports",
        ));
    }
    if spec
        .ports
        .iter()
        .any(|port| port.container == 0 || port.host == Some(0))
    {
        return Err(invalid("0 is no port"));
    }
    Ok(())
}

/// A container's name, which is also a file name.
pub(crate) fn name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=128).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.') {
        return Ok(());
    }
    Err(invalid(format!(
        "`{}` is no name for a container: 1 to 128 of A-Z a-z 0-9 . _ -, not beginning with a dot",
        name.escape_debug()
    )))
}

fn host_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=63).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(invalid(format!(
        "`{}` is no host name",
        name.escape_debug()
    )))
}

fn environment(spec: &ContainerSpec) -> Result<()> {
    for (key, value) in &spec.env {
        if key.is_empty() || key.contains(['=', '\0']) {
            return Err(invalid(format!(
                "`{}` is no name for an environment variable",
                key.escape_debug()
            )));
        }
        if value.contains('\0') {
            return Err(invalid(format!("the value of `{key}` has a NUL byte")));
        }
    }
    if let Some(main) = &spec.main {
        if main.first().is_none_or(String::is_empty) {
            return Err(invalid("the container's own program is empty"));
        }
        if main.iter().any(|arg| arg.contains('\0')) {
            return Err(invalid(
                "an argument of the container's own program has a NUL byte",
            ));
        }
    }
    let bytes: usize = spec.env.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
    let arguments: usize = spec.main.iter().flatten().map(|arg| arg.len() + 1).sum();
    if bytes + arguments > MAX_EXEC_BYTES {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("environment and arguments are longer than {MAX_EXEC_BYTES} bytes"),
        ));
    }
    Ok(())
}

fn absolute(path: &Path, what: &str) -> Result<()> {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    let bytes = path.as_os_str().as_encoded_bytes();
    if path.is_absolute()
        && path.components().all(plain)
        && !bytes.contains(&0)
        && bytes.len() < 4096
    {
        return Ok(());
    }
    Err(invalid(format!(
        "{what} `{}` must be an absolute path without `..`",
        path.to_string_lossy().escape_debug()
    )))
}

/// Capabilities as a bit set.
pub(crate) fn capabilities(names: &[String]) -> Result<u64> {
    names.iter().try_fold(0, |set, name| {
        let bit = CAPABILITIES
            .iter()
            .position(|known| name.strip_prefix("CAP_").unwrap_or(name) == *known);
        match bit {
            Some(bit) => Ok(set | 1_u64 << bit),
            None => Err(invalid(format!(
                "`{}` is no capability",
                name.escape_debug()
            ))),
        }
    })
}

fn limits(spec: &ContainerSpec) -> Result<()> {
    if spec
        .memory_bytes
        .is_some_and(|bytes| bytes < MEMORY_MIN_BYTES)
    {
        return Err(invalid(format!(
            "a memory limit below {MEMORY_MIN_BYTES} bytes starts nothing"
        )));
    }
    if spec.swap_bytes.is_some() && spec.memory_bytes.is_none() {
        return Err(invalid("a limit of swap needs a limit of memory"));
    }
    if spec.cpu_millis == Some(0) {
        return Err(invalid("a limit of processor time cannot be zero"));
    }
    if spec.pids_max == Some(0) {
        return Err(invalid("a limit of processes cannot be zero"));
    }
    if spec.shm_bytes < TMPFS_MIN_BYTES {
        return Err(invalid(format!(
            "`/dev/shm` has at least {TMPFS_MIN_BYTES} bytes"
        )));
    }
    Ok(())
}

fn mounts(spec: &ContainerSpec) -> Result<()> {
    let mut targets = BTreeSet::new();
    for mount in &spec.mounts {
        let target = mount.target();
        absolute(target, "the mount point")?;
        let shown = target.display();
        if target == Path::new("/") {
            return Err(invalid("nothing can be mounted over the root"));
        }
        for kernel in ["/proc", "/sys", "/dev", "/.podkit"] {
            if target.starts_with(kernel) {
                return Err(invalid(format!("nothing can be mounted at `{shown}`")));
            }
        }
        if !targets.insert(target.components().collect::<std::path::PathBuf>()) {
            return Err(invalid(format!("two mounts at `{shown}`")));
        }
        match mount {
            Mount::Bind { source, .. } => absolute(source, "the source of a mount")?,
            Mount::Tmpfs {
                size_bytes, mode, ..
            } => {
                if *size_bytes < TMPFS_MIN_BYTES {
                    return Err(invalid(format!(
                        "the memory mounted at `{shown}` has at least {TMPFS_MIN_BYTES} bytes"
                    )));
                }
                if *mode > 0o7777 {
                    return Err(invalid(format!("{mode:o} are no permission bits")));
                }
            }
        }
    }
    let memory = tmpfs_bytes(spec);
    if let Some(limit) = spec.memory_bytes.filter(|limit| memory > limit / 2) {
        return Err(invalid(format!(
            "{memory} bytes of mounted memory are more than half of the memory limit of {limit} \
             bytes, which filling them would use up"
        )));
    }
    Ok(())
}

fn tmpfs_bytes(spec: &ContainerSpec) -> u64 {
    let sizes = spec.mounts.iter().map(|mount| match mount {
        Mount::Tmpfs { size_bytes, .. } => *size_bytes,
        Mount::Bind { .. } => 0,
    });
    sizes.fold(0, u64::saturating_add)
}

/// Size of `/dev/shm`: what was ordered, or what half of the memory limit leaves for it, so that
/// filling it does not end the container.
pub(crate) fn shm_bytes(spec: &ContainerSpec) -> u64 {
    match spec.memory_bytes {
        Some(limit) => spec
            .shm_bytes
            .min((limit / 2).saturating_sub(tmpfs_bytes(spec)))
            .max(TMPFS_MIN_BYTES),
        None => spec.shm_bytes,
    }
}

/// What is on the host: sources that must exist.
pub(crate) fn sources(spec: &ContainerSpec, isolation: Isolation, privileged: bool) -> Result<()> {
    for mount in &spec.mounts {
        let Mount::Bind {
            source, read_only, ..
        } = mount
        else {
            continue;
        };
        source_kind(source)?;
        if !read_only && !privileged && isolation != Isolation::CallerUid {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "`{}` cannot be written by a container with ids of its own: only root can \
                     show it with other ids",
                    source.display()
                ),
            )
            .with_hint("mount it read-only, or ask for the isolation `caller-uid`"));
        }
    }
    match &spec.rootfs {
        Rootfs::Host { paths } => {
            for path in paths {
                absolute(path, "the host path")?;
                if path == Path::new("/") {
                    return Err(invalid("the host's root cannot be shown whole"));
                }
                source_kind(path)?;
            }
            Ok(())
        }
        Rootfs::Directory(path) => {
            absolute(path, "the root file system")?;
            if path == Path::new("/") {
                return Err(invalid("the host's root cannot be a container's")
                    .with_hint("use the `host` image"));
            }
            let metadata = look(path)?;
            if metadata.is_dir() {
                Ok(())
            } else {
                Err(invalid(format!("`{}` is no directory", path.display())))
            }
        }
        Rootfs::Tar(path) => {
            absolute(path, "the archive")?;
            let metadata = look(path)?;
            if metadata.is_file() {
                Ok(())
            } else {
                Err(invalid(format!("`{}` is no file", path.display())))
            }
        }
    }
}

pub(crate) fn look(path: &Path) -> Result<fs::Metadata> {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(invalid(format!("`{}` does not exist", path.display())))
        }
        other => other.context(|| format!("look at `{}`", path.display())),
    }
}

/// A container gets files and directories of the host; sockets, pipes and devices lead further.
fn source_kind(path: &Path) -> Result<()> {
    let kind = look(path)?.file_type();
    if kind.is_dir() || kind.is_file() {
        return Ok(());
    }
    let what = if kind.is_socket() {
        "a socket"
    } else {
        "neither file nor directory"
    };
    Err(invalid(format!(
        "`{}` is {what}, and cannot be mounted",
        path.display()
    )))
}

/// Limits that this machine cannot enforce.
pub(crate) fn enforceable(spec: &ContainerSpec, layout: &Layout) -> Result<()> {
    if !spec.limits_required {
        return Ok(());
    }
    let swap_matters = spec.swap_bytes.is_some() && !layout.limits_swap() && has_swap();
    for (missing, what) in [
        (
            spec.memory_bytes.is_some() && !layout.limits_memory(),
            "memory",
        ),
        (swap_matters, "swap"),
        (
            spec.cpu_millis.is_some() && !layout.limits_cpu(),
            "processor time",
        ),
        (
            spec.pids_max.is_some() && !layout.limits_pids(),
            "processes",
        ),
    ] {
        if missing {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{what} cannot be limited here: no control group can be used for it"),
            )
            .with_hint(
                "run as root, or in a scope with delegated control groups: `systemd-run --user \
                 --scope -p Delegate=yes`",
            ));
        }
    }
    Ok(())
}

/// Whether the machine has swap at all.
pub(crate) fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names() {
        for good in ["a", "a.b_c-D9", &"x".repeat(128)] {
            name(good).unwrap();
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "a/b",
            "a b",
            "ä",
            "a\0",
            &"x".repeat(129),
        ] {
            assert_eq!(
                name(bad).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn default_order_is_valid() {
        order(&ContainerSpec::new("a")).unwrap();
    }

    #[test]
    fn bad_orders_are_refused() {
        type Spoil = fn(&mut ContainerSpec);
        let spoils: [(&str, Spoil); 14] = [
            ("relative cwd", |spec| spec.cwd = "x".into()),
            ("cwd that leads out", |spec| spec.cwd = "/a/../b".into()),
            ("empty user", |spec| spec.user.clear()),
            ("empty main", |spec| spec.main = Some(Vec::new())),
            ("env key", |spec| {
                spec.env = vec![("A=B".into(), String::new())];
            }),
            ("env value", |spec| {
                spec.env = vec![("A".into(), "\0".into())];
            }),
            ("no memory", |spec| spec.memory_bytes = Some(1)),
            ("no cpu", |spec| spec.cpu_millis = Some(0)),
            ("no pids", |spec| spec.pids_max = Some(0)),
            ("swap alone", |spec| spec.swap_bytes = Some(0)),
            ("shm", |spec| spec.shm_bytes = 0),
            ("capability", |spec| {
                spec.capabilities = vec!["CHOWNS".into()];
            }),
            ("host name", |spec| spec.hostname = "a b".into()),
            ("auto stop", |spec| spec.auto_stop = Some(Duration::ZERO)),
        ];
        for (what, spoil) in spoils {
            let mut spec = ContainerSpec::new("a");
            spoil(&mut spec);
            let refused = order(&spec).expect_err(what);
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{what}");
        }
    }

    #[test]
    fn mounts_stay_off_the_kernels_places_and_each_other() {
        for targets in [
            vec!["/"],
            vec!["/proc/x"],
            vec!["/dev"],
            vec!["a"],
            vec!["/a", "/a/"],
        ] {
            let mut spec = ContainerSpec::new("a");
            spec.mounts = targets
                .iter()
                .map(|target| Mount::Tmpfs {
                    target: target.into(),
                    size_bytes: 4096,
                    mode: 0o755,
                })
                .collect();
            assert!(order(&spec).is_err(), "{targets:?}");
        }
    }

    #[test]
    fn memory_file_systems_fit_into_half_of_the_memory() {
        let mut spec = ContainerSpec::new("a");
        spec.memory_bytes = Some(32 << 20);
        assert_eq!(shm_bytes(&spec), 16 << 20);
        spec.mounts = vec![Mount::Tmpfs {
            target: "/m".into(),
            size_bytes: 10 << 20,
            mode: 0o755,
        }];
        assert_eq!(shm_bytes(&spec), 6 << 20);
        order(&spec).unwrap();
        spec.memory_bytes = Some(16 << 20);
        assert!(order(&spec).is_err());
    }

    #[test]
    fn default_capabilities_have_dockers_bits() {
        let names = crate::spec::DEFAULT_CAPABILITIES.map(str::to_owned);
        assert_eq!(
            capabilities(&names).unwrap(),
            0xa804_25fb & !(1 << 13 | 1 << 27 | 1 << 29)
        );
    }
}
