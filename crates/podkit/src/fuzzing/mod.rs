//! What the fuzzers run: each function takes any bytes, and panics where what is promised of them does
//! not hold. For `fuzz/` and the test that replays its corpus; no part of the interface.

#[path = "../../../podkit-agent/src/fuzzing/choices.rs"]
mod choices;
#[path = "../../../podkit-agent/src/fuzzing/on_disk.rs"]
mod on_disk;
mod words;

pub use self::on_disk::Target;
pub use self::words::words;
pub(crate) use self::{choices::Choices, on_disk::remove};
pub use crate::{
    agent::fuzzing::client,
    container::fuzzing::translations,
    session::fuzzing::{labels, links, tree},
};

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
    use super::*;

    #[test]
    fn corpus_of_the_fuzzers_holds() {
        on_disk::replay(TARGETS);
    }
}
