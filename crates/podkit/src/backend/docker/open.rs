//! Finding the engine and what it is.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    Asked, Dials, DockerBackend, Flavor,
    agent_volume::AgentVolume,
    credentials::Credentials,
    endpoint,
    facts::{Facts, Memory},
    link::Links,
    parent::Traces,
};
use crate::{
    backend::{
        BackendRef,
        admission::Admission,
        connect::{ConnectOptions, run_dir},
    },
    error::{Error, ErrorKind, Result},
    sync::Lock,
};

/// How long an engine has to say what it is.
const HELLO: Duration = Duration::from_secs(10);

impl DockerBackend {
    /// Connects to Docker, where its command line would find it.
    ///
    /// # Errors
    /// - `Unavailable` when nothing answers, with all that was tried.
    /// - `InvalidInput` for a context or an address that cannot be used.
    /// - `Unsupported` for an engine that is too old, or of another architecture.
    pub async fn docker(options: &ConnectOptions) -> Result<BackendRef> {
        Self::open(&Asked::Docker, options).await
    }

    /// Connects to Podman's service, where its command line would find it.
    ///
    /// # Errors
    /// As [`docker`](Self::docker).
    pub async fn podman(options: &ConnectOptions) -> Result<BackendRef> {
        Self::open(&Asked::Podman, options).await
    }

    /// Connects to the engine at a URL: `unix://`, `tcp://`, `http://`, `https://` or `ssh://`.
    ///
    /// # Errors
    /// As [`docker`](Self::docker).
    pub async fn at(url: &str, options: &ConnectOptions) -> Result<BackendRef> {
        Self::open(&Asked::Url(url.to_owned()), options).await
    }

    async fn open(asked: &Asked, options: &ConnectOptions) -> Result<BackendRef> {
        let mut failures = Vec::new();
        let candidates = endpoint::candidates(asked, options)?;
        let only = candidates.len() == 1;
        for candidate in candidates {
            match Self::try_open(&candidate, options).await {
                Ok(backend) => return Ok(Arc::new(backend)),
                Err(error) if only && error.kind() == ErrorKind::InvalidInput => return Err(error),
                Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
                Err(error) => failures.push((candidate.to_string(), error)),
            }
        }
        Err(nobody(asked, &failures))
    }

    async fn try_open(endpoint: &endpoint::Endpoint, options: &ConnectOptions) -> Result<Self> {
        let run_dir = run_dir(options);
        let local = endpoint.socket().and(run_dir.as_ref());
        let memory = local.and_then(|run_dir| Memory::of(endpoint, run_dir));
        let (facts, dials) = match memory.as_ref().and_then(Memory::recall) {
            Some(remembered) => remembered,
            None => {
                let docker = endpoint.client(&endpoint::OLDEST)?;
                let asked = timeout(HELLO, Facts::ask(&docker)).await;
                let facts = asked.unwrap_or_else(|_| {
                    Err(Error::new(
                        ErrorKind::TimedOut,
                        format!("no answer within {HELLO:?}"),
                    ))
                })?;
                if let Some(memory) = &memory {
                    memory.remember(&facts, None);
                }
                (facts, None)
            }
        };
        let backend = Self {
            docker: endpoint.client(&facts.version())?,
            url: endpoint.url.clone(),
            agent: AgentVolume::new(&facts.arch)?,
            credentials: Credentials::new(facts.flavor, options),
            admission: Admission::new(match local {
                Some(_) => options.reserve_memory,
                None => Some(0),
            }),
            links: local.map(|run_dir| Links::new(run_dir, &endpoint.url)),
            facts,
            memory,
            dials: Dials::new(dials),
            seen: Lock::default(),
            directories: Lock::default(),
            refused: Lock::default(),
        };
        if dials.is_none() && backend.links.is_some() {
            Box::pin(backend.look_around()).await?;
        }
        Ok(backend)
    }

    /// Notes that the engine is outside of the container that this process runs in: it has another
    /// file system, other pids and other ports, so agents do not reach sockets that are made here.
    async fn look_around(&self) -> Result<()> {
        let traces = Traces::read();
        if traces.are_of_a_container()
            && let Ok(found) = timeout(HELLO, self.find_parent(&traces)).await
            && found?.is_some()
        {
            self.note_dials(false);
        }
        Ok(())
    }
}

/// How an engine that does not answer is started.
pub(super) const fn start_hint(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Docker => {
            "start it with `systemctl start docker`, or say where it is with DOCKER_HOST"
        }
        Flavor::Podman => {
            "start it with `systemctl start podman.socket` (as a user: `systemctl --user …`), or say \
             where it is with CONTAINER_HOST"
        }
    }
}

/// Nobody answered, with all that was tried.
fn nobody(asked: &Asked, failures: &[(String, Error)]) -> Error {
    let tried: Vec<String> = failures
        .iter()
        .map(|(place, error)| format!("{place}: {}", error.message()))
        .collect();
    let (engine, hint) = match asked {
        Asked::Docker => ("Docker", start_hint(Flavor::Docker)),
        Asked::Podman => ("Podman", start_hint(Flavor::Podman)),
        Asked::Url(_) => (
            "the engine",
            "check the address, and that the engine runs there",
        ),
    };
    let denied = failures
        .iter()
        .all(|(_, error)| error.kind() == ErrorKind::PermissionDenied);
    let kind = if denied && !failures.is_empty() {
        ErrorKind::PermissionDenied
    } else {
        ErrorKind::Unavailable
    };
    Error::new(
        kind,
        format!("{engine} does not answer; tried {}", tried.join("; ")),
    )
    .with_hint(hint)
}
