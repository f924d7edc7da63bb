//! Listing, inspecting, stopping, closing, files and doctor, on the embedded engine.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use rustix::process::Signal;

use crate::support::{Home, read_until, signal, wait_for};

#[test]
fn list_and_inspect_show_what_there_is() {
    let home = Home::new();
    assert_eq!(home.ok(&["ls", "-q"]), "");
    assert_eq!(home.json(&["ls", "--json"]), serde_json::json!([]));
    home.ok(&["exec", "-q", "bob/b", "true"]);
    home.ok(&[
        "exec",
        "-q",
        "--memory",
        "100m",
        "--session-env",
        "TOKEN=hunter2",
        "bob/a%2Fx",
        "true",
    ]);
    home.ok(&["exec", "-q", "--prefix", "other", "bob/hidden", "true"]);
    assert_eq!(home.ok(&["ls", "-q"]), "bob/a%2Fx\nbob/b\n");
    assert_eq!(home.ok(&["ls", "-q", "--user", "eve"]), "");
    let text = home.ok(&["ls"]);
    let mut lines = text.lines();
    assert!(
        lines.next().unwrap().starts_with("SESSION    STATE"),
        "{text}"
    );
    assert!(
        lines.next().unwrap().starts_with("bob/a%2Fx  running"),
        "{text}"
    );
    let list = home.json(&["ls", "--json", "--user", "bob"]);
    assert_eq!(list[0]["session_id"], "a/x");
    assert_eq!(list[0]["state"], "running");
    let info = home.json(&["inspect", "--json", "bob/a%2Fx"]);
    assert_eq!(info["spec"]["memory_bytes"], 100 << 20);
    assert_eq!(info["spec"]["env"], serde_json::json!(["TOKEN"]));
    assert_eq!(info["config_lost"], false);
    let text = home.ok(&["inspect", "bob/a%2Fx"]);
    assert!(
        text.contains("memory         100m\n") && !text.contains("hunter2"),
        "{text}"
    );
    let ran = home.run(&["inspect", "bob/none"]);
    assert_eq!(ran.code, 125);
    assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    home.ok(&["close", "--prefix", "other", "bob/hidden"]);
}

#[test]
fn stopped_session_starts_again_with_its_files() {
    let home = Home::new();
    home.ok(&[
        "exec",
        "-q",
        "s",
        "-c",
        "echo kept > note; echo kept > /note",
    ]);
    home.ok(&["stop", "--grace", "1s", "s"]);
    assert_eq!(home.json(&["inspect", "--json", "s"])["state"], "exited");
    home.ok(&["stop", "s"]);
    let ran = home.run(&["exec", "s", "--", "cat", "note", "/note"]);
    assert_eq!(
        (ran.text().as_str(), ran.stderr.as_str()),
        ("kept\nkept\n", "")
    );
    assert_eq!(home.run(&["stop", "none"]).code, 125);
}

#[test]
fn close_removes_and_may_be_repeated() {
    let home = Home::new();
    home.ok(&["exec", "-q", "a", "true"]);
    home.ok(&["exec", "-q", "b", "true"]);
    home.ok(&["close", "a", "b"]);
    assert_eq!(home.ok(&["ls", "-q", "-a"]), "");
    let again = home.run(&["close", "a"]);
    assert_eq!(
        (again.code, again.stderr.as_str()),
        (0, "podkit: there is no session me/a\n")
    );
    let json = home.json(&["close", "--json", "a"]);
    assert_eq!(json[0]["existed"], false);
}

#[test]
fn close_ends_a_running_command() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    let words = ["exec", "s", "-c", "echo ready; exec sleep 60"];
    let mut child = home.command(&words).stdout(Stdio::piped()).spawn().unwrap();
    crate::support::read_until(child.stdout.as_mut().unwrap(), "ready\n");
    home.ok(&["close", "s"]);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn gc_removes_only_what_was_not_used() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    home.ok(&["gc", "--idle", "1h"]);
    assert_eq!(home.ok(&["ls", "-q"]), "me/s\n");
    wait_for("the session has been idle for a moment", || {
        home.ok(&["gc", "--idle", "1ms", "--dry-run"])
            .contains("would remove session me/s")
    });
    assert_eq!(
        home.ok(&["ls", "-q"]),
        "me/s\n",
        "a dry run removes nothing"
    );
    let removed = home.json(&["gc", "--idle", "1ms", "--json"]);
    assert_eq!(removed["removed"], serde_json::json!(["me/s"]));
    assert_eq!(home.ok(&["ls", "-q", "-a"]), "");
}

