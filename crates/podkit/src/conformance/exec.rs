//! Commands: arguments, environment, streams, users, codes.

use std::time::{Duration, Instant};

use super::{
    lab::{Lab, assert_no_such_id, shell, text},
    table,
};
use crate::{ExecRequest, Outcome, Session, SessionSpec};

table!["exec":
    Containers exec_echo_is_captured,
    Containers exec_with_exit_codes_is_ok_and_keeps_them,
    Programs exec_arguments_arrive_as_they_are,
    Programs exec_killed_by_signal_is_signaled,
    Programs exec_stdin_bytes_end_with_end_of_file,
    Programs exec_without_stdin_reads_the_end_at_once,
    Programs exec_env_lies_on_top_of_the_session_env,
    Programs exec_cwd_is_relative_to_the_workspace,
    Programs exec_user_changes_every_id,
    Programs exec_128_at_once_all_succeed,
    Programs exec_usage_tells_what_was_used,
    Programs exec_binary_output_is_unchanged,
    Programs exec_inherits_a_clean_process_state,
];

async fn exec_echo_is_captured(lab: Lab) {
    let session = lab.open("a").await;
    let output = session.exec(["echo", "hi"]).await.unwrap();
    assert_eq!(
        (output.outcome, output.stdout.as_slice()),
        (Outcome::Exited(0), b"hi\n".as_slice())
    );
    assert!(output.stderr.is_empty() && !output.result.stdout_truncated);
}

/// A command that fails is a result; `Err` means that podkit could not run it.
async fn exec_with_exit_codes_is_ok_and_keeps_them(lab: Lab) {
    let session = lab.open("a").await;
    assert_eq!(
        session.exec(["true"]).await.unwrap().outcome,
        Outcome::Exited(0)
    );
    assert_eq!(
        session.exec(["false"]).await.unwrap().outcome,
        Outcome::Exited(1)
    );
    if lab.is_real() {
        for code in [3, 126, 255] {
            let output = shell(&session, &format!("exit {code}")).await;
            assert_eq!(output.outcome, Outcome::Exited(code));
            assert_eq!(output.code(), code);
            assert!(output.check().is_err());
        }
    }
}

/// No shell looks at the arguments, and bytes that are not UTF-8 pass.
async fn exec_arguments_arrive_as_they_are(lab: Lab) {
    let session = lab.open("a").await;
    let words: &[&[u8]] = &[
        b"a b",
        b"$HOME",
        b"*",
        b"",
        b"'\"\\",
        b"\n",
        b"\xff\xfe",
        "é中".as_bytes(),
    ];
    let mut argv: Vec<Vec<u8>> = vec![b"printf".to_vec(), b"[%s]".to_vec()];
    argv.extend(words.iter().map(|word| word.to_vec()));
    let output = session.exec(argv).await.unwrap();
    let expected: Vec<u8> = words
        .iter()
        .flat_map(|word| [b"[".as_slice(), word, b"]"].concat())
        .collect();
    assert_eq!(output.stdout, expected);
    let long = "x".repeat(100_000);
    let output = session.exec(["printf", "%s", &long]).await.unwrap();
    assert_eq!(output.stdout.len(), long.len());
}

async fn exec_killed_by_signal_is_signaled(lab: Lab) {
    let session = lab.open("a").await;
    for signal in [9, 15, 6] {
        let output = shell(&session, &format!("echo before; kill -{signal} $$")).await;
        assert_eq!(output.outcome, Outcome::Signaled(signal));
        assert_eq!(output.code(), 128 + signal);
        assert_eq!(output.stdout, b"before\n");
    }
}

async fn exec_stdin_bytes_end_with_end_of_file(lab: Lab) {
    let session = lab.open("a").await;
    let large: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.to_le_bytes()[0] ^ 0x5a)
        .collect();
    for input in [Vec::new(), b"one".to_vec(), (0..=255).collect(), large] {
        let output = session.exec(["cat"]).stdin(input.clone()).await.unwrap();
        assert_eq!(output.outcome, Outcome::Exited(0));
        assert!(
            output.stdout == input,
            "{} of {} bytes",
            output.stdout.len(),
            input.len()
        );
    }
    // A command that does not read its input neither waits nor fails.
    let output = session
        .exec(["true"])
        .stdin(vec![0; 4 << 20])
        .await
        .unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0));
}

async fn exec_without_stdin_reads_the_end_at_once(lab: Lab) {
    let session = lab.open("a").await;
    assert_eq!(session.exec(["cat"]).await.unwrap().stdout, b"");
}

async fn exec_env_lies_on_top_of_the_session_env(lab: Lab) {
    let spec = SessionSpec::new()
        .env("KEPT", "session")
        .env("CHANGED", "session");
    let session = lab.open_with("a", spec).await;
    let output = session
        .shell("printf '%s|%s|%s|%s' \"$KEPT\" \"$CHANGED\" \"$OWN\" \"$HOME\"")
        .env("CHANGED", "exec")
        .env("OWN", "a=b c\nd")
        .await
        .unwrap();
    assert_eq!(output.stdout_text(), "session|exec|a=b c\nd|/root");
    // Nothing of the calling process's environment is there.
    let names = text(&session, "env | cut -d= -f1 | sort | tr '\\n' ' '").await;
    for name in [
        "CARGO",
        "RUSTUP",
        "USER_SECRET",
        "LD_LIBRARY_PATH",
        "NEXTEST",
    ] {
        assert!(!names.contains(name), "{names}");
    }
    assert!(names.contains("PATH"), "{names}");
}

