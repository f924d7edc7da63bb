//! Commands: arguments, environment, streams, users, codes.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    lab::{Lab, eventually, shell, text},
    table,
};
use crate::{ExecEvent, ExecHandle, ExecRequest, ExecResult, Outcome, Session, SessionSpec};

table!["exec":
    Containers exec_echo_is_captured,
    Containers exec_with_exit_codes_is_ok_and_keeps_them,
    Programs exec_arguments_arrive_as_they_are,
    Programs exec_killed_by_signal_is_signaled,
    Programs exec_stdin_bytes_end_with_end_of_file,
    Programs exec_without_stdin_reads_the_end_at_once,
    Programs exec_stdin_stream_answers_line_by_line,
    Programs exec_env_lies_on_top_of_the_session_env,
    Programs exec_cwd_is_relative_to_the_workspace,
    Programs exec_user_changes_every_id,
    Programs exec_streams_are_apart_and_in_order_of_arrival,
    Programs exec_merged_output_is_one_stream,
    Programs exec_streaming_tells_started_output_exited,
    Programs exec_slow_reader_holds_the_command_back,
    Programs exec_128_at_once_all_succeed,
    Programs exec_usage_tells_what_was_used,
    Programs exec_binary_output_is_unchanged,
    Programs exec_signal_reaches_the_command,
    Programs exec_detached_outlives_its_handle,
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

async fn exec_stdin_stream_answers_line_by_line(lab: Lab) {
    let session = lab.open("a").await;
    let mut handle = session.exec(["cat"]).stdin_stream().stream().await.unwrap();
    for line in ["one\n", "two\n", "three\n"] {
        handle
            .write_stdin(Bytes::from_static(line.as_bytes()))
            .await
            .unwrap();
        let mut answer = Vec::new();
        while answer.len() < line.len() {
            match handle.next().await.unwrap().unwrap() {
                ExecEvent::Stdout(bytes) => answer.extend_from_slice(&bytes),
                ExecEvent::Started(_) => {}
                event => panic!("unexpected {event:?}"),
            }
        }
        assert_eq!(answer, line.as_bytes());
    }
    handle.close_stdin().await.unwrap();
    assert_eq!(handle.wait().await.unwrap().outcome, Outcome::Exited(0));
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

async fn exec_streams_are_apart_and_in_order_of_arrival(lab: Lab) {
    let session = lab.open("a").await;
    let go = "read x; echo out1; read x; echo err1 >&2; read x; echo out2";
    let mut handle = session.shell(go).stdin_stream().stream().await.unwrap();
    let mut seen = Vec::new();
    handle.write_stdin(Bytes::from_static(b"\n")).await.unwrap();
    let result = loop {
        match handle.next().await.unwrap().unwrap() {
            ExecEvent::Stdout(bytes) => seen.push(("out", bytes)),
            ExecEvent::Stderr(bytes) => seen.push(("err", bytes)),
            ExecEvent::Exited(result) => break result,
            ExecEvent::Started(_) => continue,
        }
        if seen.len() < 3 {
            handle.write_stdin(Bytes::from_static(b"\n")).await.unwrap();
        }
    };
    assert_eq!(result.outcome, Outcome::Exited(0));
    let seen: Vec<_> = seen
        .iter()
        .map(|(stream, bytes)| (*stream, bytes.as_ref()))
        .collect();
    let expected: [(&str, &[u8]); 3] = [("out", b"out1\n"), ("err", b"err1\n"), ("out", b"out2\n")];
    assert_eq!(seen, expected);
    let output = shell(&session, "echo out; echo err >&2").await;
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (b"out\n".as_slice(), b"err\n".as_slice())
    );
    assert_eq!(output.output().len(), 8);
}

async fn exec_merged_output_is_one_stream(lab: Lab) {
    let session = lab.open("a").await;
    let script = "for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done";
    let output = session.shell(script).merge_output().await.unwrap();
    let expected: String = (1..=5).map(|i| format!("out{i}\nerr{i}\n")).collect();
    assert_eq!(output.stdout_text(), expected);
    assert!(output.stderr.is_empty());
    assert_eq!(output.output(), output.stdout);
}

async fn exec_streaming_tells_started_output_exited(lab: Lab) {
    let session = lab.open("a").await;
    let mut handle = session.shell("echo $$; exit 7").stream().await.unwrap();
    let pid = handle.pid();
    let mut events = Vec::new();
    while let Some(event) = handle.next().await {
        events.push(event.unwrap());
    }
    assert_eq!(events.first(), Some(&ExecEvent::Started(pid)));
    assert!(matches!(
        events.last(),
        Some(ExecEvent::Exited(ExecResult {
            outcome: Outcome::Exited(7),
            ..
        }))
    ));
    let output: Vec<u8> = events
        .iter()
        .filter_map(|event| match event {
            ExecEvent::Stdout(bytes) => Some(bytes.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(String::from_utf8(output).unwrap().trim(), pid.to_string());
    assert!(handle.next().await.is_none(), "nothing follows");
}

/// Without a reader, a command that writes without end stops writing; other commands go on.
async fn exec_slow_reader_holds_the_command_back(lab: Lab) {
    let session = lab.open("a").await;
    let script =
        "i=0; while [ $i -lt 4096 ]; do printf '%01024d' 0; i=$((i+1)); echo $i >count; done";
    let mut handle = session.shell(script).stream().await.unwrap();
    let count = || async {
        let bytes = session.files().read("count").await.ok()?;
        String::from_utf8(bytes).ok()?.trim().parse::<u64>().ok()
    };
    // The command is held back once the windows and the pipe are full: its count stands still
    // while 50 other commands come and go.
    let held = eventually("the writer is held back", || async {
        let before = count().await?;
        for _ in 0..50 {
            session.exec(["true"]).await.unwrap();
        }
        (before > 0 && count().await? == before).then_some(before)
    })
    .await;
    assert!(held < 4096, "the command wrote on without a reader");
    let mut bytes = 0;
    let result = loop {
        match handle.next().await.unwrap().unwrap() {
            ExecEvent::Stdout(chunk) => bytes += chunk.len(),
            ExecEvent::Exited(result) => break result,
            _ => {}
        }
    };
    assert_eq!((bytes, result.outcome), (4 << 20, Outcome::Exited(0)));
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

async fn exec_signal_reaches_the_command(lab: Lab) {
    let session = lab.open("a").await;
    let script = "trap 'echo caught; exit 5' USR1; echo ready; while :; do read x; done";
    let mut handle = session.shell(script).stdin_stream().stream().await.unwrap();
    wait_for_output(&mut handle, b"ready\n").await;
    handle.signal(10).await.unwrap();
    handle.write_stdin(Bytes::from_static(b"\n")).await.unwrap();
    let output = handle.collect(1 << 20).await.unwrap();
    assert_eq!(
        (output.stdout_text().as_str(), output.outcome),
        ("caught\n", Outcome::Exited(5))
    );
}

async fn exec_detached_outlives_its_handle(lab: Lab) {
    let session = lab.open("a").await;
    let script = "echo ready; while [ ! -e go ]; do :; done; echo done >result";
    let mut handle = session.shell(script).detached().stream().await.unwrap();
    wait_for_output(&mut handle, b"ready\n").await;
    handle.detach().await.unwrap();
    session.files().write("go", "").await.unwrap();
    eventually("the detached command wrote its result", || async {
        session
            .files()
            .read("result")
            .await
            .ok()
            .filter(|bytes| bytes == b"done\n")
    })
    .await;
}

/// Nothing of the calling program leaks in: descriptors, signal dispositions, masks, umask.
async fn exec_inherits_a_clean_process_state(lab: Lab) {
    let session = lab.open("a").await;
    let state = text(
        &session,
        "umask; awk '/^Sig(Blk|Ign):/ {print $2}' /proc/self/status",
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
            || target.starts_with("/dev/null")
            || target.starts_with("socket:");
        assert!(known, "{line}");
    }
}

pub(super) async fn wait_for_output(handle: &mut ExecHandle, expected: &[u8]) {
    let mut seen = Vec::new();
    while !seen.ends_with(expected) {
        match handle.next().await.unwrap().unwrap() {
            ExecEvent::Stdout(bytes) => seen.extend_from_slice(&bytes),
            ExecEvent::Started(_) => {}
            event => panic!("waited for {expected:?}, got {event:?}"),
        }
    }
}

/// How many processes the container runs, by its own count.
pub(super) async fn process_count(session: &Session) -> usize {
    let output = session
        .shell("for p in /proc/[0-9]*; do echo $p; done | wc -l")
        .await
        .unwrap();
    output.stdout_text().trim().parse().unwrap()
}