#[test]
fn write_and_read_keep_every_byte() {
    let home = Home::new();
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(1_000_003).collect();
    let ran = home.run_with(&["write", "-q", "s", "deep/er/file"], &bytes);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = home.run(&["read", "s", "/workspace/deep/er/file"]);
    assert!(ran.code == 0 && ran.stdout == bytes);
    assert_eq!(
        home.run_with(&["write", "-a", "s", "log"], b"one\n").code,
        0
    );
    assert_eq!(
        home.run_with(&["write", "-a", "s", "log"], b"two\n").code,
        0
    );
    assert_eq!(home.ok(&["read", "s", "log"]), "one\ntwo\n");
    assert_eq!(
        home.run_with(&["write", "--mode", "600", "s", "secret"], b"x")
            .code,
        0
    );
    assert_eq!(
        home.ok(&["exec", "s", "--", "stat", "-c", "%a", "secret"]),
        "600\n"
    );
    let missing = home.run(&["read", "--json", "s", "missing"]);
    assert_eq!(
        (missing.code, missing.error()["kind"].as_str()),
        (125, Some("not_found"))
    );
    assert_eq!(home.run(&["read", "s", "/etc"]).code, 125);
    assert_eq!(home.run(&["read", "-u", "nobody", "s", "secret"]).code, 125);
}

