//! Writes what the corpora began with: real messages, archives, labels and words.
//!
//!     cargo run --manifest-path fuzz/Cargo.toml --example seeds

mod wire;

use std::{fs, io, path::Path, time::Duration};

use podkit::{Limit, Mount, Network, Port, SessionSpec, Ulimit, Workspace};
use podkit_agent::{Reply, Request};

use wire::{
    archives, client, noise, passwd, plans, replies, requests, terminal, within, wires,
};

fn main() -> io::Result<()> {
    put("requests", wires(&requests(), Request::encode))?;
    put(
        "replies",
        wires(&replies(), Reply::encode).into_iter().chain(within()),
    )?;
    put("plans", plans())?;
    put(
        "archive",
        archives().into_iter().map(|wire| [vec![0], wire].concat()),
    )?;
    put(
        "image",
        archives().into_iter().map(|wire| [vec![0], wire].concat()),
    )?;
    put("passwd", passwd())?;
    put("terminal", terminal())?;
    put("client", client())?;
    put("tree", noise())?;
    put("links", noise())?;
    put("labels", labels()?)?;
    put("translations", translations())?;
    put("words", WORDS.iter().map(|word| word.as_bytes().to_vec()))?;
    put("records", records()?)
}

fn put(target: &str, seeds: impl IntoIterator<Item = Vec<u8>>) -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&corpus)?;
    for (number, seed) in seeds.into_iter().enumerate() {
        fs::write(corpus.join(format!("seed-{number:03}")), seed)?;
    }
    Ok(())
}

fn specs() -> Vec<SessionSpec> {
    let whole = SessionSpec::new()
        .image("python:3.12")
        .cpus(1.5)
        .memory("1g")
        .swap("1g")
        .pids_max(100)
        .shm("64m")
        .env("TOKEN", "")
        .label("team", "")
        .cwd("/srv")
        .user("nobody")
        .mount(Mount::bind("/data", "/data").read_only())
        .mount(Mount::volume("v", "/v"))
        .mount(Mount::tmpfs("/m", Some(1 << 20)))
        .network(Network::None)
        .port(Port::new(80).at(8080))
        .host("db", "10.0.0.1")
        .ulimit("nofile", Ulimit::new(1024, 4096))
        .entrypoint(["server"])
        .command(["--port", "80"])
        .workspace(Workspace::new("/srv/podkit"))
        .auto_stop(Limit::Off)
        .max_lifetime(Limit::After(Duration::from_millis(1500)));
    vec![SessionSpec::new(), whole]
}

fn labels() -> io::Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    for spec in specs() {
        let config = serde_json::to_string(&spec)?;
        for prefix in ["podkit", "other"] {
            let texts = [prefix, "bob/é", "1 2", &config, &config, "hunter2", "a"];
            seeds.push(texts.map(str::as_bytes).join(&0xff));
        }
    }
    Ok(seeds)
}

fn translations() -> Vec<Vec<u8>> {
    let paths = [
        "/workspace/a/../b",
        "a/b",
        "/srv/base/workspaces/bob/1/x",
        "/workspace/../etc",
        "./x",
        "../x",
    ];
    let seed = |path: &str| {
        [path, "/workspace", "bob", "1"]
            .map(str::as_bytes)
            .join(&0xff)
    };
    paths.into_iter().map(seed).collect()
}

const WORDS: &[&str] = &[
    "512m",
    "1.5g",
    "1073741824",
    "2KiB",
    "250ms",
    "1.5h",
    "30",
    "/data:/data:ro",
    "v:/v",
    "8000",
    "0:80/udp",
    "127.0.0.1:8080:8000/tcp",
    "[::1]:81:80",
    "bob/a%2Fb",
    "session",
    "/dev/fuse:/dev/fuse:rw",
    "all",
    "0,1",
    "nofile=1024:4096",
    "python:3.12",
    "dir:/srv",
    "tar:/a.tar",
    "host",
    "none",
    "127.0.0.1 8000 42 server",
    "podkit",
    "\u{1b}[2J\u{202e}",
    "always",
];

fn records() -> io::Result<Vec<Vec<u8>>> {
    let spec = serde_json::to_string(&podkit_runtime::ContainerSpec::new("first"))?;
    let config = format!(
        r#"{{"version":1,"token":"00","created_at_ms":1,"isolation":"own-range","first_id":1879048192,"image":null,"spec":{spec}}}"#
    );
    let record = r#"{"version":1,"sequence":3,"pid":42,"start_time":5,"boot_id":"x","started_at_ms":1,"volatile_root":false,"stopping":false,"cgroups":{"memory":"/sys/fs/cgroup/memory","cpu":null,"pids":null,"swap":true,"unified":null},"layer":"host-1-00","sequence_again":3}"#;
    let mounts = config.replace(
        r#""mounts":[]"#,
        r#""mounts":[{"bind":{"source":"/srv","target":"/s","read_only":true}},{"tmpfs":{"target":"/m","size_bytes":4096,"mode":448}}]"#,
    );
    Ok([config, mounts, record.to_owned()]
        .map(String::into_bytes)
        .to_vec())
}
