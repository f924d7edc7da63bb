//! Commands in real containers of the embedded engine.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{Home, read_until, signal, wait_for};

#[test]
fn first_exec_makes_the_session_and_says_so_the_second_finds_it() {
    let home = Home::new();
    let first = home.run(&["exec", "bob/123", "--", "pwd"]);
    assert_eq!(
        (first.code, first.text().as_str()),
        (0, "/workspace\n"),
        "{}",
        first.stderr
    );
    assert!(
        first
            .stderr
            .starts_with("podkit: created container podkit-123-bob-"),
        "{}",
        first.stderr
    );
    assert!(
        first
            .stderr
            .ends_with(" for bob/123 (embedded, image host)\n"),
        "{}",
        first.stderr
    );
    let second = home.run(&[
        "exec",
        "bob/123",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
    ]);
    assert_eq!((second.code, second.text().as_str()), (3, "out\n"));
    assert_eq!(second.stderr, "err\n");
}

#[test]
fn session_without_a_user_is_the_callers() {
    let home = Home::new();
    home.ok(&["exec", "-q", "mine", "true"]);
    assert_eq!(home.ok(&["ls", "-q"]), "me/mine\n");
    let mut other = home.command(&["exec", "-q", "mine", "true"]);
    assert!(other.env_remove("PODKIT_USER").status().unwrap().success());
    let root = if rustix::process::getuid().is_root() {
        "root/mine"
    } else {
        "/mine"
    };
    assert!(home.ok(&["ls", "-q"]).contains(root));
}

#[test]
fn exit_codes_are_the_commands() {
    let home = Home::new();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["true"], 0, ""),
        (&["sh", "-c", "exit 255"], 255, ""),
        (&["sh", "-c", "kill -TERM $$"], 143, ""),
        (&["sh", "-c", "kill -KILL $$"], 137, ""),
        (&["/no/such/program"], 127, "/no/such/program"),
        (&["no-such-program"], 127, "no-such-program"),
        (&["/etc"], 126, "/etc"),
        (&["/etc/passwd"], 126, "/etc/passwd"),
    ];
    home.ok(&["exec", "-q", "s", "true"]);
    for (words, code, complaint) in cases {
        let ran = home.run(&[&["exec", "s", "--"], *words].concat());
        assert_eq!(ran.code, *code, "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(complaint), "{words:?}: {}", ran.stderr);
        assert_eq!(
            ran.stderr.is_empty(),
            complaint.is_empty(),
            "{words:?}: {}",
            ran.stderr
        );
    }
}

