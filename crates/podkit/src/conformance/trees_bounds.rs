//! Trees of files: what a container may prepare, what comes too fast, what goes on at once.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Command,
    time::Duration,
};

use podkit_agent::archive::{ARCHIVE_END, Member, MemberKind};
use tokio::{join, time::timeout};

use super::{
    lab::{Lab, assert_kind, eventually, text},
    table,
};
use crate::{ErrorKind, FileChangeKind, FileWatch};

table!["trees":
    Programs tree_of_paths_too_long_is_copied_in_part,
    Programs tree_of_paths_too_long_is_sent_in_part,
    Programs tree_with_holes_takes_no_room_here,
    Programs tree_that_was_missing_has_the_bits_that_are_sent,
    Programs archives_into_one_directory_at_once_are_both_made,
    Programs archive_that_ends_early_leaves_directories_open,
    Programs archive_of_many_directories_gives_all_their_bits,
    Programs archive_with_a_hard_link_to_nothing_makes_nothing,
    Programs watch_of_paths_too_long_goes_on,
    Programs watch_that_missed_changes_goes_on,
    Programs watch_follows_what_is_renamed,
    Programs watch_tells_what_comes_with_a_directory,
];

/// Makes directories whose path is of 80 KiB below the present one, and goes there.
const DEEP: &str = "n=$(printf %0199d 0) && i=0 && while [ $i -lt 400 ]; do \
                    mkdir $n && cd -P ./$n && i=$((i+1)) || exit 1; done";

async fn tree_of_paths_too_long_is_copied_in_part(lab: Lab) {
    let session = lab.open("a").await;
    let script = format!("mkdir /tmp/t && cd /tmp/t && echo x >file && {DEEP}");
    text(&session, &script).await;
    let to = lab.directory().join("to");
    let report = session.files().download("/tmp/t", &to).await.unwrap();
    assert!(!report.failed.is_empty());
    assert_eq!(fs::read(to.join("file")).unwrap(), b"x\n");
    let usage = session.files().disk_usage("/tmp/t").await.unwrap();
    assert_eq!((usage.files, usage.unread), (1, 1));
    let removed = Command::new("rm").arg("-rf").arg(&to).status().unwrap();
    assert!(removed.success());
}

async fn tree_of_paths_too_long_is_sent_in_part(lab: Lab) {
    let from = lab.directory().join("from");
    fs::create_dir(&from).unwrap();
    let script = format!("echo x >file && {DEEP}");
    let mut shell = Command::new("sh");
    let made = shell.arg("-c").arg(&script).current_dir(&from).status();
    assert!(made.unwrap().success());
    let session = lab.open("a").await;
    let report = session.files().upload(&from, "/tmp/t").await.unwrap();
    assert!(!report.failed.is_empty());
    assert_eq!(text(&session, "cat /tmp/t/file").await, "x\n");
    let removed = Command::new("rm").arg("-rf").arg(&from).status().unwrap();
    assert!(removed.success());
}

async fn tree_with_holes_takes_no_room_here(lab: Lab) {
    const LENGTH: u64 = (64 << 20) + 5000;
    let session = lab.open("a").await;
    let script = format!(
        "mkdir /tmp/t && cd /tmp/t && printf begin >file && truncate -s {LENGTH} file && \
         printf end >>file && truncate -s 9000 holes && : >empty"
    );
    text(&session, &script).await;
    let to = lab.directory().join("to");
    let report = session.files().download("/tmp/t", &to).await.unwrap();
    assert_eq!(report.check().unwrap().bytes, LENGTH + 3 + 9000);
    let one = lab.directory().join("one");
    let report = session.files().download("/tmp/t/file", &one).await.unwrap();
    report.check().unwrap();
    for path in [to.join("file"), one] {
        let facts = fs::metadata(&path).unwrap();
        assert_eq!(facts.len(), LENGTH + 3);
        assert!(facts.blocks() * 512 < 1 << 20, "{} blocks", facts.blocks());
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.starts_with(b"begin\0") && bytes.ends_with(b"\0end"));
    }
    assert_eq!(fs::read(to.join("holes")).unwrap(), vec![0; 9000]);
    assert_eq!(fs::read(to.join("empty")).unwrap(), b"");
}

