//! Amounts of memory and time, and how they are written.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A limit of time that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Never.
    Off,
    /// After this long.
    After(Duration),
}

impl Limit {
    /// Parses a length of time as [`parse_duration`] does, or `off`.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "off" | "never" => Ok(Self::Off),
            time => parse_duration(time).map(Self::After),
        }
    }

    /// The duration, if there is one.
    #[must_use]
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::After(duration) => Some(duration),
        }
    }
}

/// An amount of memory as given, checked when it is used: a number of bytes, or text as `1g`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bytes(String);

impl Bytes {
    /// The number of bytes.
    ///
    /// # Errors
    /// `InvalidInput` for anything but a positive number with an optional unit: `b`, `k`, `m`,
    /// `g`, `t` (powers of 1024, either case, `b` or `ib` may follow).
    pub fn resolve(&self) -> Result<u64> {
        parse_bytes(&self.0)
    }
}

impl From<u64> for Bytes {
    fn from(bytes: u64) -> Self {
        Self(bytes.to_string())
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads an amount of memory: `512m`, `1.5g`, `1073741824`.
///
/// # Errors
/// `InvalidInput`.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let bad = || {
        Error::invalid_input(format!("{text:?} is not an amount of memory"))
            .with_hint("write a positive number with an optional unit, such as `512m` or `2g`")
    };
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower.get(digits.len()..).unwrap_or_default() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty()
        || !(whole.to_owned() + fraction)
            .bytes()
            .all(|b| b.is_ascii_digit())
    {
        return Err(bad());
    }
    let unit = 1_u64 << shift;
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let mut bytes = whole.checked_mul(unit).ok_or_else(bad)?;
    if !fraction.is_empty() {
        let fraction = fraction.get(..fraction.len().min(6)).unwrap_or_default();
        let scale = 10_u64.pow(u32::try_from(fraction.len()).unwrap_or(6));
        let part: u64 = fraction.parse().map_err(|_| bad())?;
        bytes = bytes
            .checked_add(unit / scale * part + unit % scale * part / scale)
            .ok_or_else(bad)?;
    }
    if bytes == 0 || bytes > i64::MAX.unsigned_abs() {
        return Err(bad());
    }
    Ok(bytes)
}

/// Reads a length of time: `30s`, `5m`, `1h`, `250ms`, `2d`, or seconds as a number.
///
/// # Errors
/// `InvalidInput`.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let bad = || {
        Error::invalid_input(format!("{text:?} is not a length of time"))
            .with_hint("write a number with a unit, such as `500ms`, `30s`, `5m` or `1h`")
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(bad()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(bad());
    }
    let number: f64 = digits.parse().map_err(|_| bad())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_bytes_with_units_is_exact() {
        let good = [
            ("1", 1),
            ("512m", 512 << 20),
            ("1.5G", 3 << 29),
            ("2KiB", 2048),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in [
            "",
            "lots",
            "-1",
            "0",
            "1x",
            "1e3",
            ".5g",
            "99999999t",
            "1.2.3",
            "m",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parse_duration_with_units_is_exact() {
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("1.5m").unwrap(), Duration::from_secs(90));
        for text in ["", "s", "-1s", "1y", "inf", "nan", "1e9"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
