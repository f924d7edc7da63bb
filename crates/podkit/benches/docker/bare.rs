//! The same by the Engine API alone: as few requests as it takes.

use std::collections::{BTreeMap, HashMap};

use bollard::{
    ClientVersion, Docker,
    container::LogOutput,
    exec::{CreateExecOptions, StartExecResults},
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder},
};
use futures::StreamExt;
use podkit::Prefix;

use super::IMAGE;

const VERSION: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 41,
};

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
    pub(super) fn new(prefix: &Prefix) -> Self {
        Self {
            docker: Docker::connect_with_unix("/var/run/docker.sock", 120, &VERSION).unwrap(),
            prefix: prefix.to_string(),
        }
    }

    /// Makes a container with the settings of podkit's.
    pub(super) async fn create(&self, name: &str, labels: BTreeMap<String, String>) -> String {
        let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
        let order = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            entrypoint: words(&["sleep", "1000"]),
            labels: Some(labels.into_iter().collect::<HashMap<_, _>>()),
            host_config: Some(HostConfig {
                memory: Some(512 << 20),
                memory_swap: Some(512 << 20),
                cpu_period: Some(100_000),
                cpu_quota: Some(100_000),
                pids_limit: Some(512),
                cap_drop: words(&["ALL"]),
                cap_add: words(&CAPABILITIES),
                security_opt: words(&["no-new-privileges"]),
                network_mode: Some("podkit".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let made = self.docker.create_container(Some(options), order).await;
        made.unwrap().id
    }

    /// Makes and starts one.
    pub(super) async fn start(&self, name: &str) -> String {
        let name = format!("{}-bare-{name}", self.prefix);
        let id = self.create(&name, BTreeMap::new()).await;
        self.docker.start_container(&id, None).await.unwrap();
        id
    }

    /// Runs `echo hi`, and returns its standard output.
    pub(super) async fn exec(&self, id: &str) -> Vec<u8> {
        let order = CreateExecOptions {
            cmd: Some(vec!["echo", "hi"]),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = self.docker.create_exec(id, order).await.unwrap();
        let started = self.docker.start_exec(&exec.id, None).await.unwrap();
        let mut text = Vec::new();
        if let StartExecResults::Attached { mut output, .. } = started {
            while let Some(Ok(part)) = output.next().await {
                if let LogOutput::StdOut { message } = part {
                    text.extend_from_slice(&message);
                }
            }
        }
        let status = self.docker.inspect_exec(&exec.id).await.unwrap();
        assert_eq!(status.exit_code, Some(0));
        text
    }

    pub(super) async fn remove(&self, id: &str) {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let removed = self.docker.remove_container(id, Some(options)).await;
        removed.unwrap();
    }
}
