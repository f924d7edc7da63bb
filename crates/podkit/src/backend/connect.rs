//! Names to backends: the only place that matches on an engine's name.

use std::path::{Path, PathBuf};

use super::{BackendRef, memory::MemoryBackend};
use crate::error::{Error, Result};

/// What [`connect`] knows by name.
pub const NAMES: &[&str] = &["auto", "embedded", "docker", "podman", "memory"];

/// Where an engine keeps what it keeps.
///
/// The library reads no environment variable; a program that honours them fills this in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Home directory that the defaults below are relative to; the calling user's without.
    pub home: Option<PathBuf>,
    /// Where the embedded engine keeps containers and images; `/var/lib/podkit` for root,
    /// `podkit` under `xdg_data_home` for others.
    pub state_dir: Option<PathBuf>,
    /// Where the embedded engine keeps sockets; `run` under `state_dir` where that is named, else
    /// `/run/podkit` for root and `podkit` under `xdg_runtime_dir` for others.
    pub run_dir: Option<PathBuf>,
    /// Where the user's programs keep data; `.local/share` under `home` without.
    pub xdg_data_home: Option<PathBuf>,
    /// Where the user's programs keep sockets; `/run/user/<uid>` without.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// Bytes of this machine's memory that stay available: a container beyond is `LimitExceeded`. A
    /// fiftieth of all memory without, at most 256 MiB; an engine on another machine is not limited.
    pub reserve_memory: Option<u64>,
    /// Where Docker and Podman are.
    pub docker: DockerOptions,
}

/// What a program's environment says about engines. The library reads no environment variable; a
/// program that honours these fills them in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DockerOptions {
    /// `DOCKER_HOST`: `unix:///path`, `tcp://host:port`, `ssh://user@host`.
    pub host: Option<String>,
    /// `DOCKER_CONTEXT`: name of a context of the docker command line.
    pub context: Option<String>,
    /// `DOCKER_CONFIG`: its directory; `.docker` under the home directory without.
    pub config_dir: Option<PathBuf>,
    /// `DOCKER_CERT_PATH`: directory of `ca.pem`, `cert.pem` and `key.pem`; the configuration's
    /// without.
    pub cert_path: Option<PathBuf>,
    /// `DOCKER_TLS_VERIFY`: whether TCP is spoken with TLS.
    pub tls: bool,
    /// `CONTAINER_HOST`: where Podman is, in the same forms.
    pub container_host: Option<String>,
}

impl ConnectOptions {
    /// Keeps everything under `home`, as for a user whose home directory it is.
    pub fn for_home(home: impl AsRef<Path>) -> Self {
        let home = home.as_ref();
        Self {
            home: Some(home.to_owned()),
            xdg_data_home: Some(home.join(".local/share")),
            // Root's own defaults are outside of any home directory.
            state_dir: Some(home.join(".local/share/podkit")),
            ..Self::default()
        }
    }
}

/// The directory for sockets that the options mean.
#[cfg(feature = "docker")]
pub(super) fn run_dir(options: &ConnectOptions) -> Option<PathBuf> {
    if let Some(named) = &options.run_dir {
        return Some(named.clone());
    }
    if let Some(state) = &options.state_dir {
        return Some(state.join("run"));
    }
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Some(PathBuf::from("/run/podkit"));
    }
    let runtime_dir = options.xdg_runtime_dir.clone();
    let runtime_dir =
        runtime_dir.unwrap_or_else(|| Path::new("/run/user").join(uid.as_raw().to_string()));
    runtime_dir.is_dir().then(|| runtime_dir.join("podkit"))
}

/// Connects to an engine by its name or its URL: `auto` is the embedded engine on Linux, and Docker
/// elsewhere.
///
/// # Errors
/// `InvalidInput` for a name that is not known; `Unavailable` when the engine is not there; never
/// another engine than the one that was named.
pub async fn connect(name: &str, options: &ConnectOptions) -> Result<BackendRef> {
    match name {
        "auto" if cfg!(target_os = "linux") => match embedded(options).await {
            Err(error) => Err(or_docker(error, options).await),
            backend => backend,
        },
        "embedded" => embedded(options).await,
        "auto" | "docker" => docker(options).await,
        "podman" => podman(options).await,
        url if url.contains("://") => engine_at(url, options).await,
        "memory" => Ok(MemoryBackend::shared()),
        _ => Err(Error::invalid_input(format!("there is no engine `{name}`"))
            .with_hint(format!("name one of these: {}", NAMES.join(", ")))),
    }
}

/// Says that Docker could be used instead, where it answers. Never a second choice by itself: the
/// sessions of the one are not those of the other.
async fn or_docker(error: Error, options: &ConnectOptions) -> Error {
    if docker(options).await.is_err() {
        return error;
    }
    let other = "Docker answers here: `--backend docker` uses it";
    let hint = match error.hint() {
        Some(hint) => format!("{hint}; or: {other}"),
        None => other.to_owned(),
    };
    error.with_hint(hint)
}

#[cfg(all(feature = "embedded", target_os = "linux"))]
async fn embedded(options: &ConnectOptions) -> Result<BackendRef> {
    super::embedded::EmbeddedBackend::open(options).await
}

#[cfg(not(all(feature = "embedded", target_os = "linux")))]
#[expect(
    clippy::unused_async,
    reason = "the same shape with and without the engine"
)]
async fn embedded(_: &ConnectOptions) -> Result<BackendRef> {
    Err(
        Error::unsupported("this podkit was built without the embedded engine")
            .with_hint("build it for Linux with the feature `embedded`"),
    )
}

#[cfg(feature = "docker")]
async fn docker(options: &ConnectOptions) -> Result<BackendRef> {
    super::docker::DockerBackend::docker(options).await
}

#[cfg(feature = "docker")]
async fn podman(options: &ConnectOptions) -> Result<BackendRef> {
    super::docker::DockerBackend::podman(options).await
}

#[cfg(feature = "docker")]
async fn engine_at(url: &str, options: &ConnectOptions) -> Result<BackendRef> {
    super::docker::DockerBackend::at(url, options).await
}

#[cfg(not(feature = "docker"))]
use no_docker::{docker, engine_at, podman};

#[cfg(not(feature = "docker"))]
mod no_docker {
    use super::{BackendRef, ConnectOptions, Error, Result};

    pub(super) async fn docker(_: &ConnectOptions) -> Result<BackendRef> {
        Err(
            Error::unsupported("this podkit was built without Docker and Podman")
                .with_hint("build it with the feature `docker`"),
        )
    }

    pub(super) async fn podman(options: &ConnectOptions) -> Result<BackendRef> {
        docker(options).await
    }

    pub(super) async fn engine_at(_: &str, options: &ConnectOptions) -> Result<BackendRef> {
        docker(options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn connect_to_an_unknown_engine_names_the_known_ones() {
        let error = connect("doker", &ConnectOptions::default())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("embedded, docker")),
            "{error:?}"
        );
    }
}
