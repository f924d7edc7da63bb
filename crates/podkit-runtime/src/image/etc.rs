//! The `/etc` of the `host` image: written for containers, with copies of what programs below
//! `/usr` link to, and nothing that only some users of the host may read.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::layer::{directories, file, link};
use crate::error::{Context, Result};

/// Changes of these lead to a new layer. Names of `/etc`.
pub(super) const WATCHED: [&str; 9] = [
    "alternatives",
    "ssl/certs",
    "ssl/certs/ca-certificates.crt",
    "pki",
    "ld.so.cache",
    "ld.so.conf.d",
    "localtime",
    "java",
    "perl",
];

/// What is copied when it is there. Names of `/etc`.
const COPIED: [&str; 26] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "fonts",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "os-release",
    "debian_version",
    "perl",
    "pki/ca-trust",
    "pki/tls",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
];

/// Languages keep versioned directories.
const COPIED_PREFIXES: [&str; 4] = ["python", "java", "ruby", "php"];

/// Bounds of what is copied: this is configuration, not data.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;
const ENTRIES_MAX: usize = 20_000;

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";

const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
tty:x:5:
disk:x:6:
mail:x:8:
www-data:x:33:
staff:x:50:
users:x:100:
nogroup:x:65534:
";

const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n\
networks: files\nprotocols: files\nservices: files\n";

/// Fills an empty `/etc`.
pub(super) fn fill(etc: &Path) -> Result<()> {
    for (name, text) in [
        ("passwd", PASSWD),
        ("group", GROUP),
        ("nsswitch.conf", NSSWITCH),
        ("shells", "/bin/sh\n/bin/bash\n"),
        (
            "profile",
            "PATH=${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}\nexport PATH\n",
        ),
    ] {
        file(&etc.join(name), text.as_bytes(), 0o644)?;
    }
    let mut left = ENTRIES_MAX;
    for name in copied_names() {
        let source = Path::new("/etc").join(&name);
        if fs::symlink_metadata(&source).is_err() {
            continue;
        }
        let target = etc.join(&name);
        if let Some(parent) = target.parent() {
            directories(parent)?;
        }
        copy(&source, &target, &mut left)?;
    }
    link(&etc.join("mtab"), Path::new("/proc/self/mounts"))
}

fn copied_names() -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = COPIED.iter().map(PathBuf::from).collect();
    for entry in fs::read_dir("/etc").into_iter().flatten().flatten() {
        let name = PathBuf::from(entry.file_name());
        let text = name.to_string_lossy();
        if COPIED_PREFIXES
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            names.push(name);
        }
    }
    names
}

/// Copies links as they are, and directories and files that all may read.
fn copy(source: &Path, target: &Path, left: &mut usize) -> Result<()> {
    *left = left.saturating_sub(1);
    // What vanishes meanwhile was being changed, and the next layer has it.
    let Ok(metadata) = fs::symlink_metadata(source) else {
        return Ok(());
    };
    if *left == 0 {
        return Ok(());
    }
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return match fs::read_link(source) {
            Ok(to) => link(target, &to),
            Err(_) => Ok(()),
        };
    }
    if kind.is_dir() && metadata.mode() & 0o005 == 0o005 {
        super::layer::directory(target, 0o755)?;
        for entry in fs::read_dir(source).into_iter().flatten().flatten() {
            copy(&entry.path(), &target.join(entry.file_name()), left)?;
        }
        return Ok(());
    }
    if kind.is_file() && metadata.mode() & 0o004 != 0 && metadata.len() <= FILE_MAX_BYTES {
        let bytes = fs::read(source).context(|| format!("read `{}`", source.display()))?;
        return file(target, &bytes, 0o644 | metadata.mode() & 0o111);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_has_accounts_and_no_secrets() {
        let place = tempfile::tempdir().unwrap();
        fill(place.path()).unwrap();
        assert!(place.path().join("passwd").is_file());
        for secret in ["shadow", "gshadow", "ssl/private", "sudoers", "ssh"] {
            assert!(!place.path().join(secret).exists(), "{secret}");
        }
    }
}
