//! Ports of a container: reached from outside, waited for, listed, forwarded, published.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    lab::{BOUND, Lab, assert_kind, eventually, text},
    table,
};
use crate::{ErrorKind, Port, PortStream, Session, SessionSpec};

table!["ports":
    Containers port_of_a_simulated_container_is_unsupported,
    Programs port_is_waited_for_reached_and_listed,
    Programs port_nobody_listens_on_is_not_found,
    Programs port_stream_ends_one_direction_at_a_time,
    Programs port_that_never_reads_holds_up_nobody_else,
    Programs port_takes_many_connections_at_once,
    Programs port_is_forwarded_as_long_as_somebody_wants_it,
    Programs port_stream_ends_with_the_container,
    Programs port_published_is_reached_and_kept_over_a_restart,
    Programs port_published_is_kept_when_the_container_is_made_anew,
    Programs port_published_and_taken_while_stopped,
    Programs port_published_takes_many_callers_and_ends_with_the_container,
    Programs port_published_twice_is_a_conflict_and_makes_nothing,
];

/// Answers each connection with what it got, once that has ended, and a line of its own.
const ECHO: &str = "
import socket, sys, threading
server = socket.create_server((sys.argv[2] if len(sys.argv) > 2 else '127.0.0.1', int(sys.argv[1])), backlog=200)
def serve(connection):
    got = b''
    while True:
        part = connection.recv(65536)
        if not part: break
        got += part
    connection.sendall(b'got %d\\n' % len(got) + got)
    connection.close()
while True:
    connection, _ = server.accept()
    threading.Thread(target=serve, args=(connection,)).start()
";

async fn echo(session: &Session, port: u16, address: &str) {
    let port = port.to_string();
    let argv = ["python3", "-c", ECHO, &port, address];
    session.spawn(argv).keep_alive().await.unwrap();
}

