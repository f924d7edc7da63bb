//! The structure that docs/architecture.md promises, checked on the sources themselves.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, as the tests do"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One source file with its path from the workspace root.
struct Source {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn sources() -> Vec<Source> {
    let (root, mut found) = (root(), Vec::new());
    let mut open = vec![root.join("crates"), root.join("python/src")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                found.push(Source {
                    path: name,
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    assert!(found.len() > 20, "the tidy test must see the sources");
    found
}

/// Fails when a line of code (comments and this file excepted) contains `word` in a file that
/// `concerns` picks.
fn forbid(word: &str, why: &str, concerns: impl Fn(&str) -> bool) {
    let mut hits = Vec::new();
    for Source { path, text } in sources() {
        if path.ends_with("tests/tidy.rs") || !concerns(&path) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains(word) {
                hits.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(hits.is_empty(), "`{word}`: {why}\n{}", hits.join("\n"));
}

fn in_sys(path: &str) -> bool {
    path.contains("/sys/") || path.ends_with("/sys.rs")
}

#[test]
fn session_names_no_backend() {
    let session = |path: &str| path.starts_with("crates/podkit/src/session/");
    forbid(
        "crate::backend",
        "sessions know containers, not engines",
        session,
    );
}

#[test]
fn container_names_no_session() {
    let container = |path: &str| path.starts_with("crates/podkit/src/container/");
    forbid("SessionKey", "containers know no sessions", container);
    forbid("crate::session", "containers know no sessions", container);
}

#[test]
fn plain_data_imports_only_plain_data() {
    let plain = |path: &str| {
        ["error", "id", "config", "exec", "event"]
            .iter()
            .any(|name| path == format!("crates/podkit/src/{name}.rs"))
    };
    for module in ["backend", "container", "session", "agent"] {
        forbid(
            &format!("crate::{module}"),
            "plain data stands on nothing",
            plain,
        );
    }
}

#[test]
fn engine_clients_appear_only_under_their_backend() {
    let elsewhere = |path: &str| {
        path.starts_with("crates/podkit/src/")
            && !path.starts_with("crates/podkit/src/backend/embedded")
    };
    forbid(
        "podkit_runtime::",
        "only the embedded backend knows the runtime",
        elsewhere,
    );
    let elsewhere = |path: &str| {
        path.starts_with("crates/podkit/src/")
            && !path.starts_with("crates/podkit/src/backend/docker/")
    };
    forbid(
        "bollard",
        "only the backend of Docker knows its client",
        elsewhere,
    );
}

#[test]
fn unsafe_appears_only_in_sys() {
    let elsewhere = |path: &str| path.contains("/src/") && !in_sys(path);
    forbid(
        "unsafe ",
        "system calls live in the `sys` modules",
        elsewhere,
    );
    for Source { path, text } in sources() {
        let is_root = path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs");
        if is_root && !path.contains("podkit-runtime") {
            assert!(
                text.contains("#![forbid(unsafe_code)]"),
                "{path} must forbid unsafe"
            );
        }
    }
}

#[test]
fn printing_appears_only_in_the_output_module() {
    let elsewhere = |path: &str| {
        path.contains("/src/")
            && !path.ends_with("podkit-cli/src/output.rs")
            && !path.contains("/conformance/")
    };
    for word in ["println!", "eprintln!", "print!(", "eprint!("] {
        forbid(
            word,
            "libraries print nothing; the CLI prints in output.rs",
            elsewhere,
        );
    }
}

#[test]
fn environment_is_read_only_by_the_command_line() {
    let elsewhere =
        |path: &str| path.contains("/src/") && !path.ends_with("podkit-cli/src/args.rs");
    forbid(
        "env::var",
        "only the CLI's args module reads the environment",
        elsewhere,
    );
}

#[test]
fn runtime_knows_no_tokio() {
    let runtime = |path: &str| path.starts_with("crates/podkit-runtime/");
    forbid("tokio::", "the embedded engine is synchronous", runtime);
    forbid("async fn", "the embedded engine is synchronous", runtime);
}

#[test]
fn nothing_waits_by_sleeping_or_is_left_undone() {
    for word in [
        "thread::sleep",
        "todo!(",
        "unimplemented!(",
        "#[ignore",
        "dbg!(",
    ] {
        forbid(
            word,
            "wait for a condition with a bound; finish what is begun",
            |_| true,
        );
    }
    let tests = |path: &str| path.contains("/tests/") || path.contains("/conformance/");
    forbid(
        "time::sleep(",
        "tests wait for a condition with a bound",
        tests,
    );
}

#[test]
fn files_stay_readable() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| source.text.lines().count() > 600)
        .map(|source| format!("{}: {} lines", source.path, source.text.lines().count()))
        .collect();
    assert!(long.is_empty(), "split by concept:\n{}", long.join("\n"));
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    forbid("#[allow(", "use #[expect(.., reason = \"..\")]", |_| true);
    forbid("#![allow(", "use #![expect(.., reason = \"..\")]", |_| true);
}

#[test]
fn prebuilt_agent_is_small_and_matches_its_hash() {
    use sha2::{Digest, Sha256};
    for binary in podkit_agent::BINARIES {
        assert!(
            binary.bytes.len() <= 400 * 1024,
            "{}: {} bytes",
            binary.arch,
            binary.bytes.len()
        );
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(binary.bytes));
        assert_eq!(digest, binary.sha256, "rebuild with `just agent`");
    }
}

/// Each defect of the library that came before is named, with tests that are there.
#[test]
fn compat_names_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/compat.md")).unwrap();
    let sources = sources();
    let mut numbers = Vec::new();
    for line in text.lines() {
        let mut cells = line.trim_matches('|').split('|');
        let Some(number) = cells
            .next()
            .and_then(|cell| cell.trim().parse::<u32>().ok())
        else {
            continue;
        };
        numbers.push(number);
        let tests = cells.next_back().unwrap_or_default();
        let names = tests.split('`').skip(1).step_by(2);
        let missing: Vec<&str> = names
            .clone()
            .filter(|name| {
                let function = format!("fn {name}(");
                !sources.iter().any(|source| source.text.contains(&function))
            })
            .collect();
        assert!(names.count() > 0, "{number} names no test");
        assert!(missing.is_empty(), "{number}: {missing:?}");
    }
    assert_eq!(numbers, (1..=53).collect::<Vec<_>>());
}

/// Each name of the Python library that came before is in a table, with tests that are there.
#[test]
fn compat_names_python_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/compat.md")).unwrap();
    let names = text.split("\n## Names in Python").nth(1).unwrap();
    let mut tests = String::new();
    for entry in fs::read_dir(root().join("python/tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "py") {
            tests.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let mut rows = 0;
    for line in names.lines().filter(|line| line.starts_with("| `")) {
        rows += 1;
        let cells = line.trim_matches('|').rsplit('|').next();
        let found: Vec<&str> = cells
            .unwrap_or_default()
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        assert!(!found.is_empty(), "no test is named: {line}");
        for name in found {
            assert!(tests.contains(&format!("def {name}(")), "{name}: {line}");
        }
    }
    assert!(rows > 40, "{rows} rows");
}

/// Each change of scripts/mutations.toml fits its file, and names tests that are there.
#[test]
fn mutations_fit_the_sources() {
    let checked = std::process::Command::new(root().join("scripts/mutations.py"))
        .arg("--check")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
}

/// Each cell of the tables of faults names tests that are there, or is a dash.
#[test]
fn faults_name_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/faults.md")).unwrap();
    let sources = sources();
    let exists = |name: &str| {
        let function = format!("fn {name}(");
        sources.iter().any(|source| source.text.contains(&function))
    };
    let mut cells = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let row = line.trim_matches('|').split('|').map(str::trim);
        let row: Vec<&str> = row.collect();
        let tests = if row.len() == 3 { &row[2..] } else { &row[1..] };
        for cell in tests {
            let is_heading = row[0].is_empty() || row[0] == "what" || row[0] == "---";
            if is_heading || *cell == "–" {
                continue;
            }
            let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
            assert!(!names.is_empty(), "no test is named: {cell} in {line}");
            let missing: Vec<&&str> = names.iter().filter(|name| !exists(name)).collect();
            assert!(missing.is_empty(), "{}: {missing:?}", row[0]);
            cells += 1;
        }
    }
    assert!(cells > 60, "{cells} cells");
}
