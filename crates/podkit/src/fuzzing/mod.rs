//! What the fuzzers run: each function takes any bytes, and panics where what is promised of them does
//! not hold. For `fuzz/` and the test that replays its corpus; no part of the interface.

#[path = "../../../podkit-agent/src/fuzzing/choices.rs"]
mod choices;
mod words;

use std::path::Path;

pub(crate) use self::choices::Choices;
pub use self::words::words;
pub use crate::{
    agent::fuzzing::client,
    container::fuzzing::translations,
    session::fuzzing::{labels, links, tree},
};

/// A function that takes any bytes and an empty directory, and the name of its corpus.
pub type Target = (&'static str, fn(&[u8], &Path));

/// All of this crate.
pub const TARGETS: &[Target] = &[
    ("client", |input, _| client(input)),
    ("tree", tree),
    ("links", |input, _| links(input)),
    ("labels", |input, _| labels(input)),
    ("translations", |input, _| translations(input)),
    ("words", |input, _| words(input)),
];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn corpus_of_the_fuzzers_holds() {
        let scratch = tempfile::tempdir().unwrap();
        for (name, target) in TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
            let mut count = 0;
            for input in fs::read_dir(corpus.join(name)).unwrap() {
                target(&fs::read(input.unwrap().path()).unwrap(), scratch.path());
                count += 1;
            }
            assert!(count > 0, "{name} has no corpus");
        }
    }
}
