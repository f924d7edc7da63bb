//! Networks and image of the container that the client itself runs in.

use super::manager::{ContainerManager, Repeat};
use crate::{
    backend::parent::ParentInfo,
    config::{Network, SessionSpec},
    error::{Error, ErrorKind, Result},
};

impl ContainerManager {
    /// The container that this process runs in, proven; `None` where it runs in none of the engine's.
    ///
    /// # Errors
    /// `Unsupported` for an engine that cannot tell; `Unavailable` or `TimedOut`.
    pub async fn parent(&self) -> Result<Option<ParentInfo>> {
        let parents = self.0.backend.parents().ok_or_else(|| {
            Error::unsupported(format!(
                "the engine `{}` cannot tell which container podkit runs in",
                self.backend_name()
            ))
            .with_hint("use Docker or Podman, whose socket is mounted into the container")
        })?;
        let deadline = self.0.deadlines.inspect;
        let once = || parents.parent();
        self.call(
            "find the own container",
            None,
            deadline,
            Repeat::Idempotent,
            once,
        )
        .await
    }

    /// Puts the networks and the image of the container that this process runs in where a wish asks
    /// for them and names none of its own.
    ///
    /// # Errors
    /// - `Unsupported` for an engine that cannot tell.
    /// - `InvalidInput` where this process runs in none of the engine's containers, or in one without
    ///   a network that has a name.
    pub async fn inherit(&self, mut spec: SessionSpec) -> Result<SessionSpec> {
        let networks = std::mem::take(&mut spec.inherit_networks) && spec.network.is_none();
        let image = std::mem::take(&mut spec.inherit_image) && spec.image.is_none();
        let field = match (networks, image) {
            (false, false) => return Ok(spec),
            (true, _) => "inherit_networks",
            (false, true) => "inherit_image",
        };
        let parent = self.parent().await?.ok_or_else(|| not_inside(field))?;
        if image {
            spec.image = Some(parent.image.clone());
        }
        if networks {
            spec.network = Some(Network::Named(networks_of(parent)?));
        }
        Ok(spec)
    }
}

fn networks_of(parent: ParentInfo) -> Result<Vec<String>> {
    if parent.networks.is_empty() {
        return Err(Error::invalid_input(format!(
            "`inherit_networks`: the container `{}`, in which podkit runs, has no network with a name",
            parent.name
        ))
        .with_hint("name the `network`, or connect that container to one"));
    }
    Ok(parent.networks)
}

fn not_inside(field: &str) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("`{field}`: podkit does not run in a container of this engine's"),
    )
    .with_hint(
        "name the `network` and the `image` instead, or run podkit in a container that has this \
         engine's socket mounted",
    )
}
