//! Commands that are streamed: events, input, back-pressure, signals.

use bytes::Bytes;

use super::{
    lab::{Lab, eventually, shell},
    table,
};
use crate::{ExecEvent, ExecHandle, ExecResult, Outcome};

table!["exec":
    Programs exec_stdin_stream_answers_line_by_line,
    Programs exec_streams_are_apart_and_in_order_of_arrival,
    Programs exec_merged_output_is_one_stream,
    Programs exec_streaming_tells_started_output_exited,
    Programs exec_slow_reader_holds_the_command_back,
    Programs exec_signal_reaches_the_command,
    Programs exec_detached_outlives_its_handle,
];

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

async fn exec_signal_reaches_the_command(lab: Lab) {
    let session = lab.open("a").await;
    let script = "trap 'echo caught; exit 5' USR1; echo ready; while :; do :; done";
    let mut handle = session.shell(script).stream().await.unwrap();
    wait_for_output(&mut handle, b"ready\n").await;
    handle.signal(10).await.unwrap();
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