async fn tree_that_was_missing_has_the_bits_that_are_sent(lab: Lab) {
    let from = lab.directory().join("from");
    fs::create_dir(&from).unwrap();
    fs::set_permissions(&from, fs::Permissions::from_mode(0o710)).unwrap();
    let session = lab.open("a").await;
    let files = session.files();
    files
        .upload(&from, "/tmp/a/b")
        .await
        .unwrap()
        .check()
        .unwrap();
    assert_eq!(files.stat("/tmp/a/b").await.unwrap().mode, 0o710);
    // One that is there is not of the archive.
    text(&session, "mkdir -m 755 /tmp/c").await;
    files
        .upload(&from, "/tmp/c")
        .await
        .unwrap()
        .check()
        .unwrap();
    assert_eq!(files.stat("/tmp/c").await.unwrap().mode, 0o755);
}

fn member(path: &str, kind: MemberKind, target: &str) -> Member {
    Member {
        path: path.into(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        modified_s: 0,
        target: target.into(),
    }
}

fn archive(members: &[Member]) -> Vec<u8> {
    let mut bytes = Vec::new();
    members.iter().for_each(|member| member.encode(&mut bytes));
    bytes.extend_from_slice(&ARCHIVE_END);
    bytes
}

async fn archives_into_one_directory_at_once_are_both_made(lab: Lab) {
    let session = lab.open("a").await;
    let files = session.files();
    let of = |name: &str| {
        let paths = (0..2000).map(|number| format!("{number}/sub/{name}"));
        let members: Vec<_> = paths
            .map(|path| member(&path, MemberKind::File, ""))
            .collect();
        archive(&members)
    };
    let (one, two) = (of("one"), of("two"));
    let (one, two) = join!(
        files.extract("/tmp/t", &one[..]),
        files.extract("/tmp/t", &two[..])
    );
    one.unwrap().check().unwrap();
    two.unwrap().check().unwrap();
}

async fn archive_that_ends_early_leaves_directories_open(lab: Lab) {
    let session = lab.open("a").await;
    let members = [
        member("d", MemberKind::Directory, ""),
        member("d/file", MemberKind::File, ""),
    ];
    let bytes = archive(&members);
    let cut = &bytes[..bytes.len() - ARCHIVE_END.len()];
    let result = session.files().extract("/tmp/t", cut).await;
    assert_kind(
        result,
        ErrorKind::InvalidInput,
        "an archive that is cut off",
    );
    assert_eq!(session.files().stat("/tmp/t/d").await.unwrap().mode, 0o755);
}

async fn archive_of_many_directories_gives_all_their_bits(lab: Lab) {
    const MANY: usize = 5000;
    let session = lab.open("a").await;
    // More than is kept until the end.
    let above = vec!["n".repeat(200); 12].join("/");
    let closed = Member {
        mode: 0o511,
        ..member(&above, MemberKind::Directory, "")
    };
    let mut members = vec![closed.clone(), closed];
    members.extend((0..MANY).map(|number| Member {
        mode: 0o711,
        ..member(&format!("./{above}/{number}"), MemberKind::Directory, "")
    }));
    let bytes = archive(&members);
    let report = session.files().extract("/tmp/t", &bytes[..]).await.unwrap();
    report.check().unwrap();
    let count = "cd /tmp/t && find . -perm 711 | wc -l && find . -perm 511 | wc -l";
    let counted = text(&session, count).await;
    let counted: Vec<_> = counted.split_whitespace().collect();
    assert_eq!(counted, [MANY.to_string().as_str(), "1"]);
}

async fn archive_with_a_hard_link_to_nothing_makes_nothing(lab: Lab) {
    let session = lab.open("a").await;
    let bytes = archive(&[member("link", MemberKind::HardLink, "none/file")]);
    let report = session.files().extract("/tmp/t", &bytes[..]).await.unwrap();
    assert_kind(report.check(), ErrorKind::NotFound, "a link to nothing");
    assert_eq!(text(&session, "ls -A /tmp/t").await, "");
}

/// The changes up to one of a path.
async fn until(watch: &mut FileWatch, path: &str) -> Vec<(FileChangeKind, String)> {
    let mut changes = Vec::new();
    let all = async {
        loop {
            let change = watch.next().await.unwrap().unwrap();
            let last = change.path == path;
            changes.push((change.kind, change.path));
            if last {
                return;
            }
        }
    };
    let all = timeout(Duration::from_secs(30), all).await;
    assert!(
        all.is_ok(),
        "nothing was told of `{path}`: {} others",
        changes.len()
    );
    changes
}

async fn watch_of_paths_too_long_goes_on(lab: Lab) {
    let session = lab.open("a").await;
    let files = session.files();
    let script = format!(
        "mkdir /tmp/t && cd /tmp/t && {DEEP} && : >/tmp/ready && \
         while ! [ -e /tmp/go ]; do sleep 0.05; done; : >file; : >/tmp/t/mark"
    );
    let watched = async {
        eventually("directories", async || files.stat("/tmp/ready").await.ok()).await;
        let mut watch = files.watch("/tmp/t", true).await.unwrap();
        files.write("/tmp/go", "").await.unwrap();
        until(&mut watch, "mark").await;
    };
    join!(text(&session, &script), watched);
    assert_eq!(text(&session, "echo hi").await, "hi\n");
}

/// Changes that fill all that is between the kernel and somebody who does not look.
fn flood(times: u32) -> String {
    format!(
        "a=$(printf a%0199d 0) && b=$(printf b%0199d 0) && i=0 && while [ $i -lt {times} ]; do \
         echo >>$a; echo >>$b; i=$((i+1)); done"
    )
}

async fn watch_that_missed_changes_goes_on(lab: Lab) {
    let session = lab.open("a").await;
    text(&session, "mkdir -p /tmp/t/left /tmp/t/stays").await;
    let mut watch = session.files().watch("/tmp/t", true).await.unwrap();
    let script = format!(
        "cd /tmp/t && {} && mkdir -p made/later && mv left /tmp/elsewhere && mv stays stayed",
        flood(30_000)
    );
    text(&session, &script).await;
    // Of what was missed nothing is told, and what comes after it is told.
    let told = until(&mut watch, "").await;
    assert_eq!(told.last().unwrap().0, FileChangeKind::Missed);
    text(
        &session,
        "cd /tmp/t && : >made/later/file && : >/tmp/elsewhere/file && : >stayed/file && : >mark",
    )
    .await;
    let told = until(&mut watch, "mark").await;
    let told: Vec<_> = told.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(told, ["made/later/file", "stayed/file", "mark"]);
    // Its end is not missed either.
    let script = format!("cd /tmp/t && {} && cd / && rm -rf /tmp/t", flood(30_000));
    text(&session, &script).await;
    let end = timeout(Duration::from_secs(30), async {
        while watch.next().await.is_some() {}
    });
    end.await.unwrap();
}

async fn watch_follows_what_is_renamed(lab: Lab) {
    let session = lab.open("a").await;
    text(&session, "mkdir -p /tmp/t/x/sub").await;
    let mut watch = session.files().watch("/tmp/t", true).await.unwrap();
    // All of it has happened before the agent looks.
    let script = format!(
        "cd /tmp/t && {} && mv x y && : >y/sub/file && mv y z && : >z/sub/again && \
         mv z /tmp/out && : >/tmp/out/sub/gone && mkdir z && mv z w && : >w/top && : >mark",
        flood(4000)
    );
    text(&session, &script).await;
    let told = until(&mut watch, "mark").await;
    let told: Vec<_> = told
        .iter()
        .map(|(_, path)| path.as_str())
        .filter(|path| path.len() < 100)
        .collect();
    let expected = [
        "x",
        "y",
        "y/sub/file",
        "y",
        "z",
        "z/sub/again",
        "z",
        "z",
        "z",
        "w",
        "w/top",
        "mark",
    ];
    assert_eq!(told, expected);
}

async fn watch_tells_what_comes_with_a_directory(lab: Lab) {
    use FileChangeKind::{Created, MovedTo};
    let session = lab.open("a").await;
    text(&session, "mkdir -p /tmp/t /tmp/u/sub && : >/tmp/u/sub/file").await;
    let mut watch = session.files().watch("/tmp/t", true).await.unwrap();
    text(&session, "cd /tmp/t && mv ../u in && : >mark").await;
    let mut told = until(&mut watch, "mark").await;
    told.pop();
    let change = |kind, path: &str| (kind, path.to_owned());
    let expected = [
        change(MovedTo, "in"),
        change(Created, "in/sub"),
        change(Created, "in/sub/file"),
    ];
    assert_eq!(told, expected);
}
