//! The new process of the row about reconnecting: this program again, for one command.

use std::io::Write;

use podkit::Prefix;

use super::{bare::Bare, connect};

/// First argument of such a process.
pub(super) const MODE: &str = "--client";

/// User and session that it comes back to.
pub(super) const SESSION: (&str, &str) = ("bench", "again");

/// Comes back to what runs by podkit or by the Engine API, runs a command and writes what it wrote.
pub(super) fn run(words: &[String]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let output = runtime.unwrap().block_on(async {
        match words {
            [by, prefix] if by == "podkit" => {
                let podkit = connect(&Prefix::new(prefix.as_str()).unwrap())
                    .await
                    .unwrap();
                let session = podkit.session(SESSION.0, SESSION.1).await.unwrap();
                let output = session.exec(["echo", "hi"]).await.unwrap();
                output.check().unwrap().stdout
            }
            [by, id] if by == "engine" => {
                let bare = Bare::new("");
                assert!(bare.runs(id).await);
                bare.exec(id, &["echo", "hi"]).await
            }
            _ => panic!("`{MODE}` takes `podkit PREFIX` or `engine ID`: {words:?}"),
        }
    });
    std::io::stdout().write_all(&output).unwrap();
}
