//! The least of a client: one command, its output and its status.

#![expect(clippy::panic, reason = "a test fails by a panic")]
#![expect(unreachable_pub, reason = "this module is part of a program")]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use podkit_agent::{
    ExecSpec, ExecStatus, FrameBuffer, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Reply, Request,
};
use podkit_runtime::Runtime;

/// Runs a shell command and returns how it ended and what it wrote, both streams together.
pub fn shell(runtime: &Runtime, name: &str, command: &str) -> (ExecStatus, String) {
    let mut stream = runtime.connect(name).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut bytes = Vec::new();
    Request::Hello {
        version: PROTOCOL_VERSION,
        version_min: PROTOCOL_VERSION_MIN,
    }
    .encode(0, &mut bytes);
    let argv = ["/bin/sh", "-c", command].map(|arg| arg.as_bytes().to_vec());
    Request::Exec(ExecSpec {
        argv: argv.to_vec(),
        merge_output: true,
        ..ExecSpec::default()
    })
    .encode(1, &mut bytes);
    stream.write_all(&bytes).unwrap();
    hear(&mut stream, command)
}

fn hear(stream: &mut UnixStream, command: &str) -> (ExecStatus, String) {
    let mut buffer = FrameBuffer::new();
    let mut output = Vec::new();
    let mut chunk = [0_u8; 65536];
    loop {
        while let Some((kind, _, payload)) = buffer.next_frame().unwrap() {
            match Reply::decode(kind, payload).unwrap() {
                Reply::Data(_, data) => output.extend(data),
                Reply::Exited { status, .. } => {
                    return (status, String::from_utf8_lossy(&output).into_owned());
                }
                Reply::Failed(failure) => panic!("{command}: {failure:?}"),
                _ => {}
            }
        }
        let length = stream.read(&mut chunk).unwrap();
        assert!(length > 0, "{command}: the agent hung up");
        buffer.push(&chunk[..length]);
    }
}

/// Runs a shell command that must succeed.
pub fn run(runtime: &Runtime, name: &str, command: &str) -> String {
    let (status, output) = shell(runtime, name, command);
    assert_eq!(status, ExecStatus::Exited(0), "{command}: {output}");
    output
}