#[test]
fn command_out_of_time_exits_with_124_and_a_line() {
    let home = Home::new();
    let ran = home.run(&["exec", "-q", "s", "true"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let began = Instant::now();
    let ran = home.run(&[
        "exec",
        "--timeout",
        "300ms",
        "s",
        "--",
        "sh",
        "-c",
        "echo begun; sleep 60",
    ]);
    assert_eq!(
        (ran.code, ran.text().as_str()),
        (124, "begun\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.stderr, "podkit: the command ran out of time\n");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn command_that_cannot_be_run_leaves_a_clear_error() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    for (words, what) in [
        (
            &["exec", "-u", "nobody-here", "s", "true"][..],
            "nobody-here",
        ),
        (&["exec", "-w", "/missing", "s", "true"], "/missing"),
        (&["exec", "--memory", "1k", "t", "true"], "memory"),
        (&["exec", "--cpus", "0.0001", "t", "true"], "cpus"),
        (
            &["exec", "--image", "tar:/etc/passwd", "t", "true"],
            "no tar archive",
        ),
        (&["exec", "--mount", "/missing:/x", "t", "true"], "/missing"),
        (&["exec", "--no-create", "t", "true"], "me/t"),
    ] {
        let ran = home.run(words);
        assert_eq!(ran.code, 125, "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(what), "{words:?}: {}", ran.stderr);
        assert!(
            ran.stderr.starts_with("error: "),
            "{words:?}: {}",
            ran.stderr
        );
    }
    assert_eq!(
        home.ok(&["ls", "-q", "-a"]),
        "me/s\n",
        "nothing is left behind"
    );
}

#[test]
fn input_and_output_are_bytes() {
    let home = Home::new();
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(3_000_001).collect();
    let ran = home.run_with(&["exec", "-q", "s", "--", "cat"], &bytes);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout == bytes, "{} bytes came back", ran.stdout.len());
    let ran = home.run_with(&["exec", "s", "-c", "cat >&2"], b"\xff\0x");
    assert_eq!(ran.stderr, String::from_utf8_lossy(b"\xff\0x"));
}

#[test]
fn input_that_is_not_read_ends_nothing() {
    let home = Home::new();
    let ran = home.run_with(&["exec", "-q", "s", "--", "true"], &vec![b'x'; 2_000_000]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = home.run_with(
        &["exec", "s", "--", "head", "-c", "3"],
        &vec![b'x'; 2_000_000],
    );
    assert_eq!((ran.code, ran.text().as_str()), (0, "xxx"));
}

#[test]
fn open_input_does_not_hold_up_a_command_that_ends() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    let (read_end, write_end) = std::io::pipe().unwrap();
    let output = home
        .command(&["exec", "s", "--", "echo", "done"])
        .stdin(read_end)
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"done\n");
    drop(write_end);
}

#[test]
fn input_refused_is_not_consumed() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    let loop_text = "while read -r line; do \"$0\" exec -n s -- echo \"got $line\"; done";
    let mut shell = std::process::Command::new("sh");
    let podkit = home.command(&[]);
    shell
        .args(["-c", loop_text, env!("CARGO_BIN_EXE_podkit")])
        .env_clear();
    shell.envs(
        podkit
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let mut child = shell
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"a\nb\nc\n").unwrap();
    assert_eq!(
        child.wait_with_output().unwrap().stdout,
        b"got a\ngot b\ngot c\n"
    );
}

#[test]
fn redirections_reach_the_command_only_as_bytes() {
    let home = Home::new();
    fs::write(home.path("in"), "input").unwrap();
    let output = home
        .command(&[
            "exec",
            "-q",
            "s",
            "-c",
            "cat; readlink /proc/self/fd/0 /proc/self/fd/1",
        ])
        .stdin(fs::File::open(home.path("in")).unwrap())
        .stdout(fs::File::create(home.path("out")).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = fs::read_to_string(home.path("out")).unwrap();
    let links: Vec<&str> = text.strip_prefix("input").unwrap().lines().collect();
    assert_eq!(links.len(), 2, "{text}");
    assert!(
        links
            .iter()
            .all(|link| link.starts_with("pipe:") || link.starts_with("socket:")),
        "{text}"
    );
}

#[test]
fn reader_that_goes_away_ends_the_command() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    let mut child = home
        .command(&["exec", "s", "--", "yes"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(child.stdout.as_mut().unwrap(), "y\ny\n");
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
    wait_for("the command is gone", || {
        home.ok(&["exec", "s", "-c", "cat /proc/[0-9]*/comm; true"])
            .lines()
            .all(|name| name != "yes")
    });
}

#[test]
fn full_disk_ends_the_command_with_an_error() {
    let home = Home::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = home
        .command(&["exec", "-q", "s", "--", "yes"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("failed to write standard output"),
        "{stderr}"
    );
}

#[test]
fn signals_reach_the_command() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    for (name, number) in [
        ("INT", Signal::INT),
        ("TERM", Signal::TERM),
        ("HUP", Signal::HUP),
        ("QUIT", Signal::QUIT),
    ] {
        let script = format!(
            "trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done"
        );
        let mut child = home
            .command(&["exec", "s", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        read_until(&mut stdout, "ready\n");
        signal(&child, number);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, format!("got {name}\n"));
        assert_eq!(child.wait().unwrap().code(), Some(9));
    }
}

#[test]
fn signal_that_ends_the_command_shows_in_the_code() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    let words = ["exec", "s", "-c", "echo ready; exec sleep 60"];
    let mut child = home.command(&words).stdout(Stdio::piped()).spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "ready\n");
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn second_interrupt_within_a_second_kills() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    let script = "trap 'echo no' INT; echo ready; while :; do sleep 0.05; done";
    let mut child = home
        .command(&["exec", "s", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    read_until(&mut stdout, "ready\n");
    signal(&child, Signal::INT);
    read_until(&mut stdout, "no\n");
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn killed_podkit_takes_the_command_with_it() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    let words = ["exec", "s", "-c", "echo ready; exec sleep 61"];
    let mut child = home.command(&words).stdout(Stdio::piped()).spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "ready\n");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the command is gone", || {
        home.ok(&["exec", "s", "-c", "cat /proc/[0-9]*/comm; true"])
            .lines()
            .all(|name| name != "sleep")
    });
}

#[test]
fn environment_directory_and_user_are_the_commands() {
    let home = Home::new();
    let mut command = home.command(&[
        "exec",
        "-q",
        "-e",
        "A=1",
        "-e",
        "MINE",
        "-e",
        "ABSENT",
        "-w",
        "/tmp",
        "-u",
        "nobody",
        "--session-env",
        "B=2",
        "s",
        "-c",
        "echo $A $MINE ${ABSENT-none} $B; pwd; id -un",
    ]);
    let output = command.env("MINE", "own").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1 own none 2\n/tmp\nnobody\n"
    );
    assert_eq!(home.ok(&["exec", "s", "-c", "echo $A$B"]), "2\n");
}

