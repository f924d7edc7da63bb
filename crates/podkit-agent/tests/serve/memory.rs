//! What the agent itself needs.

use std::{process::Command, thread, time::Duration};

use podkit_agent::{ExecStatus, Reply, Request};

use crate::{
    client::{shell, spec},
    container::Container,
};

/// KiB that an idle agent may have for itself.
const IDLE: u64 = 100;

/// KiB that it may grow by, whatever passes.
const GROWTH: u64 = 8 * 1024;

#[test]
fn idle_agent_is_small_also_after_work() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let anonymous = || container.kilobytes("smaps_rollup", "Anonymous:");
    assert!(anonymous() <= IDLE, "{} KiB at first", anonymous());
    for _ in 0..100 {
        assert_eq!(
            client.run(shell("head -c 200000 /dev/zero")).status,
            ExecStatus::Exited(0)
        );
    }
    assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
    assert!(anonymous() <= IDLE, "{} KiB after work", anonymous());
    let open = std::fs::read_dir(format!("/proc/{}/fd", container.init))
        .unwrap()
        .count();
    assert!(open < 16, "{open} descriptors are open");
}

#[test]
fn hundred_megabytes_pass_in_flat_memory() {
    let container = Container::start(&[]);
    let (mut client, mut slow) = (container.client(), container.client());
    let (held, _) = slow.start(spec(&["cat", "/dev/zero"]));
    slow.fill_window(held);
    let before = container.kilobytes("status", "VmHWM:");
    let (stream, pid) = client.start(shell("head -c 100000000 /dev/zero"));
    let mut total = 0;
    loop {
        match client.next_of(stream) {
            Some(Reply::Data(output, data)) => {
                total += data.len();
                client.grant(stream, output, &data);
            }
            Some(Reply::Exited { status, .. }) => break assert_eq!(status, ExecStatus::Exited(0)),
            other => panic!("process {pid} said {other:?}"),
        }
    }
    assert_eq!(total, 100_000_000);
    slow.send(held, &Request::Cancel);
    let grown = container.kilobytes("status", "VmHWM:") - before;
    assert!(grown <= GROWTH, "{grown} KiB");
}

/// How much processor time may pass while nobody can be let in.
const RESTING: Duration = Duration::from_millis(100);

#[test]
fn agent_without_descriptors_rests_and_lets_clients_in_later() {
    let container = Container::start(&[]);
    let mut client = container.client();
    assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
    let limit = |most: &str| {
        let pid = container.init.to_string();
        let set = Command::new("prlimit")
            .args(["--pid", &pid, &format!("--nofile={most}:1024")])
            .status();
        assert!(set.unwrap().success());
    };
    // What it has open it keeps.
    limit("4");
    thread::scope(|scope| {
        let late = scope.spawn(|| matches!(container.client().ask(&Request::Ping), Reply::Pong));
        let before = container.processor_time();
        Command::new("sleep").arg("1").status().unwrap();
        let used = container.processor_time() - before;
        assert!(used <= RESTING, "{used:?}");
        assert!(!late.is_finished());
        assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
        limit("1024");
        assert!(late.join().unwrap());
    });
}
