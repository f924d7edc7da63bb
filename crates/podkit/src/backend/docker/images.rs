//! Images of an engine's.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bollard::{
    body_try_stream,
    errors::Error as EngineError,
    models::{CreateImageInfo, ImageInspect},
    query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions},
};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};

use super::{DockerBackend, Flavor, failure, inspect, reference::Reference};
use crate::{
    backend::images::{ImageInfo, Images, Observer, PullProgress, PullRequest},
    error::{Error, ErrorKind, Result},
};

#[async_trait]
impl Images for DockerBackend {
    async fn pull(&self, request: &PullRequest, tell: &Observer<'_>) -> Result<()> {
        let reference = Reference::parse(&request.image)?;
        let credentials = self.credentials.find(&reference).await?;
        let mut options = CreateImageOptionsBuilder::new().from_image(&reference.name);
        if let Some(tag) = &reference.tag {
            options = options.tag(tag);
        }
        if let Some(platform) = &request.platform {
            options = options.platform(platform);
        }
        let options = options.build();
        let known = credentials.is_some();
        let mut events = Box::pin(self.docker.create_image(Some(options), None, credentials));
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| pull_error(error, &reference, known))?;
            if let Some(detail) = &event.error_detail {
                let error = EngineError::DockerStreamError {
                    error: detail.message.clone().unwrap_or_default(),
                };
                return Err(pull_error(error, &reference, known));
            }
            tell(&progress(&request.image, event));
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<ImageInfo>> {
        let options = ListImagesOptionsBuilder::new().all(false).build();
        let found = self
            .docker
            .list_images(Some(options))
            .await
            .map_err(|error| self.failed(error))?;
        let mut images: Vec<ImageInfo> = found
            .into_iter()
            .map(|one| ImageInfo {
                id: one.id,
                names: named(one.repo_tags),
                digests: named(one.repo_digests),
                size_bytes: u64::try_from(one.size).unwrap_or(0),
                created_at: u64::try_from(one.created)
                    .ok()
                    .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
                platform: None,
                entrypoint: Vec::new(),
                command: Vec::new(),
                user: None,
            })
            .filter(|image| !image.names.is_empty() || !image.digests.is_empty())
            .collect();
        images.sort_by(|a, b| a.names.cmp(&b.names));
        Ok(images)
    }

    async fn inspect(&self, name: &str) -> Result<ImageInfo> {
        Reference::parse(name)?;
        match self.docker.inspect_image(name).await {
            Ok(image) => Ok(info(image)),
            Err(error) if failure::is_missing(&error) => Err(super::create::no_image(name)),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn remove(&self, name: &str) -> Result<()> {
        Reference::parse(name)?;
        let removed = self
            .docker
            .remove_image(name, None::<RemoveImageOptions>, None)
            .await;
        match removed {
            Ok(_) => Ok(()),
            Err(error) if failure::is_missing(&error) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn import(
        &self,
        name: &str,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<()> {
        let reference = Reference::parse(name)?;
        if reference.tag.is_none() {
            return Err(Error::invalid_input(format!(
                "an image cannot be given the digest in `{name}`"
            )));
        }
        // Podman would take a name without a registry for one of Docker's, and not find it again.
        let local = self.facts.flavor == Flavor::Podman && !reference.names_registry;
        let repository = if local {
            format!("localhost/{}", reference.name)
        } else {
            reference.name.clone()
        };
        let tag = reference.tag.as_deref().unwrap_or_default();
        let options = CreateImageOptionsBuilder::new().from_src("-");
        let options = match self.facts.flavor {
            Flavor::Docker => options.repo(&repository).tag(tag).build(),
            // It reads the tag here.
            Flavor::Podman => options.repo(&format!("{repository}:{tag}")).build(),
        };
        let mut events = Box::pin(self.docker.create_image(
            Some(options),
            Some(body_try_stream(archive)),
            None,
        ));
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| self.failed(error))?;
            if let Some(detail) = event.error_detail {
                let text = failure::shown(&detail.message.unwrap_or_default());
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("the archive cannot be imported: {text}"),
                ));
            }
        }
        Ok(())
    }
}

fn named(names: Vec<String>) -> Vec<String> {
    let mut names = names;
    names.retain(|name| !name.contains("<none>"));
    names.sort_unstable();
    names
}

fn info(image: ImageInspect) -> ImageInfo {
    let config = image.config.unwrap_or_default();
    let platform = image.os.zip(image.architecture);
    ImageInfo {
        id: image.id.unwrap_or_default(),
        names: named(image.repo_tags.unwrap_or_default()),
        digests: named(image.repo_digests.unwrap_or_default()),
        size_bytes: u64::try_from(image.size.unwrap_or(0)).unwrap_or(0),
        created_at: image.created.as_deref().and_then(inspect::time),
        platform: platform.map(|(os, architecture)| format!("{os}/{architecture}")),
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        user: config.user.filter(|user| !user.is_empty()),
    }
}

fn progress(image: &str, event: CreateImageInfo) -> PullProgress {
    let detail = event.progress_detail.unwrap_or_default();
    let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    PullProgress {
        image: image.to_owned(),
        layer: event.id.map(|id| failure::shown(&id)),
        status: failure::shown(&event.status.unwrap_or_default()),
        current: number(detail.current).unwrap_or(0),
        total: number(detail.total).filter(|total| *total > 0),
    }
}

/// What a registry refuses, in podkit's words.
fn pull_error(error: EngineError, reference: &Reference, credentials_known: bool) -> Error {
    let text = match &error {
        EngineError::DockerResponseServerError { message, .. } => message.clone(),
        EngineError::DockerStreamError { error } => error.clone(),
        _ => return failure::error(error),
    };
    let small = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| small.contains(word));
    let kind = if says(&["no space left"]) {
        ErrorKind::LimitExceeded
    } else if says(&[
        "no matching manifest",
        "no image found in manifest list",
        "does not match the specified platform",
    ]) {
        ErrorKind::Unsupported
    } else if says(&[
        "unauthorized",
        "authentication required",
        "access denied",
        "access to the resource is denied",
        "no basic auth",
        "access forbidden",
        "invalid username/password",
    ]) {
        ErrorKind::PermissionDenied
    } else if says(&[
        "manifest unknown",
        "not found",
        "name unknown",
        "does not exist",
    ]) {
        ErrorKind::ImageNotFound
    } else if says(&["invalid reference", "invalid tag", "invalid checksum"]) {
        ErrorKind::InvalidInput
    } else if says(&[
        "dial tcp",
        "no such host",
        "timeout",
        "connection refused",
        "connection reset",
        "eof",
        "tls",
        "server gave http response",
    ]) {
        ErrorKind::Unavailable
    } else {
        ErrorKind::Unexpected
    };
    let message = format!(
        "cannot fetch the image `{reference}`: {}",
        failure::shown(&text)
    );
    let error = Error::new(kind, message);
    match kind {
        ErrorKind::PermissionDenied => error.with_hint(if credentials_known {
            format!(
                "the credentials for `{}` may be out of date: log in again",
                reference.registry
            )
        } else {
            format!("log in with `docker login {}`", reference.registry)
        }),
        ErrorKind::Unavailable => error.with_hint(format!(
            "check that the engine's machine reaches `{}`",
            reference.registry
        )),
        ErrorKind::ImageNotFound => error.with_hint("check the name and the tag"),
        _ => error,
    }
}
