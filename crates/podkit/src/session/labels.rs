//! The schema of the database that the engine is: what a session's container carries as labels.
//! What is read back is hostile until it parses.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::{
    config::SessionSpec,
    container::ContainerInfo,
    error::{Error, ErrorKind, Result},
    id::{Prefix, SessionKey},
};

/// Who owns the session on this engine.
pub(super) const PREFIX: &str = "podkit.prefix";
/// User id as given.
pub(super) const USER: &str = "podkit.user";
/// Session id as given.
pub(super) const SESSION: &str = "podkit.session";
/// Nanoseconds since 1970 when the container was ordered: fine enough to tell containers apart that
/// were made for one session shortly after each other.
pub(super) const CREATED: &str = "podkit.created";
/// Version of the podkit that ordered it.
pub(super) const VERSION: &str = "podkit.version";
/// The wish as JSON, without the values of the environment and of the caller's labels.
pub(super) const CONFIG: &str = "podkit.config";

/// The wish, where a handler had another container made from it: what later wishes are compared with.
pub(super) const WISH: &str = "podkit.wish";

/// Most bytes of all labels, keys and values.
const MAX_BYTES: usize = 32 * 1024;

/// The labels of a new container.
///
/// # Errors
/// `LimitExceeded` for more than 32 KiB, the caller's labels included; `InvalidInput` for a path
/// that is not UTF-8.
pub(super) fn write(
    prefix: &Prefix,
    key: &SessionKey,
    (wish, spec): (&SessionSpec, &SessionSpec),
    now: SystemTime,
) -> Result<BTreeMap<String, String>> {
    let config = text(spec)?;
    let created = now
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos()
        .to_string();
    let mut labels = filter(prefix);
    labels.extend(
        [
            (USER, key.user().as_str()),
            (SESSION, key.session().as_str()),
            (CREATED, &created),
            (VERSION, env!("CARGO_PKG_VERSION")),
            (CONFIG, &config),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    // Also where there is none: the label of an image would be taken for it.
    let mut differing = String::new();
    if wish != spec {
        let mut wish = wish.clone();
        for (name, value) in &mut wish.env {
            *value = fingerprint(key, name, value);
        }
        differing = json(&wish)?;
    }
    labels.insert(WISH.to_owned(), differing);
    let bytes: usize = labels
        .iter()
        .chain(&spec.labels)
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if bytes > MAX_BYTES {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("configuration and labels are {bytes} bytes; the limit is {MAX_BYTES} bytes"),
        )
        .with_hint("move long values into files, or into the environment"));
    }
    Ok(labels)
}

/// A spec without what is nobody else's business.
fn text(spec: &SessionSpec) -> Result<String> {
    let mut stored = spec.clone();
    stored.labels.values_mut().for_each(String::clear);
    stored.env.values_mut().for_each(String::clear);
    json(&stored)
}

fn json(spec: &SessionSpec) -> Result<String> {
    serde_json::to_string(spec).map_err(|error| {
        Error::invalid_input("the session's configuration cannot be stored").with_source(error)
    })
}

/// The labels that every session of a prefix has.
pub(super) fn filter(prefix: &Prefix) -> BTreeMap<String, String> {
    BTreeMap::from([(PREFIX.to_owned(), prefix.to_string())])
}

/// Whose container this is: only when the prefix is ours, the ids parse, and the name is the one
/// that the triple has.
pub(super) fn owner(prefix: &Prefix, info: &ContainerInfo) -> Option<SessionKey> {
    let label = |name: &str| info.labels.get(name).map(String::as_str);
    if label(PREFIX)? != prefix.as_str() {
        return None;
    }
    let key = SessionKey::new(label(USER)?, label(SESSION)?).ok()?;
    (key.container_name(prefix) == info.name).then_some(key)
}

/// The wish that the container was made from, with the environment from the engine's own record.
/// `None` when it does not parse: of another version, or tampered with.
pub(super) fn config(info: &ContainerInfo) -> Option<SessionSpec> {
    let mut spec = parse(info, CONFIG)?;
    for (name, value) in &mut spec.env {
        value.clone_from(info.env.get(name)?);
    }
    // Those of the image, which the container carries too, are not the caller's.
    for (name, value) in &mut spec.labels {
        value.clone_from(info.labels.get(name)?);
    }
    Some(spec)
}