#[test]
fn result_as_json_is_one_object() {
    let home = Home::new();
    let words = [
        "exec",
        "--json",
        "s",
        "-c",
        "printf 'a\\377'; echo err >&2; exit 4",
    ];
    let ran = home.run(&words);
    assert_eq!(ran.code, 4);
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
    let value: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(value["outcome"], "exited");
    assert_eq!(value["code"], 4);
    assert_eq!(value["session"], "me/s");
    assert_eq!(value["opened"], "created");
    assert_eq!(value["stdout"], "a\u{fffd}");
    assert_eq!(value["stdout_base64"], "Yf8=");
    assert_eq!(value["stderr"], "err\n");
    assert_eq!(value.get("stderr_base64"), None);
    assert_eq!(value["truncated"]["stdout"], false);
    assert!(value["usage"]["wall_seconds"].as_f64().unwrap() > 0.0);
    let ran = home.run(&["exec", "--json", "--no-create", "other", "true"]);
    assert_eq!(
        (ran.code, ran.error()["kind"].as_str()),
        (125, Some("not_found"))
    );
}

#[test]
fn other_settings_than_the_sessions_are_a_conflict() {
    let home = Home::new();
    home.ok(&[
        "exec", "-q", "--memory", "256m", "s", "--", "touch", "/kept",
    ]);
    home.ok(&[
        "exec", "--memory", "262144k", "s", "--", "test", "-e", "/kept",
    ]);
    let ran = home.run(&["exec", "--json", "--memory", "300m", "s", "true"]);
    assert_eq!(
        (ran.code, ran.error()["kind"].as_str()),
        (125, Some("conflict"))
    );
    assert!(ran.error()["hint"].as_str().unwrap().contains("--replace"));
    home.ok(&[
        "exec", "--memory", "300m", "--reuse", "s", "--", "test", "-e", "/kept",
    ]);
    home.ok(&[
        "exec",
        "-q",
        "--memory",
        "300m",
        "--replace",
        "s",
        "--",
        "test",
        "!",
        "-e",
        "/kept",
    ]);
}

#[test]
fn run_leaves_nothing() {
    let home = Home::new();
    let ran = home.run_with(&["run", "host", "-c", "cat; exit 5"], b"in");
    assert_eq!((ran.code, ran.text().as_str()), (5, "in"), "{}", ran.stderr);
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
    assert_eq!(home.ok(&["ls", "-q", "-a"]), "");
    let ran = home.run(&["run", "--timeout", "200ms", "host", "sleep", "60"]);
    assert_eq!(ran.code, 124);
    assert_eq!(home.ok(&["ls", "-q", "-a"]), "");
}

#[test]
fn paused_reader_holds_the_command_back_and_loses_nothing() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    let words = ["exec", "s", "-c", "head -c 8000000 /dev/zero; echo end"];
    let mut child = home.command(&words).stdout(Stdio::piped()).spawn().unwrap();
    // Nothing is read until the command has run into the full pipe.
    let pid = child.id();
    wait_for("podkit waits for its reader", || {
        fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() > 1
    });
    let mut output = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut output)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(output.len(), 8_000_004);
    assert!(output.ends_with(b"end\n"));
}

#[test]
fn run_finds_the_files_that_it_was_given() {
    let home = Home::new();
    std::fs::write(home.path("main.sh"), "echo $(cat data/in) ran").unwrap();
    std::fs::write(home.path("in"), "it").unwrap();
    let main = home.path("main.sh");
    let data = format!("{}:data/in", home.path("in").display());
    let words = [
        "run",
        "-q",
        "--file",
        main.to_str().unwrap(),
        "--file",
        &data,
    ];
    let words = [&words[..], &["host", "--", "sh", "main.sh"]].concat();
    assert_eq!(home.ok(&words), "it ran\n");
    let missing = home.run(&["run", "--file", "/no/such/file", "host", "true"]);
    assert_eq!(missing.code, 2);
}