async fn ask(stream: &mut PortStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

async fn ask_at(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn port_of_a_simulated_container_is_unsupported(lab: Lab) {
    let session = lab.open("a").await;
    assert_kind(
        session.connect_port(0).await,
        ErrorKind::InvalidInput,
        "port 0",
    );
    let refused = session.wait_for_port(0, BOUND).await;
    assert_kind(refused, ErrorKind::InvalidInput, "port 0");
    if !lab.is_real() {
        let refused = session.connect_port(80).await;
        assert_kind(refused, ErrorKind::Unsupported, "a port");
        let refused = session.listening_ports().await;
        assert_kind(refused, ErrorKind::Unsupported, "ports");
    }
    let unpublished = session.url(80).await;
    assert_kind(unpublished, ErrorKind::NotFound, "a port");
}

async fn port_is_waited_for_reached_and_listed(lab: Lab) {
    let session = lab.open("a").await;
    let waiting = session.wait_for_port(8001, BOUND);
    let (waited, ()) = tokio::join!(waiting, echo(&session, 8001, "127.0.0.1"));
    waited.unwrap();
    let mut stream = session.connect_port(8001).await.unwrap();
    assert_eq!(ask(&mut stream, b"hello").await, b"got 5\nhello");
    let ports = session.listening_ports().await.unwrap();
    let found = ports.iter().find(|one| one.port == 8001).unwrap();
    assert_eq!(found.address, Ipv4Addr::LOCALHOST);
    let pid = found.pid.expect("its owner is seen");
    let name = text(&session, &format!("cat /proc/{pid}/comm")).await;
    assert_eq!(found.name.as_deref(), Some(name.trim()));
}

async fn port_nobody_listens_on_is_not_found(lab: Lab) {
    let session = lab.open("a").await;
    let refused = session.connect_port(8002).await;
    let error = assert_kind(refused, ErrorKind::NotFound, "a port");
    assert!(error.message().contains("8002"), "{error:?}");
    let late = session.wait_for_port(8002, Duration::from_millis(50)).await;
    assert_kind(late, ErrorKind::TimedOut, "a port");
    assert_eq!(text(&session, "echo fine").await, "fine\n");
}

async fn port_stream_ends_one_direction_at_a_time(lab: Lab) {
    let session = lab.open("a").await;
    echo(&session, 8003, "127.0.0.1").await;
    session.wait_for_port(8003, BOUND).await.unwrap();
    // More than fits anywhere on the way, so that both directions have to move.
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut stream = session.connect_port(8003).await.unwrap();
    let answer = ask(&mut stream, &large).await;
    assert_eq!(answer.get(..12), Some(b"got 3000000\n".as_slice()));
    assert_eq!(answer.get(12..), Some(large.as_slice()));
}

async fn port_that_never_reads_holds_up_nobody_else(lab: Lab) {
    let session = lab.open("a").await;
    let script = "import socket, time\nserver = socket.create_server(('127.0.0.1', 8004))\n\
                  kept = [server.accept() for _ in range(1)]\ntime.sleep(1000)";
    session.spawn(["python3", "-c", script]).await.unwrap();
    session.wait_for_port(8004, BOUND).await.unwrap();
    let mut stream = session.connect_port(8004).await.unwrap();
    let bytes = vec![0; 1 << 20];
    let sent = std::sync::atomic::AtomicUsize::new(0);
    let flood = async {
        loop {
            let count = stream.write(&bytes).await.unwrap();
            sent.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let others = async {
        for _ in 0..20 {
            assert_eq!(text(&session, "echo hi").await, "hi\n");
        }
    };
    tokio::select! {
        () = flood => {}
        () = others => {}
    }
    // What the sockets and pipes on the way hold, and no more.
    let sent = sent.into_inner();
    assert!(
        sent < 32 << 20,
        "{sent} bytes went to one who does not read"
    );
    drop(stream);
    assert_eq!(text(&session, "echo hi").await, "hi\n");
}

async fn port_takes_many_connections_at_once(lab: Lab) {
    let session = lab.open("a").await;
    echo(&session, 8005, "127.0.0.1").await;
    session.wait_for_port(8005, BOUND).await.unwrap();
    let asks = (0..100_usize).map(|number| {
        let session = session.clone();
        async move {
            let mut stream = session.connect_port(8005).await.unwrap();
            let bytes = vec![b'x'; number];
            let answer = ask(&mut stream, &bytes).await;
            let mut wanted = format!("got {number}\n").into_bytes();
            wanted.extend(bytes);
            assert_eq!(answer, wanted);
        }
    });
    futures::future::join_all(asks).await;
}

async fn port_is_forwarded_as_long_as_somebody_wants_it(lab: Lab) {
    let session = lab.open("a").await;
    echo(&session, 8006, "127.0.0.1").await;
    session.wait_for_port(8006, BOUND).await.unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let forward = session.forward_port(any, 8006).await.unwrap();
    let address = forward.address();
    assert_eq!(ask_at(address, b"abc").await.unwrap(), b"got 3\nabc");
    let taken = session.forward_port(address, 8006).await;
    assert_kind(taken, ErrorKind::Conflict, "a taken address");
    drop(forward);
    eventually("its end", || async {
        TcpStream::connect(address).await.err().map(drop)
    })
    .await;
}

async fn port_stream_ends_with_the_container(lab: Lab) {
    let session = lab.open("a").await;
    echo(&session, 8007, "127.0.0.1").await;
    session.wait_for_port(8007, BOUND).await.unwrap();
    let mut stream = session.connect_port(8007).await.unwrap();
    stream.write_all(b"half").await.unwrap();
    session.close().await.unwrap();
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    tokio::time::timeout(BOUND, end).await.unwrap().unwrap();
    assert!(rest.is_empty());
}

async fn port_published_is_reached_and_kept_over_a_restart(lab: Lab) {
    if !lab.podkit().capabilities().ports {
        let spec = SessionSpec::new().port(Port::new(80).anywhere());
        lab.assert_unsupported(spec, "ports").await;
        return;
    }
    let spec = SessionSpec::new().port(Port::new(8008).anywhere());
    let session = lab.open_with("a", spec).await;
    let mut before = None;
    for _ in 0..2 {
        let published = session.ports().await.unwrap();
        assert_eq!(*before.get_or_insert_with(|| published.clone()), published);
        let [one] = published.as_slice() else {
            panic!("{published:?}")
        };
        assert_eq!(one.container, 8008);
        let url = session.url(8008).await.unwrap();
        assert_eq!(url, format!("http://127.0.0.1:{}", one.host));
        let address = SocketAddr::new(one.address, one.host);
        echo(&session, 8008, "0.0.0.0").await;
        session.wait_for_port(8008, BOUND).await.unwrap();
        let answer = eventually("an answer", || async {
            ask_at(address, b"abc")
                .await
                .ok()
                .filter(|all| !all.is_empty())
        })
        .await;
        assert_eq!(answer, b"got 3\nabc");
        session.stop(Duration::ZERO).await.unwrap();
        session.exec(["true"]).await.unwrap();
    }
}

async fn port_published_is_kept_when_the_container_is_made_anew(lab: Lab) {
    if !lab.podkit().capabilities().ports {
        let spec = SessionSpec::new().port(Port::new(80).anywhere());
        return lab.assert_unsupported(spec, "ports").await;
    }
    let ports = [Port::new(8011).anywhere(), Port::new(8012).anywhere()];
    let spec = ports
        .into_iter()
        .fold(SessionSpec::new(), SessionSpec::port);
    let session = lab.open_with("a", spec.clone()).await;
    let before = session.ports().await.unwrap();
    assert_eq!(before.len(), 2, "{before:?}");
    lab.backend().remove(session.container()).await.unwrap();
    session.exec(["true"]).await.unwrap();
    assert_eq!(session.ports().await.unwrap(), before, "made anew");
    session.close().await.unwrap();
    let session = lab.open_with("a", spec.clone()).await;
    assert_eq!(session.ports().await.unwrap(), before, "opened anew");
    session.close().await.unwrap();
    // Taken by somebody else: a new container has another one, and only instead of that one.
    let taken = before.first().unwrap();
    let address = SocketAddr::new(taken.address, taken.host);
    let _listener = std::net::TcpListener::bind(address).unwrap();
    let session = lab.open_with("a", spec).await;
    let after = session.ports().await.unwrap();
    assert_ne!(after.first().unwrap().host, taken.host);
    assert_eq!(after.get(1), before.get(1));
}

async fn port_published_and_taken_while_stopped(lab: Lab) {
    if !lab.podkit().capabilities().ports {
        let spec = SessionSpec::new().port(Port::new(80).anywhere());
        return lab.assert_unsupported(spec, "ports").await;
    }
    let spec = SessionSpec::new().port(Port::new(8013).anywhere());
    let session = lab.open_with("a", spec).await;
    session
        .files()
        .write("kept", b"bytes".to_vec())
        .await
        .unwrap();
    let before = session.ports().await.unwrap();
    session.stop(Duration::ZERO).await.unwrap();
    let one = before.first().unwrap();
    let address = SocketAddr::new(one.address, one.host);
    let listener = eventually("the port", || async {
        std::net::TcpListener::bind(address).ok()
    })
    .await;
    let used = session.exec(["true"]).await;
    if lab.backend().name() == "embedded" {
        used.unwrap();
        let after = session.ports().await.unwrap();
        assert_ne!(after.first().unwrap().host, one.host);
        return;
    }
    // These engines bind a container to its ports for good.
    let error = assert_kind(used, ErrorKind::Conflict, "a port that was taken");
    assert!(
        error.hint().unwrap().contains("free what is taken"),
        "{error:?}"
    );
    drop(listener);
    session.exec(["true"]).await.unwrap();
    assert_eq!(session.ports().await.unwrap(), before);
    assert_eq!(session.files().read("kept").await.unwrap(), b"bytes");
}

async fn port_published_takes_many_callers_and_ends_with_the_container(lab: Lab) {
    if !lab.podkit().capabilities().ports {
        let spec = SessionSpec::new().port(Port::new(80).on([0, 0, 0, 0].into()));
        return lab.assert_unsupported(spec, "ports").await;
    }
    let spec = SessionSpec::new().port(Port::new(8010).anywhere());
    let session = lab.open_with("a", spec).await;
    let one = *session.ports().await.unwrap().first().unwrap();
    let address = SocketAddr::new(one.address, one.host);
    // Nobody listens yet: whoever calls is hung up on.
    let early = ask_at(address, b"x").await.unwrap_or_default();
    assert!(early.is_empty());
    echo(&session, 8010, "0.0.0.0").await;
    session.wait_for_port(8010, BOUND).await.unwrap();
    let asks = (0..60_usize).map(|number| async move {
        let bytes = vec![b'x'; number * 10_000];
        let answer = ask_at(address, &bytes).await.unwrap();
        let mut wanted = format!("got {}\n", bytes.len()).into_bytes();
        wanted.extend(bytes);
        assert!(answer == wanted, "{number}: {} bytes", answer.len());
    });
    futures::future::join_all(asks).await;
    session.close().await.unwrap();
    eventually("its end", || async {
        TcpStream::connect(address).await.err().map(drop)
    })
    .await;
    // The port is free again.
    drop(std::net::TcpListener::bind(address).unwrap());
}

async fn port_published_twice_is_a_conflict_and_makes_nothing(lab: Lab) {
    if !lab.podkit().capabilities().ports {
        let spec = SessionSpec::new().port(Port::new(80).at(8080));
        return lab.assert_unsupported(spec, "ports").await;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port();
    let spec = SessionSpec::new().port(Port::new(8009).at(taken));
    let refused = lab.podkit().session("u", "a").spec(spec).await;
    assert_kind(refused, ErrorKind::Conflict, "a taken port");
    assert!(lab.podkit().list().await.unwrap().is_empty());
}
