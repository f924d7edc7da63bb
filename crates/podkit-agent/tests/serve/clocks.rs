//! When a container stops, by itself or because it was asked to.

use std::time::{Duration, Instant};

use podkit_agent::{
    AgentStatus, Clocks, ExecSpec, ExecStatus, FailureKind, Reply, Request, StopReason,
};

use crate::{
    client::{Client, shell, spec},
    container::Container,
};

fn status(client: &mut Client) -> AgentStatus {
    match client.ask(&Request::Status) {
        Reply::Status(status) => status,
        other => panic!("no status came: {other:?}"),
    }
}

fn expect_closing(client: &mut Client, expected: StopReason) {
    match client.next_of(0) {
        Some(Reply::Closing(reason)) => assert_eq!(reason, expected),
        other => panic!("no end came: {other:?}"),
    }
    assert!(client.next_of(0).is_none());
}

#[test]
fn idle_container_stops_and_says_why() {
    let mut container = Container::start(&["--auto-stop", "300"]);
    let mut client = container.client();
    expect_closing(&mut client, StopReason::AutoStop);
    assert_eq!(container.end().code(), Some(224));
}

#[test]
fn running_command_holds_the_clock_off_until_it_ends() {
    let mut container = Container::start(&["--auto-stop", "200"]);
    let mut client = container.client();
    let began = Instant::now();
    let ended = client.run(shell("sleep 0.7"));
    assert_eq!(ended.status, ExecStatus::Exited(0));
    expect_closing(&mut client, StopReason::AutoStop);
    assert!(began.elapsed() >= Duration::from_millis(900));
    container.end();
}

#[test]
fn passive_command_moves_no_clock() {
    let mut container = Container::start(&["--auto-stop", "400"]);
    let mut client = container.client();
    let (stream, pid) = client.start(ExecSpec {
        passive: true,
        ..spec(&["sleep", "1000"])
    });
    assert_eq!(status(&mut client).running_execs, 0);
    let ended = client.finish_started(stream, pid);
    assert_eq!(ended.status, ExecStatus::SessionClosed);
    expect_closing(&mut client, StopReason::AutoStop);
    container.end();
}

#[test]
fn lifetime_ends_a_container_that_is_busy() {
    let mut container = Container::start(&["--max-lifetime", "500"]);
    let mut client = container.client();
    let ended = client.run(spec(&["sleep", "1000"]));
    assert_eq!(ended.status, ExecStatus::SessionClosed);
    expect_closing(&mut client, StopReason::MaxLifetime);
    assert_eq!(container.end().code(), Some(225));
}

#[test]
fn clocks_are_set_anew_and_told() {
    let mut container = Container::start(&["--auto-stop", "60000"]);
    let mut client = container.client();
    let before = status(&mut client);
    assert_eq!(
        before.clocks,
        Clocks {
            auto_stop_ms: Some(60_000),
            max_lifetime_ms: None
        }
    );
    let clocks = Clocks {
        auto_stop_ms: None,
        max_lifetime_ms: Some(90_000),
    };
    assert!(matches!(
        client.ask(&Request::SetClocks(clocks)),
        Reply::Done
    ));
    let after = status(&mut client);
    assert_eq!(after.clocks.auto_stop_ms, None);
    assert!(
        after
            .clocks
            .max_lifetime_ms
            .is_some_and(|left| left <= 90_000 && left > 60_000)
    );
    // Setting clocks is no activity, a touch is.
    assert!(after.idle_ms >= before.idle_ms);
    client.run(shell("sleep 0.05"));
    assert!(matches!(client.ask(&Request::Touch), Reply::Done));
    assert!(status(&mut client).idle_ms < 50);
    let clocks = Clocks {
        auto_stop_ms: Some(0),
        max_lifetime_ms: None,
    };
    client.send(0, &Request::SetClocks(clocks));
    assert!(matches!(client.next_of(0), Some(Reply::Done)));
    expect_closing(&mut client, StopReason::AutoStop);
    container.end();
}

#[test]
fn stop_gives_commands_their_grace_and_refuses_others() {
    let mut container = Container::start(&[]);
    let (mut client, mut other) = (container.client(), container.client());
    let (gentle, gentle_pid) = client.start(shell(
        "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done",
    ));
    let (stubborn, stubborn_pid) =
        client.start(shell("trap '' TERM; echo up; while :; do sleep 0.01; done"));
    assert_eq!(client.data(gentle), b"up\n");
    assert_eq!(client.data(stubborn), b"up\n");
    let began = Instant::now();
    client.send(0, &Request::Stop { grace_ms: 600 });
    let ended = client.finish_started(gentle, gentle_pid);
    assert_eq!(
        (ended.out().as_str(), ended.status),
        ("bye\n", ExecStatus::SessionClosed)
    );
    assert!(began.elapsed() < Duration::from_millis(500));
    let refused = other.fail(spec(&["true"]));
    assert_eq!(refused.kind, FailureKind::Closing);
    assert_eq!(
        client.finish_started(stubborn, stubborn_pid).status,
        ExecStatus::SessionClosed
    );
    assert!(began.elapsed() >= Duration::from_millis(600));
    expect_closing(&mut client, StopReason::Requested);
    expect_closing(&mut other, StopReason::Requested);
    assert_eq!(container.end().code(), Some(226));
}

#[test]
fn command_that_comes_as_the_clock_stops_is_answered() {
    for round in 0..30 {
        let mut container = Container::start(&[]);
        let mut client = container.client();
        let clocks = Clocks {
            auto_stop_ms: Some(0),
            max_lifetime_ms: None,
        };
        // Both in one write, so that they meet.
        let mut frames = Vec::new();
        Request::SetClocks(clocks).encode(0, &mut frames);
        if round % 2 == 0 {
            client.send_bytes(&frames);
            frames.clear();
        }
        Request::Exec(spec(&["true"])).encode(1, &mut frames);
        client.send_bytes(&frames);
        let (mut answer, mut closing) = (None, false);
        while let Some((stream, reply)) = client.next() {
            match (stream, reply) {
                (1, Reply::Failed(failure)) => answer = Some(Err(failure.kind)),
                (1, Reply::Exited { status, .. }) => answer = Some(Ok(status)),
                (0, Reply::Closing(StopReason::AutoStop)) => closing = true,
                _ => {}
            }
        }
        assert!(closing, "round {round}: the end was not told");
        assert!(
            matches!(
                answer,
                None | Some(
                    Err(FailureKind::Closing)
                        | Ok(ExecStatus::Exited(0) | ExecStatus::SessionClosed)
                )
            ),
            "round {round}: {answer:?}"
        );
        container.end();
    }
}

#[test]
fn signal_from_outside_stops_and_one_from_inside_does_not() {
    let mut container = Container::start(&[]);
    let mut client = container.client();
    for signal in ["TERM", "INT", "HUP", "USR1", "KILL", "STOP", "SEGV"] {
        client.run(spec(&["kill", &format!("-{signal}"), "1"]));
    }
    assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
    container.signal("-TERM");
    expect_closing(&mut client, StopReason::Requested);
    assert_eq!(container.end().code(), Some(226));
}
