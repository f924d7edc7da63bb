//! podkit's own terminal, joined with one in a container. Only bytes cross.

use std::pin::pin;

use bytes::Bytes;
use podkit::{Error, ErrorKind, ExecEvent, ExecHandle, ExecResult, ExecStdin, TerminalSize};
use rustix::{
    stdio::{stdin, stdout},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{output::Failure, pump, signals::Signals};

/// SIGWINCH: the terminal has another size.
const RESIZED: i32 = 28;

/// How it ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The program ended.
    Exited(ExecResult),
    /// The detach keys were typed.
    Left,
    /// A signal ended podkit, as when its terminal was closed.
    Signal(u8),
}

/// The size of podkit's own terminal, or a usual one.
pub(crate) fn size() -> TerminalSize {
    match tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            TerminalSize::new(size.ws_row, size.ws_col)
        }
        _ => TerminalSize::default(),
    }
}

/// Whether podkit's standard input is a terminal.
pub(crate) fn has_terminal() -> bool {
    isatty(stdin())
}

/// podkit's terminal in raw mode: every key is passed on as it is. As before when this is dropped,
/// which is the one thing that must happen also in a panic.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        if !has_terminal() {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}

/// Shows what the terminal in the container shows, and types what is typed here, until its program
/// ends or `detach` is typed.
///
/// # Errors
/// What the connection says; failures to read or write podkit's own streams.
pub(crate) async fn join(
    mut handle: ExecHandle,
    detach: &[u8],
    signals: &mut Signals,
) -> Result<End, Failure> {
    let mut resized = watch_size()?;
    let raw = Raw::enter();
    let mut input = handle.take_stdin();
    let mut typing = pin!(type_in(&mut input, detach));
    let mut typed = false;
    let end = loop {
        tokio::select! {
            biased;
            number = signals.number() => {
                // Keys that make signals are bytes in raw mode; these come from somebody else.
                break End::Signal(u8::try_from(number).unwrap_or(u8::MAX));
            }
            _ = resized.recv() => drop(handle.resize(size()).await),
            event = handle.next() => match event {
                Some(Ok(ExecEvent::Exited(result))) => break End::Exited(result),
                Some(Ok(ExecEvent::Stdout(bytes) | ExecEvent::Stderr(bytes))) => {
                    pump::write_out(bytes).await?;
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Error::new(
                    ErrorKind::AgentUnreachable,
                    "the terminal's end did not arrive",
                ).into()),
            },
            left = &mut typing, if !typed => {
                typed = true;
                if left? {
                    break End::Left;
                }
            }
        }
    };
    drop(raw);
    Ok(end)
}

fn watch_size() -> Result<Signal, Error> {
    signal(SignalKind::from_raw(RESIZED)).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "signals cannot be listened for").with_source(error)
    })
}

/// Types what is typed here: whether the detach keys came. At the end of the input they do not.
async fn type_in(place: &mut Option<ExecStdin>, detach: &[u8]) -> Result<bool, Failure> {
    let Some(input) = place else {
        return Ok(false);
    };
    let mut matched = 0;
    while let Some(chunk) = pump::next_chunk().await? {
        let (bytes, left) = without_keys(&chunk, detach, &mut matched);
        if !bytes.is_empty() && input.write_all(bytes).await.is_err() {
            return Ok(false);
        }
        if left {
            return Ok(true);
        }
    }
    if let Some(input) = place.take() {
        // The program may have ended, whose end comes as an event.
        drop(input.close().await);
    }
    Ok(false)
}

/// What is passed on of what was typed, and whether the keys are complete. Keys that may be the
/// beginning of them are kept back until more is typed.
fn without_keys(typed: &[u8], keys: &[u8], matched: &mut usize) -> (Bytes, bool) {
    let mut passed = Vec::with_capacity(typed.len());
    for byte in typed {
        if keys.get(*matched) == Some(byte) {
            *matched += 1;
            if *matched == keys.len() {
                return (passed.into(), true);
            }
            continue;
        }
        passed.extend_from_slice(keys.get(..*matched).unwrap_or_default());
        *matched = 0;
        if keys.first() == Some(byte) {
            *matched = 1;
        } else {
            passed.push(*byte);
        }
    }
    (passed.into(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_also_when_they_are_cut() {
        let keys = [16, 17];
        let mut matched = 0;
        assert_eq!(
            without_keys(b"ab\x10", &keys, &mut matched),
            (Bytes::from("ab"), false)
        );
        assert_eq!(
            without_keys(b"\x11cd", &keys, &mut matched),
            (Bytes::new(), true)
        );
    }

    #[test]
    fn half_of_the_detach_keys_is_passed_on() {
        let keys = [16, 17];
        let mut matched = 0;
        let (bytes, left) = without_keys(b"\x10\x10x\x11", &keys, &mut matched);
        assert_eq!((&bytes[..], left), (&b"\x10\x10x\x11"[..], false));
        let (bytes, left) = without_keys(b"abc", &[], &mut 0);
        assert_eq!((&bytes[..], left), (&b"abc"[..], false));
    }
}
