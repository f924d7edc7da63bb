//! Background processes and terminals.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Child, Stdio},
};

use rustix::{
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::support::{Home, read_until, wait_for};

#[test]
fn process_is_begun_listed_read_and_stopped() {
    let home = Home::new();
    let script = "echo out; echo err >&2; exec sleep 1000";
    let id = home.ok(&["spawn", "-q", "s", "--name", "web", "-c", script]);
    wait_for("its output", || {
        home.run(&["logs", "s#web"]).text() == "out\n"
    });
    let logs = home.run(&["logs", &format!("s#{}", id.trim())]);
    assert_eq!(
        (logs.text().as_str(), logs.stderr.as_str()),
        ("out\n", "err\n")
    );
    assert_eq!(home.ok(&["logs", "s#web", "--stderr"]), "");
    let listed = home.json(&["--json", "ps", "s"]);
    assert_eq!(listed[0]["name"], "web");
    assert_eq!(listed[0]["state"], "running");
    assert_eq!(home.ok(&["ps", "-q", "s"]), id);
    assert!(home.ok(&["ps", "s"]).contains("exec sleep 1000"));
    let again = home.run(&["spawn", "-q", "s", "--name", "web", "true"]);
    assert_eq!(again.code, 125);
    assert!(again.stderr.contains("already"), "{}", again.stderr);
    let killed = home.json(&["--json", "kill", "s#web"]);
    assert_eq!(
        (killed[0]["outcome"].as_str(), killed[0]["code"].as_u64()),
        (Some("signaled"), Some(143))
    );
    assert_eq!(home.ok(&["ps", "-rq", "s"]), "");
}

#[test]
fn wait_exits_as_the_process_did_and_logs_follow_it() {
    let home = Home::new();
    let script = "while [ ! -e go ]; do sleep 0.01; done; echo went; exit 5";
    home.ok(&["spawn", "-q", "s", "--name", "job", "-c", script]);
    let mut follow = home.command(&["logs", "-f", "s#job"]);
    let follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    home.ok(&["exec", "s", "touch", "go"]);
    let followed = follow.wait_with_output().unwrap();
    assert_eq!(followed.stdout, b"went\n");
    assert_eq!(home.run(&["wait", "s#job"]).code, 5);
    assert!(followed.status.success());
}

#[test]
fn processes_that_are_not_there_are_named() {
    let home = Home::new();
    home.ok(&["exec", "-q", "s", "true"]);
    for words in [
        &["logs", "s#none"][..],
        &["wait", "s#none"],
        &["kill", "s#none"],
        &["kill", "-s", "HUP", "s#none"],
        &["attach", "s#none"],
    ] {
        let ran = home.run(words);
        assert_eq!(ran.code, 125, "{words:?}");
        assert!(
            ran.stderr.contains("no such process"),
            "{words:?}: {}",
            ran.stderr
        );
    }
    for words in [
        &["wait", "s"][..],
        &["kill", "s#"],
        &["spawn", "s", "--name", "a/b", "true"],
        &["spawn", "s", "--restart", "often", "true"],
        &["kill", "-s", "NONE", "s#x"],
    ] {
        assert_eq!(home.run(words).code, 2, "{words:?}");
    }
    home.ok(&["stop", "s"]);
    assert_eq!(home.ok(&["ps", "-q", "s"]), "");
    let stopped = home.run(&["logs", "s#web"]);
    assert!(
        stopped.stderr.contains("does not run"),
        "{}",
        stopped.stderr
    );
    assert_eq!(home.json(&["--json", "inspect", "s"])["state"], "exited");
}

#[test]
fn exec_with_a_terminal_gives_the_command_one() {
    let home = Home::new();
    let with = home.run(&[
        "exec",
        "-qt",
        "s",
        "-c",
        "test -t 0 && test -t 1 && echo terminal",
    ]);
    assert_eq!(
        (with.code, with.text().as_str()),
        (0, "terminal\r\n"),
        "{}",
        with.stderr
    );
    let typed = home.run_with(
        &[
            "exec",
            "-qit",
            "s",
            "-c",
            "read line; echo got $line; exit 4",
        ],
        b"word\n",
    );
    assert_eq!(typed.code, 4, "{}", typed.stderr);
    assert!(typed.text().ends_with("got word\r\n"), "{}", typed.text());
}

/// A terminal of 30 lines of 100 characters, and podkit on it.
fn on_a_terminal(home: &Home, words: &[&str]) -> (File, Child) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&ours).unwrap();
    let theirs = || {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        Stdio::from(ioctl_tiocgptpeer(&ours, flags).unwrap())
    };
    resize(&ours, 30, 100);
    let mut command = home.command(words);
    command.stdin(theirs()).stdout(theirs()).stderr(theirs());
    let child = command.spawn().unwrap();
    (File::from(ours), child)
}

fn resize(terminal: impl std::os::fd::AsFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn shell_is_left_by_its_keys_found_again_and_ended() {
    let home = Home::new();
    let words = ["shell", "-q", "s", "-e", "PS1=$ ", "--", "/bin/sh", "-i"];
    let (mut terminal, mut podkit) = on_a_terminal(&home, &words);
    read_until(&mut terminal, "$ ");
    terminal.write_all(b"stty size; v=kept\r").unwrap();
    read_until(&mut terminal, "30 100");
    assert!(
        !tcgetattr(&terminal)
            .unwrap()
            .local_modes
            .contains(LocalModes::ICANON)
    );
    terminal.write_all(b"\x10\x11").unwrap();
    assert!(podkit.wait().unwrap().success());
    assert!(
        tcgetattr(&terminal)
            .unwrap()
            .local_modes
            .contains(LocalModes::ICANON)
    );
    let kept = &home.json(&["--json", "ps", "-r", "s"])[0];
    assert_eq!(
        (kept["name"].as_str(), kept["keep_alive"].as_bool()),
        (Some("shell"), Some(true))
    );
    let (mut terminal, mut podkit) = on_a_terminal(&home, &["attach", "-q", "s#shell"]);
    terminal.write_all(b"echo $v; exit 7\r").unwrap();
    read_until(&mut terminal, "kept\r\n");
    assert_eq!(podkit.wait().unwrap().code(), Some(7));
}

#[test]
fn shell_of_a_podkit_that_was_killed_does_not_keep_the_container() {
    let home = Home::new();
    home.ok(&["exec", "-q", "--auto-stop", "1s", "s", "true"]);
    let words = ["shell", "-q", "s", "-e", "PS1=$ ", "--", "/bin/sh", "-i"];
    let (mut terminal, mut podkit) = on_a_terminal(&home, &words);
    read_until(&mut terminal, "$ ");
    terminal.write_all(b"sleep 2; echo o''ver\r").unwrap();
    read_until(&mut terminal, "over");
    podkit.kill().unwrap();
    podkit.wait().unwrap();
    wait_for("the container to stop", || {
        home.json(&["--json", "inspect", "s"])["state"] == "exited"
    });
}

#[test]
fn shell_ends_with_the_terminal_of_its_user() {
    let home = Home::new();
    let words = ["shell", "-q", "s", "-e", "PS1=$ ", "--", "/bin/sh", "-i"];
    let (mut terminal, mut podkit) = on_a_terminal(&home, &words);
    read_until(&mut terminal, "$ ");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&podkit),
        rustix::process::Signal::HUP,
    )
    .unwrap();
    assert_eq!(podkit.wait().unwrap().code(), Some(129));
    assert_eq!(home.ok(&["ps", "-q", "s"]), "");
    drop(terminal.read(&mut [0]));
}
