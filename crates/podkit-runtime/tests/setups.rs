//! Set-ups in which not all of what containers use is there, as root.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod agent;
mod support;

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::PathBuf,
    process::Command,
};

use agent::run;
use podkit_runtime::{ContainerSpec, ErrorKind, Isolation, Rootfs};
use support::Place;

/// A file system at the state directory that cannot do all that containers use.
struct Lesser(PathBuf);

impl Lesser {
    /// One that cannot show its files with other ids.
    fn plain(place: &Place) -> Self {
        Self::mount(place, "ramfs", "")
    }

    /// One that cannot hold what containers write, either, as in a container of another engine.
    fn overlay(place: &Place) -> Self {
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| {
            let path = place.path().join(name);
            fs::create_dir(&path).unwrap();
            format!("{name}dir={}", path.display())
        });
        Self::mount(place, "overlay", &format!("{lower},{upper},{work}"))
    }

    fn mount(place: &Place, kind: &str, options: &str) -> Self {
        let path = place.path().join("state");
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", kind, "-o", options, "lesser"]).arg(&path);
        assert!(mount.status().unwrap().success());
        Self(path)
    }
}

impl Drop for Lesser {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn image_is_copied_where_it_cannot_be_shown_with_other_ids() {
    let place = Place::new();
    let _lesser = Lesser::plain(&place);
    let runtime = place.runtime();
    let facts = runtime.facts().unwrap();
    assert_eq!(facts.isolation, Isolation::OwnRange);
    assert!(!facts.idmapped_binds && facts.lasting_root, "{facts:?}");
    assert!(
        facts
            .limitations
            .iter()
            .any(|text| text.contains("has a copy")),
        "{facts:?}"
    );
    let before = place.snapshot();
    runtime.create(&ContainerSpec::new("a")).unwrap();
    runtime.start("a").unwrap();
    let changed = run(
        &runtime,
        "a",
        "rm /etc/hostname && echo x >>/etc/passwd && touch /etc/new /new && \
         stat -c %u /etc /etc/new /new && test ! -e /etc/hostname",
    );
    assert_eq!(changed, "0\n0\n0\n");
    // Another process finds the same by what was kept.
    let again = place.runtime();
    assert_eq!(again.facts().unwrap(), facts);
    again.remove("a").unwrap();
    before.assert_same(place.path(), "after removal");
}

#[test]
fn copy_of_an_image_has_its_owners_and_modes() {
    let place = Place::new();
    let _lesser = Lesser::plain(&place);
    let runtime = place.runtime();
    let root = place.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    let files = [
        ("etc/shadow", 0, 42, 0o640),
        ("home", 1000, 1000, 0o700),
        ("home/tool", 1000, 50, 0o4710),
    ];
    fs::create_dir(root.join("home")).unwrap();
    for (name, user, group, mode) in files {
        let path = root.join(name);
        if !path.is_dir() {
            fs::write(&path, "x").unwrap();
        }
        chown(&path, Some(user), Some(group)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    let mut spec = ContainerSpec::new("a");
    spec.rootfs = Rootfs::Directory(root);
    runtime.create(&spec).unwrap();
    runtime.start("a").unwrap();
    let pid = runtime.inspect("a").unwrap().pid.unwrap();
    let inside = PathBuf::from(format!("/proc/{pid}/root"));
    let first = fs::metadata(&inside).unwrap().uid();
    for (name, user, group, mode) in files {
        let copy = fs::metadata(inside.join(name)).unwrap();
        let owned = (copy.uid() - first, copy.gid() - first);
        assert_eq!(
            (owned, copy.mode() & 0o7777),
            ((user, group), mode),
            "{name}"
        );
    }
    runtime.remove("a").unwrap();
}

#[test]
fn state_directory_that_can_hold_nothing_is_refused_with_what_helps() {
    let place = Place::new();
    let _lesser = Lesser::overlay(&place);
    let runtime = place.runtime();
    let before = place.snapshot();
    let error = runtime.facts().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let hint = error.hint().unwrap_or_default();
    assert!(
        hint.contains("--state-dir") && hint.contains("a volume"),
        "{error}: {hint}"
    );
    let created = runtime.create(&ContainerSpec::new("a")).unwrap_err();
    assert_eq!(created.kind(), ErrorKind::Unsupported, "{created}");
    before.assert_same(place.path(), "after the refusals");
}
