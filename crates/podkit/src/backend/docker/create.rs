//! Making a container.

use std::{
    borrow::Cow,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::SystemTime,
};

use bollard::{
    models::{EndpointSettings, ImageConfig, NetworkConnectRequest},
    query_parameters::CreateContainerOptionsBuilder,
};

use super::{DockerBackend, Flavor, convert, convert::Circumstances, failure, networks};
use crate::{
    backend::{ContainerSpec, ports},
    config::{MountSource, Network, Port, Protocol},
    error::{Error, ErrorKind, Result},
    id::ContainerId,
};

impl DockerBackend {
    /// What the image says.
    async fn image_config(&self, name: &str) -> Result<ImageConfig> {
        match self.docker.inspect_image(name).await {
            Ok(image) => Ok(image.config.unwrap_or_default()),
            Err(error) if failure::is_missing(&error) => Err(no_image(name)),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The directory for the agent's clients, where agents can reach it.
    fn link_directory(&self, id: &ContainerId) -> Option<PathBuf> {
        let links = self.links.as_ref()?;
        (self.dials.known() != Some(false)).then(|| links.make(id))?
    }

    pub(super) async fn order(&self, spec: &ContainerSpec) -> Result<()> {
        let name = convert::image(spec)?;
        let image = if convert::needs_image(&spec.main) {
            Some(self.image_config(name).await?)
        } else {
            None
        };
        if let Network::Named(names) = &spec.network {
            for name in names {
                networks::check(&self.docker, name).await?;
            }
        }
        let shared = self.links.is_some() && self.dials.known() != Some(false);
        if shared {
            self.check_sources(spec)?;
        }
        let spec = &self.with_ports_chosen(spec, shared)?;
        let link = self.link_directory(&spec.name);
        let made = self
            .order_with(spec, name, image.as_ref(), link.as_deref())
            .await;
        match (made, link, &self.links) {
            (Ok(true), Some(directory), _) => {
                let mut directories = self.directories.lock();
                directories.insert(spec.name.clone(), directory);
                Ok(())
            }
            (made, Some(directory), Some(links)) => {
                // One that was made all the same, and not told, needs it; a sweep looks.
                if made.as_ref().is_err_and(is_refusal) {
                    links.remove(&directory);
                }
                made.map(drop)
            }
            (made, ..) => made.map(drop),
        }
    }

    /// Orders a container: whether it sees the directory for the agent's clients.
    async fn order_with(
        &self,
        spec: &ContainerSpec,
        name: &str,
        image: Option<&ImageConfig>,
        link: Option<&Path>,
    ) -> Result<bool> {
        let mut around = Circumstances {
            facts: &self.facts,
            agent: &self.agent.name,
            agent_labels: self.agent.labels(),
            link,
            now: SystemTime::now(),
            image,
        };
        let mut options = CreateContainerOptionsBuilder::new().name(spec.name.as_str());
        if let Some(platform) = &spec.platform {
            options = options.platform(platform);
        }
        let options = options.build();
        loop {
            let body = convert::body(spec, &around)?;
            let made = self
                .docker
                .create_container(Some(options.clone()), body)
                .await;
            let Err(error) = made else {
                return Ok(around.link.is_some());
            };
            let link_unseen = around.link.is_some_and(|directory| {
                let directory = directory.display().to_string().to_lowercase();
                failure::says(&error, &[&directory]) && !failure::says(&error, &["in use"])
            });
            if link_unseen {
                // The engine has another file system, as in a virtual machine.
                around.link = None;
                self.note_dials(false);
                continue;
            }
            if failure::is_missing(&error) && failure::says(&error, &["image"]) {
                return Err(no_image(name));
            }
            if failure::says(&error, &["invalid reference", "normalizing name"]) {
                let text = failure::error(error).message().to_owned();
                return Err(Error::invalid_input(format!(
                    "`{name}` is not the name of an image: {text}"
                )));
            }
            if networks::is_missing(&error) {
                networks::ensure(&self.docker, self.facts.flavor).await?;
                continue;
            }
            return Err(self.failed(error));
        }
    }

    /// The same order with numbers for the ports of the host's that may be any: engines choose anew at each
    /// start. Those that this machine can be asked about are free.
    fn with_ports_chosen<'a>(
        &self,
        spec: &'a ContainerSpec,
        shared: bool,
    ) -> Result<Cow<'a, ContainerSpec>> {
        if shared {
            spec.ports.iter().try_for_each(check_port)?;
        }
        if spec.ports.iter().all(|port| port.host_number().is_some()) {
            return Ok(Cow::Borrowed(spec));
        }
        let refused = self.refused.lock().get(&spec.name).copied().unwrap_or(0);
        let mut chosen = spec.clone();
        for nth in 0..chosen.ports.len() {
            let Some(port) = chosen.ports.get(nth).copied() else {
                break;
            };
            if port.host_number().is_some() {
                continue;
            }
            for number in ports::candidates(&spec.name, &port).skip(refused) {
                let at = port.at(number);
                if chosen.ports.iter().any(|other| overlap(other, &at)) {
                    continue;
                }
                match check_port(&at) {
                    Err(error) if shared && error.kind() == ErrorKind::Conflict => continue,
                    Err(error) if shared => return Err(error),
                    _ => {}
                }
                if let Some(port) = chosen.ports.get_mut(nth) {
                    *port = at;
                }
                break;
            }
        }
        Ok(Cow::Owned(chosen))
    }

