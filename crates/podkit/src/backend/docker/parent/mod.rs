//! Which of the engine's containers this process runs in.
//!
//! What the kernel tells this process about itself (its cgroup, its mounts) is matched with what the
//! engine says of a container. The host name is where to look only: anybody may have any. So is the
//! file that is mounted at `/etc/hostname`: containers that share a network share it.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bollard::{models::ContainerInspectResponse, query_parameters::ListContainersOptionsBuilder};

use super::{DockerBackend, failure, settled};
use crate::{
    backend::parent::{ParentInfo, Parents},
    error::{Error, ErrorKind, Result},
    id::ContainerId,
};

/// Hexadecimal digits of a container's id.
const ID_DIGITS: usize = 64;

/// Least digits of a host name that may be the beginning of an id.
const SHORT_ID_DIGITS: usize = 12;

/// What Docker calls `default` where it says what a container was made with.
const DEFAULT_NETWORK: &str = "bridge";

/// Networks that are none of a container's own.
const NO_NETWORKS: [&str; 2] = ["host", "none"];

/// What the kernel tells this process of where it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traces {
    /// Ids in the names of this process's cgroups: they are its own.
    cgroups: Vec<String>,
    /// Id in the name of the file at `/etc/hostname`: its own, or that of whose network it shares.
    hostname_file: Option<String>,
    /// Upper directory of the root file system: no two containers have the same.
    upper: Option<PathBuf>,
    /// Host name, where it may be the beginning of an id.
    hostname: Option<String>,
}

impl Traces {
    /// Reads those of this process; none on a machine without `/proc`.
    pub(super) fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(
            &text("/proc/self/mountinfo"),
            &text("/proc/self/cgroup"),
            &text("/proc/sys/kernel/hostname"),
        )
    }

    fn parse(mountinfo: &str, cgroup: &str, hostname: &str) -> Self {
        let mut traces = Self::default();
        for path in cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            if let Some(id) = cgroup_id(path)
                && !traces.cgroups.contains(&id)
            {
                traces.cgroups.push(id);
            }
        }
        // See proc_pid_mountinfo(5). What was mounted last is what is seen.
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let mut fields = before.split(' ').skip(3);
            let (root, target) = (fields.next(), fields.next());
            match target {
                Some("/") => {
                    let options = after.split(' ').nth(2).unwrap_or_default().split(',');
                    let mut upper = options.filter_map(|option| option.strip_prefix("upperdir="));
                    traces.upper = upper.next().map(|path| PathBuf::from(unescaped(path)));
                }
                Some("/etc/hostname") => {
                    let mut parts = root.unwrap_or_default().rsplit('/');
                    traces.hostname_file = parts.find(|part| is_id(part)).map(str::to_owned);
                }
                _ => {}
            }
        }
        let hostname = hostname.trim();
        let short = hostname.len() >= SHORT_ID_DIGITS && hostname.chars().all(is_digit);
        traces.hostname = short.then(|| hostname.to_owned());
        traces
    }

    /// Whether this process runs in a container, as far as can be told without an engine.
    pub(super) fn are_of_a_container(&self) -> bool {
        !self.cgroups.is_empty() || self.hostname_file.is_some()
    }

    /// Whether these are of this container for sure; `None` where that cannot be said. The root decides
    /// where both sides tell it: in a container inside this one the cgroup may be this one's.
    fn prove(&self, container: &ContainerInspectResponse) -> Option<bool> {
        let data = container.graph_driver.as_ref().map(|driver| &driver.data);
        let said = data.and_then(|data| data.get("UpperDir"));
        if let (Some(said), Some(seen)) = (said, &self.upper) {
            // Docker mounts with paths from its own directory where they would be too long.
            return Some(seen.components().count() > 1 && Path::new(said).ends_with(seen));
        }
        let id = container.id.as_deref().unwrap_or_default();
        let own = self.cgroups.iter().any(|own| own == id);
        own.then_some(true)
    }
}

const fn is_digit(c: char) -> bool {
    matches!(c, '0'..='9' | 'a'..='f')
}

fn is_id(word: &str) -> bool {
    word.len() == ID_DIGITS && word.chars().all(is_digit)
}

/// The innermost container that a cgroup's path names: `/docker/ID`, `…/docker-ID.scope`,
/// `…/libpod-ID.scope/container`. What watches over a container runs beside it.
fn cgroup_id(path: &str) -> Option<String> {
    path.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let id = part.rsplit('-').next().filter(|id| is_id(id))?;
        (!part.contains("conmon")).then(|| id.to_owned())
    })
}

