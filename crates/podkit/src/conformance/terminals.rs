//! Terminals: of a command, and of a process that is attached to.

use std::time::Duration;

use bytes::Bytes;

use super::{
    lab::{BOUND, Lab, assert_kind, eventually, text},
    table,
};
use crate::{
    ContainerState, ErrorKind, ExecEvent, ExecHandle, Limit, Outcome, ProcessState, Session,
    TerminalSize,
};

table!["terminals":
    Containers terminal_is_one_or_unsupported,
    Programs terminal_has_a_size_that_can_change,
    Programs terminal_interrupt_and_end_of_file_are_typed,
    Programs terminal_stop_and_continue_work_in_a_shell,
    Programs terminal_takes_a_large_paste_and_shows_all_of_it,
    Programs terminal_of_a_dropped_handle_takes_its_tree_along,
    Programs terminal_belongs_to_the_user,
    Programs terminal_of_a_process_is_left_and_found_again,
    Programs terminal_of_a_process_has_several_viewers,
    Programs terminal_holds_the_container_while_somebody_looks,
    Programs terminal_end_is_told_after_the_last_output,
    Programs terminal_closed_by_its_program_is_not_hung_up,
];

fn size() -> TerminalSize {
    TerminalSize::new(24, 80)
}

/// Reads on until the terminal has shown `wanted`; gives all that it has shown.
async fn until(handle: &mut ExecHandle, wanted: &str) -> String {
    let mut shown = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&shown).contains(wanted) {
            match handle.next().await {
                Some(Ok(ExecEvent::Stdout(bytes))) => shown.extend_from_slice(&bytes),
                Some(Ok(ExecEvent::Started(_))) => {}
                event => panic!(
                    "{event:?} before {wanted:?}: {:?}",
                    String::from_utf8_lossy(&shown)
                ),
            }
        }
    };
    if tokio::time::timeout(BOUND, read).await.is_err() {
        panic!("no {wanted:?} in {:?}", String::from_utf8_lossy(&shown));
    }
    String::from_utf8_lossy(&shown).into_owned()
}

async fn type_in(handle: &mut ExecHandle, text: &str) {
    handle
        .write_stdin(Bytes::copy_from_slice(text.as_bytes()))
        .await
        .unwrap();
}

async fn open_shell(session: &Session) -> ExecHandle {
    let shell = session.exec(["/bin/sh", "-i"]).env("PS1", "$ ");
    let mut handle = shell
        .terminal(size())
        .stdin_stream()
        .stream()
        .await
        .unwrap();
    until(&mut handle, "$ ").await;
    handle
}

/// Types a command that sleeps, and waits until it does.
async fn run_sleep(session: &Session, handle: &mut ExecHandle) {
    type_in(handle, "sleep 1000\n").await;
    eventually("the program to run", || async {
        (sleeping(session, "1000").await == 1).then_some(())
    })
    .await;
}

/// How many processes sleep for so long.
pub(super) async fn sleeping(session: &Session, seconds: &str) -> u32 {
    let script = format!(
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '^{seconds}$' || true"
    );
    text(session, &script).await.trim().parse().unwrap()
}

async fn terminal_is_one_or_unsupported(lab: Lab) {
    let session = lab.open("a").await;
    let command = session.exec([
        "/bin/sh",
        "-c",
        "test -t 0 && test -t 1 && test -t 2 && echo $TERM",
    ]);
    let output = command.terminal(size()).await;
    if !lab.is_real() {
        assert_kind(
            output,
            ErrorKind::Unsupported,
            "a terminal of a simulated container",
        );
        return;
    }
    let output = output.unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0));
    assert!(output.stdout_text().starts_with("xterm"), "{output:?}");
    // Others have none.
    assert_eq!(text(&session, "test -t 0 || echo none").await, "none\n");
}

async fn terminal_has_a_size_that_can_change(lab: Lab) {
    let session = lab.open("a").await;
    let mut handle = open_shell(&session).await;
    type_in(&mut handle, "stty size\n").await;
    until(&mut handle, "24 80").await;
    handle.resize(TerminalSize::new(50, 132)).await.unwrap();
    type_in(&mut handle, "stty size\n").await;
    until(&mut handle, "50 132").await;
    type_in(&mut handle, "trap 'echo chan''ged' WINCH; echo rea''dy\n").await;
    until(&mut handle, "ready").await;
    handle.resize(TerminalSize::new(10, 20)).await.unwrap();
    type_in(&mut handle, "\n").await;
    until(&mut handle, "changed").await;
}

