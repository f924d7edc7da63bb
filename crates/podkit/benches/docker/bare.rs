//! The same by the Engine API alone: one kept client, and as few requests as it takes.

use std::collections::{BTreeMap, HashMap};

use bollard::{
    ClientVersion, Docker,
    container::LogOutput,
    exec::{CreateExecOptions, StartExecResults},
    models::{ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig},
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    },
};
use futures::StreamExt;

use super::IMAGE;

const SOCKET: &str = "/var/run/docker.sock";

const VERSION: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 41,
};

/// Label on every container that is made here, with the prefix of the run.
const LABEL: &str = "podkit-bench";

/// The capabilities that podkit's containers have.
const CAPABILITIES: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub(super) struct Bare {
    docker: Docker,
    prefix: String,
}

impl Bare {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            docker: Docker::connect_with_unix(SOCKET, 120, &VERSION).unwrap(),
            prefix: prefix.to_owned(),
        }
    }

    /// What runs here, or why nothing can be measured.
    pub(super) async fn describe(&self) -> Result<String, String> {
        let version = self.docker.version().await.map_err(|e| e.to_string())?;
        self.docker
            .inspect_image(IMAGE)
            .await
            .map_err(|error| format!("{error}; `./scripts/engines.sh start` makes `{IMAGE}`"))?;
        let info = self.docker.info().await.map_err(|e| e.to_string())?;
        Ok(format!(
            "Docker {}, {}, {}, cgroups version {}, kernel {}.",
            version.version.unwrap_or_default(),
            info.driver.unwrap_or_default(),
            info.default_runtime.unwrap_or_default(),
            info.cgroup_version
                .map_or_else(String::new, |v| v.to_string()),
            version.kernel_version.unwrap_or_default(),
        ))
    }

    /// Makes a container with the settings of podkit's.
    pub(super) async fn create(&self, name: &str, labels: BTreeMap<String, String>) -> String {
        let mut labels: HashMap<_, _> = labels.into_iter().collect();
        labels.insert(LABEL.to_owned(), self.prefix.clone());
        let order = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            entrypoint: words(&["sleep", "infinity"]),
            labels: Some(labels),
            host_config: Some(settings()),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let made = self.docker.create_container(Some(options), order).await;
        made.unwrap().id
    }

    /// Makes one that no session has.
    pub(super) async fn create_own(&self, name: &str) -> String {
        let name = format!("{}-bare-{name}", self.prefix);
        self.create(&name, BTreeMap::new()).await
    }

    pub(super) async fn start(&self, id: &str) {
        self.docker.start_container(id, None).await.unwrap();
    }

    /// Makes and starts one.
    pub(super) async fn open(&self, name: &str) -> String {
        let id = self.create_own(name).await;
        self.start(&id).await;
        id
    }

    /// Whether a container runs.
    pub(super) async fn runs(&self, id: &str) -> bool {
        let found = self.docker.inspect_container(id, None).await.unwrap();
        found.state.and_then(|state| state.running) == Some(true)
    }

    /// Settings of a container; its mounts, in which podkit's agent comes, left out.
    pub(super) async fn settings_of(&self, id: &str) -> HostConfig {
        let found = self.docker.inspect_container(id, None).await.unwrap();
        HostConfig {
            mounts: None,
            ..found.host_config.unwrap()
        }
    }

    /// Runs a command, and returns its standard output.
    pub(super) async fn exec(&self, id: &str, command: &[&str]) -> Vec<u8> {
        let order = CreateExecOptions {
            cmd: Some(command.to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = self.docker.create_exec(id, order).await.unwrap();
        let started = self.docker.start_exec(&exec.id, None).await.unwrap();
        let mut text = Vec::new();
        if let StartExecResults::Attached { mut output, .. } = started {
            while let Some(part) = output.next().await {
                if let LogOutput::StdOut { message } = part.unwrap() {
                    text.extend_from_slice(&message);
                }
            }
        }
        let status = self.docker.inspect_exec(&exec.id).await.unwrap();
        assert_eq!(status.exit_code, Some(0));
        text
    }

    pub(super) async fn remove(&self, id: &str) {
        self.try_remove(id).await.unwrap();
    }

    async fn try_remove(&self, id: &str) -> Result<(), bollard::errors::Error> {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        self.docker.remove_container(id, Some(options)).await
    }

    /// Removes all that carries this run's labels, and says what could not be.
    pub(super) async fn remove_all(&self) -> Vec<String> {
        let mut failed = Vec::new();
        for label in [LABEL, "podkit.prefix"] {
            let filters = HashMap::from([("label", vec![format!("{label}={}", self.prefix)])]);
            let options = ListContainersOptionsBuilder::new()
                .all(true)
                .filters(&filters)
                .build();
            let found = match self.docker.list_containers(Some(options)).await {
                Ok(found) => found,
                Err(error) => {
                    failed.push(format!("containers with the label `{label}`: {error}"));
                    continue;
                }
            };
            for id in found.into_iter().filter_map(|container| container.id) {
                if let Err(error) = self.try_remove(&id).await {
                    failed.push(format!("container {id}: {error}"));
                }
            }
        }
        failed
    }
}

fn words(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|word| (*word).to_owned()).collect())
}

/// The settings that podkit's containers have; `assert_same_settings` compares.
fn settings() -> HostConfig {
    let log = [("max-size", "1m"), ("max-file", "2")];
    HostConfig {
        memory: Some(512 << 20),
        memory_swap: Some(512 << 20),
        cpu_period: Some(100_000),
        cpu_quota: Some(100_000),
        pids_limit: Some(512),
        cap_drop: words(&["ALL"]),
        cap_add: words(&CAPABILITIES),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        ipc_mode: Some("private".to_owned()),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(
                log.map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            ),
        }),
        security_opt: words(&["no-new-privileges"]),
        network_mode: Some("podkit".to_owned()),
        ..HostConfig::default()
    }
}