#[test]
fn cp_carries_a_tree_both_ways() {
    let home = Home::new();
    fs::create_dir_all(home.path("tree/sub/empty")).unwrap();
    fs::write(home.path("tree/run.sh"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(home.path("tree/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(home.path("tree/sub/data"), vec![7; 300_000]).unwrap();
    std::os::unix::fs::symlink("../run.sh", home.path("tree/sub/link")).unwrap();
    let tree = home.path("tree");
    home.ok(&["cp", "-q", tree.to_str().unwrap(), "s:/workspace"]);
    assert_eq!(
        home.ok(&["exec", "s", "--", "/workspace/tree/sub/link"]),
        "ran\n"
    );
    home.ok(&["cp", tree.to_str().unwrap(), "s:new"]);
    assert_eq!(home.ok(&["exec", "s", "--", "ls", "new"]), "run.sh\nsub\n");
    let back = home.path("back");
    home.ok(&["cp", "s:/workspace/tree", back.to_str().unwrap()]);
    assert_eq!(fs::read(back.join("sub/data")).unwrap(), vec![7; 300_000]);
    assert_eq!(
        fs::read_link(back.join("sub/link")).unwrap().to_str(),
        Some("../run.sh")
    );
    assert_eq!(
        fs::metadata(back.join("run.sh"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o755
    );
    assert!(back.join("sub/empty").is_dir());
    home.ok(&["cp", "s:/workspace/tree/run.sh", back.to_str().unwrap()]);
    // Of a part of the tree, the link leads out of what is copied.
    let empty = back.join("sub/empty");
    let ran = home.run(&["cp", "s:tree/sub/.", empty.to_str().unwrap()]);
    assert_eq!(ran.code, 125);
    assert!(
        ran.stderr.contains("`link` to `../run.sh`"),
        "{}",
        ran.stderr
    );
    assert!(empty.join("data").exists() && !empty.join("link").exists());
    let json = home.json(&[
        "cp",
        "--json",
        "s:tree/sub/data",
        home.path("one").to_str().unwrap(),
    ]);
    assert_eq!(
        (json["bytes"].as_u64(), json["entries"].as_u64()),
        (Some(300_000), Some(1))
    );
}

#[test]
fn cp_out_is_not_led_astray() {
    let home = Home::new();
    fs::write(home.path("victim"), "untouched").unwrap();
    let script = "mkdir t && cd t && ln -s /etc/passwd absolute && ln -s ../victim up && ln -s . here \
                  && ln -s here/../victim sneaky && echo x > file && chmod 6755 file && mkfifo fifo";
    home.ok(&["exec", "-q", "s", "-c", script]);
    let ran = home.run(&["cp", "s:t", home.path("t").to_str().unwrap()]);
    assert_eq!(ran.code, 125, "{}", ran.stderr);
    for name in ["absolute", "up", "sneaky", "fifo"] {
        assert!(ran.stderr.contains(name), "{name}: {}", ran.stderr);
        assert!(
            fs::symlink_metadata(home.path("t").join(name)).is_err(),
            "{name}"
        );
    }
    assert_eq!(
        fs::metadata(home.path("t/file"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7000,
        0
    );
    // A link that lies where a file goes is replaced, and nothing is written through it.
    fs::remove_file(home.path("t/file")).unwrap();
    std::os::unix::fs::symlink(home.path("victim"), home.path("t/file")).unwrap();
    home.ok(&["cp", "s:t/file", home.path("t").to_str().unwrap()]);
    assert_eq!(fs::read(home.path("victim")).unwrap(), b"untouched");
    assert_eq!(fs::read(home.path("t/file")).unwrap(), b"x\n");
}

#[test]
fn cp_of_what_is_not_there_is_an_error() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    for words in [
        ["cp", "/nowhere/at/all", "s:/x"],
        ["cp", "s:/nowhere", "/var/tmp/podkit-none"],
    ] {
        let ran = home.run(&words);
        assert_eq!(ran.code, 125, "{words:?}");
        assert!(ran.stderr.contains("/nowhere"), "{}", ran.stderr);
    }
    let ran = home.run(&["cp", "s:/etc/passwd", "/dev/null"]);
    assert_eq!(ran.code, 125, "{}", ran.stderr);
}

#[test]
fn workspace_of_the_configuration_outlives_the_container() {
    let home = Home::new();
    fs::create_dir_all(home.path(".config/podkit")).unwrap();
    let config = format!(
        "workspace = {:?}\n[session]\nmemory = \"200m\"\n",
        home.path("ws")
    );
    fs::write(home.path(".config/podkit/config.toml"), config).unwrap();
    home.ok(&["exec", "-q", "bob/1", "-c", "echo kept > note"]);
    assert_eq!(
        fs::read(home.path("ws/workspaces/bob/1/note")).unwrap(),
        b"kept\n"
    );
    assert_eq!(
        home.json(&["inspect", "--json", "bob/1"])["spec"]["memory_bytes"],
        200 << 20
    );
    home.ok(&["close", "bob/1"]);
    assert_eq!(
        home.ok(&["exec", "-q", "bob/1", "--", "cat", "note"]),
        "kept\n"
    );
}

#[test]
fn doctor_tries_and_reports() {
    let home = Home::new();
    let text = home.ok(&["doctor"]);
    assert!(text.starts_with("engine: embedded\n"), "{text}");
    assert!(
        text.contains("isolation of user ids: ") && text.ends_with("podkit works here\n"),
        "{text}"
    );
    let json = home.json(&["doctor", "--json"]);
    assert_eq!(json["works"], true);
    assert!(
        json["checks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|check| check["ok"] == true)
    );
    assert_eq!(home.ok(&["ls", "-q", "-a"]), "", "doctor leaves nothing");
    let ran = home.run(&["doctor", "--backend", "nothing"]);
    assert_eq!(ran.code, 1);
    assert!(ran.text().contains("FAILED"), "{}", ran.text());
}

/// `doctor --attack` once the first attack is over, and the places that it makes on the host.
fn attacking(home: &Home) -> (Child, [PathBuf; 2]) {
    let mut command = home.command(&["doctor", "--attack"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), " held\n");
    let made = format!("podkit-attack-{}", child.id());
    let made = ["/tmp", "/usr/local/share"].map(|place| Path::new(place).join(&made));
    (child, made)
}

/// Processes of this host whose program is below a directory.
fn programs_in(directory: &Path) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|process| std::fs::read_link(process.path().join("exe")).ok())
        .filter(|program| program.starts_with(directory))
        .count()
}

#[test]
fn doctor_attack_that_is_interrupted_leaves_nothing() {
    let home = Home::new();
    let (mut child, made) = attacking(&home);
    assert!(made[0].exists());
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!made.iter().any(|path| path.exists()));
    assert_eq!(home.ok(&["ls", "-q", "-a"]), "");
}

#[test]
fn doctor_attack_that_was_killed_is_cleared_away_by_the_next() {
    let home = Home::new();
    let (mut child, made) = attacking(&home);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(made[0].exists());
    wait_for("the end of its programs on the host", || {
        programs_in(&made[0]) == 0
    });
    let mut next = home.command(&["doctor", "--attack"]);
    next.env("PATH", "/nonexistent").output().unwrap();
    assert!(!made.iter().any(|path| path.exists()));
    let left = home.json(&["ls", "--json", "-a"]);
    for session in left.as_array().unwrap() {
        let id = session["session_id"].as_str().unwrap();
        let name = format!("{}/{id}", session["user_id"].as_str().unwrap());
        let spec = &home.json(&["inspect", "--json", &name])["spec"];
        assert!(spec.to_string().contains("idle_timeout"), "{spec}");
    }
}

#[test]
fn doctor_attack_without_a_compiler_claims_nothing() {
    let home = Home::new();
    let attack = |words: &[&str]| {
        let mut command = home.command(words);
        let output = command.env("PATH", "/nonexistent").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = attack(&["doctor", "--attack"]);
    let rows = text.lines().filter(|line| line.ends_with(" not_run"));
    assert!(rows.count() >= 60, "{text}");
    assert!(
        text.contains("control not run: the attack programs cannot be built"),
        "{text}"
    );
    assert!(text.ends_with(" not run\n"), "{text}");
    let json = attack(&["doctor", "--attack", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["as_promised"], false);
    assert_eq!(json["counts"]["held"], 0);
    for finding in json["attacks"].as_array().unwrap() {
        assert!(finding["control"]["not_run"].is_string(), "{finding}");
        assert_eq!(finding["verdict"], "not_run");
    }
    assert_eq!(home.run(&["doctor", "--beside", "docker:debian"]).code, 2);
    assert_eq!(
        home.run(&["doctor", "--attack", "--beside", "docker"]).code,
        2
    );
}

#[test]
fn limits_rest_and_use_of_a_session_are_told_and_changed() {
    let home = Home::new();
    assert_eq!(home.run(&["limit", "s"]).code, 2);
    assert_eq!(home.run(&["pause", "s"]).code, 125);
    home.ok(&["exec", "-q", "s", "true"]);
    home.ok(&["limit", "s", "--memory", "100m", "--pids", "77"]);
    let stats = home.json(&["--json", "stats", "s", "--interval", "50ms"]);
    assert_eq!(stats[0]["memory_limit_bytes"], 100 << 20);
    assert_eq!(stats[0]["pids_limit"], 77);
    assert!(stats[0]["cpus"].is_number(), "{stats}");
    assert!(home.ok(&["stats"]).contains("100.0m"));
    home.ok(&["pause", "s"]);
    assert_eq!(home.json(&["inspect", "--json", "s"])["state"], "paused");
    home.ok(&["resume", "s"]);
    assert_eq!(home.json(&["inspect", "--json", "s"])["state"], "running");
    home.ok(&["pause", "s"]);
    assert_eq!(home.run(&["exec", "s", "echo", "hi"]).text(), "hi\n");
    home.ok(&["stop", "s"]);
    assert_eq!(home.run(&["stats", "s"]).code, 125);
    assert_eq!(home.json(&["--json", "stats"]), serde_json::json!([]));
}

#[test]
fn monitor_brings_a_killed_container_back_and_says_so() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    let mut monitor = home.command(&["monitor", "--interval", "50ms", "--json"]);
    let mut monitor = monitor.stdout(Stdio::piped()).spawn().unwrap();
    let mut told = monitor.stdout.take().unwrap();
    let containers = fs::read_dir(home.path("state/containers")).unwrap();
    let state = containers
        .last()
        .unwrap()
        .unwrap()
        .path()
        .join("state.json");
    let state: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(state).unwrap()).unwrap();
    signal_pid(state["pid"].as_u64().unwrap(), Signal::KILL);
    read_until(&mut told, "\"event\":\"health_check_failed\"");
    read_until(&mut told, "\"event\":\"recovered\"");
    assert_eq!(home.json(&["inspect", "--json", "s"])["state"], "running");
    signal(&monitor, Signal::TERM);
    let ended = monitor.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

fn signal_pid(pid: u64, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn audit_file_gets_a_line_for_each_command() {
    let home = Home::new();
    let file = home.path("audit");
    let file = file.to_str().unwrap();
    home.ok(&["--audit", file, "exec", "-q", "s", "echo", "one"]);
    let ran = home.run(&["--audit", file, "run", "-q", "host", "-c", "exit 3"]);
    assert_eq!(ran.code, 3);
    let text = std::fs::read_to_string(file).unwrap();
    let codes: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["code"].as_u64().unwrap())
        .collect();
    assert_eq!(codes, [0, 3]);
    let full = home.run(&["--audit", "/dev/full", "exec", "-q", "s", "echo", "hi"]);
    assert_eq!((full.code, full.text().as_str()), (0, "hi\n"));
    assert!(full.stderr.contains("not in the audit"), "{}", full.stderr);
    let refused = home.run(&["--audit", "/no/such/dir/audit", "exec", "s", "true"]);
    assert_eq!(refused.code, 125);
}

#[test]
fn ports_are_shown_offered_and_forwarded() {
    let home = Home::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let number = free.local_addr().unwrap().port();
    drop(free);
    home.ok(&["exec", "-q", "-p", &format!("{number}:8000"), "s", "true"]);
    let shown = home.ok(&["port", "s"]);
    assert_eq!(shown, format!("8000/tcp -> 127.0.0.1:{number}\n"));
    let script = "import socket\ns = socket.create_server(('0.0.0.0', 8000))\n\
                  while True:\n c, _ = s.accept()\n c.sendall(b'hello')\n c.close()";
    home.ok(&[
        "spawn",
        "-q",
        "s",
        "--keep-alive",
        "--",
        "python3",
        "-c",
        script,
    ]);
    wait_for("somebody who listens", || {
        home.ok(&["port", "-l", "s"]).contains("8000")
    });
    assert_eq!(hear(number), "hello");
    let mut forward = home.command(&["forward", "-q", "s", "8000", "--local", "0"]);
    let mut forward = forward.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut told = std::io::BufReader::new(forward.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut told, &mut line).unwrap();
    let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(hear(port), "hello");
    signal(&forward, Signal::INT);
    assert!(forward.wait().unwrap().success());
}

fn hear(port: u16) -> String {
    let mut text = String::new();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
    text
}

#[test]
fn cp_carries_archives_both_ways() {
    let home = Home::new();
    fs::create_dir_all(home.path("t/sub")).unwrap();
    fs::write(home.path("t/sub/file"), "in a tar").unwrap();
    let tree = home.path("t");
    home.ok(&["cp", tree.to_str().unwrap(), "s:t"]);
    let archive = home.run(&["cp", "s:t", "-"]).stdout;
    let ran = home.run_with(&["cp", "-", "s:again"], &archive);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(home.ok(&["read", "s", "again/sub/file"]), "in a tar");
    let ran = home.run_with(&["cp", "-", "s:again"], b"no tar");
    assert_eq!(ran.code, 125, "{}", ran.stderr);
    let usage = home.json(&["du", "--json", "s", "again"]);
    assert_eq!(usage["files"].as_u64(), Some(1));
    assert!(
        home.ok(&["du", "s", "again"])
            .contains("1 files and 2 directories")
    );
}

#[test]
fn watch_tells_of_changes_until_it_is_interrupted() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "--", "mkdir", "d"]);
    let mut watch = home.command(&["watch", "-r", "s"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut told = watch.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        read_until(&mut told, "d/file\n");
        told
    });
    wait_for("a change", || {
        home.ok(&["exec", "s", "-c", "echo >>d/file"]);
        reader.is_finished()
    });
    // It tells of more while it is interrupted, and needs somebody to tell it to.
    let _told = reader.join().unwrap();
    signal(&watch, Signal::TERM);
    assert!(watch.wait().unwrap().success());
}
