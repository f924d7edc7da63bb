//! Engines that are not on a socket of this machine: TCP with TLS, and ssh.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use podkit::{ErrorKind, Podkit, Port, SessionSpec};

use super::{
    DEBIAN, Engine, prefix_of, run,
    support::{options_at, wait_for, worker::Worker},
    tests, text,
};

tests![
    engine_behind_tls_is_one_like_any_other,
    engine_behind_tls_takes_only_those_it_knows,
    engine_elsewhere_gives_another_port_for_one_that_is_taken,
    engine_behind_ssh_is_one_like_any_other,
    engine_behind_ssh_that_refuses_says_why,
];

/// Bytes that go both ways.
const MANY: usize = 1_000_000;

/// A server of the test's, which ends with this value.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts what listens on a free port of this machine.
    fn start(command: impl Fn(u16) -> Command) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let child = command(port)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(Duration::from_secs(20), || {
            let connected = TcpStream::connect(("127.0.0.1", port));
            connected.map(drop).map_err(|error| error.to_string())
        });
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn socket_of(engine: &Engine) -> &'static str {
    match engine.name {
        "docker" => "/run/docker.sock",
        _ => "/run/podman/podman.sock",
    }
}

fn openssl(directory: &Path, words: &str) {
    let mut command = Command::new("openssl");
    succeed(command.current_dir(directory).args(words.split(' ')));
}

/// An authority, and what it has signed for a server of this machine and for a client: the files
/// `ca.pem`, `server.pem`, `cert.pem` and `key.pem`.
fn certificates(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let new = "req -newkey rsa:2048 -nodes -days 2";
    openssl(
        directory,
        &format!("{new} -x509 -subj /CN=authority -keyout ca.key -out ca.pem"),
    );
    for (name, key, signed) in [
        ("127.0.0.1", "server.key", "server.crt"),
        ("client", "key.pem", "cert.pem"),
    ] {
        openssl(
            directory,
            &format!("{new} -subj /CN={name} -keyout {key} -out {name}.csr"),
        );
        let text = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";
        fs::write(directory.join("extensions"), text).unwrap();
        let sign = "x509 -req -days 2 -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions";
        openssl(directory, &format!("{sign} -in {name}.csr -out {signed}"));
    }
    let read = |name| fs::read(directory.join(name)).unwrap();
    let both = [read("server.crt"), read("server.key")].concat();
    fs::write(directory.join("server.pem"), both).unwrap();
}

/// The engine's socket behind TLS, for clients that this authority has signed.
fn tls_server(engine: &Engine, directory: &Path) -> Server {
    let (path, socket) = (directory.display(), socket_of(engine));
    Server::start(|port| {
        let settings = format!(
            "foreground = yes\npid =\ndebug = emerg\n[engine]\naccept = 127.0.0.1:{port}\n\
             connect = {socket}\ncert = {path}/server.pem\nCAfile = {path}/ca.pem\n\
             verifyChain = yes\n"
        );
        fs::write(directory.join("stunnel.conf"), settings).unwrap();
        let mut command = Command::new("stunnel");
        // It says of each client that is turned away why.
        command
            .arg(directory.join("stunnel.conf"))
            .stderr(Stdio::null());
        command
    })
}

/// A client of an engine behind TLS, with the certificates of a directory.
async fn tls_client(
    engine: &Engine,
    server: &Server,
    certificates: &Path,
) -> podkit::Result<Podkit> {
    let mut options = options_at(engine.place.path());
    options.docker.tls = true;
    options.docker.cert_path = Some(certificates.to_owned());
    Podkit::builder()
        .backend(format!("tcp://127.0.0.1:{}", server.port))
        .prefix(prefix_of(engine.place.path()))
        .connect_options(options)
        .default_spec(SessionSpec::new().image(DEBIAN))
        .build()
        .await
}

fn engine_behind_tls_is_one_like_any_other(engine: &Engine) {
    let directory = engine.place.path().join("tls");
    certificates(&directory);
    let server = tls_server(engine, &directory);
    run(async {
        let podkit = tls_client(engine, &server, &directory).await.unwrap();
        let session = podkit.session("u", "a").await.unwrap();
        assert_eq!(text(&session, "echo over tls").await, "over tls\n");
        let bytes = vec![7; MANY];
        session.files().write("many", bytes.clone()).await.unwrap();
        assert!(session.files().read("many").await.unwrap() == bytes);
        session.close().await.unwrap();
    });
    assert!(engine.containers().is_empty());
}

/// Nobody asks this machine about the ports of an engine that may be on another one.
fn engine_elsewhere_gives_another_port_for_one_that_is_taken(engine: &Engine) {
    let directory = engine.place.path().join("tls");
    certificates(&directory);
    let server = tls_server(engine, &directory);
    run(async {
        let podkit = tls_client(engine, &server, &directory).await.unwrap();
        let open = async || {
            let spec = SessionSpec::new().port(Port::new(80).anywhere());
            let session = podkit.session("u", "a").spec(spec).await.unwrap();
            let port = *session.ports().await.unwrap().first().unwrap();
            session.close().await.unwrap();
            port
        };
        let first = open().await;
        let listener = TcpListener::bind((first.address, first.host)).unwrap();
        let second = open().await;
        assert_ne!(first.host, second.host);
        drop(listener);
    });
    assert!(engine.containers().is_empty());
}

