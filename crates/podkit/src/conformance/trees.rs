//! Trees of files: in, out, as archives; watched and measured.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use podkit_agent::archive::{ARCHIVE_END, Member, MemberKind};
use tokio::{io::AsyncReadExt, time::timeout};

use super::{
    lab::{Lab, assert_kind, eventually, shell, text},
    table,
};
use crate::{ErrorKind, SessionSpec};

table!["trees":
    Containers tree_comes_back_as_it_went,
    Programs tree_keeps_modes_times_links_and_names,
    Programs tree_is_merged_and_replaces_files,
    Programs tree_out_of_a_hostile_container_stays_inside,
    Programs tree_that_cannot_be_made_in_part_is_told_of,
    Programs tree_of_a_user_is_that_users,
    Programs transfer_that_is_dropped_leaves_no_half_file,
    Programs archive_is_what_tar_reads_and_writes,
    Programs archive_that_leads_out_is_refused,
    Programs archive_with_parts_that_are_missing_says_so,
    Programs disk_usage_is_what_the_files_take,
];

/// A directory of its own below the case's.
fn directory(lab: &Lab, name: &str) -> PathBuf {
    let path = lab.directory().join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

fn write(path: &Path, bytes: impl AsRef<[u8]>, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

async fn tree_comes_back_as_it_went(lab: Lab) {
    let (from, to) = (directory(&lab, "from"), lab.directory().join("to"));
    let sizes = [0, 1, 511, 512, 513, 65_536, 300_001];
    for size in sizes {
        let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
        write(&from.join(format!("a/{size}/file")), bytes, 0o644);
    }
    fs::create_dir(from.join("empty")).unwrap();
    let session = lab.open("a").await;
    let files = session.files();
    let mut told = 0;
    let sent = files.upload_with(&from, "x/tree", |now| told = now.bytes);
    let sent = sent.await.unwrap().check().unwrap();
    let total = u64::try_from(sizes.iter().sum::<usize>()).unwrap();
    assert_eq!((sent.bytes, told), (total, total));
    assert_eq!(files.read("x/tree/a/513/file").await.unwrap().len(), 513);
    let came = files.download("x/tree", &to).await.unwrap();
    let came = came.check().unwrap();
    assert_eq!((came.entries, came.bytes), (sent.entries, total));
    for size in sizes {
        let name = format!("a/{size}/file");
        assert!(
            fs::read(to.join(&name)).unwrap() == fs::read(from.join(&name)).unwrap(),
            "{size}"
        );
    }
    assert!(to.join("empty").is_dir());
    // One file alone takes the name that is given.
    let one = lab.directory().join("one");
    let report = files.download("x/tree/a/1/file", &one).await.unwrap();
    assert_eq!((report.entries, report.bytes), (1, 1));
    let report = files.upload(&one, "x/one").await.unwrap();
    assert_eq!((report.entries, report.bytes), (1, 1));
    assert_eq!(files.read("x/one").await.unwrap(), [0]);
    let usage = files.disk_usage("x/tree").await.unwrap();
    assert_eq!(usage.files, u64::try_from(sizes.len()).unwrap());
    let missing = files.download("x/none", &one).await;
    assert_kind(missing, ErrorKind::NotFound, "download of nothing");
    let missing = files.upload(from.join("none"), "x").await;
    assert_kind(missing, ErrorKind::NotFound, "upload of nothing");
}

async fn tree_keeps_modes_times_links_and_names(lab: Lab) {
    let (from, to) = (directory(&lab, "from"), lab.directory().join("to"));
    let long = format!("{}/file", ["abcdefghijklmnopqrstuvwxyz"; 12].join("/"));
    write(&from.join("plain"), "x", 0o640);
    write(&from.join("run"), "#!/bin/sh\necho ran\n", 0o755);
    write(&from.join("closed/file"), "x", 0o400);
    write(&from.join(&long), "long", 0o600);
    write(
        &from.join(OsStr::from_bytes(b"odd \xff\n-name")),
        "odd",
        0o644,
    );
    for (target, name) in [("run", "link"), ("later", "dangling"), ("closed", "down")] {
        symlink(target, from.join(name)).unwrap();
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(from.join("plain"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    fs::set_permissions(from.join("closed"), fs::Permissions::from_mode(0o550)).unwrap();
    let session = lab.open("a").await;
    let files = session.files();
    let sent = files.upload(&from, "/tmp/tree").await.unwrap();
    let sent = sent.check().unwrap();
    assert_eq!(text(&session, "/tmp/tree/link").await, "ran\n");
    for (name, mode) in [("plain", 0o640), ("closed", 0o550), ("closed/file", 0o400)] {
        let entry = files.stat(&format!("/tmp/tree/{name}")).await.unwrap();
        assert_eq!(entry.mode, mode, "{name}");
    }
    assert_eq!(files.stat("/tmp/tree/plain").await.unwrap().modified, time);
    let came = files.download("/tmp/tree", &to).await.unwrap();
    let came = came.check().unwrap();
    assert_eq!(came.entries, sent.entries);
    for name in [
        OsStr::new("plain"),
        OsStr::new("run"),
        OsStr::new("closed"),
        OsStr::new(&long),
        OsStr::from_bytes(b"odd \xff\n-name"),
        OsStr::new("link"),
        OsStr::new("dangling"),
    ] {
        let facts = |root: &Path| {
            let path = root.join(name);
            let metadata = fs::symlink_metadata(&path).unwrap();
            let link = fs::read_link(&path).ok();
            let time = link.is_none().then(|| metadata.mtime());
            (metadata.mode(), time, link)
        };
        assert_eq!(facts(&to), facts(&from), "{name:?}");
    }
    assert_eq!(fs::read(to.join(&long)).unwrap(), b"long");
    for root in [&from, &to] {
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(root.join("closed"), mode).unwrap();
    }
}

async fn tree_is_merged_and_replaces_files(lab: Lab) {
    let (from, to) = (directory(&lab, "from"), directory(&lab, "to"));
    write(&from.join("sub/new"), "new", 0o644);
    write(&from.join("both"), "from", 0o644);
    write(&from.join("link"), "no link", 0o644);
    write(&to.join("kept"), "kept", 0o644);
    write(&to.join("both"), "old", 0o644);
    let victim = lab.directory().join("victim");
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, to.join("link")).unwrap();
    let session = lab.open("a").await;
    let files = session.files();
    let before = "mkdir -p /tmp/t/sub && cd /tmp/t && echo kept >kept && echo old >both \
                  && echo untouched >/tmp/victim && ln -s /tmp/victim link";
    text(&session, before).await;
    let report = files.upload(&from, "/tmp/t").await.unwrap();
    report.check().unwrap();
    let after = "cd /tmp/t && cat kept both link sub/new /tmp/victim";
    assert_eq!(
        text(&session, after).await,
        "kept\nfromno linknewuntouched\n"
    );
    let report = files.download("/tmp/t", &to).await.unwrap();
    report.check().unwrap();
    let read = |name: &str| fs::read_to_string(to.join(name)).unwrap();
    assert_eq!(
        [read("both"), read("sub/new"), read("kept")],
        ["from", "new", "kept\n"]
    );
    assert_eq!(read("link"), "no link");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
}

async fn tree_out_of_a_hostile_container_stays_inside(lab: Lab) {
    let to = lab.directory().join("to");
    fs::write(lab.directory().join("victim"), "untouched").unwrap();
    let session = lab.open("a").await;
    let script = "mkdir -p /tmp/t/d && cd /tmp/t && ln -s /etc/passwd absolute \
                  && ln -s ../victim up && ln -s . here && ln -s here/../victim sneaky \
                  && ln -s loop loop && ln -s d/inside inside && echo x >file && echo x >d/inside \
                  && chmod 6755 file && mkfifo fifo";
    text(&session, script).await;
    let report = session.files().download("/tmp/t", &to).await.unwrap();
    let told = format!("{:?}", report.failed);
    for name in ["absolute", "up", "sneaky", "fifo"] {
        assert!(told.contains(name), "{name}: {told}");
        assert!(fs::symlink_metadata(to.join(name)).is_err(), "{name}");
    }
    assert_eq!(report.failed.len(), 4, "{told}");
    assert_eq!(
        fs::metadata(to.join("file")).unwrap().mode() & 0o7777,
        0o755
    );
    assert_eq!(fs::read(to.join("inside")).unwrap(), b"x\n");
    assert_kind(
        report.check(),
        ErrorKind::Unsupported,
        "a report with failures",
    );
    // Deeper than anybody goes.
    let deep = "cd /tmp && mkdir deep && cd deep && i=0 && while [ $i -lt 700 ]; do \
                mkdir d && cd d && i=$((i+1)); done; echo x >/tmp/deep/file";
    text(&session, deep).await;
    let to = lab.directory().join("deep");
    let report = session.files().download("/tmp/deep", &to).await.unwrap();
    assert!(!report.failed.is_empty());
    assert_eq!(fs::read(to.join("file")).unwrap(), b"x\n");
    session.files().remove_all("/tmp/deep").await.unwrap();
    // The test's own way of removing a tree does not go that deep.
    let removed = Command::new("rm").arg("-rf").arg(&to).status().unwrap();
    assert!(removed.success());
}

async fn tree_that_cannot_be_made_in_part_is_told_of(lab: Lab) {
    let from = directory(&lab, "from");
    write(&from.join("busy"), "a file", 0o644);
    write(&from.join("ok/file"), "x", 0o644);
    write(&from.join("through/file"), "x", 0o644);
    let session = lab.open("a").await;
    let before = "mkdir -p /tmp/t/busy /tmp/other && ln -s /tmp/other /tmp/t/through";
    text(&session, before).await;
    let report = session.files().upload(&from, "/tmp/t").await.unwrap();
    let told = format!("{:?}", report.failed);
    assert!(told.contains("busy") && told.contains("through"), "{told}");
    assert_eq!(
        text(&session, "cat /tmp/t/ok/file; ls /tmp/other").await,
        "x"
    );
    let file = session.files().upload(&from, "/tmp/t/ok/file").await;
    assert_kind(
        file,
        ErrorKind::InvalidInput,
        "a tree in the place of a file",
    );
}

async fn tree_of_a_user_is_that_users(lab: Lab) {
    if lab.has_one_id() {
        return;
    }
    let from = directory(&lab, "from");
    write(&from.join("d/file"), "x", 0o640);
    let session = lab.open_with("a", SessionSpec::new().user("0:0")).await;
    let files = session.files().user("1234:1234");
    text(
        &session,
        "mkdir /tmp/theirs /tmp/roots; chown 1234:1234 /tmp/theirs",
    )
    .await;
    let report = files.upload(&from, "/tmp/theirs/t").await.unwrap();
    report.check().unwrap();
    for name in ["t", "t/d", "t/d/file"] {
        let entry = files.stat(&format!("/tmp/theirs/{name}")).await.unwrap();
        assert_eq!((entry.uid, entry.gid), (1234, 1234), "{name}");
    }
    let refused = files.upload(&from, "/tmp/roots/t").await;
    assert_kind(
        refused,
        ErrorKind::PermissionDenied,
        "a directory of another",
    );
    text(
        &session,
        "mkdir -m 700 /tmp/theirs/t/hidden; echo s >/tmp/theirs/t/hidden/s",
    )
    .await;
    let to = lab.directory().join("to");
    let report = files.download("/tmp/theirs/t", &to).await.unwrap();
    assert_eq!(report.failed.len(), 1, "{report:?}");
    assert_eq!(
        report.failed.first().unwrap().kind(),
        ErrorKind::PermissionDenied
    );
    assert_eq!(fs::read(to.join("d/file")).unwrap(), b"x");
    assert_eq!(files.disk_usage("/tmp/theirs/t").await.unwrap().unread, 1);
}

async fn transfer_that_is_dropped_leaves_no_half_file(lab: Lab) {
    let from = directory(&lab, "from");
    for number in 0..8 {
        write(&from.join(format!("{number}")), vec![7; 8 << 20], 0o644);
    }
    let session = lab.open("a").await;
    let files = session.files();
    let mut bytes = 0;
    let sending = files.upload_with(&from, "/tmp/t", |now| bytes = now.bytes);
    let cut = timeout(Duration::from_millis(30), sending).await;
    assert!(cut.is_err(), "it was done before it could be dropped");
    let sizes = "cd /tmp/t 2>/dev/null && for f in $(ls -A); do wc -c <$f; done; echo done";
    eventually("whole files alone", async || {
        let sizes = text(&session, sizes).await;
        let whole = |line: &str| line.trim() == "8388608" || line == "done";
        sizes.lines().all(whole).then_some(())
    })
    .await;
    let report = files.upload(&from, "/tmp/t").await.unwrap();
    report.check().unwrap();
    let to = lab.directory().join("to");
    let coming = files.download("/tmp/t", &to);
    let cut = timeout(Duration::from_millis(30), coming).await;
    assert!(cut.is_err(), "it was done before it could be dropped");
    eventually("whole files alone", async || {
        let entries = fs::read_dir(&to).into_iter().flatten();
        let mut sizes = entries.map(|entry| entry.unwrap().metadata().unwrap().len());
        sizes.all(|size| size == 8 << 20).then_some(())
    })
    .await;
}

async fn archive_is_what_tar_reads_and_writes(lab: Lab) {
    let from = directory(&lab, "from");
    let long = format!("{}/file", ["abcdefghijklmnopqrstuvwxyz"; 8].join("/"));
    write(&from.join(&long), "long", 0o640);
    write(&from.join("big"), vec![9; 100_000], 0o644);
    fs::hard_link(from.join("big"), from.join("same")).unwrap();
    symlink("big", from.join("link")).unwrap();
    let session = lab.open("a").await;
    let files = session.files();
    for format in ["gnu", "posix", "ustar"] {
        let packed = Command::new("tar")
            .args(["-c", "-f", "-", "--format", format, "-C"])
            .arg(&from)
            .arg(".")
            .output()
            .unwrap();
        assert!(packed.status.success(), "{format}: {packed:?}");
        let path = format!("/tmp/{format}");
        let report = files.extract(&path, &packed.stdout[..]).await.unwrap();
        report.check().unwrap();
        let script = format!("cd {path} && cat {long} && cmp big same && cmp big link");
        assert_eq!(text(&session, &script).await, "long", "{format}");

        let mut archive = files.archive(&path).await.unwrap();
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes).await.unwrap();
        let to = directory(&lab, format);
        let mut unpacking = Command::new("tar")
            .args(["-x", "-f", "-", "-C"])
            .arg(&to)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = unpacking.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, &bytes).unwrap();
        drop(stdin);
        assert!(unpacking.wait().unwrap().success(), "{format}");
        assert_eq!(fs::read(to.join(&long)).unwrap(), b"long");
        assert_eq!(fs::read(to.join("same")).unwrap(), vec![9; 100_000]);
    }
    let holes = fs::File::create(from.join("holes")).unwrap();
    holes.set_len(1 << 20).unwrap();
    for format in ["gnu", "posix"] {
        let packed = Command::new("tar")
            .args(["-c", "-S", "-f", "-", "--format", format, "-C"])
            .arg(&from)
            .arg("holes")
            .output()
            .unwrap();
        let made = files.extract("/tmp/holes", &packed.stdout[..]).await;
        let refused = made.and_then(crate::TransferReport::check).is_err();
        assert!(refused, "a sparse file of {format} tar");
    }
    let mut one = files.archive("/tmp/gnu/big").await.unwrap();
    let mut bytes = Vec::new();
    one.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.starts_with(b"big\0"));
}

/// An archive of members without bytes, as nobody's tar would write it.
fn hostile(members: &[(&str, MemberKind, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, kind, target) in members {
        Member {
            path: path.as_bytes().to_vec(),
            kind: *kind,
            mode: 0o6777,
            uid: 0,
            gid: 0,
            size: 0,
            modified_s: 0,
            target: target.as_bytes().to_vec(),
        }
        .encode(&mut bytes);
    }
    bytes.extend_from_slice(&ARCHIVE_END);
    bytes
}

async fn archive_that_leads_out_is_refused(lab: Lab) {
    use MemberKind::{Directory, File, HardLink, Symlink};
    let session = lab.open("a").await;
    let files = session.files();
    text(&session, "mkdir /tmp/other && echo secret >/tmp/secret").await;
    let refused = [
        hostile(&[("/tmp/other/a", File, "")]),
        hostile(&[("../other/a", File, "")]),
        hostile(&[("a/../../other/a", File, "")]),
        hostile(&[("a", HardLink, "../secret")]),
        hostile(&[("a", HardLink, "/tmp/secret")]),
        vec![1; 2048],
        Vec::new(),
        hostile(&[("a", File, "")])[..512].to_vec(),
    ];
    for (number, bytes) in refused.iter().enumerate() {
        let result = files.extract("/tmp/t", &bytes[..]).await;
        assert_kind(result, ErrorKind::InvalidInput, &number.to_string());
    }
    // What leads out by a link is left out, and the rest is made.
    let sneaky = hostile(&[
        ("out", Symlink, "/tmp/other"),
        ("out/a", File, ""),
        ("out", Directory, ""),
        ("hard", HardLink, "out/../secret"),
        ("ok", File, ""),
    ]);
    let result = files.extract("/tmp/t", &sneaky[..]).await;
    assert_kind(result, ErrorKind::InvalidInput, "a hard link with `..`");
    let sneaky = hostile(&[
        ("out", Symlink, "/tmp/other"),
        ("out/a", File, ""),
        ("out", Directory, ""),
        ("hard", HardLink, "out/secret"),
        ("ok", File, ""),
    ]);
    let report = files.extract("/tmp/t", &sneaky[..]).await.unwrap();
    assert_eq!(report.failed.len(), 3, "{report:?}");
    assert_eq!(
        text(&session, "ls /tmp/other; cat /tmp/secret").await,
        "secret\n"
    );
    let made = files.stat("/tmp/t/ok").await.unwrap();
    assert_eq!(made.mode, 0o777, "set-id bits are not taken over");
}

async fn archive_with_parts_that_are_missing_says_so(lab: Lab) {
    let session = lab.open("a").await;
    text(
        &session,
        "mkdir /tmp/t && echo x >/tmp/t/file && mkfifo /tmp/t/fifo",
    )
    .await;
    let mut archive = session.files().archive("/tmp/t").await.unwrap();
    let mut bytes = Vec::new();
    let error = archive.read_to_end(&mut bytes).await.unwrap_err();
    let error = error.downcast::<crate::Error>().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    // All else has come before.
    let report = session.files().extract("/tmp/u", &bytes[..]).await.unwrap();
    report.check().unwrap();
    assert_eq!(
        text(&session, "cat /tmp/u/file; ls /tmp/u").await,
        "x\nfile\n"
    );
    for path in ["/tmp/t/fifo", "/dev/null"] {
        let refused = session.files().archive(path).await;
        assert_kind(refused, ErrorKind::InvalidInput, path);
    }
}

async fn disk_usage_is_what_the_files_take(lab: Lab) {
    let session = lab.open("a").await;
    let script = "mkdir -p /tmp/t/a/b && cd /tmp/t && head -c 100000 /dev/zero >a/one \
                  && ln a/one a/b/two && ln -s /etc a/link && : >empty";
    text(&session, script).await;
    let usage = session.files().disk_usage("/tmp/t").await.unwrap();
    assert_eq!((usage.files, usage.directories, usage.unread), (4, 3, 0));
    assert_eq!(usage.size_bytes, 100_000 + 4);
    assert!(
        (100_000..200_000).contains(&usage.disk_bytes),
        "{} bytes",
        usage.disk_bytes
    );
    let one = session.files().disk_usage("/tmp/t/a/one").await.unwrap();
    assert_eq!((one.files, one.directories), (1, 0));
    assert!(shell(&session, "true").await.result.outcome.is_success());
}
