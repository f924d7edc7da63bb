//! Seed example 2: a throw-away session that is closed whatever happens.
//!
//! `cargo run --example scoped`

use std::io::Write;

use podkit::{Error, ErrorKind, Podkit, SessionSpec};

/// Runs `pwd` in a container of its own.
pub(crate) async fn run(podkit: &Podkit) -> podkit::Result<Vec<u8>> {
    let scope = podkit.scoped(SessionSpec::new(), async |session| {
        session.shell("pwd").await
    });
    Ok(scope.await?.stdout)
}

#[tokio::main]
async fn main() -> podkit::Result<()> {
    let output = run(&Podkit::connect("auto").await?).await?;
    std::io::stdout().write_all(&output).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "standard output is closed").with_source(error)
    })
}
