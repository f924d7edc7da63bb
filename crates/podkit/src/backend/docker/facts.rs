//! What an engine says of itself, remembered for the next process.

use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    ClientVersion, Docker,
    models::{SystemInfo, SystemInfoCgroupVersionEnum, SystemVersion},
};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Flavor, endpoint::Endpoint, failure};
use crate::{
    backend::{Capabilities, TreeKill},
    config::Image,
    error::{Error, ErrorKind, Result},
};

/// Image of a session that names none.
const DEFAULT_IMAGE: &str = "python:3.11-alpine";

/// How long what an engine has said is believed.
const LASTS: Duration = Duration::from_secs(3600);

/// Largest file of remembered facts.
const MAX_BYTES: u64 = 64 << 10;

/// Version of the file.
const VERSION: u32 = 1;

/// What an engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) flavor: Flavor,
    /// Version of the programming interface that both sides know.
    pub(super) api: (u64, u64),
    /// Architecture in Rust's words.
    pub(super) arch: String,
    pub(super) memory_limit: bool,
    pub(super) swap_limit: bool,
    pub(super) cpu_limit: bool,
    pub(super) pids_limit: bool,
    pub(super) rootless: bool,
    pub(super) cgroup_v2: bool,
    pub(super) remapped: bool,
    pub(super) seccomp: bool,
    pub(super) live_restore: bool,
    pub(super) runtimes: BTreeSet<String>,
}

impl Facts {
    /// Asks the engine: two requests.
    pub(super) async fn ask(docker: &Docker) -> Result<Self> {
        // Whoever cannot answer this is no engine, or not in this way.
        let failed = |error| {
            let error = failure::error(error);
            match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::TimedOut => error,
                _ => Error::new(ErrorKind::Unavailable, error.message()),
            }
        };
        let version = docker.version().await.map_err(failed)?;
        let info = docker.info().await.map_err(failed)?;
        Self::of(&version, &info)
    }

    fn of(version: &SystemVersion, info: &SystemInfo) -> Result<Self> {
        let text = version.api_version.as_deref().unwrap_or_default();
        let api = parse_version(text)
            .filter(|api| *api >= (1, 41))
            .ok_or_else(|| {
                let server = version
                    .version
                    .as_deref()
                    .unwrap_or("of an unknown version");
                Error::unsupported(format!(
                    "the engine {server} speaks version {text:?} of the interface; the oldest that \
                     podkit speaks is 1.41"
                ))
                .with_hint("use Docker 20.10 or later, or Podman 4 or later")
            })?;
        let components = version.components.iter().flatten();
        let podman = components
            .into_iter()
            .any(|part| part.name.contains("Podman"));
        let options = info.security_options.clone().unwrap_or_default();
        let has = |name: &str| options.iter().any(|option| option.contains(name));
        let os = version.os.as_deref().or(info.os_type.as_deref());
        if os.is_some_and(|os| os != "linux") {
            return Err(Error::unsupported("the engine runs no Linux containers"));
        }
        Ok(Self {
            flavor: if podman {
                Flavor::Podman
            } else {
                Flavor::Docker
            },
            api,
            arch: arch(version.arch.as_deref().unwrap_or_default()),
            memory_limit: info.memory_limit.unwrap_or(true),
            swap_limit: info.swap_limit.unwrap_or(true),
            cpu_limit: info.cpu_cfs_quota.unwrap_or(true),
            pids_limit: info.pids_limit.unwrap_or(true),
            rootless: has("name=rootless"),
            remapped: has("name=userns"),
            seccomp: has("name=seccomp"),
            cgroup_v2: info.cgroup_version == Some(SystemInfoCgroupVersionEnum::_2),
            live_restore: info.live_restore_enabled.unwrap_or(false),
            runtimes: info
                .runtimes
                .iter()
                .flatten()
                .map(|(name, _)| name.clone())
                .collect(),
        })
    }

    /// The version that requests are made in.
    pub(super) fn version(&self) -> ClientVersion {
        let newest = bollard::API_DEFAULT_VERSION;
        let newest = (newest.major_version, newest.minor_version);
        let (major_version, minor_version) = self.api.min((
            u64::try_from(newest.0).unwrap_or(1),
            u64::try_from(newest.1).unwrap_or(41),
        ));
        ClientVersion {
            major_version: usize::try_from(major_version).unwrap_or(1),
            minor_version: usize::try_from(minor_version).unwrap_or(41),
        }
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        let mut limitations = vec![
            "a container reaches the addresses of its host, and what listens there".to_owned(),
            "root in a container is root of the engine, unless the engine maps its user ids"
                .to_owned(),
            "processes that left a command are found by search, not by the kernel".to_owned(),
        ];
        if self.flavor == Flavor::Podman {
            limitations.push("containers on the default network reach each other".to_owned());
        }
        if !self.seccomp {
            limitations.push("the engine filters no system calls".to_owned());
        }
        if self.rootless && !self.memory_limit {
            limitations.push("the rootless engine was given no limits to set".to_owned());
        }
        Capabilities {
            default_image: Image::Reference(DEFAULT_IMAGE.to_owned()),
            local_images: false,
            image_references: true,
            memory_limit: self.memory_limit,
            swap_limit: self.swap_limit,
            cpu_limit: self.cpu_limit,
            pids_limit: self.pids_limit,
            pause: !self.rootless || self.cgroup_v2,
            // Podman's service knows it from 4.6 on, by another call than Docker's.
            live_limits: self.flavor == Flavor::Docker,
            stats: !self.rootless || self.cgroup_v2,
            bind_mounts: true,
            writable_binds: true,
            volumes: true,
            outbound: true,
            parts_sessions: self.flavor == Flavor::Docker,
            named_networks: true,
            ports: true,
            dns: true,
            ulimits: true,
            devices: true,
            // Podman's service passes over both without a word.
            gpus: self.flavor == Flavor::Docker,
            runtimes: match self.flavor {
                Flavor::Docker => self.runtimes.iter().cloned().collect(),
                Flavor::Podman => Vec::new(),
            },
            platforms: true,
            inherit: true,
            auto_remove: true,
            bind_flags: false,
            stop_keeps_files: true,
            outlives_client: true,
            tree_kill: TreeKill::BestEffort,
            isolation: None,
            limitations,
        }
    }
}

