//! Who is let in.

use podkit_agent::{ExecSpec, PROTOCOL_VERSION, Reply, Request};

use crate::{client::shell, container::Container};

/// A greeting as the text of a shell's `printf`.
fn greeting() -> String {
    let mut frame = Vec::new();
    Request::Hello {
        version: PROTOCOL_VERSION,
        version_min: PROTOCOL_VERSION,
    }
    .encode(0, &mut frame);
    frame.iter().map(|byte| format!("\\{byte:03o}")).collect()
}

/// Runs `connect` inside as this user and checks that it is refused.
fn check(user: &str) {
    let container = Container::start(&[]);
    let mut client = container.client();
    let idle = |client: &mut crate::client::Client| match client.ask(&Request::Status) {
        Reply::Status(status) => status.uptime_ms - status.idle_ms,
        other => panic!("no status came: {other:?}"),
    };
    let before = idle(&mut client);
    for leader in ["", "setsid "] {
        let text = format!(
            "printf '{}' | {leader}{} connect; echo $?",
            greeting(),
            container.agent()
        );
        // Passive, so that the command itself moves no clock.
        let ended = client.run(ExecSpec {
            passive: true,
            user: user.into(),
            ..shell(&text)
        });
        assert_eq!(ended.out(), "1\n", "not a byte, and a code that tells");
    }
    assert!(idle(&mut client).abs_diff(before) <= 1, "a clock was moved");
}

#[test]
fn process_inside_of_the_agents_own_user_is_refused() {
    check("");
}

#[test]
fn process_inside_of_another_user_is_refused() {
    check("65534");
}

#[test]
fn program_inside_that_speaks_for_itself_is_refused() {
    let container = Container::start(&[]);
    let greeting = greeting();
    let text = format!(
        "python3 -c \"import socket
name = next(l.split('@')[1].strip() for l in open('/proc/net/unix') if '@podkit-agent-' in l)
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect('\\0' + name)
try:
    s.sendall(b'{greeting}')
    print(len(s.recv(1000)))
except ConnectionError:
    print(0)
\""
    );
    let ended = container.client().run(shell(&text));
    assert_eq!(ended.out(), "0\n", "not a byte: {}", ended.err());
}