/// A path as the kernel writes it in a table of mounts: some of its bytes in octal digits.
fn unescaped(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(byte.unwrap_or(first));
        rest = match byte {
            Some(_) => after.get(3..).unwrap_or_default(),
            None => after,
        };
    }
    OsString::from_vec(bytes)
}

/// A running container, in podkit's words.
///
/// # Errors
/// `Unexpected` for an answer that does not say what it is.
fn info(container: ContainerInspectResponse) -> Result<ParentInfo> {
    let (Some(id), Some(image)) = (container.id, container.image) else {
        return Err(Error::new(
            ErrorKind::Unexpected,
            "the engine's answer does not say which container podkit runs in",
        ));
    };
    let settings = container.network_settings.unwrap_or_default();
    // What shares another one's network has none of its own: the other's may be there to filter it.
    let host = container.host_config.unwrap_or_default();
    let mode = host.network_mode.unwrap_or_default();
    let shares = mode.starts_with("container:");
    // The engine keeps them by name, and beside them which one the container was made with.
    let first = match mode.as_str() {
        "default" => DEFAULT_NETWORK,
        mode => mode,
    };
    let mut networks: Vec<(bool, String)> = settings
        .networks
        .unwrap_or_default()
        .into_iter()
        .map(|(name, end)| {
            let is_first = name == first || end.network_id.as_deref() == Some(first);
            (!is_first, name)
        })
        .filter(|(_, name)| !shares && !NO_NETWORKS.contains(&name.as_str()))
        .collect();
    networks.sort_unstable();
    Ok(ParentInfo {
        id: ContainerId::new(id)?,
        name: container
            .name
            .unwrap_or_default()
            .trim_start_matches('/')
            .to_owned(),
        image,
        networks: networks.into_iter().map(|(_, name)| name).collect(),
    })
}

impl DockerBackend {
    /// A container that runs.
    async fn running(&self, id: &str) -> Result<Option<ContainerInspectResponse>> {
        match settled(|| self.docker.inspect_container(id, None)).await {
            Ok(found) => {
                let state = found.state.as_ref();
                let runs = state.and_then(|state| state.running).unwrap_or(false);
                Ok(Some(found).filter(|_| runs))
            }
            Err(error) if failure::is_missing(&error) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Ids of the running containers that are on the network of this one.
    async fn sharers(&self, owner: &ContainerInspectResponse) -> Result<Vec<String>> {
        let id = owner.id.as_deref().unwrap_or_default();
        let name = owner.name.as_deref().unwrap_or_default();
        let name = name.trim_start_matches('/');
        let options = ListContainersOptionsBuilder::new().build();
        let all = settled(|| self.docker.list_containers(Some(options.clone())))
            .await
            .map_err(|error| self.failed(error))?;
        let shares = |mode: &str| {
            let of = mode.strip_prefix("container:");
            of.is_some_and(|of| !of.is_empty() && (id.starts_with(of) || of == name))
        };
        let sharing = all.into_iter().filter(|one| {
            let mode = one.host_config.as_ref();
            mode.and_then(|host| host.network_mode.as_deref())
                .is_some_and(shares)
        });
        Ok(sharing.filter_map(|one| one.id).collect())
    }

    /// The container that these are the traces of.
    pub(super) async fn find_parent(
        &self,
        traces: &Traces,
    ) -> Result<Option<ContainerInspectResponse>> {
        for id in &traces.cgroups {
            if let Some(found) = self.running(id).await?
                && traces.prove(&found) == Some(true)
            {
                return Ok(Some(found));
            }
        }
        if let Some(id) = &traces.hostname_file
            && let Some(owner) = self.running(id).await?
        {
            let proof = traces.prove(&owner);
            if proof == Some(true) {
                return Ok(Some(owner));
            }
            let sharers = self.sharers(&owner).await?;
            // Nobody else has the file: it must be this one's.
            if sharers.is_empty() && proof.is_none() {
                return Ok(Some(owner));
            }
            for id in sharers {
                if let Some(found) = self.running(&id).await?
                    && traces.prove(&found) == Some(true)
                {
                    return Ok(Some(found));
                }
            }
        }
        if let Some(hostname) = &traces.hostname
            && let Some(found) = self.running(hostname).await?
            && traces.prove(&found) == Some(true)
        {
            return Ok(Some(found));
        }
        Ok(None)
    }
}

#[async_trait]
impl Parents for DockerBackend {
    async fn parent(&self) -> Result<Option<ParentInfo>> {
        let found = self.find_parent(&Traces::read()).await?;
        found.map(info).transpose()
    }
}

#[cfg(test)]
mod tests;
