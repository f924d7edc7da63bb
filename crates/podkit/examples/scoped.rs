//! Seed example 2: a throw-away session that is closed whatever happens.

use std::io::Write;

use podkit::{Error, ErrorKind, Podkit, SessionSpec};

#[tokio::main]
async fn main() -> podkit::Result<()> {
    let podkit = Podkit::connect("auto").await?;
    let output = podkit
        .scoped(SessionSpec::new(), async |session| {
            session.shell("pwd").await
        })
        .await?;
    std::io::stdout()
        .write_all(&output.stdout)
        .map_err(|error| {
            Error::new(ErrorKind::Unexpected, "standard output is closed").with_source(error)
        })
}
