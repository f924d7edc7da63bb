//! Images of engines that keep them by name.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::{
    select,
    time::{Instant, sleep_until},
};

use super::manager::{ContainerManager, Repeat};
use crate::{
    backend::{
        ContainerSpec,
        images::{ImageInfo, Images, PullProgress, PullRequest},
    },
    config::Image,
    error::{Error, ErrorKind, Result},
};

/// How long a registry may say nothing in the middle of a pull.
const SILENCE: Duration = Duration::from_secs(60);

/// Is told how far pulls are.
#[derive(Clone)]
pub(crate) struct PullObserver(Arc<dyn Fn(&PullProgress) + Send + Sync>);

impl PullObserver {
    pub(crate) fn new(tell: impl Fn(&PullProgress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl fmt::Debug for PullObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PullObserver")
    }
}

/// Whether an image is named by the engine's own id, which no registry knows.
pub(super) fn is_id(name: &str) -> bool {
    let digits = name.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit())
}

impl ContainerManager {
    /// Has whoever observes this manager told of pulls.
    pub(crate) fn observe_pulls(&self, observer: PullObserver) {
        *self.0.observer.lock() = Some(observer);
    }

    fn images(&self) -> Result<&dyn Images> {
        self.0.backend.images().ok_or_else(|| {
            Error::unsupported(format!(
                "the engine `{}` keeps no images by name",
                self.backend_name()
            ))
            .with_hint("use `host`, `dir:/path` or `tar:/path`, or another engine")
        })
    }

    /// Fetches an order's image.
    pub(super) async fn fetch(&self, spec: &ContainerSpec) -> Result<()> {
        let Image::Reference(name) = &spec.image else {
            return Ok(());
        };
        if is_id(name) {
            return Ok(());
        }
        let request = PullRequest::new(name).with_platform(spec.platform.clone());
        self.pull(&request).await
    }

    /// Fetches an image from its registry.
    ///
    /// # Errors
    /// - `ImageNotFound` when the registry does not have it; `Unsupported` for another platform.
    /// - `PermissionDenied` when the registry does not give it to this user.
    /// - `Unavailable` or `TimedOut` when the registry is not reached, or is silent for a minute.
    ///
    /// # Cancel safety
    /// A dropped call leaves what the engine had before, or the whole image.
    pub async fn pull(&self, request: &PullRequest) -> Result<()> {
        let images = self.images()?;
        let observer = self.0.observer.lock().clone();
        let once = || async {
            let begin = Instant::now();
            let heard = AtomicU64::new(0);
            let tell = |progress: &PullProgress| {
                let elapsed = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
                heard.store(elapsed, Ordering::Relaxed);
                if let Some(observer) = &observer {
                    observer.0(progress);
                }
            };
            let silence = async {
                loop {
                    let until = Duration::from_millis(heard.load(Ordering::Relaxed)) + SILENCE;
                    if begin.elapsed() >= until {
                        return;
                    }
                    sleep_until(begin + until).await;
                }
            };
            select! {
                result = images.pull(request, &tell) => result,
                () = silence => Err(Error::new(
                    ErrorKind::TimedOut,
                    format!("the registry said nothing for {SILENCE:?}"),
                )),
            }
        };
        let deadline = self.0.deadlines.pull;
        self.call("pull image", None, deadline, Repeat::Never, once)
            .await
    }

    /// Every image that the engine keeps by name.
    ///
    /// # Errors
    /// `Unsupported` for an engine that keeps none.
    pub async fn list_images(&self) -> Result<Vec<ImageInfo>> {
        let images = self.images()?;
        let deadline = self.0.deadlines.list;
        let once = || images.list();
        self.call("list images", None, deadline, Repeat::Idempotent, once)
            .await
    }

    /// One image of the engine's.
    ///
    /// # Errors
    /// `ImageNotFound`; `Unsupported` for an engine that keeps none.
    pub async fn inspect_image(&self, name: &str) -> Result<ImageInfo> {
        let images = self.images()?;
        let deadline = self.0.deadlines.inspect;
        let once = || images.inspect(name);
        self.call("inspect image", None, deadline, Repeat::Idempotent, once)
            .await
    }

    /// Takes a name of an image away, and the image with its last one; succeeds when it is gone.
    ///
    /// # Errors
    /// `Conflict` while a container uses it; `Unsupported` for an engine that keeps none.
    pub async fn remove_image(&self, name: &str) -> Result<()> {
        let images = self.images()?;
        let deadline = self.0.deadlines.remove;
        let once = || images.remove(name);
        self.call("remove image", None, deadline, Repeat::Idempotent, once)
            .await
    }

    /// Makes an image from a tar archive of a root file system.
    ///
    /// # Errors
    /// `InvalidInput` for what is no archive; `Unsupported` for an engine that keeps no images.
    ///
    /// # Cancel safety
    /// A dropped call leaves no image, or the whole one.
    pub async fn import_image(
        &self,
        name: &str,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<()> {
        let images = self.images()?;
        let archive = Mutex::new(Some(archive));
        let once = || async {
            let archive = archive.lock().ok().and_then(|mut archive| archive.take());
            let archive = archive
                .ok_or_else(|| Error::new(ErrorKind::Unexpected, "the archive was read before"))?;
            images.import(name, archive).await
        };
        let deadline = self.0.deadlines.pull;
        self.call("import image", None, deadline, Repeat::Never, once)
            .await
    }
}
