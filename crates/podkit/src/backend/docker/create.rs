//! Making a container.

use std::{path::PathBuf, time::SystemTime};

use bollard::{
    models::{ImageConfig, NetworkConnectRequest},
    query_parameters::CreateContainerOptionsBuilder,
};

use super::{DockerBackend, convert, convert::Circumstances, failure, networks};
use crate::{
    backend::ContainerSpec,
    config::Network,
    error::{Error, ErrorKind, Result},
    id::ContainerId,
};

impl DockerBackend {
    /// What the image says.
    async fn image_config(&self, name: &str) -> Result<ImageConfig> {
        match self.docker.inspect_image(name).await {
            Ok(image) => Ok(image.config.unwrap_or_default()),
            Err(error) if failure::is_missing(&error) => Err(no_image(name, error)),
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
        let link = self.link_directory(&spec.name);
        let mut around = Circumstances {
            facts: &self.facts,
            agent: &self.agent.name,
            agent_labels: self.agent.labels(),
            link: link.as_deref(),
            now: SystemTime::now(),
            image: image.as_ref(),
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
                return Ok(());
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
                return Err(no_image(name, error));
            }
            if networks::is_missing(&error) {
                networks::ensure(&self.docker, self.facts.flavor).await?;
                continue;
            }
            return Err(self.failed(error));
        }
    }

    pub(super) fn note_dials(&self, yes: bool) {
        if self.dials.note(yes)
            && let Some(memory) = &self.memory
        {
            memory.remember(&self.facts, Some(yes));
        }
    }

    /// Connects to networks that the order could not hold.
    pub(super) async fn connect_networks(&self, spec: &ContainerSpec) -> Result<()> {
        let Network::Named(names) = &spec.network else {
            return Ok(());
        };
        let held = convert::networks_in_order(&spec.network, &self.facts).len();
        for name in names.iter().skip(held) {
            let request = NetworkConnectRequest {
                container: spec.name.to_string(),
                endpoint_config: Some(convert::endpoint(spec)),
            };
            self.docker
                .connect_network(name, request)
                .await
                .map_err(|error| self.failed(error))?;
        }
        Ok(())
    }
}

fn no_image(name: &str, error: bollard::errors::Error) -> Error {
    Error::new(
        ErrorKind::ImageNotFound,
        format!("the engine does not have the image `{name}`"),
    )
    .with_source(error)
}
