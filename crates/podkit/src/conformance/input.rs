//! Bad input: a typed error or the conventional code, a clear text, and nothing left behind.

use std::time::Duration;

use super::{
    lab::{Lab, assert_kind, shell},
    table,
};
use crate::{
    ErrorKind, ExecRequest, Limit, Mount, Network, Outcome, Prefix, SessionKey, SessionSpec,
};

table!["exec":
    Containers input_bad_ids_are_invalid,
    Containers input_bad_specs_are_refused_before_anything_is_made,
    Containers input_bad_commands_are_invalid,
    Programs input_command_that_cannot_begin_is_typed,
    Programs input_program_that_cannot_run_has_the_conventional_code,
    Programs input_missing_mount_source_is_an_error_and_nothing_is_made,
];

async fn input_bad_ids_are_invalid(lab: Lab) {
    let long = "x".repeat(129);
    for id in [
        "",
        ".",
        "..",
        " a",
        "a ",
        "a\0b",
        "a\nb",
        "a\u{7f}",
        long.as_str(),
    ] {
        assert_kind(
            lab.podkit().session(id, "s").await,
            ErrorKind::InvalidInput,
            id,
        );
        assert_kind(
            lab.podkit().session("u", id).await,
            ErrorKind::InvalidInput,
            id,
        );
    }
    for prefix in ["", "A", "1a", "a-", "a_b", "aaaaaaaaaaaaaaaaaaaaa"] {
        assert_kind(Prefix::new(prefix), ErrorKind::InvalidInput, prefix);
    }
    for text in ["a/b/c", "a/%zz", "/x", "x/"] {
        assert_kind(SessionKey::parse(text, "me"), ErrorKind::InvalidInput, text);
    }
    assert!(lab.podkit().list().await.unwrap().is_empty());
    // Odd ids that are allowed work all the way.
    for id in ["é/中", "a b", "%2F", "-x", "..a", "'\"$`\\"] {
        let session = lab.podkit().session(id, id).await.unwrap();
        assert_eq!(session.exec(["echo", "hi"]).await.unwrap().stdout, b"hi\n");
        let infos = lab.podkit().list().user(id).await.unwrap();
        assert_eq!(infos.len(), 1, "{id}");
        assert_eq!(infos.first().unwrap().key, SessionKey::new(id, id).unwrap());
        session.close().await.unwrap();
    }
}

async fn input_bad_specs_are_refused_before_anything_is_made(lab: Lab) {
    let new = SessionSpec::new;
    let able = lab.podkit().capabilities();
    let invalid = [
        ("memory", new().memory("lots"), able.memory_limit),
        ("memory", new().memory(0), able.memory_limit),
        ("memory", new().memory("-1"), able.memory_limit),
        ("cpus", new().cpus(-1.0), able.cpu_limit),
        ("cpus", new().cpus(f64::NAN), able.cpu_limit),
        ("pids_max", new().pids_max(0), able.pids_limit),
        ("shm", new().shm("all"), true),
        ("cwd", new().cwd("a\0b"), true),
        ("user", new().user("a b"), true),
        ("env", new().env("A=B", "x"), true),
        ("env", new().env("", "x"), true),
        ("target", new().mount(Mount::tmpfs("relative", None)), true),
        ("target", new().mount(Mount::tmpfs("/proc/x", None)), true),
        ("target", new().mount(Mount::tmpfs("/", None)), true),
        ("address", new().host("name", "nowhere"), true),
        ("host name", new().hostname("no spaces"), true),
        (
            "auto_stop",
            new().auto_stop(Limit::After(Duration::ZERO)),
            true,
        ),
        ("label", new().label("podkit.user", "other"), true),
        ("image", new().image("two words"), true),
        (
            "capability",
            {
                let add_capabilities = vec!["EVERYTHING".to_owned()];
                new().security(crate::Security {
                    add_capabilities,
                    ..Default::default()
                })
            },
            true,
        ),
    ];
    for (about, spec, able) in invalid {
        let expected = if able {
            ErrorKind::InvalidInput
        } else {
            ErrorKind::Unsupported
        };
        assert_kind(
            lab.podkit().session("u", "bad").spec(spec).await,
            expected,
            about,
        );
    }
    let unable = [
        ("network", new().network(Network::Outbound), able.outbound),
        (
            "network",
            new().network(Network::Named(vec!["no-such".to_owned()])),
            able.named_networks,
        ),
        (
            "volume",
            new().mount(Mount::volume("data", "/data")),
            able.volumes,
        ),
        (
            "bind",
            new().mount(Mount::bind("/", "/data").read_only()),
            able.bind_mounts,
        ),
        ("image", new().image("alpine:3.20"), able.image_references),
        ("image", new().image("host"), able.local_images),
    ];
    for (about, spec, able) in unable {
        if !able {
            let result = lab.podkit().session("u", "bad").spec(spec).await;
            assert_kind(result, ErrorKind::Unsupported, about);
        }
    }
    assert!(
        lab.podkit().list().await.unwrap().is_empty(),
        "nothing was made"
    );
}

