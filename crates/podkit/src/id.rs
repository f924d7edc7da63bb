//! Names of things that came from outside; an invalid value cannot exist past these types.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Longest user or session id, in bytes.
pub(crate) const MAX_ID_BYTES: usize = 128;

/// Longest container name.
pub(crate) const MAX_NAME_BYTES: usize = 63;

/// An engine's handle of a container: its name, or the engine's own id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// Takes an id as an engine gave it: 1–128 characters of `[A-Za-z0-9_.-]`, the first a letter
    /// or digit.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn new(id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let starts = id.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts || id.len() > 128 || !id.chars().all(plain) {
            return Err(Error::invalid_input(format!(
                "{id:?} is not a container id"
            )));
        }
        Ok(Self(id))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_id(what: &str, id: &str) -> Result<()> {
    let complaint = if id.is_empty() {
        "is empty"
    } else if id.len() > MAX_ID_BYTES {
        "is longer than 128 bytes"
    } else if id == "." || id == ".." {
        "must not be `.` or `..`"
    } else if id.chars().any(char::is_control) {
        "contains a control character"
    } else if id.trim() != id {
        "begins or ends with white space"
    } else {
        return Ok(());
    };
    Err(Error::invalid_input(format!(
        "the {what} {id:?} {complaint}"
    )))
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// Printable UTF-8, 1–128 bytes, not `.` or `..`, no control characters, no outer white
        /// space.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks and takes an id.
            ///
            /// # Errors
            /// `InvalidInput`, naming what is wrong.
            pub fn new(id: impl Into<String>) -> Result<Self> {
                let id = id.into();
                check_id($what, &id)?;
                Ok(Self(id))
            }

            /// The id as given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id percent-encoded outside `[A-Za-z0-9._@+=-]`: for directories and the
            /// command line.
            #[must_use]
            pub fn encoded(&self) -> String {
                percent_encode(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type!(
    /// Whose session it is.
    UserId,
    "user id"
);
id_type!(
    /// Which of the user's sessions.
    SessionId,
    "session id"
);

/// Who owns a set of sessions on an engine: 1–20 characters of `[a-z0-9-]`, beginning with a
/// letter and not ending in `-`. Another prefix's containers are never touched, listed or counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(String);

impl Prefix {
    /// Checks and takes a prefix.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn new(prefix: impl Into<String>) -> Result<Self> {
        let prefix = prefix.into();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let good = (1..=20).contains(&prefix.len())
            && prefix.chars().all(plain)
            && prefix.starts_with(|c: char| c.is_ascii_lowercase())
            && !prefix.ends_with('-');
        if !good {
            return Err(Error::invalid_input(format!(
                "the prefix {prefix:?} is not 1–20 characters of `a-z0-9-` beginning with a letter"
            )));
        }
        Ok(Self(prefix))
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("podkit".to_owned())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A session's identity under one prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    user: UserId,
    session: SessionId,
}

impl SessionKey {
    /// Checks and takes both ids.
    ///
    /// # Errors
    /// `InvalidInput`, naming the id that is wrong.
    pub fn new(user: impl Into<String>, session: impl Into<String>) -> Result<Self> {
        Ok(Self {
            user: UserId::new(user)?,
            session: SessionId::new(session)?,
        })
    }

    /// Parses `user/session` with both parts percent-encoded; without a slash the user is
    /// `default_user`.
    ///
    /// # Errors
    /// `InvalidInput`.
    ///
    /// # Examples
    /// ```
    /// let key = podkit::SessionKey::parse("bob/a%2Fb", "me")?;
    /// assert_eq!((key.user().as_str(), key.session().as_str()), ("bob", "a/b"));
    /// assert_eq!(key.to_string(), "bob/a%2Fb");
    /// # Ok::<(), podkit::Error>(())
    /// ```
    pub fn parse(text: &str, default_user: &str) -> Result<Self> {
        let (user, session) = match text.split_once('/') {
            Some((_, rest)) if rest.contains('/') => {
                return Err(Error::invalid_input(format!(
                    "the session {text:?} has more than one slash"
                ))
                .with_hint("write a slash inside an id as `%2F`"));
            }
            Some((user, session)) => (percent_decode(user)?, percent_decode(session)?),
            None => (default_user.to_owned(), percent_decode(text)?),
        };
        Self::new(user, session)
    }

    /// Whose it is.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Which of the user's sessions.
    #[must_use]
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// The container's name: `<prefix>-<slug>-<hash>`, at most 63 characters, where hash is
    /// 80 bits of SHA-256 over the length-prefixed triple. Equal triples have equal names,
    /// so the name is the lock.
    #[must_use]
    pub fn container_name(&self, prefix: &Prefix) -> String {
        let mut hash = Sha256::new();
        for part in [prefix.as_str(), self.user.as_str(), self.session.as_str()] {
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let tail = data_encoding::BASE32_NOPAD
            .encode(digest.get(..10).unwrap_or_default())
            .to_ascii_lowercase();
        let room = MAX_NAME_BYTES - prefix.as_str().len() - tail.len() - 2;
        let slug: String = format!("{}-{}", self.session, self.user)
            .to_ascii_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect::<String>()
            .split('-')
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("-");
        let slug: String = slug.chars().take(room).collect();
        let slug = slug.trim_matches('-');
        if slug.is_empty() {
            format!("{prefix}-{tail}")
        } else {
            format!("{prefix}-{slug}-{tail}")
        }
    }
}

/// As on the command line: both ids percent-encoded, with a slash between.
impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.user.encoded(), self.session.encoded())
    }
}

/// Encodes what is outside `[A-Za-z0-9._@+=-]`.
#[must_use]
pub(crate) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._@+=-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
        }
    }
    out
}

fn percent_decode(text: &str) -> Result<String> {
    let bad = || Error::invalid_input(format!("{text:?} is not percent-encoded UTF-8"));
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().ok_or_else(bad)?, bytes.next().ok_or_else(bad)?];
            let decoded = data_encoding::HEXUPPER_PERMISSIVE
                .decode(&digits)
                .map_err(|_| bad())?;
            out.extend(decoded);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_key_with_bad_ids_is_invalid_input() {
        for bad in ["", ".", "..", " a", "a ", "a\0b", "a\nb", &"x".repeat(129)] {
            assert!(SessionKey::new(bad, "s").is_err(), "{bad:?}");
            assert!(SessionKey::new("u", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn container_name_of_any_key_is_short_plain_and_distinct() {
        let prefix = Prefix::default();
        let keys = [
            ("a", "b-c"),
            ("a-b", "c"),
            ("é", "中"),
            ("A", "b-c"),
            (&"x".repeat(128), "y"),
        ];
        let mut names: Vec<String> = keys
            .iter()
            .map(|(user, session)| {
                SessionKey::new(*user, *session)
                    .unwrap()
                    .container_name(&prefix)
            })
            .collect();
        for name in &names {
            assert!(name.len() <= MAX_NAME_BYTES, "{name}");
            assert!(
                name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
                "{name}"
            );
            ContainerId::new(name.clone()).unwrap();
        }
        names.dedup();
        assert_eq!(names.len(), keys.len());
    }

    #[test]
    fn session_key_display_parses_back() {
        let key = SessionKey::new("a/b c", "%é").unwrap();
        assert_eq!(SessionKey::parse(&key.to_string(), "").unwrap(), key);
        assert!(SessionKey::parse("a/b/c", "me").is_err());
        assert!(SessionKey::parse("a/%zz", "me").is_err());
    }
}
