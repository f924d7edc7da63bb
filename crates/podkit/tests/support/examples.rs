//! The examples of the seed, run as programs run them.
#![expect(dead_code, reason = "the examples' own `main` is not called here")]

#[path = "../../examples/full_control.rs"]
mod full_control;
#[path = "../../examples/mounts.rs"]
mod mounts;
#[path = "../../examples/one_shot.rs"]
mod one_shot;
#[path = "../../examples/ports.rs"]
mod ports;
#[path = "../../examples/production.rs"]
mod production;
#[path = "../../examples/scoped.rs"]
mod scoped;
#[path = "../../examples/simplest.rs"]
mod simplest;
#[path = "../../examples/workspace.rs"]
mod workspace;

use std::{
    fs,
    path::{Path, PathBuf},
};

use podkit::{Podkit, PodkitBuilder};

/// All of them, on one engine.
pub async fn run_all(
    builder: impl Fn() -> PodkitBuilder + Send + Sync,
    place: &Path,
    network: Option<&str>,
) {
    let podkit = builder().build().await.unwrap();
    let directory = |name: &str| -> PathBuf {
        let path = place.join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    assert_eq!(simplest::run(&podkit).await.unwrap(), b"/workspace\n");
    assert_eq!(simplest::run(&podkit).await.unwrap(), b"/workspace\n");
    let key = podkit::SessionKey::new("bob", "123").unwrap();
    assert!(podkit.close(&key).await.unwrap().existed);
    assert_eq!(scoped::run(&podkit).await.unwrap(), b"/workspace\n");

    let answer = ports::run(&podkit).await.unwrap();
    assert!(answer.ends_with("hello from the session\n"), "{answer}");

    let (data, configs, outputs) = (
        directory("data"),
        directory("configs"),
        directory("outputs"),
    );
    fs::write(data.join("dataset.csv"), "a,b\n").unwrap();
    let script = "echo \"$ENV $2 $4\" > \"$4\"; wc -l < \"$2\"";
    fs::write(data.join("process.sh"), script).unwrap();
    let read = mounts::run(&podkit, &data, &configs, &outputs).await;
    assert_eq!(read.unwrap(), b"a,b\n");
    let written = fs::read_to_string(outputs.join("results.txt")).unwrap();
    assert_eq!(written, "processing complete\n");
    assert_eq!(fs::read(data.join("dataset.csv")).unwrap(), b"a,b\n");

    let output = production::run(&podkit, &data, &outputs, network).await;
    let output = output.unwrap().check().unwrap();
    assert_eq!(output.stdout_text().trim(), "1");
    let results = fs::read_to_string(outputs.join("results.json")).unwrap();
    assert!(
        results.starts_with("production /data/dataset.csv"),
        "{results}"
    );

    let base = directory("base");
    let path = workspace::run(&podkit, &base).await.unwrap();
    assert_eq!(path, base.join("workspaces/bob/task-456/output.txt"));
    assert_eq!(fs::read(path).unwrap(), b"results");

    let passed = one_shot::run(&podkit).await.unwrap();
    assert_eq!(passed.stdout, b"passed\n");
    full_control(&builder, &directory("projects")).await;
    let left = podkit.list().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    podkit.shutdown().await;
}

async fn full_control(builder: &(impl Fn() -> PodkitBuilder + Sync), base: &Path) {
    let podkit: Podkit = full_control::configured(builder(), base)
        .build()
        .await
        .unwrap();
    let (said, path) = full_control::run(&podkit).await.unwrap();
    assert_eq!(said, b"Hello\n");
    assert_eq!(path, base.join("user-session/file.txt"));
    assert_eq!(fs::read(path).unwrap(), b"Hello from podkit");
    podkit.shutdown().await;
}
