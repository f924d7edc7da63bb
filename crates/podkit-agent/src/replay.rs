//! What a terminal showed earlier, for one who looks at it later.

use alloc::vec::Vec;

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;

/// Longest sequence that is looked at as one; what is longer is passed on as it is.
const LONGEST: usize = 4096;

/// The bytes without the questions among them that a terminal answers. Whoever looks later has a
/// terminal of their own, and its answers would be typed into a program that has not asked.
#[must_use]
pub fn without_questions(shown: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(shown.len());
    let mut rest = shown;
    while let Some(at) = rest.iter().position(|byte| *byte == ESCAPE) {
        let (before, sequence) = rest.split_at(at);
        kept.extend_from_slice(before);
        let length = length(sequence).clamp(1, sequence.len());
        let (sequence, after) = sequence.split_at(length);
        if !asks(sequence) {
            kept.extend_from_slice(sequence);
        }
        rest = after;
    }
    kept.extend_from_slice(rest);
    kept
}

/// Bytes of the sequence at the beginning.
fn length(bytes: &[u8]) -> usize {
    let bytes = bytes.get(..LONGEST).unwrap_or(bytes);
    let end = match bytes.get(1) {
        Some(b'[') => bytes
            .iter()
            .skip(2)
            .position(|byte| (0x40..=0x7e).contains(byte))
            .map(|end| end + 3),
        Some(b']' | b'P' | b'_' | b'^') => string_end(bytes),
        Some(_) => Some(2),
        None => Some(1),
    };
    end.unwrap_or(2)
}

/// Where a string ends: after a bell, or after `ESC \`.
fn string_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    while let Some(byte) = bytes.get(at) {
        match (byte, bytes.get(at + 1)) {
            (&BELL, _) => return Some(at + 1),
            (&ESCAPE, Some(b'\\')) => return Some(at + 2),
            _ => at += 1,
        }
    }
    None
}

/// Whether a terminal answers this: what it is, where its cursor is, which colours or sizes it has.
fn asks(sequence: &[u8]) -> bool {
    match sequence {
        [_, b'Z'] => true,
        [_, b'[', parameters @ .., end] => match end {
            b'c' | b'n' | b'x' => true,
            b'p' => parameters.ends_with(b"$"),
            b'q' => parameters.starts_with(b">"),
            b't' => parameters
                .first()
                .is_some_and(|first| matches!(first, b'1' | b'2')),
            b'u' => parameters.starts_with(b"?"),
            _ => false,
        },
        [_, b']', text @ ..] => text.contains(&b'?'),
        [_, b'P', ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_left_out_and_all_else_is_kept() {
        for question in [
            "\x1b[c",
            "\x1b[>c",
            "\x1b[0c",
            "\x1b[6n",
            "\x1b[5n",
            "\x1bZ",
            "\x1b[>q",
            "\x1b[14t",
            "\x1b[?u",
            "\x1b]11;?\x07",
            "\x1b]4;1;?\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x1b[?2026$p",
        ] {
            let shown = alloc::format!("a{question}b");
            assert_eq!(without_questions(shown.as_bytes()), b"ab", "{question:?}");
        }
        for kept in [
            "plain\r\n",
            "\x1b[1;31mred\x1b[0m",
            "\x1b[2J\x1b[H",
            "\x1b]0;title\x07",
            "\x1b[?1049h",
            "\x1b(B",
            "\x1b7\x1b8",
            "\x1b",
            "\x1b[",
            "\x1b]never ended",
            "\x1b[22;0;0q",
        ] {
            assert_eq!(
                without_questions(kept.as_bytes()),
                kept.as_bytes(),
                "{kept:?}"
            );
        }
    }

    #[test]
    fn bytes_of_any_kind_end_and_never_grow() {
        let mut seed = 1_u32;
        for length in 0..2000 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let alphabet = b"\x1b[]P\\?;0123c nqZ\x07\x9b";
                    alphabet[(seed >> 16) as usize % alphabet.len()]
                })
                .collect();
            assert!(without_questions(&bytes).len() <= bytes.len());
        }
    }
}
