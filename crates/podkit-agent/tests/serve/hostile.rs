//! Clients that break the protocol.

use podkit_agent::{ExecStatus, PROTOCOL_VERSION, Reply, Request};

use crate::{
    client::{Client, spec},
    container::Container,
};

fn encoded(stream: u32, request: &Request) -> Vec<u8> {
    let mut frame = Vec::new();
    request.encode(stream, &mut frame);
    frame
}

/// Bytes that come after a greeting.
fn violations() -> Vec<Vec<u8>> {
    let exec = |stream| encoded(stream, &Request::Exec(spec(&["sleep", "1000"])));
    let mut trailing = encoded(0, &Request::Ping);
    trailing[0] += 1;
    trailing.push(0);
    vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 64],
        vec![0; 64],
        trailing,
        // A kind that nobody knows.
        vec![5, 0, 0, 0, 200, 1, 0, 0, 0],
        exec(0),
        [exec(1), exec(1)].concat(),
        encoded(7, &Request::Ping),
        encoded(0, &Request::StdinEnd),
        encoded(
            0,
            &Request::Hello {
                version: PROTOCOL_VERSION,
                version_min: 1,
            },
        ),
    ]
}

#[test]
fn connection_that_breaks_the_protocol_is_closed_and_no_other() {
    let container = Container::start(&[]);
    let mut good = container.client();
    for bytes in violations() {
        let mut bad = container.client();
        bad.send_bytes(&bytes);
        bad.expect_end();
        assert!(matches!(good.ask(&Request::Ping), Reply::Pong), "{bytes:?}");
    }
    container.wait_until_empty();
}

#[test]
fn connection_that_does_not_greet_first_is_closed() {
    let container = Container::start(&[]);
    for bytes in [
        encoded(0, &Request::Ping),
        encoded(1, &Request::Exec(spec(&["true"]))),
        vec![7; 40],
    ] {
        let mut client = container.dial();
        client.send_bytes(&bytes);
        assert!(client.next().is_none());
    }
    // One that greets in a version of its own is told ours, and can do nothing with it.
    let mut client = container.dial();
    client.send(
        0,
        &Request::Hello {
            version: 999,
            version_min: 900,
        },
    );
    assert!(matches!(
        client.next(),
        Some((
            0,
            Reply::Hello {
                version: PROTOCOL_VERSION,
                ..
            }
        ))
    ));
    client.send(1, &Request::Exec(spec(&["true"])));
    client.expect_end();
}

#[test]
fn noise_of_any_kind_never_ends_the_agent() {
    let container = Container::start(&[]);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..40 {
        let mut client: Client = container.client();
        for _ in 0..20 {
            let length = usize::try_from(random() % 40).unwrap();
            let payload: Vec<u8> = (0..length).map(|_| random().to_le_bytes()[0]).collect();
            let size = u32::try_from(length + 5).unwrap();
            let kind = u8::try_from(random() % 16).unwrap();
            // No order to stop, which is no noise.
            let kind = if kind == 6 || kind == 5 { 2 } else { kind };
            let stream = u32::try_from(random() % 3).unwrap();
            let frame = [
                &size.to_le_bytes()[..],
                &[kind],
                &stream.to_le_bytes(),
                &payload,
            ]
            .concat();
            client.send_bytes(&frame);
        }
    }
    let mut client = container.client();
    assert_eq!(client.run(spec(&["true"])).status, ExecStatus::Exited(0));
}

#[test]
fn words_for_streams_that_have_ended_are_ignored() {
    let container = Container::start(&[]);
    let mut client = container.client();
    client.run(spec(&["true"]));
    client.send(1, &Request::Cancel);
    client.send(1, &Request::Stdin(vec![1]));
    client.send(1, &Request::StdinEnd);
    assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
}
