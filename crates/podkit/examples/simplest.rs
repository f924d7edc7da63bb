//! Seed example 1: creates the session, or reconnects to the one that runs or has stopped.
//!
//! The container stops by itself a minute after the last use; it is not removed. Run it twice to
//! see it reconnect.

use std::io::Write;

use podkit::{Error, ErrorKind};

#[tokio::main]
async fn main() -> podkit::Result<()> {
    let output = podkit::session("bob", "123").await?.shell("pwd").await?;
    std::io::stdout()
        .write_all(&output.stdout)
        .map_err(|error| {
            Error::new(ErrorKind::Unexpected, "standard output is closed").with_source(error)
        })
}
