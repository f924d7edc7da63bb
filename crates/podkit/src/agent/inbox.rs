//! Output of one stream that has come and was not taken yet.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use podkit_agent::{INITIAL_WINDOW_BYTES, Output};

/// Credit is granted once so much was taken: half the window, so that the sender seldom waits and
/// credits are few.
const CREDIT_BYTES: u32 = INITIAL_WINDOW_BYTES / 2;

/// Both output streams in the order of their arrival, never more than their windows.
///
/// All bytes lie in one buffer and each change of stream costs four bytes, so that a sender of
/// tiny frames does not make it larger than its windows allow.
#[derive(Debug)]
pub(super) struct Inbox {
    data: BytesMut,
    /// Lengths that alternate between the streams, beginning with `first`.
    runs: VecDeque<u32>,
    first: Output,
    windows: [Window; 2],
}

/// One direction's flow control.
#[derive(Debug)]
struct Window {
    /// What the sender may still send.
    left: u32,
    /// What was taken and not granted again.
    taken: u32,
}

/// Bytes to grant the sender anew.
pub(super) type Credit = Option<(Output, u32)>;

impl Inbox {
    pub(super) fn new() -> Self {
        const FULL: Window = Window {
            left: INITIAL_WINDOW_BYTES,
            taken: 0,
        };
        Self {
            data: BytesMut::new(),
            runs: VecDeque::new(),
            first: Output::Stdout,
            windows: [FULL, FULL],
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    const fn window(&mut self, output: Output) -> &mut Window {
        let [stdout, stderr] = &mut self.windows;
        match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    /// Takes bytes in; `false` when they are more than was granted.
    #[must_use]
    pub(super) fn push(&mut self, output: Output, bytes: &[u8]) -> bool {
        if !self.admit(output, bytes.len()) {
            return false;
        }
        let Ok(length) = u32::try_from(bytes.len()) else {
            return false;
        };
        if length == 0 {
            return true;
        }
        if self.runs.is_empty() {
            self.first = output;
        }
        let last_is_first = self.runs.len() % 2 == 1;
        let continues = !self.runs.is_empty() && (self.first == output) == last_is_first;
        match self.runs.back_mut() {
            Some(last) if continues => *last += length,
            _ => self.runs.push_back(length),
        }
        self.data.extend_from_slice(bytes);
        true
    }

    /// Counts bytes that came; `false` when they are more than was granted.
    fn admit(&mut self, output: Output, length: usize) -> bool {
        let window = self.window(output);
        let left = u32::try_from(length)
            .ok()
            .and_then(|length| window.left.checked_sub(length));
        if let Some(left) = left {
            window.left = left;
        }
        left.is_some()
    }

    /// Takes the oldest bytes out, and says what is to be granted for them.
    pub(super) fn pop(&mut self) -> Option<(Output, Bytes, Credit)> {
        let length = self.runs.pop_front()?;
        let output = self.first;
        self.first = other(output);
        let bytes = self
            .data
            .split_to((length as usize).min(self.data.len()))
            .freeze();
        if self.data.is_empty() && self.runs.capacity() > 1024 {
            self.runs = VecDeque::new();
        }
        let credit = self.take(output, length);
        Some((output, bytes, credit))
    }

    fn take(&mut self, output: Output, length: u32) -> Credit {
        let window = self.window(output);
        window.taken += length;
        if window.taken < CREDIT_BYTES {
            return None;
        }
        let credit = std::mem::take(&mut window.taken);
        window.left += credit;
        Some((output, credit))
    }

    /// Counts bytes that nobody wants; `Err` when they are more than was granted.
    pub(super) fn drop_data(&mut self, output: Output, length: usize) -> Result<Credit, ()> {
        if !self.admit(output, length) {
            return Err(());
        }
        Ok(self.take(output, u32::try_from(length).map_err(|_| ())?))
    }

    /// Drops all that is there, and says what is to be granted for it.
    pub(super) fn clear(&mut self) -> [Credit; 2] {
        while let Some(length) = self.runs.pop_front() {
            self.window(self.first).taken += length;
            self.first = other(self.first);
        }
        self.data = BytesMut::new();
        self.runs = VecDeque::new();
        [self.take(Output::Stdout, 0), self.take(Output::Stderr, 0)]
    }
}

const fn other(output: Output) -> Output {
    match output {
        Output::Stdout => Output::Stderr,
        Output::Stderr => Output::Stdout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inbox_keeps_the_order_of_arrival_and_joins_neighbours() {
        let mut inbox = Inbox::new();
        for (output, bytes) in [
            (Output::Stderr, "a"),
            (Output::Stderr, "b"),
            (Output::Stdout, ""),
            (Output::Stdout, "c"),
            (Output::Stderr, "d"),
        ] {
            assert!(inbox.push(output, bytes.as_bytes()));
        }
        let mut seen = Vec::new();
        while let Some((output, bytes, credit)) = inbox.pop() {
            assert_eq!(credit, None);
            seen.push((output, bytes));
        }
        let expected = [
            (Output::Stderr, "ab"),
            (Output::Stdout, "c"),
            (Output::Stderr, "d"),
        ];
        assert_eq!(
            seen,
            expected.map(|(output, text)| (output, Bytes::from(text)))
        );
        assert!(inbox.push(Output::Stdout, b"e"));
        assert_eq!(inbox.pop().unwrap().0, Output::Stdout);
    }

    #[test]
    fn inbox_over_its_window_is_refused_and_credit_follows_what_is_taken() {
        let mut inbox = Inbox::new();
        let full = vec![0; INITIAL_WINDOW_BYTES as usize];
        assert!(inbox.push(Output::Stdout, &full));
        assert!(!inbox.push(Output::Stdout, &[0]));
        assert!(
            inbox.push(Output::Stderr, &[0]),
            "each stream has its own window"
        );
        let (_, bytes, credit) = inbox.pop().unwrap();
        assert_eq!(bytes.len(), full.len());
        assert_eq!(credit, Some((Output::Stdout, INITIAL_WINDOW_BYTES)));
        assert!(inbox.push(Output::Stdout, &full));
    }

    #[test]
    fn inbox_of_single_bytes_stays_small() {
        let mut inbox = Inbox::new();
        for _ in 0..INITIAL_WINDOW_BYTES {
            assert!(inbox.push(Output::Stdout, &[1]));
            assert!(inbox.push(Output::Stderr, &[2]));
        }
        let held = inbox.data.capacity() + inbox.runs.capacity() * size_of::<u32>();
        assert!(held < 8 << 20, "{held}");
        let credits = inbox.clear();
        assert_eq!(credits[1], Some((Output::Stderr, INITIAL_WINDOW_BYTES)));
    }
}
