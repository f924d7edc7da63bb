//! What a terminal showed earlier, for one who looks at it later.

use alloc::vec::Vec;

const ENQUIRY: u8 = 0x05;
const BELL: u8 = 0x07;
const CANCEL: u8 = 0x18;
const SUBSTITUTE: u8 = 0x1a;
const ESCAPE: u8 = 0x1b;

/// First byte, in UTF-8, of the controls that are two characters elsewhere: `\u{9b}` for `ESC [`.
const WIDE: u8 = 0xc2;
const WIDE_OFFSET: u8 = 0x40;

/// The bytes without the questions among them that a terminal answers. Whoever looks later has a
/// terminal of their own, and its answers would be typed into a program that has not asked.
///
/// Sequences that another one breaks off mean nothing and are left out too: what follows them here may
/// make a question of them.
#[must_use]
pub fn without_questions(shown: &[u8]) -> Vec<u8> {
    let mut filter = Filter {
        kept: Vec::with_capacity(shown.len()),
        state: State::Text,
        begin: 0,
        body: 0,
    };
    let mut rest = shown;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (*byte, after.first()) {
            (WIDE, Some(control @ 0x80..=0x9f)) => {
                rest = after.get(1..).unwrap_or_default();
                filter.control(*control - WIDE_OFFSET, &[WIDE, *control]);
            }
            (ESCAPE, Some(b'\\')) => {
                rest = after.get(1..).unwrap_or_default();
                filter.control(b'\\', b"\x1b\\");
            }
            (byte, _) => filter.byte(byte),
        }
    }
    filter.kept
}

/// Where in a stream of characters and sequences a terminal is, as ECMA-48 and its implementations
/// have it: ESC begins a sequence wherever it comes, CAN and SUB end one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// After ESC.
    Escape,
    /// In parameters.
    Parameters,
    /// In a text of this kind, up to its end.
    String(u8),
}

struct Filter {
    kept: Vec<u8>,
    state: State,
    /// Where in `kept` the sequence begins that has not ended.
    begin: usize,
    /// Where its parameters or its text do.
    body: usize,
}

impl Filter {
    /// Takes a control that begins a sequence, or ends a text: `[` for `ESC [` and `\u{9b}`.
    fn control(&mut self, control: u8, bytes: &[u8]) {
        if control == b'\\'
            && let State::String(kind) = self.state
        {
            let question = asks_text(kind, self.kept.get(self.body..).unwrap_or_default());
            self.kept.extend_from_slice(bytes);
            return self.end(question);
        }
        self.break_off();
        self.kept.extend_from_slice(bytes);
        self.introduce(control);
    }

    fn byte(&mut self, byte: u8) {
        match (byte, self.state) {
            (ENQUIRY, _) => return,
            // What was between the two is left out, so that they would be one control now.
            (0x80..=0x9f, _) if self.kept.last() == Some(&WIDE) => return,
            (ESCAPE, _) => {
                self.break_off();
                self.state = State::Escape;
            }
            (CANCEL | SUBSTITUTE, State::Escape | State::Parameters | State::String(_)) => {
                return self.break_off();
            }
            (0x30..=0x7e, State::Escape) => {
                let plain = !self.is_intermediate();
                self.kept.push(byte);
                return match plain {
                    true => self.introduce(byte),
                    false => self.end(false),
                };
            }
            (0x40..=0x7e, State::Parameters) => {
                let question = asks(self.kept.get(self.body..).unwrap_or_default(), byte);
                self.kept.push(byte);
                return self.end(question);
            }
            (BELL, State::String(kind)) => {
                let question = asks_text(kind, self.kept.get(self.body..).unwrap_or_default());
                self.kept.push(byte);
                return self.end(question);
            }
            // Controls within a sequence do not end it.
            _ => {}
        }
        self.kept.push(byte);
    }

    /// Goes on behind a control that is kept already.
    fn introduce(&mut self, control: u8) {
        self.body = self.kept.len();
        self.state = match control {
            b'[' => State::Parameters,
            b']' | b'P' | b'X' | b'^' | b'_' => State::String(control),
            control => return self.end(control == b'Z'),
        };
    }

    /// Whether characters have come that make another sequence of what follows, as in `ESC ( B`.
    fn is_intermediate(&self) -> bool {
        let sequence = self.kept.get(self.begin..).unwrap_or_default();
        sequence.iter().any(|byte| matches!(byte, 0x20..=0x2f))
    }

    /// The sequence ends here.
    fn end(&mut self, question: bool) {
        if question {
            self.kept.truncate(self.begin);
        }
        self.state = State::Text;
        self.begin = self.kept.len();
    }

    /// A sequence that has not ended never does; another one begins here.
    fn break_off(&mut self) {
        let unfinished = self.state != State::Text;
        if !unfinished {
            self.begin = self.kept.len();
        }
        self.end(unfinished);
    }
}

/// Whether a terminal answers these parameters with this end: what it is, where its cursor is, which
/// colours, modes or sizes it has.
fn asks(body: &[u8], end: u8) -> bool {
    let shown = |byte: &&u8| matches!(byte, 0x20..=0x3f);
    let mut private = body.iter().filter(shown).skip_while(|byte| **byte == b'0');
    let first = private.next().copied().unwrap_or_default();
    let is = |mark: u8| body.iter().rfind(shown) == Some(&mark);
    let plain = !body.iter().any(|byte| matches!(byte, 0x20..=0x2f));
    match end {
        b'c' | b'n' => true,
        b'x' => plain,
        b'p' => is(b'$'),
        b'q' => first == b'>',
        b't' => matches!(first, b'1' | b'2'),
        b'u' => first == b'?' || is(b'$') || is(b'&'),
        b'w' => is(b'$'),
        b'y' => is(b'*'),
        b'm' => first == b'?',
        b'S' => first == b'?' || is(b'#'),
        b'R' => is(b'#'),
        b'v' => is(b'"'),
        b'|' => is(b'\'') || is(b'#'),
        _ => false,
    }
}

/// The same of a text.
fn asks_text(kind: u8, text: &[u8]) -> bool {
    match kind {
        b']' => {
            let reports = [&b"1337;Re"[..], b"1337;Cap"];
            text.contains(&b'?') || reports.iter().any(|report| text.starts_with(report))
        }
        b'P' => true,
        // Images, which are answered unless they say that they are not to be.
        b'_' => text.starts_with(b"G"),
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
            // Broken off, with controls in it, or written in another way.
            "\x1b\x1b[c",
            "\x1b[\x1b[c",
            "\x1b[5\x1b[6n",
            "\x1b]0;title\x1b[c",
            "\x1b]0;\x18\x1b[c",
            "\x1b\0[\0c",
            "\x1b[014t",
            "\u{9b}c",
            "\u{9d}11;?\u{9c}",
            "\u{9a}",
            "\x05",
            "\x1b[1$w",
            "\x1b[?1;1S",
            "\x1b]1337;ReportCellSize\x07",
            "\x1b_Gi=1;AAAA\x1b\\",
        ] {
            let shown = alloc::format!("a{question}b");
            assert_eq!(without_questions(shown.as_bytes()), b"ab", "{question:?}");
        }
        let long = alloc::format!("\x1b]11;{}?\x07", ";".repeat(10_000));
        assert!(without_questions(long.as_bytes()).is_empty());
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
            "\x1b[1;1;2;2;3$x",
            "\x1b(Z",
            "\u{e9}\u{9b}m\u{85}",
            "\x1b[1\n;31m",
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
