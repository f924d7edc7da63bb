//! What the container's own program writes goes to the engine's log, however that is read.

use std::{
    fs::{self, File},
    io::Read,
    process::Stdio,
    time::{Duration, Instant},
};

use podkit_agent::{Reply, Request};

use crate::{
    client::shell,
    container::{Container, read_to_end, wait_for},
};

/// Bytes of a pipe, and of what the agent takes at once.
const PIPE: u64 = 64 * 1024;

/// KiB that an agent may grow by while the log is not read.
const GROWTH: u64 = 1024;

/// Processor time that an agent may use in half a second in which it only waits.
const IDLE: Duration = Duration::from_millis(50);

/// When a container has ended whose log nobody reads.
const END: Duration = Duration::from_secs(8);

/// Waits until so much of what a program inside writes is taken that the log must be full.
fn wait_until_full(container: &Container, argument: &str) {
    let pid = container.wait_for_argument(argument);
    wait_for("a full log", || {
        let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("wchar: "))?;
        (line.parse::<u64>().ok()? > 2 * PIPE).then_some(())
    });
}

#[test]
fn program_waits_for_the_reader_and_the_agent_for_nobody() {
    const LINES: usize = 700_001;
    let text = format!("seq {LINES}; exit 3");
    let mut container = Container::start_writing(&["--", "sh", "-c", &text], Stdio::piped());
    let log = container.log();
    let mut client = container.client();
    client.run(shell("true"));
    let memory = || container.kilobytes("status", "VmRSS:");
    let before = memory();
    wait_until_full(&container, &LINES.to_string());
    let used = container.processor_time();
    client.run(shell("sleep 0.5"));
    let used = container.processor_time() - used;
    assert!(used <= IDLE, "{used:?}");
    let grown = memory().saturating_sub(before);
    assert!(grown <= GROWTH, "{grown} KiB");
    // It is held back still.
    container.wait_for_argument(&LINES.to_string());
    let seen = String::from_utf8(read_to_end(log)).unwrap();
    let expected: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
    assert!(
        seen == expected,
        "{} bytes of {}",
        seen.len(),
        expected.len()
    );
    assert_eq!(container.end().code(), Some(3));
}

#[test]
fn log_that_breaks_while_it_is_full_is_dropped() {
    let text = "head -c 3000007 /dev/zero; exit 4";
    let mut container = Container::start_writing(&["--", "sh", "-c", text], Stdio::piped());
    let log = container.log();
    wait_until_full(&container, "3000007");
    drop(log);
    assert_eq!(container.end().code(), Some(4));
}

#[test]
fn log_without_room_on_its_disk_is_dropped() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let text = "head -c 3000000 /dev/zero; exit 5";
    let mut container = Container::start_writing(&["--", "sh", "-c", text], Stdio::from(full));
    assert_eq!(container.end().code(), Some(5));
}

#[test]
fn log_in_a_file_has_all_of_both_outputs() {
    let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    let output = Stdio::from(file.reopen().unwrap());
    let text = "echo out; echo err >&2; head -c 3000000 /dev/zero; exit 6";
    let mut container = Container::start_writing(&["--", "sh", "-c", text], output);
    assert_eq!(container.end().code(), Some(6));
    let seen = fs::read(file.path()).unwrap();
    assert!(seen.starts_with(b"out\nerr\n\0"));
    assert_eq!(seen.len(), 8 + 3_000_000);
}

#[test]
fn last_words_of_a_program_that_is_stopped_are_in_the_log() {
    let text = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done";
    let mut container = Container::start_writing(&["--", "sh", "-c", text], Stdio::piped());
    let mut log = container.log();
    let mut up = [0; 3];
    log.read_exact(&mut up).unwrap();
    let mut client = container.client();
    client.send(0, &Request::Stop { grace_ms: 5000 });
    let rest = String::from_utf8(read_to_end(log)).unwrap();
    // The shell may say that its `sleep` was ended as well.
    assert!(rest.ends_with("bye\n"), "{rest}");
    assert_eq!(container.end().code(), Some(226));
}

/// Checks that a container whose log is full and not read ends soon, and with this code.
fn check_end(arguments: &[&str], stop: impl FnOnce(&Container), code: i32) {
    let program = ["--", "sh", "-c", "head -c 3000008 /dev/zero; exit 9"];
    let arguments = [arguments, &program].concat();
    let mut container = Container::start_writing(&arguments, Stdio::piped());
    let _unread = container.log();
    wait_until_full(&container, "3000008");
    let began = Instant::now();
    stop(&container);
    assert_eq!(container.end().code(), Some(code));
    assert!(began.elapsed() < END, "{:?}", began.elapsed());
}

#[test]
fn log_that_nobody_reads_does_not_hold_a_stop_off() {
    check_end(
        &[],
        |container| {
            let mut client = container.client();
            client.send(0, &Request::Stop { grace_ms: 0 });
            while !matches!(client.next_of(0), Some(Reply::Closing(_))) {}
        },
        226,
    );
}

#[test]
fn log_that_nobody_reads_does_not_hold_a_clock_off() {
    check_end(&["--auto-stop", "1500"], |_| {}, 224);
    check_end(&["--max-lifetime", "1500"], |_| {}, 225);
}