    /// Podman makes a mount's source where it is missing, silently.
    ///
    /// # Errors
    /// `InvalidInput` naming it.
    fn check_sources(&self, spec: &ContainerSpec) -> Result<()> {
        if self.facts.flavor != Flavor::Podman {
            return Ok(());
        }
        for mount in &spec.mounts {
            let MountSource::Bind(source) = &mount.source else {
                continue;
            };
            if let Err(error) = source.symlink_metadata() {
                return Err(Error::invalid_input(format!(
                    "the mount source `{}` cannot be used",
                    source.display()
                ))
                .with_source(error)
                .with_hint("make it first; podkit never makes a mount source"));
            }
        }
        Ok(())
    }

    pub(super) fn note_dials(&self, yes: bool) {
        if self.dials.note(yes)
            && let Some(memory) = &self.memory
        {
            memory.remember(&self.facts, Some(yes));
        }
    }

    /// Connects to networks that the order could not hold; succeeds for those that it is connected to.
    pub(super) async fn connect_networks(
        &self,
        id: &ContainerId,
        names: &[String],
        endpoint: EndpointSettings,
    ) -> Result<()> {
        for name in names {
            let request = NetworkConnectRequest {
                container: id.to_string(),
                endpoint_config: Some(endpoint.clone()),
            };
            match self.docker.connect_network(name, request).await {
                Err(error)
                    if !failure::says(&error, &["already exists in", "already connected"]) =>
                {
                    return Err(self.failed(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether nothing was made for sure.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AlreadyExists
            | ErrorKind::NotFound
            | ErrorKind::ImageNotFound
            | ErrorKind::InvalidInput
            | ErrorKind::Conflict
            | ErrorKind::Unsupported
            | ErrorKind::PermissionDenied
    )
}

/// Checks that nobody has a port of this machine's. Whoever takes it between this and the start is
/// told by the engine.
///
/// # Errors
/// `Conflict` for a port that is taken, `InvalidInput` for an address that is not this machine's.
fn check_port(port: &Port) -> Result<()> {
    let Some(number) = port.host_number() else {
        return Ok(());
    };
    let address = SocketAddr::new(port.address, number);
    let taken = match port.protocol {
        Protocol::Tcp => TcpListener::bind(address).err(),
        Protocol::Udp => UdpSocket::bind(address).err(),
    };
    let shown = format!("{address}/{}", port.protocol.as_str());
    match taken.as_ref().map(std::io::Error::kind) {
        Some(std::io::ErrorKind::AddrInUse) => Err(Error::new(
            ErrorKind::Conflict,
            format!("the port {shown} is taken"),
        )
        .with_hint("offer it at another port, or at `0` for any free one")),
        Some(std::io::ErrorKind::AddrNotAvailable) => Err(Error::invalid_input(format!(
            "the port {shown} is on an address that this machine does not have"
        ))),
        // What this process may not use, the engine may.
        _ => Ok(()),
    }
}

/// Whether two ports cannot both be had.
fn overlap(one: &Port, other: &Port) -> bool {
    one.protocol == other.protocol && one.host_number() == other.host_number()
}

pub(super) fn no_image(name: &str) -> Error {
    Error::new(
        ErrorKind::ImageNotFound,
        format!("the engine does not have the image `{name}`"),
    )
}
