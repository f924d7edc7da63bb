//! Images that were made to deceive: their labels, users, programs, volumes and variables.

use std::time::Duration;

use podkit::{ErrorKind, Network, Opened, SessionSpec};

use super::{DEBIAN, Engine, run, tests, text};

tests![
    image_with_labels_of_a_session_is_no_session,
    image_with_labels_of_networks_reaches_none_of_them,
    image_with_a_stored_wish_is_not_compared_with_it,
    image_with_an_odd_user_is_an_error_that_names_it,
    image_with_programs_and_a_health_check_of_its_own_runs_none,
    image_with_volumes_over_the_agent_does_not_replace_it,
    image_with_variables_for_the_loader_does_not_change_the_agent,
];

/// An image of this test's own, which goes with its value.
struct Image<'a> {
    engine: &'a Engine,
    name: String,
}

impl<'a> Image<'a> {
    /// Debian with these lines of a Dockerfile.
    fn new(engine: &'a Engine, changes: &[&str]) -> Self {
        let container = engine.own_name("hostile");
        let name = format!("podkit-test/{container}:1");
        engine.run(&["create", "--name", &container, DEBIAN, "true"]);
        let mut words = vec!["commit"];
        // Podman's own format has no health checks.
        if engine.name == "podman" {
            words.extend(["--format", "docker"]);
        }
        for change in changes {
            words.extend(["--change", change]);
        }
        words.extend([container.as_str(), &name]);
        let made = engine.attempt(&words);
        engine.try_run(&["rm", "-f", &container]);
        made.unwrap();
        Self { engine, name }
    }

    fn spec(&self) -> SessionSpec {
        SessionSpec::new().image(self.name.as_str())
    }
}

impl Drop for Image<'_> {
    fn drop(&mut self) {
        self.engine.try_run(&["rmi", "-f", &self.name]);
    }
}

fn image_with_labels_of_a_session_is_no_session(engine: &Engine) {
    let prefix = super::support::prefix_of(engine.place.path());
    let label = format!("LABEL podkit.prefix={prefix} podkit.user=alice podkit.session=s");
    let image = Image::new(engine, &[&label]);
    let container = engine.own_name("liar");
    engine.run(&[
        "run",
        "-d",
        "--stop-signal=KILL",
        "--name",
        &container,
        &image.name,
        "sleep",
        "1000",
    ]);
    run(async {
        let podkit = engine.podkit().await;
        let listed = podkit.list().await.unwrap();
        let alice = podkit
            .session("alice", "s")
            .spec(image.spec())
            .await
            .unwrap();
        assert_eq!(alice.opened(), Opened::Created);
        let mallory = podkit
            .session("mallory", "s")
            .spec(image.spec())
            .await
            .unwrap();
        let info = mallory.info().await.unwrap();
        assert_eq!(info.key.user().as_str(), "mallory");
        alice.close().await.unwrap();
        assert_eq!(text(&mallory, "echo alive").await, "alive\n");
        mallory.close().await.unwrap();
        assert!(listed.is_empty(), "{listed:?}");
    });
    let names = engine.run(&["ps", "--format", "{{.Names}}"]);
    assert!(
        names.lines().any(|name| name == container),
        "it was removed"
    );
    engine.run(&["rm", "-f", &container]);
}

fn image_with_labels_of_networks_reaches_none_of_them(engine: &Engine) {
    let network = engine.own_name("secret");
    engine.run(&["network", "create", &network]);
    let label = format!("LABEL podkit.networks={network} podkit.aliases=trusted");
    let image = Image::new(engine, &[&label]);
    let reached = run(async {
        let podkit = engine.podkit().await;
        let mut reached = Vec::new();
        for (name, wish) in [("default", Network::Default), ("none", Network::None)] {
            let spec = image.spec().network(wish);
            let session = podkit.session("u", name).spec(spec).await.unwrap();
            let format = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
            let connected = || {
                let id = session.container().as_str().to_owned();
                engine.run(&["inspect", "-f", format, &id])
            };
            reached.push(connected());
            // A start connects a container with what it was made for.
            session.stop(Duration::ZERO).await.unwrap();
            assert_eq!(text(&session, "echo back").await, "back\n");
            reached.push(connected());
            session.close().await.unwrap();
        }
        reached
    });
    engine.run(&["network", "rm", &network]);
    assert!(
        reached.iter().all(|names| !names.contains(&network)),
        "{reached:?}"
    );
}

