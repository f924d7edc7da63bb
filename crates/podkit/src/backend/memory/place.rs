//! Paths in a simulated container, and what is said when they lead nowhere.

use podkit_agent::{Failure, FailureKind};

/// As on Linux.
const MAX_PATH_BYTES: usize = 4095;
const MAX_NAME_BYTES: usize = 255;

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// A path inside, made absolute and free of dots.
#[derive(Clone, Debug)]
pub(super) struct Place {
    shown: String,
    pub(super) parts: Vec<Vec<u8>>,
}

impl Place {
    pub(super) fn fail(&self, kind: FailureKind, errno: i32, why: &str) -> Failure {
        Failure {
            kind,
            errno,
            message: format!("`{}`: {why}", self.shown),
        }
    }

    pub(super) fn missing(&self) -> Failure {
        self.fail(FailureKind::NotFound, 2, "no such file or directory")
    }

    pub(super) fn not_a_directory(&self) -> Failure {
        let why = "it, or a part of its path, is not a directory";
        self.fail(FailureKind::InvalidInput, 20, why)
    }

    pub(super) fn is_a_directory(&self) -> Failure {
        self.fail(FailureKind::InvalidInput, 21, "it is a directory")
    }

    pub(super) fn not_empty(&self) -> Failure {
        self.fail(FailureKind::InvalidInput, 39, "the directory is not empty")
    }

    /// The path without dots.
    pub(super) fn absolute(&self) -> Vec<u8> {
        if self.parts.is_empty() {
            return b"/".to_vec();
        }
        self.parts
            .iter()
            .flat_map(|part| [b"/", &part[..]].concat())
            .collect()
    }

    /// The place of a name in it.
    pub(super) fn below(&self, name: &[u8]) -> Self {
        let mut below = self.clone();
        below.shown = format!("{}/{}", self.shown, String::from_utf8_lossy(name));
        below.parts.push(name.to_vec());
        below
    }

    pub(super) fn split(&self) -> Result<(&[u8], &[Vec<u8>])> {
        match self.parts.split_last() {
            Some((name, parents)) => Ok((name, parents)),
            None => Err(self.fail(FailureKind::Unexpected, 16, "it is in use, as by a mount")),
        }
    }
}

/// Reads `path` as seen from the directory `cwd`. There are no links, so `..` is what it says.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn place(cwd: &[u8], path: &[u8]) -> Result<Place> {
    let mut place = Place {
        shown: String::from_utf8_lossy(path).into_owned(),
        parts: Vec::new(),
    };
    let invalid = |why| Err(place.fail(FailureKind::InvalidInput, 0, why));
    if path.is_empty() {
        return invalid("the path is empty");
    }
    if path.contains(&0) {
        return invalid("the path contains a NUL byte");
    }
    if path.len() > MAX_PATH_BYTES || path.split(|b| *b == b'/').any(|n| n.len() > MAX_NAME_BYTES) {
        return invalid("the name is too long");
    }
    let base = if path.starts_with(b"/") {
        &b""[..]
    } else {
        cwd
    };
    for name in base.split(|b| *b == b'/').chain(path.split(|b| *b == b'/')) {
        match name {
            b"" | b"." => {}
            b".." => drop(place.parts.pop()),
            name => place.parts.push(name.to_vec()),
        }
    }
    Ok(place)
}
