//! What people do in a session, with the programs of the host; and large streams in small memory.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use bytes::Bytes;
use podkit::{ExecEvent, Limit, Outcome, Podkit, Session, SessionSpec};
use sha2::{Digest, Sha256};
use support::{
    Place, block_on, host, podkit_at,
    worker::{Worker, main_if_asked},
};

async fn session(podkit: &Podkit) -> Session {
    let spec = SessionSpec::new().image("host").auto_stop(Limit::Off);
    podkit.session("u", "work").spec(spec).await.unwrap()
}

async fn text(session: &Session, script: &str) -> String {
    let output = session
        .shell(script)
        .timeout(Duration::from_secs(60))
        .await
        .unwrap();
    assert!(
        output.outcome.is_success(),
        "`{script}` {}: {}{}",
        output.outcome,
        output.stdout_text(),
        output.stderr_text()
    );
    output.stdout_text()
}

const WEB_SERVER: &str = r#"
import http.server, ssl, threading, urllib.request
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served " + self.path.encode())
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen("http://localhost:8000/page", timeout=10).read().decode())
"#;

const PROGRAM: &str = r#"
#include <math.h>
#include <stdio.h>
int main(void) { printf("%.0f\n", sqrt(1764.0)); return 7; }
"#;

fn examples_of_the_seed_work() {
    let place = Place::new();
    block_on(support::examples::run_all(
        || place.builder(),
        place.path(),
        None,
    ));
    place.assert_empty();
}

fn programs_of_the_host_do_real_work() {
    let place = Place::new();
    block_on(async {
        let podkit = place.podkit().await;
        let session = session(&podkit).await;
        let output = session
            .exec(["/usr/bin/python3", "-"])
            .stdin(WEB_SERVER)
            .await
            .unwrap();
        assert_eq!(output.check().unwrap().stdout_text(), "served /page\n");
        session.files().write("main.c", PROGRAM).await.unwrap();
        text(&session, "cc -O1 -o main main.c -lm").await;
        let output = session.exec(["./main"]).await.unwrap();
        assert_eq!(
            (output.stdout.as_slice(), output.outcome),
            (b"42\n".as_slice(), Outcome::Exited(7))
        );
        let git = "export HOME=/workspace; /usr/bin/git config --global user.email a@b; \
            /usr/bin/git config --global user.name A; /usr/bin/git init -q repository; \
            cd repository; cp ../main.c .; /usr/bin/git add .; /usr/bin/git commit -qm first; \
            /usr/bin/git log --format=%s";
        assert_eq!(text(&session, git).await, "first\n");
        assert_eq!(
            text(&session, "echo 1 2 3 | awk '{print $1 + $2 + $3}'").await,
            "6\n"
        );
        let pipeline = "seq 1 100000 | sort -rn | head -n 3 | tr '\\n' ' ' | sed 's/ $//' | tee copy | wc -c; cat copy";
        assert_eq!(text(&session, pipeline).await, "18\n100000 99999 99998");
        session.close().await.unwrap();
    });
    place.assert_empty();
}

const STREAM_BYTES: usize = 100_000_000;
const ALLOWANCE: u64 = 8 << 20;

/// The `number`-th part of a long stream that does not repeat soon.
fn part(number: usize) -> Bytes {
    let mut state = number as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let bytes = (0..10_000).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    bytes.collect()
}

/// Runs in the client process: a long stream through `cat`, both ways; the answer tells whether the
/// sums agree, and how much the peaks of client and agent grew.
async fn stream(place: &Path, pause: Duration) -> String {
    let podkit = podkit_at(place).await;
    let session = session(&podkit).await;
    let init = podkit
        .containers()
        .inspect(session.container())
        .await
        .unwrap()
        .pid
        .unwrap();
    // A short one first: what a client at rest has.
    through(&session, 4, Duration::ZERO).await;
    let (own, agent) = (
        host::peak_memory(std::process::id()),
        host::peak_memory(init),
    );
    let (sent, received, bytes) = through(&session, STREAM_BYTES / 80_000, pause).await;
    let grown = host::peak_memory(std::process::id()) - own;
    let agent_grown = host::peak_memory(init) - agent;
    format!("{} {bytes} {grown} {agent_grown}", sent == received)
}

