//! The container that the client itself runs in: the optional part of engines that can tell.

use std::fmt;

use async_trait::async_trait;

use crate::{error::Result, id::ContainerId};

/// Tells a client that runs in one of the engine's containers which one that is.
///
/// # Contract
/// - What is told is proven: by what the kernel says of this process, matched with what the engine
///   says of the container. A host name proves nothing.
/// - A client that runs elsewhere, or in a container of another engine's, has no parent.
#[async_trait]
pub trait Parents: fmt::Debug + Send + Sync {
    /// The container that this process runs in; `None` where it runs in none of this engine's.
    async fn parent(&self) -> Result<Option<ParentInfo>>;
}

/// The container that this process runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParentInfo {
    /// The engine's id.
    pub id: ContainerId,
    /// Name.
    pub name: String,
    /// Id of its image, which no tag moves.
    pub image: String,
    /// Its networks by name: the one it was made with, then the others in the engine's order. None
    /// for one on the host's network, or on no network.
    pub networks: Vec<String>,
}
