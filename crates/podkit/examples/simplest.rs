//! Seed example 1: creates the session, or reconnects to the one that runs or has stopped.
//!
//! The container stops by itself a minute after the last use; it is not removed. Run it twice to
//! see it reconnect: `cargo run --example simplest`. Where the engine needs no choice,
//! `podkit::session("bob", "123").await?` is enough.

use std::io::Write;

use podkit::{Error, ErrorKind, Podkit};

/// Runs `pwd` in bob's session 123.
pub(crate) async fn run(podkit: &Podkit) -> podkit::Result<Vec<u8>> {
    let output = podkit.session("bob", "123").await?.shell("pwd").await?;
    Ok(output.stdout)
}

#[tokio::main]
async fn main() -> podkit::Result<()> {
    let output = run(&Podkit::connect("auto").await?).await?;
    std::io::stdout().write_all(&output).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "standard output is closed").with_source(error)
    })
}
