//! Deadlines: nothing of a command outlives its own, whatever it does.

use std::time::{Duration, Instant};

use podkit_agent::{ExecSpec, ExecStatus, Reply, Request};

use crate::{
    client::{shell, spec},
    container::{Container, wait_for},
};

/// Time that the command has.
const TIMEOUT_MS: u64 = 1000;

/// When the answer has to be there.
const ANSWER: Duration = Duration::from_millis(1500);

fn in_time(text: &str) -> ExecSpec {
    ExecSpec {
        timeout_ms: Some(TIMEOUT_MS),
        ..shell(text)
    }
}

/// Runs the text beside another command, which stays untouched, and checks that it is timed out and
/// nothing of it left.
fn check(text: &str) {
    let container = Container::start(&[]);
    let mut client = container.client();
    let (other, other_pid) = client.start(ExecSpec {
        stdin: true,
        ..shell("sleep 1999 & read x; echo $x")
    });
    container.wait_for_argument("1999");
    let began = Instant::now();
    let ended = client.run(in_time(text));
    let took = began.elapsed();
    assert_eq!(ended.status, ExecStatus::TimedOut, "{ended:?}");
    assert_eq!(ended.out(), "partial\n");
    assert!(
        took >= Duration::from_millis(TIMEOUT_MS) && took < ANSWER,
        "{took:?}"
    );
    assert!(!ended.tree_survives);
    // Judged from the host: the supervisor of the other command, it, and its child.
    let left = wait_for("the end of the tree", || {
        let left = container.processes();
        (left.len() <= 3).then_some(left)
    });
    assert_eq!(left.len(), 3, "{left:?}");
    client.send(other, &Request::Stdin(b"whole\n".to_vec()));
    client.send(other, &Request::StdinEnd);
    assert_eq!(client.finish_started(other, other_pid).out(), "whole\n");
    assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
}

#[test]
fn tree_that_ignores_signals_and_leaves_its_session_is_killed_in_time() {
    check(
        "trap '' TERM HUP INT; echo partial; sleep 1001 & (setsid sh -c 'sleep 1002 & sleep 1003 & \
         (setsid sleep 1004 &) ; wait' &) ; sleep 1005",
    );
}

#[test]
fn tree_that_kills_its_supervisor_is_killed_in_time() {
    check(
        "trap '' TERM; echo partial; (setsid sh -c 'sleep 1001 & sleep 1002' &) ; sleep 1003 & \
         kill -9 $PPID; (setsid sleep 1004 &) ; kill -9 1; kill -STOP 1; sleep 1005",
    );
}

#[test]
fn tree_that_stops_its_supervisor_is_killed_in_time() {
    check("echo partial; (setsid sleep 1001 &) ; kill -STOP $PPID; sleep 1002");
}

#[test]
fn tree_that_stops_its_supervisor_again_and_again_is_killed_in_time() {
    check("echo partial; sleep 1001 & while :; do kill -STOP $PPID; done");
}

#[test]
fn command_that_stopped_its_supervisor_is_told_to_have_ended() {
    let container = Container::start(&[]);
    let mut client = container.client();
    // Without a deadline, so that nothing else would ever tell.
    let text = "echo partial; sleep 1001 >/dev/null 2>&1 & kill -STOP $PPID; exit 7";
    let ended = client.run(shell(text));
    assert_eq!(ended.status, ExecStatus::Exited(7), "{ended:?}");
    assert_eq!(ended.out(), "partial\n");
    // What it left in the background is nobody's harm.
    container.wait_for_argument("1001");
    assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
}

#[test]
fn tree_that_forks_without_end_is_killed() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let text = "echo partial; f() { sh -c 'exit 0' & f2 & }; f2() { while :; do (setsid sleep 0.2 &) ; done; }; \
                f; wait";
    let ended = client.run(ExecSpec {
        timeout_ms: Some(300),
        ..shell(text)
    });
    assert_eq!(ended.status, ExecStatus::TimedOut);
    assert_eq!(ended.out(), "partial\n");
    container.wait_until_empty();
}

#[test]
fn supervisor_killed_after_its_command_takes_the_background_along() {
    let container = Container::start(&[]);
    let mut client = container.client();
    client.run(shell("(setsid sleep 1001 >/dev/null 2>&1 &)"));
    container.wait_for_argument("1001");
    let supervisor = wait_for("the supervisor", || {
        let all = container.processes();
        let found = all
            .iter()
            .find(|(_, words)| words.get(1).is_some_and(|word| word == "init"));
        found.map(|(pid, _)| *pid)
    });
    let killed = std::process::Command::new("kill")
        .args(["-9", &supervisor.to_string()])
        .status();
    assert!(killed.unwrap().success());
    container.wait_until_empty();
    assert_eq!(client.run(spec(&["true"])).status, ExecStatus::Exited(0));
}
