//! A throw-away container with files of its own: a grader, say.
//!
//! `cargo run --example one_shot`

use std::{io::Write, time::Duration};

use podkit::{Error, ErrorKind, ExecOutput, Podkit, RunOnce, SessionSpec};

/// Runs a submission against a test, and keeps nothing.
pub(crate) async fn run(podkit: &Podkit) -> podkit::Result<ExecOutput> {
    let submission = "#!/bin/sh\necho $(( $1 * 7 ))\n";
    let once = RunOnce::new(["sh", "test.sh"])
        .file("submission.sh", submission)
        .file(
            "test.sh",
            "test \"$(sh submission.sh 6)\" = 42 && echo passed\n",
        )
        .timeout(Duration::from_secs(10));
    podkit
        .run_once(SessionSpec::new().memory("256m"), once)
        .await
}

#[tokio::main]
async fn main() -> podkit::Result<()> {
    let output = run(&Podkit::connect("auto").await?).await?;
    std::io::stdout()
        .write_all(&output.stdout)
        .map_err(|error| {
            Error::new(ErrorKind::Unexpected, "standard output is closed").with_source(error)
        })
}
