//! The agent on an engine: a volume that every container mounts read-only, filled once.

use std::{
    collections::HashMap,
    io::Read,
    time::{Duration, SystemTime},
};

use bollard::{
    Docker, body_full,
    models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions},
    query_parameters::{
        CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder,
        RemoveContainerOptionsBuilder, UploadToContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::TryStreamExt;
use podkit_agent::AgentBinary;
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::{failure, inspect};
use crate::{
    container::jittered,
    error::{Error, ErrorKind, Result},
};

/// Where containers see it.
pub(super) const TARGET: &str = "/.podkit";

/// The agent in it.
pub(super) const PROGRAM: &str = "/.podkit/agent";

/// Label of what belongs to the agent: its volumes, and the containers that fill them.
pub(super) const LABEL: &str = "podkit.agent";

/// Begins the names of the volumes.
const VOLUME: &str = "podkit-agent-";

/// Begins the names of the containers that fill them.
const FILLER: &str = "podkit-agent-fill-";

/// Age at which a filling container's maker is taken for dead.
const STALE: Duration = Duration::from_secs(60);

/// Pause between two looks at somebody else's filling.
const LOOK: Duration = Duration::from_millis(40);

/// The agent for an engine's architecture, and its volume there.
#[derive(Clone, Debug)]
pub(super) struct AgentVolume {
    binary: AgentBinary,
    /// Tells agents apart.
    hash: String,
    pub(super) name: String,
}

impl AgentVolume {
    /// The agent for an architecture.
    ///
    /// # Errors
    /// `Unsupported` for one that this package ships no agent for.
    pub(super) fn new(arch: &str) -> Result<Self> {
        let binary = podkit_agent::binary(arch).ok_or_else(|| {
            let known: Vec<&str> = podkit_agent::BINARIES.iter().map(|one| one.arch).collect();
            Error::unsupported(format!(
                "there is no agent for the engine's architecture `{arch}`"
            ))
            .with_hint(format!("use an engine of: {}", known.join(", ")))
        })?;
        let hash = binary
            .sha256
            .trim()
            .get(..16)
            .unwrap_or_default()
            .to_owned();
        Ok(Self {
            binary: *binary,
            name: format!("{VOLUME}{hash}"),
            hash,
        })
    }

    pub(super) fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), self.hash.clone())])
    }

    /// Whether a start failed because the volume is empty: fresh, or pruned.
    pub(super) fn is_missing(error: &bollard::errors::Error) -> bool {
        let program = failure::says(error, &[PROGRAM]);
        program
            && failure::says(
                error,
                &[
                    "no such file",
                    "not found",
                    "exec format error",
                    "permission denied",
                ],
            )
    }

    /// Fills the volume by a container that is never started. Of several that try, in whatever
    /// process, one does it and the others wait for it.
    ///
    /// # Errors
    /// What the engine says.
    ///
    /// # Cancel safety
    /// A dropped call leaves a labelled container, which the next filling or a sweep removes.
    pub(super) async fn fill(&self, docker: &Docker, image: &str) -> Result<()> {
        let filler = format!("{FILLER}{}", self.hash);
        loop {
            let options = CreateContainerOptionsBuilder::new().name(&filler).build();
            let made = docker
                .create_container(Some(options), self.filler(image))
                .await;
            match made {
                Ok(_) => break,
                Err(error) => {
                    let error = failure::error(error);
                    if error.kind() != ErrorKind::AlreadyExists {
                        return Err(error);
                    }
                }
            }
            if self.filled_by_another(docker, &filler).await? {
                return Ok(());
            }
        }
        let done = self.send(docker, &filler).await;
        let removed = remove(docker, &filler).await;
        done.and(removed)
    }

    fn filler(&self, image: &str) -> ContainerCreateBody {
        ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(vec![PROGRAM.to_owned()]),
            labels: Some(self.labels()),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                mounts: Some(vec![Mount {
                    target: Some(TARGET.to_owned()),
                    source: Some(self.name.clone()),
                    typ: Some(MountType::VOLUME),
                    volume_options: Some(MountVolumeOptions {
                        no_copy: Some(true),
                        labels: Some(self.labels()),
                        ..MountVolumeOptions::default()
                    }),
                    ..Mount::default()
                }]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// Waits for another's filling: whether it is done. One whose maker is dead is taken away.
    async fn filled_by_another(&self, docker: &Docker, filler: &str) -> Result<bool> {
        loop {
            let answer = match docker.inspect_container(filler, None).await {
                Ok(answer) => answer,
                Err(error) if failure::is_missing(&error) => return Ok(true),
                Err(error) => return Err(failure::error(error)),
            };
            let created = answer.created.as_deref().and_then(inspect::time);
            let age = created.and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age > STALE) {
                remove(docker, filler).await?;
                return Ok(false);
            }
            sleep(jittered(LOOK)).await;
        }
    }

    /// Puts the agent in. It appears by a link once all of it is there.
    async fn send(&self, docker: &Docker, filler: &str) -> Result<()> {
        let archive = archive(self.binary.bytes).map_err(|error| {
            Error::new(
                ErrorKind::Unexpected,
                format!("cannot pack the agent: {error}"),
            )
        })?;
        let options = UploadToContainerOptionsBuilder::new().path(TARGET).build();
        docker
            .upload_to_container(filler, Some(options), body_full(Bytes::from(archive)))
            .await
            .map_err(failure::error)?;
        let options = DownloadFromContainerOptionsBuilder::new()
            .path(PROGRAM)
            .build();
        let limit = self.binary.bytes.len() + (1 << 20);
        let mut back = Vec::new();
        let mut chunks = Box::pin(docker.download_from_container(filler, Some(options)));
        while let Some(chunk) = chunks.try_next().await.map_err(failure::error)? {
            back.extend_from_slice(&chunk);
            if back.len() > limit {
                break;
            }
        }
        let hash = unpacked_hash(&back);
        if hash.as_deref() == Some(self.binary.sha256.trim()) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unexpected,
            format!(
                "the agent in the volume `{}` is not what was sent",
                self.name
            ),
        )
        .with_hint(format!("remove it with `docker volume rm {}`", self.name)))
    }

    /// Removes agents of other versions that no container uses, and containers that were to fill a
    /// volume and whose maker is dead.
    ///
    /// # Errors
    /// What keeps the engine from looking.
    pub(super) async fn sweep(
        &self,
        docker: &Docker,
        min_age: Duration,
        report: &mut crate::backend::SweepReport,
    ) -> Result<()> {
        use bollard::query_parameters::{
            ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveVolumeOptions,
        };
        let filter = HashMap::from([("label", vec![LABEL])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filter)
            .build();
        let fillers = docker
            .list_containers(Some(options))
            .await
            .map_err(failure::error)?;
        for filler in fillers {
            let created = u64::try_from(filler.created.unwrap_or(0)).unwrap_or(0);
            let created = SystemTime::UNIX_EPOCH + Duration::from_secs(created);
            let age = SystemTime::now().duration_since(created);
            let id = filler.id.unwrap_or_default();
            if age.is_ok_and(|age| age > min_age.max(STALE)) {
                match remove(docker, &id).await {
                    Ok(()) => report
                        .removed
                        .push(format!("container `{id}` of a crashed client")),
                    Err(error) => report.failed.push(format!("container `{id}`: {error}")),
                }
            }
        }
        let options = ListVolumesOptionsBuilder::new().filters(&filter).build();
        let volumes = docker
            .list_volumes(Some(options))
            .await
            .map_err(failure::error)?;
        for volume in volumes.volumes.unwrap_or_default() {
            if volume.name == self.name || !volume.name.starts_with(VOLUME) {
                continue;
            }
            match docker
                .remove_volume(&volume.name, None::<RemoveVolumeOptions>)
                .await
            {
                Ok(()) => report.removed.push(format!("volume `{}`", volume.name)),
                // In use, or gone.
                Err(error) if matches!(failure::refusal(&error), Some((404 | 409, _))) => {}
                Err(error) => {
                    let error = failure::error(error);
                    report
                        .failed
                        .push(format!("volume `{}`: {error}", volume.name));
                }
            }
        }
        Ok(())
    }
}

