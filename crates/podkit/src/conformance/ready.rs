//! Containers that are started: whether they stay up, and when they are ready.

use std::time::Duration;

use super::{
    lab::{BOUND, Lab, assert_kind, key, text},
    table,
};
use crate::{ErrorKind, EventKind, Opened, Readiness, SessionSpec, StartupCheck};

table!["ready":
    Containers readiness_that_cannot_be_is_refused,
    Containers container_that_stays_up_passes_its_check,
    Programs container_that_does_not_stay_up_is_an_error_and_gone,
    Programs startup_check_tells_as_many_lines_as_asked,
    Programs ready_when_a_command_succeeds,
    Programs ready_when_a_port_or_a_page_is_there,
    Programs not_ready_in_time_is_timed_out_and_gone,
    Programs found_container_is_not_looked_at_again,
];

fn program(script: &str) -> SessionSpec {
    SessionSpec {
        entrypoint: Some(vec!["/bin/sh".to_owned(), "-c".to_owned()]),
        command: Some(vec![script.to_owned()]),
        ..SessionSpec::new()
    }
}

fn quick() -> StartupCheck {
    StartupCheck::new()
        .checks(2)
        .interval(Duration::from_millis(300))
}

async fn readiness_that_cannot_be_is_refused(lab: Lab) {
    for readiness in [
        Readiness::Port(0),
        Readiness::http(0, "/"),
        Readiness::http(80, "health"),
        Readiness::http(80, "/a b"),
        Readiness::Command(Vec::new()),
    ] {
        let about = format!("{readiness:?}");
        let opened = lab.podkit().session("u", "a").ready_when(readiness, BOUND);
        assert_kind(opened.await, ErrorKind::InvalidInput, &about);
    }
    assert!(lab.podkit().list().await.unwrap().is_empty());
}

async fn container_that_stays_up_passes_its_check(lab: Lab) {
    let opened = lab.podkit().session("u", "a").startup_check(quick());
    assert_eq!(opened.await.unwrap().opened(), Opened::Created);
}

/// What ends before it is connected to, and what ends after that.
async fn startup_check_tells_as_many_lines_as_asked(lab: Lab) {
    for script in ["", "sleep 0.2; "] {
        for (lines, told) in [(0, ""), (2, "\nline 8\nline 9"), (100, "\nline 0\nline 1")] {
            let script =
                format!("for i in 0 1 2 3 4 5 6 7 8 9; do echo line $i; done; {script}exit 7");
            let opened = lab.podkit().session("u", "a").spec(program(&script));
            let opened = opened.startup_check(quick().log_lines(lines));
            let error = assert_kind(opened.await, ErrorKind::Unexpected, "a program that ends");
            let message = error.message();
            assert!(message.contains(told), "{message}");
            let count = message.matches("\nline").count();
            // A program that ends at once is started more than once.
            assert!(count == lines || (lines == 100 && count >= 10), "{message}");
            assert!(lab.podkit().list().await.unwrap().is_empty(), "it is left");
        }
    }
}

async fn container_that_does_not_stay_up_is_an_error_and_gone(lab: Lab) {
    let mut events = lab.podkit().events();
    // Up long enough to be connected to.
    let spec = program("echo last words; sleep 0.2; exit 7");
    let opened = lab.podkit().session("u", "a").spec(spec);
    let error = assert_kind(
        opened.startup_check(quick()).await,
        ErrorKind::Unexpected,
        "a program that ends",
    );
    assert!(error.message().contains("last words"), "{error:?}");
    assert!(error.message().contains('7'), "{error:?}");
    assert!(lab.podkit().list().await.unwrap().is_empty(), "it is left");
    loop {
        let event = events.next().await.unwrap();
        if let EventKind::ContainerStartFailed(reason) = event.kind {
            assert_eq!(reason.exit_code, Some(7));
            assert_eq!(reason.log, ["last words"]);
            break;
        }
    }
}

async fn ready_when_a_command_succeeds(lab: Lab) {
    let spec = program("sleep 0.3; touch /tmp/ready; sleep 1000");
    let words = ["test", "-e", "/tmp/ready"].map(str::to_owned);
    let ready = Readiness::Command(words.to_vec());
    let opened = lab.podkit().session("u", "a").spec(spec);
    let session = opened.ready_when(ready, BOUND).await.unwrap();
    assert_eq!(text(&session, "ls /tmp/ready").await, "/tmp/ready\n");
}

/// Answers on `/health`, and nowhere else.
const SERVER: &str = "sleep 0.3; exec python3 -c '
import socket
server = socket.create_server((\"127.0.0.1\", 8020))
while True:
    connection, _ = server.accept()
    asked = connection.recv(4096).split()
    found = len(asked) > 1 and asked[1] == b\"/health\"
    connection.sendall(b\"HTTP/1.0 200 OK\\r\\n\\r\\n\" if found else b\"HTTP/1.0 404 No\\r\\n\\r\\n\")
    connection.close()
'";

async fn ready_when_a_port_or_a_page_is_there(lab: Lab) {
    let opened = lab.podkit().session("u", "a").spec(program(SERVER));
    let session = opened
        .ready_when(Readiness::http(8020, "/health"), BOUND)
        .await
        .unwrap();
    session.connect_port(8020).await.unwrap();
    let opened = lab.podkit().session("u", "b").spec(program(SERVER));
    let session = opened
        .ready_when(Readiness::Port(8020), BOUND)
        .await
        .unwrap();
    session.connect_port(8020).await.unwrap();
}

async fn not_ready_in_time_is_timed_out_and_gone(lab: Lab) {
    let limit = Duration::from_secs(1);
    for readiness in [
        Readiness::Port(8021),
        Readiness::http(8020, "/no-such-page"),
        Readiness::Command(vec!["false".to_owned()]),
    ] {
        let about = format!("{readiness:?}");
        let opened = lab.podkit().session("u", "a").spec(program(SERVER));
        let opened = opened.ready_when(readiness, limit);
        assert_kind(opened.await, ErrorKind::TimedOut, &about);
        assert!(lab.podkit().list().await.unwrap().is_empty(), "{about}");
    }
}

async fn found_container_is_not_looked_at_again(lab: Lab) {
    lab.open("a").await;
    let never = Readiness::Command(vec!["false".to_owned()]);
    let again = lab.podkit().open(&key("a")).ready_when(never, BOUND);
    assert_eq!(again.await.unwrap().opened(), Opened::Reconnected);
}
