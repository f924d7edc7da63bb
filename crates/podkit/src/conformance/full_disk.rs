//! A file system in the container that is full.

use std::fs;

use podkit_agent::archive::{ARCHIVE_END, Member, MemberKind};

use super::{
    lab::{Lab, assert_kind, shell, text},
    table,
};
use crate::{ErrorKind, Mount, Outcome, Session, SessionSpec, WriteOptions};

table!["faults":
    Programs fault_of_a_full_disk_is_typed_and_leaves_no_half_file,
    Programs fault_of_a_full_disk_costs_a_process_its_log_alone,
];

const PLACE: &str = "/small";

const BLOCK: usize = 4096;

/// What is written: more than there is ever room for.
const BYTES: usize = 16 * BLOCK;

/// A session with a small file system of its own at `/small`.
async fn open(lab: &Lab) -> Session {
    let mount = Mount::tmpfs(PLACE, Some(1 << 20));
    lab.open_with("a", SessionSpec::new().mount(mount)).await
}

/// Leaves so many blocks free.
async fn fill(session: &Session, blocks: usize) {
    let script = format!(
        "cd {PLACE} && rm -f filler && head -c 2000000 /dev/zero >filler 2>/dev/null; \
         truncate -s -$(({blocks} * {BLOCK} + 1)) {PLACE}/filler"
    );
    text(session, &script).await;
}

/// Every name in the place but the filler's, with its size.
async fn listing(session: &Session) -> String {
    let script = format!("cd {PLACE} && rm -f filler && find . -type f -printf '%p %s\\n' | sort");
    text(session, &script).await
}

/// An archive of one file.
fn archive() -> Vec<u8> {
    let file = Member {
        path: "extracted".into(),
        kind: MemberKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: BYTES as u64,
        modified_s: 0,
        target: "".into(),
    };
    let mut bytes = Vec::new();
    file.encode(&mut bytes);
    bytes.extend(std::iter::repeat_n(7, BYTES));
    bytes.extend_from_slice(&ARCHIVE_END);
    bytes
}

async fn fault_of_a_full_disk_is_typed_and_leaves_no_half_file(lab: Lab) {
    let session = open(&lab).await;
    let files = session.files();
    let (tree, one) = (lab.directory().join("tree"), lab.directory().join("one"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("uploaded"), vec![7; BYTES]).unwrap();
    fs::write(&one, vec![7; BYTES]).unwrap();
    let at = |name: &str| format!("{PLACE}/{name}");
    files.write(&at("old"), "old").await.unwrap();
    let before = listing(&session).await;
    let full = ErrorKind::LimitExceeded;
    // Every block in turn is the one that is missing, for data, names and directories.
    for blocks in [0, 1, 3, 15] {
        let about = format!("{blocks} blocks");
        let bytes = || vec![7; BYTES];
        fill(&session, blocks).await;
        let written = files.write(&at("new"), bytes()).await;
        assert_kind(written, full, &about);
        fill(&session, blocks).await;
        let written = files.write(&at("old"), bytes()).await;
        assert_kind(written, full, &about);
        fill(&session, blocks).await;
        let extracted = files.extract(PLACE, archive().as_slice()).await;
        assert_kind(extracted, full, &about);
        fill(&session, blocks).await;
        let uploaded = files.upload(&tree, PLACE).await;
        assert_kind(uploaded, full, &about);
        fill(&session, blocks).await;
        let uploaded = files.upload(&one, &at("one")).await;
        assert_kind(uploaded, full, &about);
        assert_eq!(listing(&session).await, before, "{about}");
        assert_eq!(files.read(&at("old")).await.unwrap(), b"old", "{about}");
    }
    // What is appended may be there in part; what was there before stays.
    fill(&session, 1).await;
    let options = WriteOptions::new().with_append(true);
    let bytes = vec![7; BYTES];
    let appended = files
        .write_with(&at("old"), options, bytes.as_slice())
        .await;
    assert_kind(appended, full, "appending");
    assert!(files.read(&at("old")).await.unwrap().starts_with(b"old"));
    text(&session, &format!("rm -f {PLACE}/*")).await;
    files.write(&at("new"), vec![7; BYTES]).await.unwrap();
    files.upload(&tree, PLACE).await.unwrap().check().unwrap();
    let came = files.read(&at("uploaded")).await.unwrap();
    assert_eq!(came, vec![7; BYTES]);
}

async fn fault_of_a_full_disk_costs_a_process_its_log_alone(lab: Lab) {
    let session = open(&lab).await;
    for blocks in [0, 1, 4] {
        fill(&session, blocks).await;
        let script = "head -c 300000 /dev/zero; touch /tmp/done; exit 7";
        let spawn = session.spawn_shell(script);
        let directory = format!("{PLACE}/logs{blocks}");
        // Where not even a log can be begun that is told, and nothing runs.
        let process = match spawn.log_directory(directory).await {
            Ok(process) => process,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error:?}");
                let ran = shell(&session, "ls /tmp/done").await;
                assert!(!ran.outcome.is_success(), "{blocks} blocks: it ran");
                continue;
            }
        };
        let info = process.wait().await.unwrap();
        assert_eq!(info.state, crate::ProcessState::Ended(Outcome::Exited(7)));
        let mut size = 0;
        for chunk in process.logs().await.unwrap() {
            assert!(chunk.bytes.iter().all(|byte| *byte == 0));
            size += chunk.bytes.len();
        }
        assert!(size < 300_000, "{blocks} blocks: {size} bytes");
        text(&session, "rm /tmp/done").await;
        process.forget().await.unwrap();
    }
    text(&session, &format!("rm -rf {PLACE}/*")).await;
    let process = session.spawn_shell("echo whole").await.unwrap();
    process.wait().await.unwrap();
    assert_eq!(process.logs().await.unwrap()[0].bytes, b"whole\n"[..]);
}
