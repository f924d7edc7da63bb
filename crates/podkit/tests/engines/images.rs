//! Images: fetching them, credentials, digests, platforms.

use std::sync::{Arc, Mutex};

use podkit::{ErrorKind, Podkit, PullPolicy, PullRequest, SessionSpec};

use super::{DEBIAN, Engine, debian, run, support::options_at, support::prefix_of, tests, text};

tests![
    image_that_is_missing_is_fetched_once_and_told,
    image_that_may_not_be_fetched_is_an_error_and_nothing_is_made,
    image_that_is_nowhere_is_an_error_that_says_where,
    registry_with_a_password_wants_the_users,
    credentials_come_from_a_helper,
    image_by_its_digest_is_that_image,
    platform_that_there_is_none_of_is_an_error,
    image_is_listed_removed_and_imported,
];

const OPEN: &str = "127.0.0.1:5000/podkit-test/static:1";
const CLOSED: &str = "127.0.0.1:5001/podkit-test/static:1";

/// Takes the names of the registries away, so that a fetch has something to do. Tests of one engine
/// that do so have names of their own to wait for.
fn forget(engine: &Engine, image: &str) {
    engine.try_run(&["rmi", "-f", image]);
}

/// One test at a time works with the names of the registries.
fn alone(engine: &Engine) -> std::fs::File {
    let path = std::env::temp_dir().join(format!("podkit-test-images-{}", engine.name));
    let file = std::fs::File::create(path).unwrap();
    file.lock().unwrap();
    file
}

fn image(name: &str) -> SessionSpec {
    SessionSpec::new().image(name)
}

fn image_that_is_missing_is_fetched_once_and_told(engine: &Engine) {
    let _alone = alone(engine);
    forget(engine, OPEN);
    run(async {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let podkit = Podkit::builder()
            .backend(engine.name)
            .prefix(prefix_of(engine.place.path()))
            .connect_options(options_at(engine.place.path()))
            .on_pull(move |progress| heard.lock().unwrap().push(progress.clone()))
            .build()
            .await
            .unwrap();
        let session = podkit.session("u", "a").spec(image(OPEN)).await.unwrap();
        let out = session.exec(["/busybox", "echo", "hi"]).await.unwrap();
        assert_eq!(out.stdout, b"hi\n");
        let count = told.lock().unwrap().len();
        assert!(count > 0, "nothing was told");
        assert!(told.lock().unwrap().iter().all(|one| one.image == OPEN));
        session.close().await.unwrap();
        podkit.session("u", "a").spec(image(OPEN)).await.unwrap();
        assert_eq!(told.lock().unwrap().len(), count, "fetched again");
        podkit.close(session.key()).await.unwrap();
        let always = image(OPEN).pull(PullPolicy::Always);
        podkit.session("u", "a").spec(always).await.unwrap();
        assert!(told.lock().unwrap().len() > count, "not fetched again");
    });
    engine.try_run(&["rm", "-f", &engine.containers()[0]]);
    forget(engine, OPEN);
}

fn image_that_may_not_be_fetched_is_an_error_and_nothing_is_made(engine: &Engine) {
    let _alone = alone(engine);
    forget(engine, OPEN);
    run(async {
        let error = engine.open(image(OPEN).pull(PullPolicy::Never)).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ImageNotFound, "{error:?}");
        assert!(error.hint().unwrap().contains("image pull"), "{error:?}");
        assert!(engine.containers().is_empty());
    });
}

fn image_that_is_nowhere_is_an_error_that_says_where(engine: &Engine) {
    run(async {
        for (name, kind) in [
            (
                "127.0.0.1:5000/podkit-test/none:1",
                ErrorKind::ImageNotFound,
            ),
            (
                "127.0.0.1:5000/podkit-test/static:none",
                ErrorKind::ImageNotFound,
            ),
            (
                "127.0.0.1:5999/podkit-test/static:1",
                ErrorKind::Unavailable,
            ),
            ("127.0.0.1:5000/Podkit:1", ErrorKind::InvalidInput),
        ] {
            let error = engine.open(image(name)).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(
                error.message().contains(name.split(':').next().unwrap()),
                "{error}"
            );
            assert!(engine.containers().is_empty());
        }
    });
}

fn with_config(engine: &Engine, config: &str) -> podkit::ConnectOptions {
    let directory = engine.place.path().join("docker-config");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("config.json"), config).unwrap();
    let mut options = options_at(engine.place.path());
    options.docker.config_dir = Some(directory);
    options
}

async fn client(engine: &Engine, options: podkit::ConnectOptions) -> Podkit {
    Podkit::builder()
        .backend(engine.name)
        .prefix(prefix_of(engine.place.path()))
        .connect_options(options)
        .build()
        .await
        .unwrap()
}

