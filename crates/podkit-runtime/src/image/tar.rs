//! A tar archive as an image: unpacked once into a directory.
//!
//! The archive is hostile. Every path is resolved by the kernel inside the new directory, which a
//! link in the archive can therefore never leave.

use std::{
    cell::Cell,
    fs::File,
    io::{BufReader, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, linkat, mkdirat,
        openat, openat2, symlinkat, unlinkat,
    },
    io::Errno,
};
use tar::{Archive, Entry, EntryType};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    store::{Store, fnv},
    sys,
};

/// Bounds of what is unpacked.
const BYTES_MAX: u64 = 64 << 30;
const ENTRIES_MAX: u64 = 4_000_000;

/// Most bytes between the content of one entry and that of the next: headers, and names that are too
/// long for these, which are kept in memory.
const BETWEEN_MAX: u64 = 16 << 20;

/// Ids that a container has.
const IDS: u64 = 65_536;

/// Unpacks an archive, unless that was done before; returns the image's name.
pub(super) fn import(store: &Store, path: &Path) -> Result<String> {
    let open = || format!("open `{}`", path.display());
    let file = File::open(path).context(open)?;
    let metadata = file.metadata().context(open)?;
    // The same file with the same content: every change of it changes this time.
    let identity = format!(
        "{} {} {} {} {} {}",
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.ctime(),
        metadata.ctime_nsec(),
        sys::uid() == 0,
    );
    let name = format!("tar-1-{:016x}", fnv(identity.as_bytes()));
    super::publish(store, &name, |root| {
        unpack(BufReader::new(file), path, root)
    })?;
    Ok(name)
}

pub(crate) fn unpack(mut reader: impl Read, path: &Path, root: &Path) -> Result<()> {
    let mut magic = [0_u8; 4];
    let mut length = 0;
    while length < magic.len() {
        match reader.read(magic.get_mut(length..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context(|| format!("read `{}`", path.display())),
        }
    }
    if magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] || &magic == b"\xfd7zX"
    {
        return Err(invalid(path, "it is compressed")
            .with_hint("unpack it first: `gunzip`, `unzstd` or `unxz`"));
    }
    let whole = magic.get(..length).unwrap_or_default().chain(reader);
    let allowance = Cell::new(BETWEEN_MAX);
    let mut archive = Archive::new(Metered {
        inner: whole,
        allowance: &allowance,
    });
    let root = openat(
        CWD,
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .context(|| format!("open `{}`", root.display()))?;
    let mut unpacking = Unpacking {
        archive: path,
        root,
        bytes: 0,
        entries: 0,
        modes: Vec::new(),
    };
    let entries = archive
        .entries()
        .context(|| format!("read `{}`", path.display()))?;
    for entry in entries {
        let entry = entry.map_err(|error| {
            invalid(path, "it is no tar archive, or a broken one").with_source(error)
        })?;
        allowance.set(u64::MAX);
        unpacking.entry(entry)?;
        allowance.set(BETWEEN_MAX);
    }
    if unpacking.entries == 0 {
        return Err(invalid(path, "it is no tar archive, or an empty one"));
    }
    unpacking.finish()
}

/// Reads no further than is allowed.
struct Metered<'a, R> {
    inner: R,
    allowance: &'a Cell<u64>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.allowance.get();
        if left == 0 && !buffer.is_empty() {
            return Err(std::io::Error::other("a name in it has no end"));
        }
        let count = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self
            .inner
            .read(buffer.get_mut(..count).unwrap_or_default())?;
        self.allowance.set(left - read as u64);
        Ok(read)
    }
}

struct Unpacking<'a> {
    archive: &'a Path,
    root: OwnedFd,
    bytes: u64,
    entries: u64,
    /// Directories whose mode may forbid to fill them.
    modes: Vec<(PathBuf, Mode)>,
}

