//! Settings that only these engines have.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use podkit::{
    Device, ErrorKind, Gpus, Limit, Mount, Network, Port, Protocol, Session, SessionSpec, Ulimit,
};

use super::{Engine, debian, run, support::wait_for, tests, text};

tests![
    port_at_any_free_one_is_offered_and_told,
    port_that_is_taken_is_a_conflict_before_anything_is_made,
    port_of_a_stopped_session_comes_back,
    limits_of_processes_and_shared_memory_hold,
    names_and_name_servers_are_the_callers,
    devices_and_runtime_are_the_callers,
    log_of_a_program_is_bounded,
    volume_is_shared_and_its_kind_of_name_refused,
    network_that_is_named_must_exist_and_resolves_names,
    network_of_the_default_parts_sessions,
    container_of_auto_remove_goes_when_it_stops,
    configuration_survives_another_process,
    image_of_this_machine_is_unsupported,
];

/// With a limit that Podman would set otherwise, and may not on every machine.
fn limited() -> SessionSpec {
    debian().ulimit("nproc", Ulimit::new(900, 900))
}

/// Serves one word at a port of the container's.
async fn serve(session: &Session, port: u16) {
    let script = format!(
        "import socket\ns=socket.socket()\ns.setsockopt(1,2,1)\ns.bind(('0.0.0.0',{port}))\n\
         s.listen()\nprint('up',flush=True)\nwhile True:\n c,_=s.accept()\n c.send(b'hello')\n \
         c.close()"
    );
    session
        .shell(format!(
            "python3 -c \"{script}\" > /tmp/up 2>&1 & for i in $(seq 100); do grep -q up /tmp/up && \
             exit 0; sleep 0.05; done; cat /tmp/up; exit 1"
        ))
        .await
        .unwrap()
        .check()
        .unwrap();
}

fn fetch(address: std::net::SocketAddr) -> String {
    wait_for(Duration::from_secs(10), || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))
            .map_err(|error| error.to_string())?;
        let mut word = String::new();
        let _ = stream.write_all(b"\n");
        stream
            .read_to_string(&mut word)
            .map_err(|error| error.to_string())?;
        if word.is_empty() {
            Err("nothing came".to_owned())
        } else {
            Ok(word)
        }
    })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn port_at_any_free_one_is_offered_and_told(engine: &Engine) {
    run(async {
        let port = free_port();
        let spec = debian()
            .port(Port::new(8000).anywhere())
            .port(Port::new(8001).at(port))
            .port(Port::new(5353).anywhere().udp());
        let session = engine.open(spec).await.unwrap();
        serve(&session, 8000).await;
        let ports = session.info().await.unwrap().ports;
        let of = |container| {
            ports
                .iter()
                .find(|port| port.container == container)
                .unwrap()
        };
        let any = of(8000);
        assert_eq!(any.address.to_string(), "127.0.0.1");
        let address = (any.address, any.host).into();
        assert_eq!(fetch(address), "hello");
        assert_eq!(of(8001).host, port);
        assert_eq!(of(5353).protocol, Protocol::Udp);
    });
}

