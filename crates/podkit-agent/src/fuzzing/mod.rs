//! What the fuzzers run: each function takes any bytes, and panics where what is promised of them does
//! not hold. For `fuzz/` and the test that replays its corpus; no part of the interface.

use alloc::vec::Vec;

mod archive;
mod choices;
mod passwd;
mod terminal;
mod wire;

use self::choices::Choices;
pub use self::{
    archive::archive,
    passwd::passwd,
    terminal::terminal,
    wire::{plans, replies, requests},
};

/// A function that takes any bytes, and the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All of this crate.
pub const TARGETS: &[Target] = &[
    ("requests", requests),
    ("replies", replies),
    ("plans", plans),
    ("archive", archive),
    ("passwd", passwd),
    ("terminal", terminal),
];

/// Bytes in parts, cut at lengths that the first of them say; not in many, so that much does not take
/// long.
fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    const MOST: usize = 64;
    let mut choices = Choices::new(bytes);
    let (first, then) = (usize::from(choices.u8()), usize::from(choices.u8()) + 1);
    let then = then.max(bytes.len() / MOST);
    let (first, rest) = bytes.split_at(first.min(bytes.len()));
    core::iter::once(first).chain(rest.chunks(then)).collect()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn corpus_of_the_fuzzers_holds() {
        for (name, target) in TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
            let inputs = fs::read_dir(corpus.join(name)).unwrap();
            let mut count = 0;
            for input in inputs {
                target(&fs::read(input.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{name} has no corpus");
        }
    }
}