/// The wish that a handler changed before the container was made from it, to be compared with another
/// one: variables have the values of that other one, where these are the same.
pub(super) fn wish(
    info: &ContainerInfo,
    key: &SessionKey,
    other: &SessionSpec,
) -> Option<SessionSpec> {
    let mut wish = parse(info, WISH)?;
    for (name, value) in &mut wish.env {
        let theirs = other.env.get(name);
        if let Some(same) = theirs.filter(|theirs| fingerprint(key, name, theirs) == *value) {
            value.clone_from(same);
        }
    }
    for (name, value) in &mut wish.labels {
        if let Some(theirs) = info.labels.get(name) {
            value.clone_from(theirs);
        }
    }
    Some(wish)
}

/// What a value is told apart by that nobody is to read.
fn fingerprint(key: &SessionKey, name: &str, value: &str) -> String {
    let mut hash = Sha256::new();
    for part in [key.user().as_str(), key.session().as_str(), name, value] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    HEXLOWER.encode(hash.finalize().get(..16).unwrap_or_default())
}

fn parse(info: &ContainerInfo, label: &str) -> Option<SessionSpec> {
    let text = info.labels.get(label)?;
    // An array would parse as well: field by field.
    if text.len() > MAX_BYTES || !text.starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Limit, Mount},
        id::ContainerId,
    };
    use std::time::Duration;

    fn info(labels: BTreeMap<String, String>, key: &SessionKey) -> ContainerInfo {
        let name = key.container_name(&Prefix::default());
        let id = ContainerId::new(name.clone()).unwrap();
        super::super::fuzzing::info(id, &name, labels, ("TOKEN", "hunter2".to_owned()))
    }

    fn key() -> SessionKey {
        SessionKey::new("bob/é", "1 2").unwrap()
    }

    #[test]
    fn labels_written_read_back_without_storing_secrets() {
        let spec = SessionSpec::new()
            .cpus(1.5)
            .memory("1g")
            .env("TOKEN", "hunter2")
            .label("team", "a")
            .mount(Mount::bind("/data", "/data").read_only())
            .auto_stop(Limit::After(Duration::from_millis(1500)));
        let mut labels = write(
            &Prefix::default(),
            &key(),
            (&spec, &spec),
            SystemTime::now(),
        )
        .unwrap();
        assert!(labels.values().all(|value| !value.contains("hunter2")));
        labels.insert("team".to_owned(), "a".to_owned());
        let info = info(labels, &key());
        assert_eq!(owner(&Prefix::default(), &info), Some(key()));
        assert_eq!(config(&info), Some(spec));
        assert_eq!(owner(&Prefix::new("podkit-x").unwrap(), &info), None);
    }

    #[test]
    fn labels_hold_numbers_of_cores_exactly() {
        for cpus in [0.1 + 0.2, 1.0 / 3.0, 2.05 * 1.1, 3.333_333_333_333_333_4e78] {
            let spec = SessionSpec::new().cpus(cpus);
            let labels = write(&Prefix::default(), &key(), (&spec, &spec), UNIX_EPOCH).unwrap();
            assert_eq!(config(&info(labels, &key())), Some(spec), "{cpus}");
        }
    }

    #[test]
    fn labels_over_32_kib_are_limit_exceeded() {
        let spec = SessionSpec::new().label("a", "x".repeat(40_000));
        let error = write(
            &Prefix::default(),
            &key(),
            (&spec, &spec),
            SystemTime::now(),
        )
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn labels_that_are_hostile_are_lost_and_never_panic() {
        let new = SessionSpec::new();
        let good = write(&Prefix::default(), &key(), (&new, &new), UNIX_EPOCH).unwrap();
        let deep = "[".repeat(30_000);
        let hostile = [
            "",
            "{",
            "null",
            "[]",
            "{\"cpus\":1e999}",
            "{\"next\":1}",
            "\u{0}",
            &deep,
        ];
        for text in hostile {
            let mut labels = good.clone();
            labels.insert(CONFIG.to_owned(), text.to_owned());
            assert_eq!(config(&info(labels, &key())), None, "{text:.20}");
        }
        for (name, value) in [
            (USER, ""),
            (USER, "eve"),
            (SESSION, "a\nb"),
            (PREFIX, "other"),
        ] {
            let mut labels = good.clone();
            labels.insert(name.to_owned(), value.to_owned());
            assert_eq!(
                owner(&Prefix::default(), &info(labels, &key())),
                None,
                "{name}"
            );
        }
        assert_eq!(
            owner(&Prefix::default(), &info(BTreeMap::new(), &key())),
            None
        );
    }
}
