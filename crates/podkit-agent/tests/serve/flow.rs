//! Output: flow control, limits, and what others hold open.

use std::time::{Duration, Instant};

use podkit_agent::{DRAIN_MS, ExecSpec, ExecStatus, INITIAL_WINDOW_BYTES, Output, Reply, Request};

use crate::{
    client::{shell, spec},
    container::Container,
};

#[test]
fn slow_reader_holds_back_its_own_command_only() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let (slow, pid) = client.start(shell("head -c 1000000 /dev/zero"));
    assert_eq!(client.fill_window(slow), INITIAL_WINDOW_BYTES as usize);
    // The window is used up; the same connection serves others.
    let fast = client.run(shell("head -c 2000000 /dev/zero"));
    assert_eq!(fast.stdout.len(), 2_000_000);
    assert!(!client.has_come(slow), "more than its window");
    client.send(slow, &Request::Credit(Output::Stdout, INITIAL_WINDOW_BYTES));
    let rest = client.finish_started(slow, pid);
    assert_eq!(rest.stdout.len() + INITIAL_WINDOW_BYTES as usize, 1_000_000);
    assert_eq!(rest.status, ExecStatus::Exited(0));
}

#[test]
fn client_that_does_not_read_delays_no_other() {
    let container = Container::start(&[]);
    let mut deaf = container.client();
    for _ in 0..16 {
        deaf.begin(spec(&["cat", "/dev/zero"]));
    }
    let mut client = container.client();
    let ended = client.run(shell("head -c 2000000 /dev/zero"));
    assert_eq!(ended.stdout.len(), 2_000_000);
    assert!(container.kilobytes("status", "VmHWM:") < 8192);
}

#[test]
fn output_beyond_the_limit_is_dropped_and_flagged() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let text = "head -c 3000000 /dev/zero; head -c 1000 /dev/zero >&2; exit 4";
    let ended = client.run(ExecSpec {
        output_limit_bytes: Some(1000),
        ..shell(text)
    });
    assert_eq!((ended.stdout.len(), ended.stderr.len()), (1000, 1000));
    assert_eq!(ended.truncated, [true, false]);
    assert_eq!(ended.status, ExecStatus::Exited(4));
}

#[test]
fn output_held_open_by_the_background_delays_the_result_a_bounded_time() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let began = Instant::now();
    let ended = client.run(shell("sleep 1001 & echo told"));
    assert_eq!(
        (ended.out().as_str(), ended.status),
        ("told\n", ExecStatus::Exited(0))
    );
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(DRAIN_MS), "{took:?}");
    assert!(took < Duration::from_millis(DRAIN_MS + 1500), "{took:?}");
    container.wait_for_argument("1001");
}

#[test]
fn output_in_the_pipe_at_the_end_of_the_drain_is_delivered() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let total = INITIAL_WINDOW_BYTES as usize + 40_000;
    let (stream, pid) = client.start(shell(&format!("sleep 1001 & head -c {total} /dev/zero")));
    client.fill_window(stream);
    // The agent is past the drain when this has come and gone.
    let other = client.run(shell("sleep 1002 &"));
    assert_eq!(other.status, ExecStatus::Exited(0));
    client.send(
        stream,
        &Request::Credit(Output::Stdout, INITIAL_WINDOW_BYTES),
    );
    assert_eq!(client.finish_started(stream, pid).stdout.len(), 40_000);
    assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
}