fn registry_with_a_password_wants_the_users(engine: &Engine) {
    let _alone = alone(engine);
    forget(engine, CLOSED);
    run(async {
        let error = engine.open(image(CLOSED)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        assert!(
            error.hint().unwrap().contains("127.0.0.1:5001"),
            "{error:?}"
        );
        // Base 64 of `podkit:wrong` and `podkit:secret`.
        let config =
            |auth: &str| format!(r#"{{"auths":{{"127.0.0.1:5001":{{"auth":"{auth}"}}}}}}"#);
        let wrong = client(engine, with_config(engine, &config("cG9ka2l0Ondyb25n"))).await;
        let error = wrong.containers().pull(&PullRequest::new(CLOSED)).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
        let right = client(engine, with_config(engine, &config("cG9ka2l0OnNlY3JldA=="))).await;
        right
            .containers()
            .pull(&PullRequest::new(CLOSED))
            .await
            .unwrap();
    });
    forget(engine, CLOSED);
}

fn credentials_come_from_a_helper(engine: &Engine) {
    let _alone = alone(engine);
    forget(engine, CLOSED);
    let name = format!("podkit-test-{}-{}", engine.name, std::process::id());
    let program = std::path::PathBuf::from(format!("/usr/local/bin/docker-credential-{name}"));
    let script = "#!/bin/sh\nread registry\n[ \"$registry\" = 127.0.0.1:5001 ] || exit 1\n\
                  echo '{\"ServerURL\":\"x\",\"Username\":\"podkit\",\"Secret\":\"secret\"}'\n";
    std::fs::write(&program, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let config = format!(r#"{{"credHelpers":{{"127.0.0.1:5001":"{name}"}}}}"#);
    let result = run(async {
        let podkit = client(engine, with_config(engine, &config)).await;
        podkit.containers().pull(&PullRequest::new(CLOSED)).await
    });
    std::fs::remove_file(program).unwrap();
    result.unwrap();
    forget(engine, CLOSED);
}

fn image_by_its_digest_is_that_image(engine: &Engine) {
    let _alone = alone(engine);
    run(async {
        let podkit = engine.podkit().await;
        let images = podkit.containers();
        images.pull(&PullRequest::new(OPEN)).await.unwrap();
        let info = images.inspect_image(OPEN).await.unwrap();
        let digest = info
            .digests
            .iter()
            .find(|name| name.starts_with("127.0.0.1:5000/"));
        let digest = digest.unwrap().clone();
        let session = engine.open(image(&digest)).await.unwrap();
        let out = session.exec(["/busybox", "true"]).await.unwrap();
        assert!(out.outcome.is_success());
        session.close().await.unwrap();
        let wrong = format!(
            "127.0.0.1:5000/podkit-test/static@sha256:{}",
            "0".repeat(64)
        );
        let error = engine.open(image(&wrong)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ImageNotFound, "{error:?}");
    });
    forget(engine, OPEN);
}

fn platform_that_there_is_none_of_is_an_error(engine: &Engine) {
    let _alone = alone(engine);
    run(async {
        let session = engine.open(debian().platform("linux/amd64")).await.unwrap();
        assert_eq!(text(&session, "uname -m").await, "x86_64\n");
        session.close().await.unwrap();
        let error = engine
            .open(debian().platform("nonsense"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(engine.containers().is_empty());
    });
}

fn image_is_listed_removed_and_imported(engine: &Engine) {
    let name = format!("podkit-test/{}:1", engine.own_name("import"));
    run(async {
        let podkit = engine.podkit().await;
        let images = podkit.containers();
        let all = images.list_images().await.unwrap();
        assert!(
            all.iter()
                .any(|one| one.names.iter().any(|name| name.contains(DEBIAN)))
        );
        let tar = |arguments: &[&str]| {
            let output = std::process::Command::new("tar")
                .args(arguments)
                .output()
                .unwrap();
            output.stdout
        };
        let archive = tar(&["-C", "/usr/bin", "-c", "busybox"]);
        let chunks = archive
            .chunks(4096)
            .map(|chunk| Ok(bytes::Bytes::copy_from_slice(chunk)));
        let chunks: Vec<std::io::Result<bytes::Bytes>> = chunks.collect();
        let stream = futures::StreamExt::boxed(futures::stream::iter(chunks));
        images.import_image(&name, stream).await.unwrap();
        let session = engine
            .open(image(&name).pull(PullPolicy::Never))
            .await
            .unwrap();
        let out = session.exec(["/busybox", "echo", "made"]).await.unwrap();
        assert_eq!(out.stdout, b"made\n");
        let error = images.remove_image(&name).await;
        if let Err(error) = error {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        }
        session.close().await.unwrap();
        images.remove_image(&name).await.unwrap();
        images.remove_image(&name).await.unwrap();
        let error = images.inspect_image(&name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ImageNotFound, "{error:?}");
        for name in ["", " ", "a b"] {
            let error = images.remove_image(name).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
            let error = images.inspect_image(name).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        }
        let junk = futures::stream::iter([Ok(bytes::Bytes::from_static(b"junk"))]);
        let error = images
            .import_image(&name, futures::StreamExt::boxed(junk))
            .await;
        assert!(error.is_err());
    });
    engine.try_run(&["rmi", "-f", &name]);
}
