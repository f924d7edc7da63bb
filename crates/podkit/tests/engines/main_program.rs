//! What a container runs of its own: the table of entrypoint, command and image defaults.

use std::time::Duration;

use podkit::{ContainerState, ErrorKind, SessionSpec, StopCause};

use super::{Engine, run, support::wait_for, tests, text};

tests![
    image_with_an_entrypoint_waits_for_commands,
    image_defaults_are_the_images_own,
    command_is_given_to_the_images_entrypoint,
    entrypoint_stands_alone_or_with_a_command,
    image_with_a_user_runs_its_program_as_that_one,
    image_with_one_static_program_is_enough,
];

fn entrypoint() -> SessionSpec {
    SessionSpec::new().image("podkit-test/entrypoint:1")
}

/// What the container's own program wrote, once it has ended by itself with this code.
fn logged(engine: &Engine, spec: SessionSpec, code: i32) -> String {
    run(async {
        let podkit = engine.podkit().await;
        let opened = podkit.session("u", "a").spec(spec).await;
        let id = podkit::SessionKey::new("u", "a").unwrap();
        let name = id.container_name(podkit.prefix());
        let id = podkit::ContainerId::new(name).unwrap();
        // One that ends at once cannot be opened, which is told with its last words.
        if let Err(error) = opened {
            assert!(
                error.message().contains("ends as soon as it starts"),
                "{error:?}"
            );
            return error.message().to_owned();
        }
        wait_for(Duration::from_secs(10), || {
            let state = engine.run(&["inspect", "-f", "{{.State.Status}}", id.as_str()]);
            if state == "exited" {
                Ok(())
            } else {
                Err(state)
            }
        });
        let info = podkit.containers().inspect(&id).await.unwrap();
        assert_eq!(info.state, ContainerState::Exited);
        assert_eq!(info.stop_cause, Some(StopCause::MainExited));
        assert_eq!(info.exit_code, Some(code));
        let log = podkit.containers().logs(&id, 1000).await.unwrap();
        String::from_utf8(log).unwrap()
    })
}

fn image_with_an_entrypoint_waits_for_commands(engine: &Engine) {
    run(async {
        let session = engine.open(entrypoint()).await.unwrap();
        let said = text(&session, "pwd; echo $GREETING").await;
        assert_eq!(said, "/workspace\nhello\n");
    });
}

fn image_defaults_are_the_images_own(engine: &Engine) {
    let mut spec = entrypoint();
    spec.image_defaults = true;
    let log = logged(engine, spec, 0);
    assert!(log.contains("from-entrypoint and-command"), "{log}");
}

fn command_is_given_to_the_images_entrypoint(engine: &Engine) {
    let log = logged(engine, entrypoint().command(["mine"]), 0);
    assert!(log.contains("from-entrypoint mine"), "{log}");
}

fn entrypoint_stands_alone_or_with_a_command(engine: &Engine) {
    let spec = entrypoint().entrypoint(["/bin/sh", "-c", "pwd; sleep 0.3; exit 3"]);
    let log = logged(engine, spec, 3);
    assert!(log.contains("/workspace"), "{log}");
    engine.try_run(&["rm", "-f", &engine.containers()[0]]);
    let cleared = entrypoint()
        .entrypoint(Vec::<String>::new())
        .command(["/bin/echo", "mine"]);
    let log = logged(engine, cleared, 0);
    assert!(
        log.contains("mine") && !log.contains("from-entrypoint"),
        "{log}"
    );
}

fn image_with_a_user_runs_its_program_as_that_one(engine: &Engine) {
    run(async {
        let mut spec = SessionSpec::new().image("podkit-test/user:1");
        spec.image_defaults = true;
        let session = engine.open(spec).await.unwrap();
        let own = text(&session, "ps -o user= -C sleep").await;
        assert_eq!(own.trim(), "worker");
        // Commands are root's unless they say otherwise.
        assert_eq!(text(&session, "id -un").await, "root\n");
        let worker = session
            .shell("id -un; echo $HOME")
            .user("worker")
            .await
            .unwrap();
        assert_eq!(worker.stdout_text(), "worker\n/home/worker\n");
    });
}

fn image_with_one_static_program_is_enough(engine: &Engine) {
    run(async {
        let spec = SessionSpec::new().image("podkit-test/static:1");
        let session = engine.open(spec).await.unwrap();
        let out = session.exec(["/busybox", "echo", "hi"]).await.unwrap();
        assert_eq!(out.stdout, b"hi\n");
        let files = session.files();
        files
            .write("/workspace/a/b.bin", vec![0_u8, 1, 255])
            .await
            .unwrap();
        assert_eq!(files.read("a/b.bin").await.unwrap(), [0, 1, 255]);
        let late = session
            .exec(["/busybox", "sleep", "60"])
            .timeout(Duration::from_millis(300))
            .await
            .unwrap();
        assert_eq!(late.outcome, podkit::Outcome::TimedOut);
        let background = session
            .exec(["/busybox", "sh", "-c", "/busybox sleep 50 & echo started"])
            .await
            .unwrap();
        assert_eq!(background.stdout, b"started\n");
        let missing = session.shell("true").await.unwrap();
        assert_eq!(missing.outcome, podkit::Outcome::Exited(127));
        let user = session
            .exec(["/busybox", "id", "-u"])
            .user("1234")
            .await
            .unwrap();
        assert_eq!(user.stdout, b"1234\n");
        let unknown = session.exec(["/busybox", "true"]).user("worker").await;
        assert_eq!(unknown.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}