fn image_with_a_stored_wish_is_not_compared_with_it(engine: &Engine) {
    let image = Image::new(engine, &["LABEL podkit.wish={\"memory\":1}"]);
    run(async {
        let podkit = engine.podkit().await;
        let spec = || image.spec().memory("64m");
        podkit.session("u", "a").spec(spec()).await.unwrap();
        let again = engine
            .podkit()
            .await
            .session("u", "a")
            .spec(spec())
            .await
            .unwrap();
        assert_eq!(again.opened(), Opened::Reconnected);
        let other = engine
            .podkit()
            .await
            .session("u", "a")
            .spec(spec().memory("65m"))
            .await;
        assert_eq!(other.unwrap_err().kind(), ErrorKind::Conflict);
        again.close().await.unwrap();
    });
}

fn image_with_an_odd_user_is_an_error_that_names_it(engine: &Engine) {
    for user in [
        "../../etc/passwd",
        "4294967296",
        "nobody:nogroup:more",
        "-1",
    ] {
        let image = Image::new(engine, &[&format!("USER {user}")]);
        run(async {
            let podkit = engine.podkit().await;
            match podkit.session("u", "a").spec(image.spec()).await {
                Ok(session) => {
                    // The image's user is nobody's wish: podkit's own default is taken.
                    assert_eq!(text(&session, "id -u").await, "0\n", "{user}");
                    let output = session.exec(["true"]).user(user).await;
                    let kind = output.map(|_| ()).unwrap_err().kind();
                    assert_eq!(kind, ErrorKind::InvalidInput, "{user}");
                    session.close().await.unwrap();
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
                    assert!(podkit.list().await.unwrap().is_empty(), "{user}");
                }
            }
        });
    }
}

fn image_with_programs_and_a_health_check_of_its_own_runs_none(engine: &Engine) {
    // Neither engine's command line knows all of them.
    let own = match engine.name {
        "docker" => "HEALTHCHECK --interval=1s CMD [\"/.podkit/agent\", \"connect\"]",
        _ => "STOPSIGNAL SIGSTOP",
    };
    let changes = [
        "ENTRYPOINT [\"/no/such/program\"]",
        "CMD [\"/.podkit/agent\", \"connect\"]",
        "WORKDIR /proc/self/fd/3",
        own,
    ];
    let image = Image::new(engine, &changes);
    run(async {
        let podkit = engine.podkit().await;
        let session = podkit.session("u", "a").spec(image.spec()).await.unwrap();
        assert_eq!(text(&session, "pwd").await, "/workspace\n");
        let id = session.container().as_str().to_owned();
        let checked = "{{with .Config.Healthcheck}}{{.Test}}{{end}}";
        let checked = engine.run(&["inspect", "-f", checked, &id]);
        assert!(["", "[NONE]"].contains(&checked.as_str()), "{checked}");
        let token = session.boot_token().await.unwrap();
        session
            .stop(std::time::Duration::from_secs(2))
            .await
            .unwrap();
        assert_ne!(session.boot_token().await.unwrap(), token, "it was stopped");
        session.close().await.unwrap();
    });
}

fn image_with_volumes_over_the_agent_does_not_replace_it(engine: &Engine) {
    let volumes = "VOLUME /.podkit /workspace /tmp /dev/shm";
    let image = Image::new(engine, &[volumes]);
    run(async {
        let podkit = engine.podkit().await;
        let session = podkit.session("u", "a").spec(image.spec()).await.unwrap();
        let write = "echo x >/.podkit/agent; echo x >/.podkit/new; rm -f /.podkit/agent; :";
        text(&session, write).await;
        assert_eq!(text(&session, "ls /.podkit/new 2>/dev/null; :").await, "");
        session.files().write("/workspace/kept", "x").await.unwrap();
        session
            .stop(std::time::Duration::from_secs(1))
            .await
            .unwrap();
        assert_eq!(text(&session, "cat /workspace/kept").await, "x");
        session.close().await.unwrap();
    });
}

fn image_with_variables_for_the_loader_does_not_change_the_agent(engine: &Engine) {
    let big = format!("ENV BIG={}", "x".repeat(60_000));
    let changes = [
        "ENV PATH=/nowhere LD_PRELOAD=/evil.so IFS=x ENV=/evil BASH_ENV=/evil",
        &big,
    ];
    let image = Image::new(engine, &changes);
    run(async {
        let podkit = engine.podkit().await;
        let session = podkit.session("u", "a").spec(image.spec()).await.unwrap();
        let output = session
            .exec(["/bin/sh", "-c", "echo ${#BIG}"])
            .await
            .unwrap();
        assert_eq!(output.stdout, b"60000\n");
        session.files().write("/workspace/a", "x").await.unwrap();
        assert_eq!(session.files().read("/workspace/a").await.unwrap(), b"x");
        session.close().await.unwrap();
    });
}