async fn terminal_interrupt_and_end_of_file_are_typed(lab: Lab) {
    let session = lab.open("a").await;
    let mut handle = open_shell(&session).await;
    run_sleep(&session, &mut handle).await;
    type_in(&mut handle, "\x03").await;
    until(&mut handle, "$ ").await;
    type_in(&mut handle, "cat\nsome line\n").await;
    until(&mut handle, "some line\r\nsome line\r\n").await;
    type_in(&mut handle, "\x04").await;
    until(&mut handle, "$ ").await;
    type_in(&mut handle, "exit 9\n").await;
    assert_eq!(handle.wait().await.unwrap().outcome, Outcome::Exited(9));
    // The end of input is an end of file.
    let output = session
        .exec(["wc", "-c"])
        .terminal(size())
        .stdin("12345")
        .await
        .unwrap();
    assert!(output.stdout_text().ends_with("5\r\n"), "{output:?}");
}

async fn terminal_stop_and_continue_work_in_a_shell(lab: Lab) {
    let session = lab.open("a").await;
    let mut handle = open_shell(&session).await;
    run_sleep(&session, &mut handle).await;
    type_in(&mut handle, "\x1a").await;
    until(&mut handle, "Stopped").await;
    type_in(&mut handle, "jobs\n").await;
    until(&mut handle, "sleep 1000").await;
    type_in(&mut handle, "kill %1; fg >/dev/null; echo o''ver\n").await;
    until(&mut handle, "over").await;
}

async fn terminal_takes_a_large_paste_and_shows_all_of_it(lab: Lab) {
    const LINES: usize = 20_000;
    let session = lab.open("a").await;
    let command = format!("stty -echo; echo ready; head -n {LINES} | md5sum");
    let mut handle = session
        .shell(command)
        .terminal(size())
        .stdin_stream()
        .stream()
        .await
        .unwrap();
    until(&mut handle, "ready").await;
    let paste: String = (0..LINES)
        .map(|line| format!("line {line} of the paste\n"))
        .collect();
    let expected = session.exec(["md5sum"]).stdin(paste.clone()).await.unwrap();
    let mut stdin = handle.take_stdin().unwrap();
    let typing = async {
        stdin.write_all(Bytes::from(paste)).await.unwrap();
        stdin
    };
    let sum = expected.stdout_text()[..32].to_owned();
    let (shown, _stdin) = futures::future::join(until(&mut handle, &sum), typing).await;
    assert!(shown.contains(&sum));
    // And the other way round.
    let output = session
        .shell("stty -opost; head -c 3000000 /dev/zero | tr '\\0' x")
        .terminal(size())
        .await
        .unwrap();
    assert_eq!(output.stdout.len(), 3_000_000);
}

async fn terminal_of_a_dropped_handle_takes_its_tree_along(lab: Lab) {
    let session = lab.open("a").await;
    let mut handle = open_shell(&session).await;
    type_in(&mut handle, "sleep 3001 & setsid sleep 3002 & echo o''n\n").await;
    until(&mut handle, "on\r\n").await;
    drop(handle);
    eventually("all of it to be gone", || async {
        let left = sleeping(&session, "300[12]").await;
        (left == 0).then_some(())
    })
    .await;
}

async fn terminal_belongs_to_the_user(lab: Lab) {
    if lab.has_one_id() {
        return;
    }
    let session = lab.open("a").await;
    let output = session
        .shell("stat -c %u \"$(tty)\"; echo shown > \"$(tty)\"")
        .terminal(size())
        .user("65534")
        .await
        .unwrap();
    assert_eq!(output.stdout_text(), "65534\r\nshown\r\n");
}

