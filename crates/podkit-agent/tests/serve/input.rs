//! Standard input of commands.

use podkit_agent::{ExecSpec, ExecStatus, INITIAL_WINDOW_BYTES, Reply, Request};

use crate::{
    client::{shell, spec},
    container::Container,
};

fn with_input(spec: ExecSpec) -> ExecSpec {
    ExecSpec {
        stdin: true,
        ..spec
    }
}

#[test]
fn input_has_a_real_end() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let (stream, pid) = client.start(with_input(spec(&["cat"])));
    client.send(stream, &Request::Stdin(b"one ".to_vec()));
    client.send(stream, &Request::Stdin(b"two".to_vec()));
    client.send(stream, &Request::StdinEnd);
    let ended = client.finish_started(stream, pid);
    assert_eq!(
        (ended.out().as_str(), ended.status),
        ("one two", ExecStatus::Exited(0))
    );
}

#[test]
fn input_larger_than_the_window_is_granted_as_it_goes_on() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let (stream, pid) = client.start(with_input(spec(&["wc", "-c"])));
    let mut window = INITIAL_WINDOW_BYTES as usize;
    let mut left = 3 << 20;
    while left > 0 {
        let count = left.min(window).min(60_000);
        if count == 0 {
            match client.next_of(stream) {
                Some(Reply::Credit(bytes)) => window += bytes as usize,
                other => panic!("no credit came: {other:?}"),
            }
            continue;
        }
        client.send(stream, &Request::Stdin(vec![b'x'; count]));
        window -= count;
        left -= count;
    }
    client.send(stream, &Request::StdinEnd);
    assert_eq!(client.finish_started(stream, pid).out(), "3145728\n");
}

#[test]
fn input_beyond_the_window_ends_the_connection() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let (stream, _) = client.start(with_input(spec(&["sleep", "1000"])));
    for _ in 0..8 {
        client.send(stream, &Request::Stdin(vec![0; 60_000]));
    }
    // At once, and not because nothing was heard for long.
    while let Some((_, reply)) = client.next() {
        assert!(matches!(reply, Reply::Credit(_)), "{reply:?}");
    }
    container.wait_until_empty();
}

#[test]
fn input_that_the_command_closed_is_told() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let (stream, _) = client.start(with_input(shell("exec <&-; exec sleep 1000")));
    assert!(matches!(client.next_of(stream), Some(Reply::StdinClosed)));
    // What was on its way is dropped.
    client.send(stream, &Request::Stdin(b"late".to_vec()));
    client.send(stream, &Request::StdinEnd);
    assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
}