fn engine_behind_tls_takes_only_those_it_knows(engine: &Engine) {
    let (directory, others) = (
        engine.place.path().join("tls"),
        engine.place.path().join("others"),
    );
    certificates(&directory);
    certificates(&others);
    let server = tls_server(engine, &directory);
    run(async {
        // Signed by another authority, whose servers it wants, too.
        let stranger = tls_client(engine, &server, &others).await.unwrap_err();
        assert_eq!(stranger.kind(), ErrorKind::Unavailable, "{stranger:?}");
        assert!(
            format!("{stranger:?}").contains("127.0.0.1"),
            "{stranger:?}"
        );
        // Who knows the server, but is not known to it.
        fs::copy(directory.join("ca.pem"), others.join("ca.pem")).unwrap();
        let unknown = tls_client(engine, &server, &others).await.unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::Unavailable, "{unknown:?}");
        let nowhere = engine.place.path().join("nowhere");
        let without = tls_client(engine, &server, &nowhere).await.unwrap_err();
        let kind = without.kind();
        assert!(
            matches!(kind, ErrorKind::Unavailable | ErrorKind::InvalidInput),
            "{without:?}"
        );
        assert!(format!("{without:?}").contains("nowhere"), "{without:?}");
    });
}

/// An sshd that knows one key, and an `ssh` that finds that key, first in this directory's `bin`.
fn ssh_server(directory: &Path, known: &str) -> Server {
    fs::create_dir_all(directory.join("bin")).unwrap();
    fs::create_dir_all("/run/sshd").unwrap();
    for key in ["host", "user", "stranger"] {
        let mut keygen = Command::new("ssh-keygen");
        succeed(
            keygen
                .current_dir(directory)
                .args(["-q", "-t", "ed25519", "-N", "", "-f", key]),
        );
    }
    let path = directory.display();
    let server = Server::start(|port| {
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {path}/host\nPidFile none\n\
             AuthorizedKeysFile {path}/{known}.pub\nStrictModes no\nPermitRootLogin yes\n\
             PasswordAuthentication no\nLogLevel QUIET\n"
        );
        fs::write(directory.join("sshd_config"), settings).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command
            .arg("-D")
            .arg("-f")
            .arg(directory.join("sshd_config"));
        command
    });
    let host = fs::read_to_string(directory.join("host.pub")).unwrap();
    let known_host = format!("[127.0.0.1]:{} {host}", server.port);
    fs::write(directory.join("known_hosts"), known_host).unwrap();
    let settings = format!(
        "IdentityFile {path}/user\nIdentitiesOnly yes\nUserKnownHostsFile {path}/known_hosts\n\
         GlobalKnownHostsFile none\nStrictHostKeyChecking yes\n"
    );
    fs::write(directory.join("ssh_config"), settings).unwrap();
    let ssh = directory.join("bin/ssh");
    fs::write(
        &ssh,
        format!("#!/bin/sh\nexec /usr/bin/ssh -F {path}/ssh_config \"$@\"\n"),
    )
    .unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    server
}

/// A client in a process of its own, which finds the test's `ssh` first.
fn ssh_client(engine: &Engine, server: &Server, directory: &Path) -> Result<Worker, String> {
    let url = format!("ssh://root@127.0.0.1:{}{}", server.port, socket_of(engine));
    let place = engine.place.path();
    fs::write(place.join("engine"), url).unwrap();
    let path = format!("export PATH={}/bin:$PATH", directory.display());
    Worker::try_start_in(place, &[], &path)
}

fn engine_behind_ssh_is_one_like_any_other(engine: &Engine) {
    let directory = engine.place.path().join("ssh");
    let server = ssh_server(&directory, "user");
    let mut client = ssh_client(engine, &server, &directory).unwrap();
    let opened = client.ask("open a 0");
    assert!(opened.starts_with("ok "), "{opened}");
    assert_eq!(client.ask(&format!("echo a {MANY}")), "ok");
    let again = client.ask("open a 0");
    assert_eq!(again, opened, "the same life of the container");
    assert_eq!(client.ask("close a 0"), "ok true");
    assert!(engine.containers().is_empty());
}

fn engine_behind_ssh_that_refuses_says_why(engine: &Engine) {
    let directory = engine.place.path().join("ssh");
    let server = ssh_server(&directory, "stranger");
    let refused = ssh_client(engine, &server, &directory).unwrap_err();
    assert!(refused.starts_with("error unavailable "), "{refused}");
    assert!(refused.contains("Permission denied"), "{refused}");
}