async fn input_bad_commands_are_invalid(lab: Lab) {
    let session = lab.open("a").await;
    let empty: [&str; 0] = [];
    assert_kind(
        session.exec(empty).await,
        ErrorKind::InvalidInput,
        "no words",
    );
    let table: &[(&str, &[&str])] = &[("empty program", &[""]), ("NUL", &["echo", "a\0b"])];
    for (about, argv) in table {
        let request = ExecRequest::new(argv.iter().copied());
        assert_kind(
            session.execute(request).await,
            ErrorKind::InvalidInput,
            about,
        );
    }
    let echo = || session.exec(["echo", "x"]);
    let bad = [
        ("env name", echo().env("A=B", "x")),
        ("env value", echo().env("A", "x\0")),
        ("empty cwd", echo().cwd("")),
        ("NUL in cwd", echo().cwd("a\0")),
        ("empty user", echo().user("")),
        ("no time", echo().timeout(Duration::ZERO)),
    ];
    for (about, exec) in bad {
        assert_kind(exec.await, ErrorKind::InvalidInput, about);
    }
    let huge = "x".repeat(2 << 20);
    let error = assert_kind(
        session.exec(["echo", &huge]).await,
        ErrorKind::LimitExceeded,
        "2 MiB",
    );
    assert!(error.message().contains("1 MiB"), "{error}");
    assert_eq!(echo().await.unwrap().stdout, b"x\n", "the session lives on");
}

async fn input_command_that_cannot_begin_is_typed(lab: Lab) {
    let session = lab.open("a").await;
    session.files().write("file", "x").await.unwrap();
    let bad = [
        ("no-such-user", session.exec(["true"]).user("no-such-user")),
        (
            "no-such-group",
            session.exec(["true"]).user("root:no-such-group"),
        ),
        ("4294967295", session.exec(["true"]).user("4294967295")),
        (
            "/no/such/directory",
            session.exec(["true"]).cwd("/no/such/directory"),
        ),
        ("file", session.exec(["true"]).cwd("file")),
    ];
    for (subject, exec) in bad {
        let error = assert_kind(exec.await, ErrorKind::InvalidInput, subject);
        assert!(error.message().contains(subject), "{error}");
    }
    // Sessions whose own user or directory is missing say so when a command needs them.
    let spec = SessionSpec::new().user("no-such-user");
    let error = match lab.podkit().session("u", "b").spec(spec).await {
        Ok(session) => session.exec(["true"]).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
}

/// As a shell has it: 127 for what is missing, 126 for what cannot be run; with a text.
async fn input_program_that_cannot_run_has_the_conventional_code(lab: Lab) {
    let session = lab.open("a").await;
    let make = "echo plain >plain; printf '#!/no/such/interpreter\\n' >lost; chmod +x lost; \
        printf 'garbage\\001' >garbage; chmod +x garbage; mkdir directory; \
        printf '#!/bin/sh\\necho ran $1\\n' >script; chmod +x script";
    shell(&session, make).await;
    let table = [
        ("no-such-program", 127),
        ("/no/such/program", 127),
        ("./no-such", 127),
        ("./plain", 126),
        ("./directory", 126),
        ("/", 126),
        ("./plain/below", 127),
        ("./garbage", 126),
        ("./lost", 127),
    ];
    for (program, code) in table {
        let output = session.exec([program]).await.unwrap();
        let text = output.stderr_text();
        let found = match output.outcome {
            // Shells differ on what lies below a plain file and on a lost interpreter.
            Outcome::Exited(126 | 127) if program.contains("below") || program == "./lost" => code,
            Outcome::Exited(code) => code,
            outcome => panic!("{program}: {outcome}"),
        };
        assert_eq!(found, code, "{program}: {text}");
        assert!(
            text.contains(program.trim_start_matches("./")),
            "{program}: {text:?}"
        );
    }
    assert_eq!(
        session.exec(["./script", "well"]).await.unwrap().stdout,
        b"ran well\n"
    );
}

async fn input_missing_mount_source_is_an_error_and_nothing_is_made(lab: Lab) {
    if !lab.podkit().capabilities().bind_mounts {
        let spec = SessionSpec::new().mount(Mount::bind("/", "/data").read_only());
        return lab.assert_unsupported(spec, "bind").await;
    }
    let source = lab.directory().join("missing");
    for mount in [
        Mount::bind(&source, "/data"),
        Mount::bind(&source, "/data").read_only(),
    ] {
        let result = lab
            .podkit()
            .session("u", "a")
            .spec(SessionSpec::new().mount(mount))
            .await;
        let Err(error) = result else {
            panic!("the source is missing")
        };
        let kinds = [ErrorKind::InvalidInput, ErrorKind::NotFound];
        assert!(kinds.contains(&error.kind()), "{error:?}");
        assert!(error.to_string().contains("missing"), "{error}");
        assert!(!source.exists(), "the source was made");
    }
    assert!(
        lab.podkit().list().await.unwrap().is_empty(),
        "nothing was made"
    );
}
