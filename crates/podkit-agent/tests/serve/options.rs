//! How another engine says what the container is to be, and what its exit code says.

use std::{fs, io::Read, process::Stdio};

use podkit_agent::{ExecSpec, FailureKind, Request};

use crate::{
    client::{shell, spec},
    container::{Around, Container, read_to_end},
};

/// Text that prints the sets of capabilities as the kernel orders them: inheritable, permitted,
/// effective, bounding, ambient.
const SETS: &str = "grep '^Cap' /proc/self/status | cut -f2 | tr '\\n' ' '";

/// What `/proc` says of the capabilities of a process.
fn sets(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Cap"));
    lines
        .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
        .collect()
}

/// What the container's own program says with these options, and its code.
fn said(options: &[&str], text: &str) -> (String, Option<i32>) {
    let arguments = [options, &["--", "sh", "-c", text]].concat();
    let mut container = Container::start_writing(&arguments, Stdio::piped());
    let seen = String::from_utf8(read_to_end(container.log())).unwrap();
    (seen, container.end().code())
}

#[test]
fn option_that_nobody_knows_prints_the_usage() {
    for arguments in [
        &["--nonsense"][..],
        &["--cwd"],
        &["--dial"],
        &["--auto-stop", "soon"],
        &["--capabilities", "xyz"],
        &["--capabilities", "10000000000000000"],
        &["program"],
    ] {
        let refused = Container::refused(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert_eq!(refused.stdout, b"");
        let usage = String::from_utf8(refused.stderr).unwrap();
        for option in [
            "--auto-stop",
            "--born",
            "--capabilities",
            "--cwd",
            "--dial",
            "--filter",
            "--filter-but-set-ids",
            "--main-cwd",
            "--main-user",
            "--max-lifetime",
            "--user",
        ] {
            assert!(usage.contains(option), "{option} is not in: {usage}");
        }
    }
}

#[test]
fn own_code_of_the_program_is_passed_on() {
    for code in [0, 1, 223, 228, 255] {
        let (_, seen) = said(&[], &format!("exit {code}"));
        assert_eq!(seen, Some(code));
    }
    for (signal, code) in [("TERM", 143), ("KILL", 137), ("SEGV", 139)] {
        let (_, seen) = said(&[], &format!("kill -{signal} $$"));
        assert_eq!(seen, Some(code));
    }
}

#[test]
fn reason_of_a_stop_is_told_whatever_the_program_exits_with() {
    let program = [
        "--",
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done",
    ];
    let start = |options: &[&str]| {
        let arguments = [options, &program].concat();
        let mut container = Container::start_writing(&arguments, Stdio::piped());
        container.log().read_exact(&mut [0; 3]).unwrap();
        container
    };
    let mut container = start(&["--auto-stop", "300"]);
    assert_eq!(container.end().code(), Some(224));
    let mut container = start(&["--max-lifetime", "300"]);
    assert_eq!(container.end().code(), Some(225));
    let mut container = start(&[]);
    let mut client = container.client();
    client.send(0, &Request::Stop { grace_ms: 5000 });
    assert_eq!(container.end().code(), Some(226));
    // A signal from outside is the program's; what it makes of that is its own end.
    let mut container = start(&[]);
    container.signal("-TERM");
    assert_eq!(container.end().code(), Some(5));
}

#[test]
fn directory_of_commands_is_the_one_named_nearest() {
    let around = Around {
        cwd: "/etc",
        ..Around::default()
    };
    let container = Container::start_in(&[], around);
    assert_eq!(container.client().run(spec(&["pwd"])).out(), "/etc\n");
    let around = Around {
        cwd: "/etc",
        ..Around::default()
    };
    let container = Container::start_in(&["--cwd", "/usr"], around);
    let mut client = container.client();
    assert_eq!(client.run(spec(&["pwd"])).out(), "/usr\n");
    let own = ExecSpec {
        cwd: b"/var".to_vec(),
        ..spec(&["pwd"])
    };
    assert_eq!(client.run(own).out(), "/var\n");
}

#[test]
fn directory_that_is_missing_fails_what_would_run_there() {
    let container = Container::start(&["--cwd", "/nonexistent"]);
    let failure = container.client().fail(spec(&["pwd"]));
    assert_eq!(failure.kind, FailureKind::InvalidInput);
    let (seen, code) = said(&["--main-cwd", "/nonexistent"], "echo ran");
    assert_eq!((seen.as_str(), code), ("", Some(127)));
    let (seen, code) = said(&["--main-user", "nobody-of-that-name"], "echo ran");
    assert_eq!((seen.as_str(), code), ("", Some(127)));
}

#[test]
fn program_without_options_of_its_own_has_those_of_commands() {
    let text = "pwd; id -u";
    let both = ["--user", "65534", "--cwd", "/usr"];
    assert_eq!(said(&both, text).0, "/usr\n65534\n");
    let root = [&both[..], &["--main-user", "0"]].concat();
    assert_eq!(said(&root, text).0, "/usr\n0\n");
    let place = [&both[..], &["--main-cwd", "/etc"]].concat();
    assert_eq!(said(&place, text).0, "/etc\n65534\n");
}

#[test]
fn program_holds_no_more_than_commands_may() {
    let (none, some) = ("0000000000000000", "00000000000000c1");
    let root = said(&["--capabilities", "c1"], SETS).0;
    assert_eq!(root, format!("{none} {some} {some} {some} {none} "));
    let user = said(&["--capabilities", "c1", "--main-user", "65534"], SETS).0;
    assert_eq!(user, format!("{none} {none} {none} {some} {none} "));
}

#[test]
fn commands_keep_what_the_agent_has_where_nothing_is_said() {
    for options in [&[][..], &["--capabilities", "ffffffffffffffff"]] {
        let container = Container::start(options);
        let seen = container.client().run(shell(SETS)).out();
        assert_eq!(seen, sets(container.init).join(" ") + " ", "{options:?}");
    }
}

#[test]
fn commands_hold_nothing_that_the_agent_does_not_have() {
    // CHOWN, SETGID and SETUID, of which the container has not the first.
    let around = Around {
        wrapper: &["setpriv", "--bounding-set", "-chown", "--"],
        ..Around::default()
    };
    let container = Container::start_in(&["--capabilities", "c1"], around);
    let before = sets(container.init);
    let seen = container.client().run(shell(SETS)).out();
    let (none, some) = ("0000000000000000", "00000000000000c0");
    assert_eq!(seen, format!("{none} {some} {some} {some} {none} "));
    assert_eq!(sets(container.init), before, "the agent's own");
}

#[test]
fn commands_may_be_left_with_nothing() {
    let container = Container::start(&["--capabilities", "0"]);
    let mut client = container.client();
    let none = "0000000000000000";
    let all = [none; 5].join(" ") + " ";
    assert_eq!(client.run(shell(SETS)).out(), all);
    let user = ExecSpec {
        user: b"65534".to_vec(),
        ..shell(SETS)
    };
    assert_eq!(client.run(user).out(), all);
}
