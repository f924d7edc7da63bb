//! What is read back from an engine: labels that anybody who may use it can have written.
#![expect(
    clippy::missing_panics_doc,
    reason = "a panic is how a fuzzer is told of what does not hold"
)]

use std::{collections::BTreeMap, sync::LazyLock, time::UNIX_EPOCH};

use super::labels;
pub use super::tree::fuzzing::{links, tree};
use crate::{
    backend::memory::MemoryBackend,
    config::SessionSpec,
    container::{Capabilities, ContainerInfo, ContainerRequest, ContainerState, resolve},
    id::{ContainerId, Prefix, SessionKey},
};

/// Between the texts of an input.
const CUT: u8 = 0xff;

/// Labels of any texts: a session belongs to whom they say only where the name says the same, and what
/// was written is what is read.
pub fn labels(input: &[u8]) {
    let mut texts = input.split(|byte| *byte == CUT);
    let mut text = || String::from_utf8_lossy(texts.next().unwrap_or_default()).into_owned();
    let (prefix, user, session, config) = (text(), text(), text(), text());
    let (wish, env, label) = (text(), text(), text());
    let key = SessionKey::new(user.as_str(), session.as_str());
    let ours = Prefix::default();
    let name = key
        .as_ref()
        .map_or_else(|_| "another".to_owned(), |key| key.container_name(&ours));
    let labels = [
        (labels::PREFIX, prefix.clone()),
        (labels::USER, user),
        (labels::SESSION, session),
        (labels::CONFIG, config),
        (labels::WISH, wish),
        ("team", label),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value));
    let Ok(id) = ContainerId::new("container") else {
        return;
    };
    let mut info = info(id, &name, BTreeMap::from(labels), ("TOKEN", env));
    let owner = labels::owner(&ours, &info);
    assert_eq!(owner.is_some(), key.is_ok() && prefix == ours.as_str());
    if let Some(owner) = &owner {
        assert_eq!(owner.container_name(&ours), info.name);
    }
    let ((Some(key), _) | (None, Ok(key))) = (owner, SessionKey::new("bob", "1")) else {
        return;
    };
    if let Some(spec) = labels::config(&info) {
        whole(&key, &spec, &mut info);
    }
    if let Some(wish) = labels::wish(&info, &key, &SessionSpec::new()) {
        whole(&key, &wish, &mut info);
    }
    info.name.push('x');
    assert_eq!(
        labels::owner(&ours, &info),
        None,
        "a name of another session"
    );
}

/// A wish, written and read again, and looked at as one that a container is to be made from.
fn whole(key: &SessionKey, spec: &SessionSpec, info: &mut ContainerInfo) {
    static CAPABILITIES: LazyLock<Capabilities> = LazyLock::new(everything);
    let request = ContainerRequest::new(info.id.clone(), spec.clone());
    if let Ok(order) = resolve(&request, &CAPABILITIES) {
        assert!(order.cwd.starts_with('/') && !order.cwd.contains("/../"));
        assert!(order.mounts.iter().all(|mount| mount.target.is_absolute()));
        assert!(order.limits.memory_bytes.is_none_or(|bytes| bytes > 0));
    }
    let Ok(written) = labels::write(&Prefix::default(), key, (spec, spec), UNIX_EPOCH) else {
        return;
    };
    info.labels = spec.labels.clone();
    info.labels.extend(written);
    info.env.clone_from(&spec.env);
    let again = labels::config(info);
    assert_eq!(
        again.as_ref(),
        Some(spec),
        "what was written is not what is read"
    );
}

/// An engine that can do all there is, so that nothing is refused for its sake.
fn everything() -> Capabilities {
    let mut all = MemoryBackend::shared().capabilities();
    all.local_images = true;
    all.image_references = true;
    all.memory_limit = true;
    all.swap_limit = true;
    all.cpu_limit = true;
    all.pids_limit = true;
    all.bind_mounts = true;
    all.writable_binds = true;
    all.volumes = true;
    all.outbound = true;
    all.named_networks = true;
    all.ports = true;
    all.dns = true;
    all.ulimits = true;
    all.devices = true;
    all.gpus = true;
    all.runtimes = vec!["runc".to_owned()];
    all.platforms = true;
    all.auto_remove = true;
    all
}

/// A container as an engine tells of it.
pub(super) fn info(
    id: ContainerId,
    name: &str,
    labels: BTreeMap<String, String>,
    (variable, value): (&str, String),
) -> ContainerInfo {
    ContainerInfo {
        id,
        name: name.to_owned(),
        labels,
        env: BTreeMap::from([(variable.to_owned(), value)]),
        state: ContainerState::Running,
        stop_cause: None,
        exit_code: None,
        created_at: UNIX_EPOCH,
        started_at: None,
        finished_at: None,
        last_active_at: None,
        pid: None,
        isolation: None,
        ports: Vec::new(),
    }
}
