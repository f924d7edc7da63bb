//! Where an engine may answer, found as the engines' own command lines find it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use bollard::{ClientVersion, Docker};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Asked, failure, ssh};
use crate::{
    backend::connect::ConnectOptions,
    error::{Error, ErrorKind, Result},
};

/// Largest configuration file of the docker command line that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Seconds until a request is given up whose caller has no deadline.
const LONGEST_S: u64 = 3600;

/// The version that requests are made in until the engine has said its own.
pub(super) const OLDEST: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 41,
};

/// One place where an engine may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) url: String,
    /// Directory of the three files of TLS.
    tls: Option<PathBuf>,
    /// What named it, for people.
    pub(super) named_by: &'static str,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", self.url, self.named_by)
    }
}

/// The places where `asked` may answer, in the order in which they are tried. One that was named
/// is the only one.
///
/// # Errors
/// `InvalidInput` for a context that is not there, or a configuration that cannot be read.
pub(super) fn candidates(asked: &Asked, options: &ConnectOptions) -> Result<Vec<Endpoint>> {
    let docker = &options.docker;
    let one = |url: &str, named_by| {
        let tls = url.starts_with("tcp://") && docker.tls;
        let tls = (tls || url.starts_with("https://")).then(|| cert_dir(options));
        vec![Endpoint {
            url: url.to_owned(),
            tls: tls.flatten(),
            named_by,
        }]
    };
    match asked {
        Asked::Url(url) => Ok(one(url, "as it was asked for")),
        Asked::Podman => Ok(match &docker.container_host {
            Some(host) => one(host, "CONTAINER_HOST"),
            None => podman_sockets(options),
        }),
        Asked::Docker => {
            if let Some(host) = docker.host.as_deref().filter(|host| !host.is_empty()) {
                return Ok(one(host, "DOCKER_HOST"));
            }
            let chosen = match &docker.context {
                Some(context) => Some((context.clone(), "DOCKER_CONTEXT")),
                None => current_context(options)?.map(|name| (name, "the docker context in use")),
            };
            match chosen {
                Some((name, named_by)) if name != "default" && !name.is_empty() => {
                    context(options, &name, named_by).map(|endpoint| vec![endpoint])
                }
                _ => Ok(docker_sockets(options)),
            }
        }
    }
}

pub(super) fn config_dir(options: &ConnectOptions) -> Option<PathBuf> {
    let home = || Some(options.home.as_ref()?.join(".docker"));
    options.docker.config_dir.clone().or_else(home)
}

fn cert_dir(options: &ConnectOptions) -> Option<PathBuf> {
    let named = options.docker.cert_path.clone();
    named.or_else(|| config_dir(options))
}

fn sockets(paths: impl IntoIterator<Item = (PathBuf, &'static str)>) -> Vec<Endpoint> {
    let endpoint = |(path, named_by): (PathBuf, _)| Endpoint {
        url: format!("unix://{}", path.display()),
        tls: None,
        named_by,
    };
    paths.into_iter().map(endpoint).collect()
}

fn docker_sockets(options: &ConnectOptions) -> Vec<Endpoint> {
    let mut paths = vec![(PathBuf::from("/var/run/docker.sock"), "the default socket")];
    if let Some(directory) = &options.xdg_runtime_dir {
        paths.push((
            directory.join("docker.sock"),
            "the socket of rootless Docker",
        ));
    }
    if let Some(home) = &options.home {
        let path = home.join(".docker/run/docker.sock");
        paths.push((path, "the socket of Docker Desktop"));
    }
    sockets(paths)
}

fn podman_sockets(options: &ConnectOptions) -> Vec<Endpoint> {
    let system = (
        PathBuf::from("/run/podman/podman.sock"),
        "Podman's system socket",
    );
    let mut paths = Vec::new();
    let root = rustix::process::geteuid().is_root();
    if let Some(directory) = &options.xdg_runtime_dir {
        paths.push((
            directory.join("podman/podman.sock"),
            "the user's socket of Podman",
        ));
    }
    if root {
        paths.insert(0, system);
    } else {
        paths.push(system);
    }
    sockets(paths)
}

/// The part of the docker command line's configuration that says where the engine is.
#[derive(Deserialize)]
struct CliConfig {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

fn current_context(options: &ConnectOptions) -> Result<Option<String>> {
    let Some(path) = config_dir(options).map(|directory| directory.join("config.json")) else {
        return Ok(None);
    };
    let Some(bytes) = read(&path)? else {
        return Ok(None);
    };
    let config: CliConfig = parse(&path, &bytes)?;
    Ok(config.current_context)
}

/// What the docker command line keeps of a context.
#[derive(Deserialize)]
struct ContextMeta {
    #[serde(rename = "Endpoints")]
    endpoints: ContextEndpoints,
}

#[derive(Deserialize)]
struct ContextEndpoints {
    docker: ContextEndpoint,
}

#[derive(Deserialize)]
struct ContextEndpoint {
    #[serde(rename = "Host")]
    host: String,
}

fn context(options: &ConnectOptions, name: &str, named_by: &'static str) -> Result<Endpoint> {
    let missing = |why: String| {
        Error::invalid_input(format!("the docker context `{name}` cannot be used: {why}"))
            .with_hint("list the contexts with `docker context ls`, or set DOCKER_HOST")
    };
    let directory = config_dir(options)
        .ok_or_else(|| missing("there is no home directory".to_owned()))?
        .join("contexts");
    let id = HEXLOWER.encode(&Sha256::digest(name.as_bytes()));
    let path = directory.join("meta").join(&id).join("meta.json");
    let bytes =
        read(&path)?.ok_or_else(|| missing(format!("there is no file `{}`", path.display())))?;
    let meta: ContextMeta = parse(&path, &bytes)?;
    let tls = directory.join("tls").join(&id).join("docker");
    Ok(Endpoint {
        url: meta.endpoints.docker.host,
        tls: tls.join("ca.pem").exists().then_some(tls),
        named_by,
    })
}

/// A small file; `None` when it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    use std::io::Read;
    let failed = |error: std::io::Error| {
        Error::invalid_input(format!("cannot read `{}`: {error}", path.display()))
            .with_source(error)
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(Some(bytes))
}

pub(super) fn parse<'a, T: Deserialize<'a>>(path: &Path, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let path = path.display();
        Error::invalid_input(format!("cannot understand `{path}`: {error}"))
    })
}