async fn remove(docker: &Docker, name: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    match docker.remove_container(name, Some(options)).await {
        Err(error) if !matches!(failure::refusal(&error), Some((404 | 409, _))) => {
            Err(failure::error(error))
        }
        _ => Ok(()),
    }
}

/// An archive with the agent under another name, and then a link to it under its own.
fn archive(agent: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::with_capacity(agent.len() + 4096));
    let mut header = tar::Header::new_ustar();
    header.set_size(agent.len() as u64);
    header.set_mode(0o555);
    archive.append_data(&mut header, "agent.new", agent)?;
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    header.set_mode(0o555);
    archive.append_link(&mut header, "agent", "agent.new")?;
    archive.into_inner()
}

/// The hash of the one file of an archive; what comes from the engine is not trusted.
fn unpacked_hash(archive: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(archive);
    let mut entry = archive.entries().ok()?.next()?.ok()?;
    let mut content = Vec::new();
    entry
        .by_ref()
        .take(64 << 20)
        .read_to_end(&mut content)
        .ok()?;
    Some(HEXLOWER.encode(&Sha256::digest(&content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_holds_the_agent_and_then_its_name() {
        let packed = archive(b"agent").unwrap();
        let expected = HEXLOWER.encode(&Sha256::digest(b"agent"));
        assert_eq!(unpacked_hash(&packed), Some(expected));
        let mut archive = tar::Archive::new(packed.as_slice());
        let last = archive.entries().unwrap().nth(1).unwrap().unwrap();
        assert_eq!(last.path().unwrap().to_str(), Some("agent"));
        assert_eq!(unpacked_hash(b"junk"), None);
    }

    #[test]
    fn agent_of_an_unknown_architecture_is_unsupported() {
        let error = AgentVolume::new("s390x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(AgentVolume::new("x86_64").unwrap().name.len() > 20);
    }
}