async fn exec_cwd_is_relative_to_the_workspace(lab: Lab) {
    let session = lab.open("a").await;
    text(&session, "mkdir -p sub/deep").await;
    for (cwd, expected) in [
        ("sub/deep", "/workspace/sub/deep"),
        ("/tmp", "/tmp"),
        (".", "/workspace"),
    ] {
        let output = session.exec(["pwd"]).cwd(cwd).await.unwrap();
        assert_eq!(output.stdout_text().trim(), expected);
    }
    assert_eq!(text(&session, "pwd").await, "/workspace\n");
    let output = session.exec(["./here"]).await.unwrap();
    assert_eq!(output.outcome, Outcome::Exited(127));
}

async fn exec_user_changes_every_id(lab: Lab) {
    let session = lab.open("a").await;
    if lab.has_one_id() {
        return users_that_are_not_there(&session).await;
    }
    let ids =
        "id -u; id -g; awk '/^(Uid|Gid|Groups):/' /proc/self/status | tr -s '\\t ' ' '; echo $HOME";
    let output = session
        .shell(ids)
        .user("65534")
        .await
        .unwrap()
        .check()
        .unwrap();
    let lines = output.stdout_text();
    let mut lines = lines.lines();
    assert_eq!(lines.next(), Some("65534"));
    let group = lines.next().unwrap().to_owned();
    assert_eq!(lines.next().unwrap().trim(), "Uid: 65534 65534 65534 65534");
    assert_eq!(
        lines.next().unwrap().trim(),
        format!("Gid: {group} {group} {group} {group}")
    );
    for (user, expected) in [
        ("1234:4321", "1234 4321"),
        ("nobody", "65534"),
        ("root", "0 0"),
        ("0:7", "0 7"),
    ] {
        let output = session
            .shell("echo $(id -u) $(id -g)")
            .user(user)
            .await
            .unwrap();
        assert!(
            output.stdout_text().starts_with(expected),
            "{user}: {}",
            output.stdout_text()
        );
    }
    // An ordinary user holds no capabilities.
    let held = session
        .shell("grep CapEff /proc/self/status")
        .user("1234")
        .await
        .unwrap();
    assert!(
        held.stdout_text().trim().ends_with("0000000000000000"),
        "{}",
        held.stdout_text()
    );
}

/// Where root is the only one: everybody else is refused, and root is as ever.
async fn users_that_are_not_there(session: &Session) {
    for (user, id) in [
        ("65534", "65534"),
        ("nobody", "65534"),
        ("1234", "1234"),
        ("1234:4321", "4321"),
        ("0:7", "7"),
        ("7:0", "7"),
    ] {
        assert_no_such_id(session.exec(["true"]).user(user).await, id);
    }
    let ids = "echo $(id -u) $(id -g)";
    for user in ["root", "0", "0:0"] {
        let output = session.shell(ids).user(user).await.unwrap();
        assert_eq!(output.stdout_text(), "0 0\n", "{user}");
    }
}

async fn exec_128_at_once_all_succeed(lab: Lab) {
    let session = lab.open("a").await;
    let runs = (0..128).map(|number: u32| {
        let session = session.clone();
        async move {
            let output = session
                .exec(["cat"])
                .stdin(number.to_string())
                .await
                .unwrap();
            assert_eq!(output.stdout_text(), number.to_string());
        }
    });
    futures::future::join_all(runs).await;
}

async fn exec_usage_tells_what_was_used(lab: Lab) {
    let session = lab.open("a").await;
    let start = Instant::now();
    // Burns processor time, in a child, until some is on the clock.
    let script = "(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done)";
    let usage = shell(&session, script).await.result.usage;
    assert!(
        usage.wall <= start.elapsed() && usage.wall > Duration::ZERO,
        "{usage:?}"
    );
    assert!(usage.cpu_user > Duration::from_millis(10), "{usage:?}");
    assert!(
        usage.peak_memory_bytes > 0 && usage.peak_memory_bytes < 512 << 20,
        "{usage:?}"
    );
}

async fn exec_binary_output_is_unchanged(lab: Lab) {
    let session = lab.open("a").await;
    let all: Vec<u8> = (0..=255).collect();
    session.files().write("all", all.clone()).await.unwrap();
    assert_eq!(shell(&session, "cat all").await.stdout, all);
    assert_eq!(shell(&session, "cat all >&2").await.stderr, all);
}

/// Nothing of the calling program leaks in: descriptors, signal dispositions, masks, umask.
async fn exec_inherits_a_clean_process_state(lab: Lab) {
    let session = lab.open("a").await;
    let state = text(
        &session,
        "umask; sed -nE 's/^Sig(Blk|Ign):[[:space:]]//p' /proc/self/status",
    )
    .await;
    assert_eq!(state, "0022\n0000000000000000\n0000000000000000\n");
    let output = session
        .execute(ExecRequest::new(["ls", "-l", "/proc/self/fd"]))
        .await
        .unwrap();
    for line in output
        .stdout_text()
        .lines()
        .filter(|line| line.contains("->"))
    {
        let (_, target) = line.split_once("-> ").unwrap();
        let known = target.starts_with("pipe:")
            || target.starts_with("/proc/")
            || target.starts_with("/dev/null");
        assert!(known, "{line}");
    }
}

/// How many processes the container runs, by its own count.
pub(super) async fn process_count(session: &Session) -> usize {
    let mut least = usize::MAX;
    // Without a fork of its own; what holds an earlier command together may end a moment after it.
    for _ in 0..3 {
        let output = session.shell("set -- /proc/[0-9]*; echo $#").await.unwrap();
        let count = output.stdout_text().trim().parse().unwrap();
        least = least.min(count);
    }
    least
}
