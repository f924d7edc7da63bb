//! A container with a program of its own.

use podkit_agent::{ExecSpec, ExecStatus, Reply, StopReason};

use crate::{client::spec, container::Container};

#[test]
fn container_ends_with_its_program_and_its_code() {
    let mut container = Container::start(&["--", "sh", "-c", "exit 7"]);
    assert_eq!(container.end().code(), Some(7));
    let mut container = Container::start(&["--", "no-such-program"]);
    assert_eq!(container.end().code(), Some(127));
}

#[test]
fn program_gets_the_signals_and_clients_hear_of_its_end() {
    let text = "trap 'exit 9' USR1; while :; do sleep 1001 & wait; done";
    let mut container = Container::start(&["--", "sh", "-c", text]);
    let mut client = container.client();
    container.wait_for_argument("1001");
    let (stream, pid) = client.start(ExecSpec {
        detached: true,
        ..spec(&["sleep", "1002"])
    });
    container.signal("-USR1");
    let ended = client.finish_started(stream, pid);
    assert_eq!(ended.status, ExecStatus::SessionClosed);
    assert!(matches!(
        client.next_of(0),
        Some(Reply::Closing(StopReason::MainExited))
    ));
    assert_eq!(container.end().code(), Some(9));
}