impl Unpacking<'_> {
    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<()> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(entry.size());
        if self.entries > ENTRIES_MAX || self.bytes > BYTES_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "`{}` holds more than {ENTRIES_MAX} files or {BYTES_MAX} bytes",
                    self.archive.display()
                ),
            ));
        }
        self.make(&mut entry)?;
        // What has not been read is no part of what comes between entries.
        std::io::copy(&mut entry, &mut std::io::sink())
            .context(|| format!("read `{}`", self.archive.display()))?;
        Ok(())
    }

    fn make<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<()> {
        let raw = entry.path_bytes().into_owned();
        let path = self.inside(&raw)?;
        let kind = entry.header().entry_type();
        let Some(name) = path.file_name().map(ToOwned::to_owned) else {
            // The root itself.
            return Ok(());
        };
        let name = Path::new(&name);
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        let mode = Mode::from_raw_mode(entry.header().mode().unwrap_or(0o644) & 0o7777);
        let failed = || format!("unpack `{}`", path.display());
        match kind {
            EntryType::Directory => {
                match mkdirat(&parent, name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno).context(failed),
                }
                self.modes.push((path.clone(), mode));
                own(parent.as_fd(), name, entry).context(failed)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                clear(parent.as_fd(), name).context(failed)?;
                write(parent.as_fd(), name, entry).context(failed)?;
                own(parent.as_fd(), name, entry).context(failed)?;
                // After the owner: changing that takes set-id bits away.
                set_mode(parent.as_fd(), name, mode).context(failed)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                clear(parent.as_fd(), name).context(failed)?;
                symlinkat(target.as_ref(), &parent, name).context(failed)?;
                own(parent.as_fd(), name, entry).context(failed)
            }
            EntryType::Link => {
                let target = self.inside(&entry.link_name_bytes().unwrap_or_default())?;
                let (Some(from), above) = (target.file_name(), target.parent()) else {
                    return Err(invalid(self.archive, "it links to its root"));
                };
                let above = self.directory(above.unwrap_or(Path::new("")))?;
                clear(parent.as_fd(), name).context(failed)?;
                linkat(&above, Path::new(from), &parent, name, AtFlags::empty()).context(failed)
            }
            // A container has the devices that it may have, and makes its own pipes; the others are
            // notes of archivers.
            _ => Ok(()),
        }
    }

    /// A path below the root.
    fn inside(&self, raw: &[u8]) -> Result<PathBuf> {
        let path = Path::new(std::ffi::OsStr::from_bytes(raw));
        let mut inside = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => inside.push(name),
                Component::CurDir => {}
                Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                    return Err(invalid(
                        self.archive,
                        &format!(
                            "it names `{}`, outside of its root",
                            path.to_string_lossy().escape_debug()
                        ),
                    ));
                }
            }
        }
        if raw.contains(&0) || raw.len() > 4096 {
            return Err(invalid(self.archive, "it has a name that cannot be"));
        }
        Ok(inside)
    }

    /// Opens a directory below the root, and makes what is missing of it.
    fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &Path| {
            let path = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            };
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            openat2(&self.root, path, flags, Mode::empty(), resolve)
        };
        match (open(path), path.file_name()) {
            (Err(Errno::NOENT), Some(name)) => {
                let above = self.directory(path.parent().unwrap_or(Path::new("")))?;
                match mkdirat(&above, Path::new(name), Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => open(path),
                    Err(errno) => Err(errno),
                }
            }
            (other, _) => other,
        }
        .context(|| format!("unpack below `{}`", path.display()))
    }

    /// Gives directories their modes, innermost first.
    fn finish(self) -> Result<()> {
        for (path, mode) in self.modes.iter().rev() {
            let directory = self.directory(path)?;
            set_mode(directory.as_fd(), Path::new("."), *mode)
                .context(|| format!("unpack `{}`", path.display()))?;
        }
        Ok(())
    }
}

/// What came before under this name goes, unless it is a directory.
fn clear(parent: BorrowedFd<'_>, name: &Path) -> std::result::Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn write(parent: BorrowedFd<'_>, name: &Path, from: &mut impl Read) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
    std::io::copy(from, &mut file).map(drop)
}

fn set_mode(parent: BorrowedFd<'_>, name: &Path, mode: Mode) -> std::result::Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fchmod(openat(parent, name, flags, Mode::empty())?, mode)
}