impl Endpoint {
    /// An endpoint without more.
    #[cfg(test)]
    pub(super) fn for_test(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            tls: None,
            named_by: "a test",
        }
    }

    /// The socket of an engine of this machine.
    pub(super) fn socket(&self) -> Option<&Path> {
        self.url.strip_prefix("unix://").map(Path::new)
    }

    /// A client of the engine; nothing is sent yet.
    ///
    /// # Errors
    /// `InvalidInput` for a form that is not known; `Unavailable` for a socket that is not there.
    pub(super) fn client(&self, version: &ClientVersion) -> Result<Docker> {
        let made = match self.url.split_once("://") {
            Some(("unix", path)) => Docker::connect_with_unix(path, LONGEST_S, version),
            Some(("tcp" | "http" | "https", _)) => match &self.tls {
                Some(directory) => Docker::connect_with_ssl(
                    &self.url,
                    &directory.join("key.pem"),
                    &directory.join("cert.pem"),
                    &directory.join("ca.pem"),
                    LONGEST_S,
                    version,
                ),
                None => Docker::connect_with_http(&self.url, LONGEST_S, version),
            },
            Some(("ssh", _)) => {
                let transport = ssh::transport(&self.url)?;
                let address = Some("http://docker");
                Docker::connect_with_custom_transport(transport, address, LONGEST_S, version)
            }
            _ => {
                return Err(Error::invalid_input(format!(
                    "{:?} is not the address of an engine",
                    self.url
                ))
                .with_hint("write `unix:///path`, `tcp://host:port` or `ssh://user@host`"));
            }
        };
        made.map_err(|error| match error {
            bollard::errors::Error::SocketNotFoundError(path) => Error::new(
                ErrorKind::Unavailable,
                format!("there is no socket `{path}`"),
            ),
            error => failure::error(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, ConnectOptions) {
        let home = tempfile::tempdir().unwrap();
        let mut options = ConnectOptions::for_home(home.path());
        options.xdg_runtime_dir = Some("/run/user/7".into());
        (home, options)
    }

    fn urls(asked: &Asked, options: &ConnectOptions) -> Vec<String> {
        let found = candidates(asked, options).unwrap();
        found.into_iter().map(|endpoint| endpoint.url).collect()
    }

    #[test]
    fn candidates_without_a_word_are_the_sockets() {
        let (_home, options) = home();
        let found = urls(&Asked::Docker, &options);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], "unix:///var/run/docker.sock");
        assert_eq!(found[1], "unix:///run/user/7/docker.sock");
        assert_eq!(urls(&Asked::Podman, &options).len(), 2);
    }

    #[test]
    fn candidates_with_a_named_host_are_that_one() {
        let (_home, mut options) = home();
        options.docker.host = Some("tcp://engine:2376".to_owned());
        options.docker.context = Some("ignored".to_owned());
        options.docker.tls = true;
        let found = candidates(&Asked::Docker, &options).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].tls.is_some());
        options.docker.container_host = Some("ssh://a@b".to_owned());
        assert_eq!(urls(&Asked::Podman, &options), ["ssh://a@b"]);
        assert_eq!(
            urls(&Asked::Url("unix:///x".to_owned()), &options),
            ["unix:///x"]
        );
    }

    #[test]
    fn candidates_follow_the_context_in_use() {
        let (home, mut options) = home();
        let id = HEXLOWER.encode(&Sha256::digest(b"far"));
        let directory = home.path().join(".docker/contexts/meta").join(&id);
        std::fs::create_dir_all(&directory).unwrap();
        let meta = r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2375"}}}"#;
        std::fs::write(directory.join("meta.json"), meta).unwrap();
        let config = home.path().join(".docker/config.json");
        std::fs::write(&config, r#"{"currentContext":"far","auths":{}}"#).unwrap();
        assert_eq!(urls(&Asked::Docker, &options), ["tcp://far:2375"]);

        options.docker.context = Some("default".to_owned());
        assert_eq!(urls(&Asked::Docker, &options).len(), 3);

        options.docker.context = Some("missing".to_owned());
        let error = candidates(&Asked::Docker, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().contains("missing"), "{error}");

        std::fs::write(&config, "{").unwrap();
        options.docker.context = None;
        let error = candidates(&Asked::Docker, &options).unwrap_err();
        assert!(error.message().contains("config.json"), "{error}");
    }

    #[test]
    fn client_of_an_unknown_form_is_invalid_input() {
        let error = Endpoint::for_test("ftp://x").client(&OLDEST).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
