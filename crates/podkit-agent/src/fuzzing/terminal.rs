//! What is shown of a terminal's past.

use alloc::vec::Vec;

use crate::replay::without_questions;

/// What a terminal makes of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Byte(u8),
    /// Kind, intermediate characters, parameters or text, and the last character.
    Sequence(u8, Vec<u8>, u8),
}

/// Any bytes, without the questions among them: the rest is what it was.
pub fn terminal(input: &[u8]) {
    let shown = without_questions(input);
    assert!(shown.len() <= input.len());
    assert_eq!(without_questions(&shown), shown, "once is enough");
    let mut wanted = events(input);
    wanted.retain(|event| !asks(event));
    // Half a character, and what would be its other half only now.
    let half = |one: &mut Event, last: &mut Event| {
        *last == Event::Byte(0xc2) && matches!(one, Event::Byte(0x80..=0x9f))
    };
    wanted.dedup_by(half);
    assert_eq!(events(&shown), wanted);
}

/// Whether a terminal answers, by what `ctlseqs` of XTerm and the documents of others say.
fn asks(event: &Event) -> bool {
    const CSI: &[&[u8]] = &[
        b"c", b"n", b"x", b"$p", b"$u", b"&u", b"$w", b"*y", b"#S", b"#R", b"\"v", b"'|", b"#|",
    ];
    let Event::Sequence(kind, text, last) = event else {
        return *event == Event::Byte(5);
    };
    let mut digits = text.iter().skip_while(|byte| **byte == b'0');
    let first = digits.next().copied().unwrap_or_default();
    match kind {
        b'[' => {
            let cut = text.iter().rposition(|byte| !matches!(byte, 0x20..=0x2f));
            let tail = text.get(cut.map_or(0, |at| at + 1)..).unwrap_or_default();
            let tail = [tail, &[*last]].concat();
            let answered = |known: &&[u8]| match known {
                // These whatever comes before.
                [last @ (b'c' | b'n')] => tail.ends_with(&[*last]),
                [_] => tail == **known && !text.iter().any(|byte| matches!(byte, 0x20..=0x2f)),
                _ => tail.ends_with(known),
            };
            CSI.iter().any(answered)
                || (first == b'?' && matches!(last, b'u' | b'm' | b'S'))
                || (first == b'>' && *last == b'q')
                || (matches!(first, b'1' | b'2') && *last == b't')
        }
        b']' => {
            text.contains(&b'?') || text.starts_with(b"1337;Re") || text.starts_with(b"1337;Cap")
        }
        b'P' => true,
        b'_' => text.starts_with(b"G"),
        b'Z' => text.is_empty(),
        _ => false,
    }
}

/// Takes bytes apart; what is broken off is nothing, and what has not ended is as it came.
fn events(bytes: &[u8]) -> Vec<Event> {
    let (mut events, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        match (*byte, rest.get(1)) {
            (0x1b, _) | (0xc2, Some(0x80..=0x9f)) => {
                let (event, length) = sequence(rest);
                events.extend(event);
                at += length;
            }
            _ => {
                events.push(Event::Byte(*byte));
                at += 1;
            }
        }
    }
    events
}

/// The sequence at the beginning, and how long it is.
fn sequence(bytes: &[u8]) -> (Option<Event>, usize) {
    let wide = |at: usize| match (bytes.get(at), bytes.get(at + 1)) {
        (Some(0xc2), Some(byte @ 0x80..=0x9f)) => Some(byte - 0x40),
        _ => None,
    };
    // What follows ESC, without controls, up to the character that says what it is.
    let (mut kind, mut before, mut at) = (0, Vec::new(), 1);
    if let Some(control) = wide(0) {
        (kind, at) = (control, 2);
    }
    while kind == 0 {
        match bytes.get(at) {
            None => return unfinished(bytes),
            Some(0x1b) => return (None, at),
            Some(0x18 | 0x1a) => return (None, at + 1),
            Some(_) if wide(at).is_some() => return (None, at),
            Some(byte @ 0x30..=0x7e) => kind = *byte,
            Some(byte @ 0x20..=0x2f) => before.push(*byte),
            Some(_) => {}
        }
        at += 1;
    }
    let is_text = matches!(kind, b']' | b'P' | b'X' | b'^' | b'_');
    if !before.is_empty() {
        before.push(kind);
        return (Some(Event::Sequence(0, before, 0)), at);
    }
    if kind != b'[' && !is_text {
        return (Some(Event::Sequence(kind, before, 0)), at);
    }
    let mut text = Vec::new();
    loop {
        let (byte, next) = (bytes.get(at).copied(), bytes.get(at + 1).copied());
        let wide = wide(at);
        match (byte, next) {
            (None, _) => return unfinished(bytes),
            (Some(0x1b), Some(b'\\')) if is_text => {
                return (Some(Event::Sequence(kind, text, 0)), at + 2);
            }
            (Some(_), _) if is_text && wide == Some(b'\\') => {
                return (Some(Event::Sequence(kind, text, 0)), at + 2);
            }
            (Some(7), _) if is_text => return (Some(Event::Sequence(kind, text, 0)), at + 1),
            (Some(0x1b), _) => return (None, at),
            (Some(0x18 | 0x1a), _) => return (None, at + 1),
            (Some(_), _) if wide.is_some() => return (None, at),
            (Some(last @ 0x40..=0x7e), _) if !is_text => {
                return (Some(Event::Sequence(kind, text, last)), at + 1);
            }
            (Some(byte), _) => {
                at += 1;
                // Controls are no parameters.
                if is_text || matches!(byte, 0x20..=0x3f) {
                    push(&mut text, byte);
                }
            }
        }
    }
}

fn unfinished(bytes: &[u8]) -> (Option<Event>, usize) {
    let mut all = Vec::new();
    bytes.iter().for_each(|byte| push(&mut all, *byte));
    (Some(Event::Sequence(0, all, 0)), bytes.len())
}

/// Appends what is kept of a sequence: nothing that is answered wherever it stands, nor what becomes
/// another character without that.
fn push(text: &mut Vec<u8>, byte: u8) {
    let half = text.last() == Some(&0xc2) && matches!(byte, 0x80..=0x9f);
    if byte != 5 && !half {
        text.push(byte);
    }
}