/// Gives an entry its owner, where the caller may.
fn own<R: Read>(
    parent: BorrowedFd<'_>,
    name: &Path,
    entry: &Entry<'_, R>,
) -> std::result::Result<(), Errno> {
    if sys::uid() != 0 {
        return Ok(());
    }
    let id = |id: std::io::Result<u64>| {
        let id = id.unwrap_or(0);
        u32::try_from(if id < IDS { id } else { IDS - 2 }).unwrap_or(0)
    };
    let (uid, gid) = (id(entry.header().uid()), id(entry.header().gid()));
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    chownat(
        parent,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

fn invalid(archive: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("`{}` cannot be an image: {why}", archive.display()),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tar::{Builder, Header};

    use super::*;

    fn entry(kind: EntryType, name: &str, link: &str, bytes: &[u8]) -> (Header, Vec<u8>) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(bytes.len().try_into().unwrap());
        // The safe setters refuse what a hostile archive holds.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        (header, bytes.to_vec())
    }

    fn try_unpack(entries: &[(Header, Vec<u8>)]) -> (tempfile::TempDir, Result<()>) {
        let mut builder = Builder::new(Vec::new());
        for (header, bytes) in entries {
            builder.append(header, bytes.as_slice()).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        fs::create_dir(&root).unwrap();
        let result = unpack(bytes.as_slice(), Path::new("/a.tar"), &root);
        (place, result)
    }

    #[test]
    fn files_links_and_directories_are_unpacked() {
        let (place, result) = try_unpack(&[
            entry(EntryType::Directory, "./usr/bin/", "", b""),
            entry(EntryType::Symlink, "bin", "usr/bin", b""),
            entry(EntryType::Regular, "bin/sh", "", b"#!"),
            entry(EntryType::Link, "bin/dash", "usr/bin/sh", b""),
            entry(EntryType::Regular, "etc/deep/file", "", b"x"),
        ]);
        result.unwrap();
        let root = place.path().join("root");
        assert_eq!(fs::read(root.join("usr/bin/dash")).unwrap(), b"#!");
        assert_eq!(fs::read(root.join("etc/deep/file")).unwrap(), b"x");
    }

    #[test]
    fn what_leads_out_is_refused() {
        for hostile in [
            entry(EntryType::Regular, "/etc/passwd", "", b"x"),
            entry(EntryType::Regular, "../out", "", b"x"),
            entry(EntryType::Regular, "a/../../out", "", b"x"),
            entry(EntryType::Link, "passwd", "/etc/passwd", b""),
            entry(EntryType::Link, "out", "../out", b""),
        ] {
            let (place, result) = try_unpack(&[hostile]);
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
            assert!(!place.path().join("out").exists());
        }
    }

    #[test]
    fn links_never_lead_writes_out() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().to_str().unwrap();
        let (place, result) = try_unpack(&[
            entry(EntryType::Symlink, "out", target, b""),
            entry(EntryType::Regular, "out/file", "", b"x"),
            entry(EntryType::Symlink, "up", "../../../..", b""),
            entry(EntryType::Regular, "up/file", "", b"y"),
        ]);
        // Inside, `out` leads to a place that does not exist; making it is an error, no escape.
        drop(result);
        assert!(fs::read_dir(outside.path()).unwrap().next().is_none());
        assert!(!place.path().join("file").exists());
    }

    #[test]
    fn broken_and_compressed_archives_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let cases: [&[u8]; 4] = [b"", b"\x1f\x8b\x08\x00", &[0xff; 2000], &[b'a'; 700]];
        for bytes in cases {
            let result = unpack(bytes, Path::new("/a.tar"), place.path());
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn name_without_end_is_not_kept_in_memory() {
        struct Counted(u64);
        impl Read for Counted {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                buffer.fill(b'a');
                self.0 += buffer.len() as u64;
                Ok(buffer.len())
            }
        }
        for kind in [EntryType::GNULongName, EntryType::XHeader] {
            let place = tempfile::tempdir().unwrap();
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(32 << 30);
            header.set_cksum();
            let mut endless = Counted(0);
            let result = unpack(
                header.as_bytes().chain(&mut endless),
                Path::new("/a.tar"),
                place.path(),
            );
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
            assert!(endless.0 <= 2 * BETWEEN_MAX, "{} bytes", endless.0);
        }
    }

    #[test]
    fn entry_that_is_left_out_may_be_long() {
        let long = vec![7; 20 << 20];
        let (place, result) = try_unpack(&[
            entry(EntryType::Fifo, "pipe", "", &long),
            entry(EntryType::Regular, "file", "", b"x"),
        ]);
        result.unwrap();
        assert!(place.path().join("root/file").exists());
    }

    #[test]
    fn devices_are_left_out() {
        let (place, result) = try_unpack(&[
            entry(EntryType::Char, "dev/mem", "", b""),
            entry(EntryType::Fifo, "dev/pipe", "", b""),
        ]);
        result.unwrap();
        assert!(!place.path().join("root/dev/mem").exists());
    }
}