/// Runs in the client process: a tree with a file of 2 GiB, into a container of 64 MiB and out of it;
/// whether it came back, and as [`stream`].
async fn tree(place: &Path) -> String {
    const SIZE: u64 = 2 << 30;
    let (from, to) = (place.join("from"), place.join("to"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("small"), "x").unwrap();
    let big = fs::File::create(from.join("big")).unwrap();
    big.set_len(SIZE).unwrap();
    std::os::unix::fs::FileExt::write_at(&big, b"the end", SIZE - 7).unwrap();
    let podkit = podkit_at(place).await;
    let spec = SessionSpec::new().memory("64m").auto_stop(Limit::Off);
    let session = podkit.session("u", "tree").spec(spec).await.unwrap();
    let files = session.files();
    // A short one first: what a client at rest has.
    let small = files.upload(from.join("small"), "small").await.unwrap();
    small.check().unwrap();
    let small = files.download("small", place.join("small")).await.unwrap();
    small.check().unwrap();
    let info = podkit.containers().inspect(session.container());
    let init = info.await.unwrap().pid.unwrap();
    let (own, agent) = (
        host::peak_memory(std::process::id()),
        host::peak_memory(init),
    );
    let sent = files.upload(&from, "tree").await.unwrap().check().unwrap();
    fs::remove_dir_all(&from).unwrap();
    let came = files.download("tree", &to).await.unwrap().check().unwrap();
    let grown = host::peak_memory(std::process::id()) - own;
    let agent_grown = host::peak_memory(init) - agent;
    let mut end = [0; 7];
    let big = fs::File::open(to.join("big")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&big, &mut end, SIZE - 7).unwrap();
    let equal = sent == came && &end == b"the end";
    session.close().await.unwrap();
    format!("{equal} {} {grown} {agent_grown}", came.bytes)
}

async fn through(session: &Session, parts: usize, pause: Duration) -> (Vec<u8>, Vec<u8>, usize) {
    let mut handle = session.exec(["cat"]).stdin_stream().stream().await.unwrap();
    let mut stdin = handle.take_stdin().unwrap();
    let send = async {
        let mut sum = Sha256::new();
        for number in 0..parts {
            let part = part(number);
            sum.update(&part);
            stdin.write_all(part).await.unwrap();
        }
        stdin.close().await.unwrap();
        sum.finalize().to_vec()
    };
    let receive = async {
        let (mut sum, mut bytes, mut paused) = (Sha256::new(), 0, false);
        while let Some(event) = handle.next().await {
            match event.unwrap() {
                ExecEvent::Stdout(chunk) => {
                    sum.update(&chunk);
                    bytes += chunk.len();
                }
                ExecEvent::Exited(result) => assert_eq!(result.outcome, Outcome::Exited(0)),
                _ => {}
            }
            if !paused && bytes > 10_000_000 && !pause.is_zero() {
                paused = true;
                park(pause).await;
            }
        }
        (sum.finalize().to_vec(), bytes)
    };
    let (sent, (received, bytes)) = tokio::join!(send, receive);
    (sent, received, bytes)
}

/// A reader that looks away: a thread waits, and this task waits for the thread.
async fn park(pause: Duration) {
    let waiting = tokio::task::spawn_blocking(move || {
        let start = std::time::Instant::now();
        while let Some(left) = pause.checked_sub(start.elapsed()) {
            std::thread::park_timeout(left);
        }
    });
    waiting.await.unwrap();
}

fn check_stream(command: &str, size: u64, allowance: u64) {
    let place = Place::new();
    let mut worker = Worker::start(place.path());
    let answer = worker.ask(command);
    let words: Vec<&str> = answer.split(' ').collect();
    let [equal, bytes, client, agent] = words[..] else {
        panic!("{answer}")
    };
    assert_eq!(
        (equal, bytes),
        ("true", size.to_string().as_str()),
        "{answer}"
    );
    let grown = |text: &str| text.parse::<u64>().unwrap();
    assert!(
        grown(client) <= allowance,
        "the client's peak grew by {client} bytes"
    );
    assert!(
        grown(agent) <= allowance,
        "the agent's peak grew by {agent} bytes"
    );
}

fn long_stream_is_equal_and_takes_little_memory() {
    check_stream("stream 0", STREAM_BYTES as u64, ALLOWANCE);
}

fn long_stream_with_a_pausing_reader_takes_little_memory() {
    check_stream("stream 5", STREAM_BYTES as u64, ALLOWANCE);
}

fn tree_with_a_file_of_two_gibibytes_takes_little_memory() {
    // Each thread that a copy has keeps memory of its own.
    check_stream("tree", (2 << 30) + 1, 3 * ALLOWANCE);
}

/// The shortest way: no spec, nothing on the host but what the library needs.
fn first_command_prints_the_workspace() {
    let place = Place::new();
    block_on(async {
        let podkit = place.podkit().await;
        let session = podkit.session("bob", "123").await.unwrap();
        assert_eq!(session.shell("pwd").await.unwrap().stdout, b"/workspace\n");
        session.close().await.unwrap();
    });
    assert!(fs::read_dir(place.path()).unwrap().count() > 0);
    place.assert_empty();
}

fn work(place: &Path, words: &[&str]) -> Option<String> {
    let place = place.to_owned();
    let running = match words {
        ["stream", seconds] => {
            let pause = Duration::from_secs(seconds.parse().unwrap());
            std::thread::spawn(move || block_on(stream(&place, pause)))
        }
        ["tree"] => std::thread::spawn(move || block_on(tree(&place))),
        _ => return None,
    };
    Some(running.join().unwrap())
}

fn main() -> ExitCode {
    if let Some(code) = main_if_asked(work) {
        return code;
    }
    support::run(&[
        (
            "first_command_prints_the_workspace",
            first_command_prints_the_workspace,
        ),
        ("examples_of_the_seed_work", examples_of_the_seed_work),
        (
            "tree_with_a_file_of_two_gibibytes_takes_little_memory",
            tree_with_a_file_of_two_gibibytes_takes_little_memory,
        ),
        (
            "programs_of_the_host_do_real_work",
            programs_of_the_host_do_real_work,
        ),
        (
            "long_stream_is_equal_and_takes_little_memory",
            long_stream_is_equal_and_takes_little_memory,
        ),
        (
            "long_stream_with_a_pausing_reader_takes_little_memory",
            long_stream_with_a_pausing_reader_takes_little_memory,
        ),
    ])
}