fn port_that_is_taken_is_a_conflict_before_anything_is_made(engine: &Engine) {
    run(async {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = engine.open(debian().port(Port::new(80).at(port))).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        assert!(error.message().contains(&port.to_string()), "{error}");
        assert!(engine.containers().is_empty());
        let elsewhere = Port::new(80).on("203.0.113.7".parse().unwrap());
        let error = engine.open(debian().port(elsewhere)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    });
}

fn port_of_a_stopped_session_comes_back(engine: &Engine) {
    run(async {
        let port = free_port();
        let session = engine.open(debian().port(Port::new(80).at(port))).await;
        let session = session.unwrap();
        session.stop(Duration::ZERO).await.unwrap();
        serve(&session, 80).await;
        assert_eq!(fetch(([127, 0, 0, 1], port).into()), "hello");
    });
}

fn limits_of_processes_and_shared_memory_hold(engine: &Engine) {
    run(async {
        let spec = limited()
            .ulimit("nofile", Ulimit::new(77, 88))
            .ulimit("core", Ulimit::new(0, 0))
            .shm("8m")
            .memory("64m")
            .cpus(0.5)
            .pids_max(40);
        let session = engine.open(spec).await.unwrap();
        let limits = text(&session, "ulimit -Sn; ulimit -Hn; ulimit -c").await;
        assert_eq!(limits, "77\n88\n0\n");
        let size = text(&session, "df -k --output=size /dev/shm | tail -1").await;
        assert_eq!(size.trim(), "8192");
        let groups = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes \
            /sys/fs/cgroup/memory.max 2>/dev/null; cat /sys/fs/cgroup/pids/pids.max \
            /sys/fs/cgroup/pids.max 2>/dev/null; cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us \
            /sys/fs/cgroup/cpu.max 2>/dev/null; :";
        let limits = text(&session, groups).await;
        let lines: Vec<&str> = limits.lines().collect();
        assert_eq!(
            lines[..2],
            [(64 << 20).to_string().as_str(), "40"],
            "{limits}"
        );
        assert!(lines[2].starts_with("50000"), "{limits}");
        if engine.podkit().await.capabilities().swap_limit {
            let name = &engine.containers()[0];
            let both = engine.run(&["inspect", "--format", "{{.HostConfig.MemorySwap}}", name]);
            assert_eq!(both, (64 << 20).to_string(), "memory and no swap");
        }
    });
}

fn names_and_name_servers_are_the_callers(engine: &Engine) {
    run(async {
        let spec = debian()
            .host("db.example", "192.0.2.7")
            .dns("192.0.2.53".parse().unwrap())
            .hostname("box")
            .network(Network::None);
        let session = engine.open(spec).await.unwrap();
        let hosts = text(&session, "cat /etc/hosts; hostname").await;
        assert!(
            hosts.contains("192.0.2.7") && hosts.contains("db.example"),
            "{hosts}"
        );
        assert!(hosts.ends_with("box\n"), "{hosts}");
        // With a network, name servers matter.
        session.close().await.unwrap();
        let spec = debian().dns("192.0.2.53".parse().unwrap());
        let session = engine.open(spec).await.unwrap();
        let servers = text(&session, "cat /etc/resolv.conf").await;
        let embedded = servers.contains("127.0.0.11") || servers.contains("10.");
        assert!(servers.contains("192.0.2.53") || embedded, "{servers}");
    });
}

fn devices_and_runtime_are_the_callers(engine: &Engine) {
    run(async {
        let mut spec = debian().device(Device::parse("/dev/full:/dev/podkit:r").unwrap());
        let capabilities = engine.podkit().await.capabilities();
        if capabilities.runtimes.is_empty() {
            let error = engine.open(debian().runtime("runc")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        } else {
            spec = spec.runtime("runc");
        }
        let session = engine.open(spec).await.unwrap();
        text(&session, "test -c /dev/podkit && head -c 1 /dev/podkit").await;
        session.close().await.unwrap();
        let error = engine
            .open(debian().runtime("none-such"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        // No machine of the tests has one.
        let error = engine.open(debian().gpus(Gpus::All)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(engine.containers().is_empty());
    });
}

/// A program of the container's must not fill the host's disk by what it writes.
fn log_of_a_program_is_bounded(engine: &Engine) {
    run(async {
        let text =
            "head -c 20000000 /dev/zero | tr '\\0' 'x' | fold -w 100; echo the-end; sleep 1000";
        let spec = debian().entrypoint(["/bin/sh", "-c", text]);
        let session = engine.open(spec).await.unwrap();
        let podkit = engine.podkit().await;
        let name = session.container().as_str();
        wait_for(Duration::from_secs(60), || {
            // Podman fails on a line that is only half written yet.
            let last = engine.attempt(&["logs", "--tail", "1", name])?;
            if last.contains("the-end") {
                Ok(())
            } else {
                Err(last)
            }
        });
        let log = podkit
            .containers()
            .logs(session.container(), 5000)
            .await
            .unwrap();
        assert!(String::from_utf8(log.clone()).unwrap().contains("the-end"));
        assert!(log.len() <= 5000, "{}", log.len());
        let path = engine.run(&[
            "inspect",
            "-f",
            LOG_PATH[usize::from(engine.name == "podman")],
            session.container().as_str(),
        ]);
        let directory = std::path::Path::new(&path).parent().unwrap();
        let bytes: u64 = super::support::entries(directory)
            .iter()
            .filter(|file| file.to_string_lossy().contains("log"))
            .map(|file| file.metadata().unwrap().len())
            .sum();
        assert!(bytes < 4 << 20, "{path}: {bytes} bytes");
    });
}

const LOG_PATH: [&str; 2] = ["{{.LogPath}}", "{{.HostConfig.LogConfig.Path}}"];

fn volume_is_shared_and_its_kind_of_name_refused(engine: &Engine) {
    let name = engine.own_name("volume");
    engine.run(&["volume", "create", &name]);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run(async {
            let spec = debian().mount(Mount::volume(&name, "/data"));
            let podkit = engine.podkit().await;
            let one = podkit.session("u", "one").spec(spec.clone()).await.unwrap();
            text(&one, "echo shared > /data/x").await;
            let reader = debian().mount(Mount::volume(&name, "/data").read_only());
            let two = podkit.session("u", "two").spec(reader).await.unwrap();
            assert_eq!(text(&two, "cat /data/x").await, "shared\n");
            let refused = two.shell("echo no > /data/x").await.unwrap();
            assert!(!refused.outcome.is_success());
            for session in [one, two] {
                session.close().await.unwrap();
            }
            let again = podkit.session("u", "one").spec(spec).await.unwrap();
            assert_eq!(text(&again, "cat /data/x").await, "shared\n");
            again.close().await.unwrap();
            let own = debian().mount(Mount::volume("podkit-agent-x", "/data"));
            let error = podkit.session("u", "own").spec(own).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
            assert!(engine.containers().is_empty());
        });
    }));
    engine.try_run(&["volume", "rm", "-f", &name]);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn network_that_is_named_must_exist_and_resolves_names(engine: &Engine) {
    let names = [engine.own_name("one"), engine.own_name("two")];
    for name in &names {
        engine.run(&["network", "create", name]);
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run(async {
            let podkit = engine.podkit().await;
            let both = debian()
                .network(Network::Named(names.to_vec()))
                .alias("server");
            let server = podkit.session("u", "server").spec(both).await.unwrap();
            serve(&server, 80).await;
            let first = debian().network(Network::Named(names[..1].to_vec()));
            let client = podkit.session("u", "client").spec(first).await.unwrap();
            let script = "python3 -c \"import socket; \
                print(socket.create_connection(('server',80),5).recv(9).decode())\"";
            let output = client.shell(script).await.unwrap();
            assert_eq!(output.stdout_text(), "hello\n", "{output:?}");
            let links = text(&server, "ls /sys/class/net").await;
            assert_eq!(links.lines().count(), 3, "{links}");
            // As if its maker had died before it had connected it to all.
            server.stop(Duration::ZERO).await.unwrap();
            let name = server.container().to_string();
            engine.run(&["network", "disconnect", &names[1], &name]);
            let again = engine.podkit().await.session("u", "server").await.unwrap();
            assert_eq!(text(&again, "ls /sys/class/net").await, links);
            for session in [server, client] {
                session.close().await.unwrap();
            }
            let missing = Network::Named(vec![names[0].clone(), engine.own_name("none")]);
            let error = podkit
                .session("u", "x")
                .spec(debian().network(missing))
                .await;
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
            assert!(error.message().contains("-none"), "{error}");
            assert!(engine.containers().is_empty());
        });
    }));
    for name in &names {
        engine.try_run(&["network", "rm", name]);
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn network_of_the_default_parts_sessions(engine: &Engine) {
    run(async {
        let podkit = engine.podkit().await;
        let server = podkit.session("u", "server").await.unwrap();
        serve(&server, 80).await;
        let address = text(&server, "hostname -I").await;
        let client = podkit.session("u", "client").await.unwrap();
        let script = format!(
            "python3 -c \"import socket; socket.create_connection(('{}',80),2)\"",
            address.trim()
        );
        let reached = client.shell(script).await.unwrap().outcome.is_success();
        assert_eq!(reached, !podkit.capabilities().parts_sessions);
    });
}

fn container_of_auto_remove_goes_when_it_stops(engine: &Engine) {
    run(async {
        let session = engine.open(debian().auto_remove(true)).await.unwrap();
        text(&session, "echo kept > /root/x").await;
        session.stop(Duration::ZERO).await.unwrap();
        wait_for(Duration::from_secs(10), || match engine.containers() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        });
        // The next use makes it anew.
        assert_eq!(
            text(&session, "ls /root/x 2>&1 | grep -c kept; :").await,
            "0\n"
        );
    });
}

fn configuration_survives_another_process(engine: &Engine) {
    run(async {
        let spec = limited()
            .port(Port::new(80).anywhere())
            .ulimit("nofile", Ulimit::new(99, 99))
            .env("TOKEN", "value")
            .auto_stop(Limit::Off);
        engine.open(spec.clone()).await.unwrap();
        let again = engine.podkit().await.session("u", "a").await.unwrap();
        assert_eq!(again.info().await.unwrap().spec, spec);
        let other = debian().ulimit("nofile", Ulimit::new(98, 99));
        let error = engine.open(other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        assert!(error.message().contains("ulimits.nofile"), "{error}");
    });
}

fn image_of_this_machine_is_unsupported(engine: &Engine) {
    run(async {
        for image in ["host", "dir:/", "tar:/x.tar"] {
            let error = engine.open(debian().image(image)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        }
    });
}