async fn terminal_of_a_process_is_left_and_found_again(lab: Lab) {
    let session = lab.open("a").await;
    let shell = session
        .spawn(["/bin/sh", "-i"])
        .env("PS1", "$ ")
        .name("work");
    let process = shell.terminal(size()).await.unwrap();
    let mut handle = process.attach(None).await.unwrap();
    until(&mut handle, "$ ").await;
    type_in(&mut handle, "variable=kept; echo fi''rst\n").await;
    until(&mut handle, "first").await;
    drop(handle);
    let other = lab.stranger().await.open(session.key()).await.unwrap();
    let process = other.process("work");
    let info = process.info().await.unwrap();
    assert!(
        info.terminal && info.state == ProcessState::Running,
        "{info:?}"
    );
    let mut handle = process
        .attach(Some(TerminalSize::new(40, 100)))
        .await
        .unwrap();
    until(&mut handle, "first").await;
    type_in(&mut handle, "echo $variable; stty size\n").await;
    let shown = until(&mut handle, "40 100").await;
    assert!(shown.contains("kept"), "{shown:?}");
    assert_kind(
        process.logs().await,
        ErrorKind::InvalidInput,
        "the log of a terminal",
    );
    let logged = session.spawn(["sleep", "1000"]).await.unwrap();
    let refused = logged.attach(None).await;
    assert_kind(
        refused,
        ErrorKind::InvalidInput,
        "the terminal of a process that has a log",
    );
}

async fn terminal_of_a_process_has_several_viewers(lab: Lab) {
    let session = lab.open("a").await;
    let process = session.spawn(["cat"]).terminal(size()).await.unwrap();
    let mut first = process.attach(None).await.unwrap();
    let mut second = process.attach(None).await.unwrap();
    // One who looks and does not read holds nobody up.
    let idle = process.attach(None).await.unwrap();
    type_in(&mut first, "by the first\n").await;
    until(&mut second, "by the first\r\nby the first\r\n").await;
    type_in(&mut second, "by the second\n").await;
    until(&mut first, "by the second\r\nby the second\r\n").await;
    for _ in 0..40 {
        type_in(&mut first, &format!("{}\n", "y".repeat(2000))).await;
        until(&mut first, "y\r\n").await;
    }
    type_in(&mut second, "\x04").await;
    assert_eq!(first.wait().await.unwrap().outcome, Outcome::Exited(0));
    assert_eq!(second.wait().await.unwrap().outcome, Outcome::Exited(0));
    assert_eq!(idle.wait().await.unwrap().outcome, Outcome::Exited(0));
    assert_kind(
        process.attach(None).await,
        ErrorKind::InvalidInput,
        "one that has ended",
    );
}

async fn terminal_end_is_told_after_the_last_output(lab: Lab) {
    let session = lab.open("a").await;
    let process = session
        .spawn_shell("read go; head -c 200000 /dev/zero | tr '\\0' x; printf END")
        .terminal(size())
        .await
        .unwrap();
    let mut handle = process.attach(None).await.unwrap();
    type_in(&mut handle, "\n").await;
    let output = handle.collect(1 << 20).await.unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0));
    assert!(
        output.stdout.ends_with(b"xEND"),
        "{} bytes",
        output.stdout.len()
    );
    assert!(output.stdout.len() >= 200_003);
}

async fn terminal_closed_by_its_program_is_not_hung_up(lab: Lab) {
    let session = lab.open("a").await;
    let script = "exec </dev/null >/dev/null 2>&1; sleep 0.1; echo back >/dev/tty; exit 4";
    let output = session.shell(script).terminal(size()).await.unwrap();
    assert_eq!(output.stdout_text(), "back\r\n");
    assert_eq!(output.outcome, Outcome::Exited(4));
}

async fn terminal_holds_the_container_while_somebody_looks(lab: Lab) {
    let spec = lab
        .default_spec()
        .auto_stop(Limit::After(Duration::from_millis(600)));
    let session = lab.open_with("a", spec).await;
    let script = "sleep 1.5; echo first; sleep 1000";
    let process = session.spawn_shell(script).terminal(size()).await.unwrap();
    let mut handle = process.attach(None).await.unwrap();
    until(&mut handle, "first").await;
    // Left, it holds nothing up, unless it is told to.
    process.set_keep_alive(true).await.unwrap();
    drop(handle);
    eventually("the process to run for a while", || async {
        // A look at it is no activity.
        let info = process.info().await.unwrap();
        (info.usage.wall > Duration::from_secs(3)).then_some(())
    })
    .await;
    process.set_keep_alive(false).await.unwrap();
    eventually("the container to stop", || async {
        let info = session.info().await.unwrap();
        (info.state == ContainerState::Exited).then_some(())
    })
    .await;
}
