//! File calls, as far as they are the agent's: streams, ends and time limits.

use std::fs;

use podkit_agent::{FailureKind, FileCall, FileKind, Output, Reply, Request};

use crate::{
    client::{shell, spec},
    container::Container,
};

const WRITE: FileCall = FileCall::Write {
    mode: None,
    parents: false,
};
const READ: FileCall = FileCall::Read {
    offset: 0,
    limit: None,
};

/// A directory that the agent's binary is in, and nothing else.
fn place(container: &Container) -> String {
    container.agent().strip_suffix("/agent").unwrap().to_owned()
}

#[test]
fn file_is_written_listed_and_read_under_flow_control() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let path = format!("{}/data", place(&container));
    let content: Vec<u8> = (0..1_000_000_u32).flat_map(|at| at.to_le_bytes()).collect();
    let stream = client.file(WRITE, &path, None);
    let mut window = podkit_agent::INITIAL_WINDOW_BYTES as usize;
    for chunk in content.chunks(50_000) {
        while window < chunk.len() {
            match client.next_of(stream) {
                Some(Reply::Credit(bytes)) => window += bytes as usize,
                other => panic!("no credit came: {other:?}"),
            }
        }
        window -= chunk.len();
        client.send(stream, &Request::Stdin(chunk.to_vec()));
    }
    client.send(stream, &Request::StdinEnd);
    while let Some(reply) = client.next_of(stream) {
        match reply {
            Reply::Credit(_) => {}
            Reply::Done => break,
            other => panic!("it was not written: {other:?}"),
        }
    }
    assert!(fs::read(&path).unwrap() == content);
    let stream = client.file(READ, &path, None);
    let mut back = Vec::new();
    loop {
        match client.next_of(stream) {
            Some(Reply::Data(Output::Stdout, data)) => {
                client.grant(stream, Output::Stdout, &data);
                back.extend(data);
            }
            Some(Reply::Done) => break,
            other => panic!("it was not read: {other:?}"),
        }
    }
    assert!(back == content);
    let stream = client.file(FileCall::List, &place(&container), None);
    let mut names = Vec::new();
    while let Some(Reply::Entry { name, stat }) = client.next_of(stream) {
        assert_eq!(stat.kind, FileKind::File);
        names.push(name);
    }
    names.sort();
    assert_eq!(names, [b"agent".to_vec(), b"data".to_vec()]);
    container.wait_until_empty();
}

#[test]
fn write_that_is_cut_off_changes_nothing() {
    let container = Container::start(&[]);
    let place = place(&container);
    let path = format!("{place}/data");
    fs::write(&path, "before").unwrap();
    let mut client = container.client();
    let stream = client.file(WRITE, &path, None);
    client.send(stream, &Request::Stdin(b"half".to_vec()));
    client.send(stream, &Request::Cancel);
    loop {
        match client.next_of(stream) {
            Some(Reply::Credit(_)) => {}
            Some(Reply::Failed(failure)) => break assert_eq!(failure.kind, FailureKind::Cancelled),
            other => panic!("it was not given up: {other:?}"),
        }
    }
    let stream = client.file(WRITE, &path, None);
    client.send(stream, &Request::Stdin(b"half".to_vec()));
    client.hang_up();
    container.wait_until_empty();
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 2);
}

/// Bytes that come slowly are activity all the time, and so is their end.
#[test]
fn call_under_way_holds_the_clock_off_until_it_ends() {
    const AUTO_STOP_MS: u64 = 200;
    let mut container = Container::start(&["--auto-stop", "200"]);
    let mut client = container.client();
    let path = format!("{}/data", place(&container));
    let stream = client.file(WRITE, &path, None);
    client.send(stream, &Request::Stdin(b"slow".to_vec()));
    let mut began = None;
    loop {
        match client.ask(&Request::Status) {
            Reply::Status(status) => {
                assert_eq!(status.idle_ms, 0, "{status:?}");
                let began = *began.get_or_insert(status.uptime_ms);
                if status.uptime_ms - began > 3 * AUTO_STOP_MS {
                    break;
                }
            }
            other => panic!("no status came: {other:?}"),
        }
    }
    client.send(stream, &Request::StdinEnd);
    while let Some(reply) = client.next_of(stream) {
        match reply {
            Reply::Credit(_) => {}
            Reply::Done => break,
            other => panic!("it was not written: {other:?}"),
        }
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "slow");
    // Then the clock begins anew, and is not held off any more.
    match client.ask(&Request::Status) {
        Reply::Status(status) => assert!(status.idle_ms < AUTO_STOP_MS, "{status:?}"),
        other => panic!("no status came: {other:?}"),
    }
    container.end();
}

#[test]
fn call_that_cannot_go_on_ends_in_time_and_holds_nobody_up() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let path = format!("{}/pipe", place(&container));
    client.run(spec(&["mkfifo", &path]));
    let streams: Vec<u32> = (0..4)
        .map(|_| client.file(READ, &path, Some(300)))
        .collect();
    assert_eq!(client.run(shell("echo on")).out(), "on\n");
    for stream in streams {
        assert!(matches!(client.next_of(stream), Some(Reply::Failed(_))));
    }
    let stream = client.file(READ, "/no/such/file", None);
    match client.next_of(stream) {
        Some(Reply::Failed(failure)) => assert_eq!(failure.kind, FailureKind::NotFound),
        other => panic!("it was found: {other:?}"),
    }
    container.wait_until_empty();
}