fn parse_version(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Go's name of an architecture in Rust's words.
fn arch(name: &str) -> String {
    match name {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
    .to_owned()
}

/// The file in which facts about an engine of this machine are remembered.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    path: PathBuf,
}

/// The file's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    version: u32,
    facts: Facts,
    /// Whether agents were seen to reach sockets of this machine.
    dials: Option<bool>,
}

impl Memory {
    /// Where an engine's facts are. The socket that a daemon makes tells its lives apart; an engine
    /// elsewhere is asked each time. A client with another root, in a container, may see the same
    /// socket and the same directory, and has other ways to agents.
    pub(super) fn of(endpoint: &Endpoint, run_dir: &Path) -> Option<Self> {
        let socket = endpoint.socket()?.metadata().ok()?;
        let root = Path::new("/").metadata().ok()?;
        let mut hash = Sha256::new();
        hash.update(endpoint.url.as_bytes());
        let changed = socket.ctime().cast_unsigned();
        for number in [root.dev(), root.ino(), socket.dev(), socket.ino(), changed] {
            hash.update(number.to_le_bytes());
        }
        hash.update(socket.ctime_nsec().to_le_bytes());
        let name = HEXLOWER.encode(&hash.finalize()[..16]);
        Some(Self {
            path: run_dir.join("engines").join(format!("{name}.json")),
        })
    }

    /// What is remembered, if it is fresh and the user's own.
    pub(super) fn recall(&self) -> Option<(Facts, Option<bool>)> {
        use std::io::Read;
        let file = std::fs::File::open(&self.path).ok()?;
        let metadata = file.metadata().ok()?;
        let age = metadata.modified().ok()?.elapsed().ok()?;
        if age > LASTS || metadata.uid() != rustix::process::geteuid().as_raw() {
            return None;
        }
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
        let remembered: Remembered = serde_json::from_slice(&text).ok()?;
        (remembered.version == VERSION).then_some((remembered.facts, remembered.dials))
    }

    /// Remembers, as far as that is possible: the next process asks again otherwise.
    pub(super) fn remember(&self, facts: &Facts, dials: Option<bool>) {
        let remembered = Remembered {
            version: VERSION,
            facts: facts.clone(),
            dials,
        };
        let write = || -> std::io::Result<()> {
            let directory = self.path.parent().ok_or(std::io::ErrorKind::NotFound)?;
            super::link::make_private(directory)?;
            let text = serde_json::to_vec(&remembered)?;
            let own = std::process::id();
            let fresh = self.path.with_extension(format!("{own}.new"));
            std::fs::write(&fresh, text)?;
            std::fs::rename(&fresh, &self.path)
        };
        let _ = write();
    }

    /// What is remembered does not hold any more.
    pub(super) fn forget(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(api: &str) -> SystemVersion {
        SystemVersion {
            api_version: Some(api.to_owned()),
            arch: Some("amd64".to_owned()),
            os: Some("linux".to_owned()),
            ..SystemVersion::default()
        }
    }

    #[test]
    fn facts_of_an_engine_that_is_too_old_are_unsupported() {
        for api in ["1.40", "", "x"] {
            let error = Facts::of(&version(api), &SystemInfo::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{api}");
        }
        let facts = Facts::of(&version("1.99"), &SystemInfo::default()).unwrap();
        assert_eq!(facts.arch, "x86_64");
        assert!(facts.version() <= *bollard::API_DEFAULT_VERSION);
    }

    #[test]
    fn facts_remembered_are_recalled_until_the_socket_changes() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let endpoint = Endpoint::for_test(&format!("unix://{}", socket.display()));
        let memory = Memory::of(&endpoint, directory.path()).unwrap();
        assert!(memory.recall().is_none());
        let facts = Facts::of(&version("1.41"), &SystemInfo::default()).unwrap();
        memory.remember(&facts, Some(true));
        assert_eq!(memory.recall(), Some((facts, Some(true))));

        std::fs::remove_file(&socket).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let later = Memory::of(&endpoint, directory.path()).unwrap();
        assert!(later.recall().is_none());
        memory.forget();
        assert!(memory.recall().is_none());
    }
}
