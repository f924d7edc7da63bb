//! Targets that make files, and the replay of their corpus.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// A function that takes any bytes and an empty directory, and the name of its corpus.
pub type Target = (&'static str, fn(&[u8], &Path));

/// Removes a tree, also one whose directories are closed.
pub(crate) fn remove(tree: &Path) {
    if fs::remove_dir_all(tree).is_err() {
        open(tree);
        drop(fs::remove_dir_all(tree));
    }
}

fn open(directory: &Path) {
    drop(fs::set_permissions(
        directory,
        fs::Permissions::from_mode(0o700),
    ));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open(&entry.path());
        }
    }
}

/// Gives each target all of its corpus.
#[cfg(test)]
pub(crate) fn replay(targets: &[Target]) {
    let scratch = tempfile::tempdir().unwrap();
    for (name, target) in targets {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        let mut count = 0;
        for input in fs::read_dir(corpus.join(name)).unwrap() {
            target(&fs::read(input.unwrap().path()).unwrap(), scratch.path());
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
}
