//! Names of images.

use std::fmt;

use crate::error::{Error, Result};

/// The registry of names that say none.
const DOCKER_HUB: &str = "docker.io";

/// A name of an image, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// As the engine takes it: with its registry, if it was said, and a digest, if there is one.
    pub(super) name: String,
    /// Tag; none beside a digest.
    pub(super) tag: Option<String>,
    /// The registry that has it.
    pub(super) registry: String,
    /// Whether the name says so.
    pub(super) names_registry: bool,
}

impl Reference {
    /// Parses `[REGISTRY/]PATH[:TAG][@DIGEST]`; the tag is `latest` without both.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid_input(format!("{text:?} is not an image name"))
                .with_hint("write `name:tag`, `registry/name:tag` or `name@sha256:…`")
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; one before it is the registry's port.
        let last = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest.get(last..).and_then(|part| part.find(':')) {
            Some(at) => (&rest[..last + at], Some(&rest[last + at + 1..])),
            None => (rest, None),
        };
        let good = |text: &str, more: &str| {
            !text.is_empty()
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let tagged = tag.is_none_or(|tag| good(tag, "._-") && tag.len() <= 128);
        let digested = digest.is_none_or(|digest| good(digest, ":+._-") && digest.contains(':'));
        if !good(name, "/:._-") || name.contains("//") || !tagged || !digested {
            return Err(bad());
        }
        let named = name
            .split_once('/')
            .map(|(first, _)| first)
            .filter(|first| first.contains(['.', ':']) || *first == "localhost");
        Ok(Self {
            name: match digest {
                Some(digest) => format!("{name}@{digest}"),
                None => name.to_owned(),
            },
            tag: match digest {
                Some(_) => None,
                None => Some(tag.unwrap_or("latest").to_owned()),
            },
            registry: named.unwrap_or(DOCKER_HUB).to_owned(),
            names_registry: named.is_some(),
        })
    }

    /// The keys under which credentials for its registry may be kept, the best one first.
    pub(super) fn credential_keys(&self) -> Vec<String> {
        if self.registry == DOCKER_HUB {
            return [
                "https://index.docker.io/v1/",
                "index.docker.io",
                "docker.io",
            ]
            .map(str::to_owned)
            .to_vec();
        }
        let registry = &self.registry;
        vec![
            registry.clone(),
            format!("https://{registry}"),
            format!("http://{registry}"),
            format!("https://{registry}/v1/"),
            format!("https://{registry}/v2/"),
        ]
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "{}:{tag}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, Option<String>, String) {
        let reference = Reference::parse(text).unwrap();
        (reference.name, reference.tag, reference.registry)
    }

    #[test]
    fn references_are_taken_apart() {
        let some = |text: &str| Some(text.to_owned());
        let of = |name: &str, tag, registry: &str| (name.to_owned(), tag, registry.to_owned());
        assert_eq!(parts("python"), of("python", some("latest"), "docker.io"));
        assert_eq!(parts("a/b:1"), of("a/b", some("1"), "docker.io"));
        assert_eq!(
            parts("127.0.0.1:5000/a/b"),
            of("127.0.0.1:5000/a/b", some("latest"), "127.0.0.1:5000")
        );
        assert_eq!(
            parts("localhost/a:1@sha256:ab"),
            of("localhost/a@sha256:ab", None, "localhost")
        );
    }

    #[test]
    fn references_that_name_nothing_are_invalid_input() {
        for bad in [
            "", ":", "a:", "a@", "a@sha256", "a b", "a//b", "a:b:c d", "-x\n",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
