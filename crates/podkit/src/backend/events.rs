//! What happens to containers, told by the engine: the optional part of engines that can.

use std::{collections::BTreeMap, fmt, time::SystemTime};

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{error::Result, id::ContainerId};

/// Tells what happens to containers.
///
/// # Contract
/// - Each thing that happens is told once, in the order in which it happened.
/// - The stream ends, or gives an error, when the engine is gone; nothing is repeated.
#[async_trait]
pub trait Events: fmt::Debug + Send + Sync {
    /// What has happened since a moment, and happens from now on, to the containers that it is about.
    async fn watch(
        &self,
        about: &Watched,
        since: SystemTime,
    ) -> Result<BoxStream<'static, Result<ContainerEvent>>>;
}

/// Which containers a stream of events is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Watched {
    /// This one, whatever its lives.
    Container(ContainerId),
    /// Those that carry all of these labels.
    Labels(BTreeMap<String, String>),
}

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerEvent {
    /// Its name.
    pub container: ContainerId,
    /// What happened.
    pub kind: ContainerEventKind,
    /// When.
    pub at: SystemTime,
}

impl ContainerEvent {
    /// An event from its parts.
    #[must_use]
    pub const fn new(container: ContainerId, kind: ContainerEventKind, at: SystemTime) -> Self {
        Self {
            container,
            kind,
            at,
        }
    }
}

/// What happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContainerEventKind {
    /// It was made.
    Created,
    /// It was started.
    Started,
    /// It ended.
    Ended,
    /// The kernel killed one of its processes for memory.
    OutOfMemory,
    /// It was frozen.
    Paused,
    /// It was thawed.
    Resumed,
    /// It was removed.
    Removed,
}
