//! What needs no engine: help, mistakes, configuration, completions.

use std::{fs, process::Stdio};

use crate::support::Home;

#[test]
fn help_of_every_command_is_as_reviewed() {
    let home = Home::new();
    insta::assert_snapshot!("help", home.ok(&["--help"]));
    for command in [
        "exec",
        "run",
        "shell",
        "attach",
        "spawn",
        "ps",
        "port",
        "forward",
        "stats",
        "monitor",
        "limit",
        "pause",
        "resume",
        "logs",
        "kill",
        "wait",
        "ls",
        "inspect",
        "stop",
        "close",
        "gc",
        "cp",
        "watch",
        "du",
        "write",
        "read",
        "image",
        "doctor",
        "completions",
    ] {
        insta::assert_snapshot!(format!("help_{command}"), home.ok(&[command, "--help"]));
    }
    for command in ["pull", "ls", "rm", "import"] {
        let help = home.ok(&["image", command, "--help"]);
        insta::assert_snapshot!(format!("help_image_{command}"), help);
    }
}

#[test]
fn mistakes_exit_with_2_and_say_what_is_wrong() {
    let home = Home::new();
    let long = "x".repeat(129);
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage: podkit"),
        (&["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (&["exec"], "required arguments were not provided"),
        (&["exec", "s"], "<COMMAND>"),
        (&["exec", "s", "--"], "<COMMAND>"),
        (&["exec", "s", "-c", "x", "--", "y"], "cannot be used with"),
        (&["exec", "s", "--", ""], "the command is empty"),
        (&["exec", "", "ls"], "is empty"),
        (&["exec", "..", "ls"], "must not be `.` or `..`"),
        (&["exec", "a/b/c", "ls"], "more than one slash"),
        (&["exec", "a/%zz", "ls"], "percent-encoded"),
        (&["exec", &long, "ls"], "longer than 128 bytes"),
        (
            &["exec", "--timeout", "soon", "s", "ls"],
            "is not a length of time",
        ),
        (&["exec", "--timeout", "0", "s", "ls"], "a timeout of zero"),
        (&["exec", "--mount", "x", "s", "ls"], "is not a mount"),
        (&["exec", "--pids", "-1", "s", "ls"], "--pids"),
        (&["exec", "--pids", "0", "s", "ls"], "--pids"),
        (&["exec", "--memory", "lots", "s", "ls"], "is not an amount"),
        (&["exec", "--cpus", "-1", "s", "ls"], "a positive number"),
        (&["exec", "--cpus", "nan", "s", "ls"], "a positive number"),
        (
            &["exec", "-e", "=x", "s", "ls"],
            "is not a name of a variable",
        ),
        (
            &["exec", "--replace", "--reuse", "s", "ls"],
            "cannot be used with",
        ),
        (&["exec", "--session-env", "A", "s", "ls"], "NAME=VALUE"),
        (&["run", "two words", "ls"], "is not an image name"),
        (&["close"], "required arguments were not provided"),
        (&["stop", "--grace", "x", "s"], "is not a length of time"),
        (&["gc", "--idle", "-5"], "unexpected argument"),
        (
            &["cp", "a", "b"],
            "one of the two places must be in a session",
        ),
        (
            &["cp", "u/s:a", "u/t:b"],
            "one of the two places must be in a session",
        ),
        (&["cp", "", "s:/x"], "a path is empty"),
        (&["write", "--mode", "999", "s", "x"], "octal"),
        (&["ls", "--user", " x"], "white space"),
        (&["ls", "--format", "xml"], "invalid value 'xml'"),
        (&["ls", "--prefix", "Bad"], "the prefix \"Bad\""),
        (&["completions", "cmd.exe"], "invalid value"),
    ];
    for (words, complaint) in cases {
        let ran = home.run(words);
        assert_eq!(ran.code, 2, "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(complaint), "{words:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{words:?}");
    }
    assert!(!home.path("state").exists(), "a mistake makes nothing");
}

#[test]
fn mistakes_as_json_have_a_kind() {
    let home = Home::new();
    for words in [
        &["exec", "--json"][..],
        &["--format", "json", "frob"],
        &["ls", "--json", "--user", ""],
    ] {
        let ran = home.run(words);
        assert_eq!(ran.code, 2);
        assert_eq!(ran.error()["kind"], "invalid_input", "{words:?}");
        assert!(ran.stdout.is_empty());
    }
}

#[test]
fn unknown_backend_lists_what_exists() {
    let ran = Home::new().run(&["ls", "--backend", "dokcer"]);
    assert_eq!(ran.code, 125, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("dokcer") && ran.stderr.contains("embedded"),
        "{}",
        ran.stderr
    );
}

#[test]
fn configuration_with_a_mistake_names_file_and_line() {
    let home = Home::new();
    let path = home.path("bad.toml");
    fs::write(&path, "backend = \"auto\"\n[session]\nmemry = \"1g\"\n").unwrap();
    let ran = home.run(&["ls", "--config", path.to_str().unwrap()]);
    assert_eq!(ran.code, 2);
    let start = format!("error: `{}`, line 3: unknown field `memry`", path.display());
    assert!(ran.stderr.starts_with(&start), "{}", ran.stderr);
    let ran = home.run(&["ls", "--config", "/nowhere.toml"]);
    assert_eq!(ran.code, 2);
    assert_eq!(
        ran.stderr,
        "error: the configuration file `/nowhere.toml` cannot be read\n  caused by: No such file or directory (os error 2)\n"
    );
}

#[test]
fn flag_outranks_environment_outranks_file() {
    let home = Home::new();
    fs::create_dir_all(home.path(".config/podkit")).unwrap();
    fs::write(
        home.path(".config/podkit/config.toml"),
        "backend = \"from-file\"\n",
    )
    .unwrap();
    let tries = |words: &[&str], variable: Option<&str>| {
        let mut command = home.command(words);
        command.envs(variable.map(|value| ("PODKIT_BACKEND", value)));
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert!(tries(&["ls"], None).contains("from-file"));
    assert!(
        tries(&["ls"], Some("")).contains("from-file"),
        "an empty variable is not set"
    );
    assert!(tries(&["ls"], Some("from-env")).contains("from-env"));
    assert!(tries(&["ls", "--backend", "from-flag"], Some("from-env")).contains("from-flag"));
    let mut elsewhere = home.command(&["ls"]);
    elsewhere.env("XDG_CONFIG_HOME", home.path("xdg"));
    fs::create_dir_all(home.path("xdg/podkit")).unwrap();
    fs::write(
        home.path("xdg/podkit/config.toml"),
        "backend = \"from-xdg\"\n",
    )
    .unwrap();
    assert!(
        String::from_utf8(elsewhere.output().unwrap().stderr)
            .unwrap()
            .contains("from-xdg")
    );
}

#[test]
fn directory_as_standard_input_is_refused_before_anything_is_made() {
    let home = Home::new();
    for words in [&["exec", "s", "--", "cat"][..], &["write", "s", "x"]] {
        let etc = fs::File::open("/etc").unwrap();
        let output = home.command(words).stdin(etc).output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.starts_with("error: standard input cannot be read: is a directory\n\nhint: "),
            "{stderr}"
        );
        assert!(output.stdout.is_empty());
    }
    assert!(!home.path("state").exists());
}

#[test]
fn completions_name_every_command() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = home.ok(&["completions", shell]);
        for word in ["exec", "inspect", "doctor"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn output_that_nobody_reads_is_quiet() {
    let home = Home::new();
    for words in [&["completions", "zsh"][..], &["exec", "--help"]] {
        let (read_end, write_end) = std::io::pipe().unwrap();
        drop(read_end);
        let output = home
            .command(words)
            .stdout(write_end)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(141), "{words:?}");
        assert!(output.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn output_to_a_full_disk_is_an_error() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Home::new()
        .command(&["completions", "bash"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.starts_with("error: failed to write standard output\n  caused by: No space"),
        "{stderr}"
    );
}

#[test]
fn errors_to_no_terminal_have_no_colour() {
    let home = Home::new();
    for words in [&["ls", "--backend", "x"][..], &["exec"], &["--help"]] {
        let ran = home.run(words);
        assert!(
            !ran.stderr.contains('\x1b') && !ran.text().contains('\x1b'),
            "{words:?}"
        );
    }
}
