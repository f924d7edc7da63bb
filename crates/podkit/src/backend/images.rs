//! Images by name: the optional part of engines that keep them.

use std::{fmt, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::Serialize;

use crate::error::Result;

/// Keeps images by name.
///
/// # Contract
/// - Names are as the engine has them: `python:3.12`, `registry:5000/a/b@sha256:…`.
/// - A dropped call leaves what the engine had before, or the whole image.
#[async_trait]
pub trait Images: fmt::Debug + Send + Sync {
    /// Fetches an image from its registry, and tells how far that is.
    ///
    /// `ImageNotFound` when the registry does not have it, `PermissionDenied` when it does not give
    /// it to this user, `Unsupported` when it has none for the platform, `Unavailable` when it cannot
    /// be reached.
    async fn pull(&self, request: &PullRequest, tell: &Observer<'_>) -> Result<()>;

    /// Every image that has a name.
    async fn list(&self) -> Result<Vec<ImageInfo>>;

    /// One image; `ImageNotFound`.
    async fn inspect(&self, name: &str) -> Result<ImageInfo>;

    /// Takes a name away, and the image with its last one; succeeds when it is gone. `Conflict`
    /// while a container uses it.
    async fn remove(&self, name: &str) -> Result<()>;

    /// Makes an image from a tar archive of a root file system.
    async fn import(
        &self,
        name: &str,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<()>;
}

/// What is told of a pull while it goes on.
pub type Observer<'a> = dyn Fn(&PullProgress) + Send + Sync + 'a;

/// What to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullRequest {
    /// Name, as in [`Images`].
    pub image: String,
    /// Platform, as `linux/amd64`; the engine's own without.
    pub platform: Option<String>,
}

impl PullRequest {
    /// Fetches an image for the engine's own platform.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            platform: None,
        }
    }

    /// Says for which platform.
    #[must_use]
    pub fn with_platform(mut self, platform: Option<String>) -> Self {
        self.platform = platform;
        self
    }
}

/// How far the fetching of an image is. The texts come from the engine and the registry: they are
/// cut to one harmless line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PullProgress {
    /// The image.
    pub image: String,
    /// The layer that this is about; none for what concerns the image as a whole.
    pub layer: Option<String>,
    /// What goes on, in the engine's words: `Downloading`.
    pub status: String,
    /// Bytes that are done.
    pub current: u64,
    /// Bytes in all, where they are known.
    pub total: Option<u64>,
}

/// An image of an engine's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImageInfo {
    /// The engine's own name: a digest.
    pub id: String,
    /// Names with tags.
    pub names: Vec<String>,
    /// Names with digests of registries.
    pub digests: Vec<String>,
    /// Bytes on disk, shared layers included.
    pub size_bytes: u64,
    /// When it was made.
    #[serde(skip)]
    pub created_at: Option<SystemTime>,
    /// Platform, as `linux/amd64`, where the engine says.
    pub platform: Option<String>,
    /// What it runs by itself.
    pub entrypoint: Vec<String>,
    /// Arguments of that.
    pub command: Vec<String>,
    /// User of that.
    pub user: Option<String>,
}
