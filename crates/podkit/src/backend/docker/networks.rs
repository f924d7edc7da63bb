//! podkit's own network: outbound, and no way from one container to another.

use std::collections::HashMap;

use bollard::{Docker, models::NetworkCreateRequest, query_parameters::ListNetworksOptionsBuilder};

use super::{Flavor, failure};
use crate::error::{Error, ErrorKind, Result};

/// Name of the network.
const NAME: &str = "podkit";

/// Label of the network.
const LABEL: &str = "podkit.network";

/// The network of containers that name none.
pub(super) const fn default_name(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Docker | Flavor::Podman => NAME,
    }
}

/// Whether a call failed because podkit's network is not there yet, or was pruned.
pub(super) fn is_missing(error: &bollard::errors::Error) -> bool {
    failure::says(error, &["network"])
        && failure::says(error, &["not found", "no such network", "does not exist"])
        && failure::says(error, &[NAME])
}

/// Makes podkit's network, unless it is there.
///
/// # Errors
/// What the engine says; `Conflict` for a network of this name that is somebody else's.
pub(super) async fn ensure(docker: &Docker, flavor: Flavor) -> Result<()> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let options = match flavor {
        Flavor::Docker => HashMap::from([
            pair("com.docker.network.bridge.enable_icc", "false"),
            pair("com.docker.network.bridge.name", "podkit0"),
        ]),
        Flavor::Podman => HashMap::new(),
    };
    let order = NetworkCreateRequest {
        name: NAME.to_owned(),
        driver: Some("bridge".to_owned()),
        options: Some(options),
        labels: Some(HashMap::from([pair(LABEL, "1")])),
        ..NetworkCreateRequest::default()
    };
    match docker.create_network(order).await {
        Ok(_) => Ok(()),
        // The name of the bridge is the lock: of several that make it, one succeeds.
        Err(error) if failure::says(&error, &["already exists", "conflicts", "already used"]) => {
            own(docker).await
        }
        Err(error) => Err(failure::error(error)),
    }
}

/// Checks that the network is podkit's.
async fn own(docker: &Docker) -> Result<()> {
    let filter = HashMap::from([("label", vec![LABEL])]);
    let options = ListNetworksOptionsBuilder::new().filters(&filter).build();
    let networks = docker
        .list_networks(Some(options))
        .await
        .map_err(failure::error)?;
    if networks.iter().any(|one| one.name.as_deref() == Some(NAME)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!("the engine has a network `{NAME}`, or a bridge `podkit0`, that is not podkit's"),
    )
    .with_hint(format!(
        "remove it with `docker network rm {NAME}`, or name another `network`"
    )))
}

/// Checks that a named network is there.
///
/// # Errors
/// `InvalidInput` naming it.
pub(super) async fn check(docker: &Docker, name: &str) -> Result<()> {
    match docker.inspect_network(name, None).await {
        Ok(_) => Ok(()),
        Err(error) if failure::is_missing(&error) => Err(Error::invalid_input(format!(
            "the engine has no network `{name}`"
        ))
        .with_hint("podkit makes no networks that were named; make it first")),
        Err(error) => Err(failure::error(error)),
    }
}
