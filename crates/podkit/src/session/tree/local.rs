//! The files of this machine in a transfer: everything below the place that the caller named is reached by
//! descriptors and without following links, because a container may have made them.

use std::{
    ffi::{CString, OsStr},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod,
        futimens, linkat, mkdirat, openat, readlinkat, renameat, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

/// Bytes that a file system takes at once.
const HOLE_BYTES: u16 = 4096;

/// A local directory.
#[derive(Debug)]
pub(super) struct Directory(OwnedFd);

/// What is at a name of a directory.
#[derive(Debug)]
pub(super) enum Entry {
    /// A regular file, open for reading, with its permission bits.
    File(std::fs::File, u32),
    /// A directory.
    Directory(Directory),
    /// A link, with what it says.
    Link(Vec<u8>),
    /// A device, FIFO or socket.
    Other,
}

/// What is being made, and has no name yet that anybody looks for. It goes away again unless it is
/// finished; without a name it does so even if this program is killed.
#[derive(Debug)]
pub(super) struct Unfinished<'d> {
    directory: &'d Directory,
    passing: Passing,
}

/// Where something is before it is finished.
#[derive(Debug)]
enum Passing {
    /// Nowhere: what is open is all there is of it.
    Nameless(OwnedFd),
    /// Under a name that is taken away.
    Named(String),
    /// Nothing is to be taken away any more.
    Settled,
}

impl Directory {
    /// Opens a directory that the caller has named; links in its path are the caller's.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        Ok(Self(openat(
            CWD,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?))
    }

    /// Facts about it.
    pub(super) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        std::fs::File::from(self.0.try_clone()?).metadata()
    }

    /// Gives it permission bits and a time.
    pub(super) fn look_like(&self, mode: u32, modified: SystemTime) -> io::Result<()> {
        look_like(&self.0, mode, modified)
    }

    /// Names of what is in it, sorted, but `.` and `..`.
    pub(super) fn names(&self) -> io::Result<Vec<CString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Opens what is at a name, as it is in one instant. A link is not followed unless that is said.
    pub(super) fn entry(&self, name: &OsStr, follow: bool) -> io::Result<Entry> {
        if !follow {
            // A FIFO or a device is not opened: others would see it.
            let stat = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if !matches!(
                kind,
                FileType::RegularFile | FileType::Directory | FileType::Symlink
            ) {
                return Ok(Entry::Other);
            }
        }
        // It may have become another since. Non-blocking, so that a FIFO holds nothing up.
        let mut flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        let fd = match openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::LOOP) if !follow => {
                return Ok(Entry::Link(
                    readlinkat(&self.0, name, Vec::new())?.into_bytes(),
                ));
            }
            // A socket, or a device without a driver.
            Err(Errno::NXIO | Errno::NODEV) => return Ok(Entry::Other),
            Err(errno) => return Err(errno.into()),
        };
        let stat = rustix::fs::fstat(&fd)?;
        let mode = stat.st_mode & 0o777;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Entry::File(fd.into(), mode),
            FileType::Directory => Entry::Directory(Self(fd)),
            _ => Entry::Other,
        })
    }

    /// Makes a directory, or opens the one that is there. The owner may always use it, so that the
    /// copy can go on; set-id and sticky bits are dropped.
    pub(super) fn make_directory(&self, name: &OsStr, mode: u32) -> io::Result<Self> {
        match mkdirat(&self.0, name, Mode::from_raw_mode(mode & 0o777 | 0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Begins a file; it takes its name when it is whole. Set-id and sticky bits are dropped.
    pub(super) fn create(&self, mode: u32) -> io::Result<(std::fs::File, Unfinished<'_>)> {
        let mode = Mode::from_raw_mode(mode & 0o777);
        let unfinished = |passing| Unfinished {
            directory: self,
            passing,
        };
        if let Some(fd) = nameless(&self.0, mode) {
            let passing = Passing::Nameless(fd.try_clone()?);
            return Ok((fd.into(), unfinished(passing)));
        }
        let temporary = temporary_name();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.0, &temporary, flags, mode)?;
        Ok((fd.into(), unfinished(Passing::Named(temporary))))
    }

    /// Makes a link; the caller has checked where it leads.
    fn link(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        let temporary = temporary_name();
        symlinkat(target, &self.0, &temporary)?;
        Unfinished {
            directory: self,
            passing: Passing::Named(temporary),
        }
        .finish(name)
    }
}

impl Unfinished<'_> {
    /// Gives the file its name, in place of a file or link of that name.
    pub(super) fn finish(mut self, name: &OsStr) -> io::Result<()> {
        let directory = &self.directory.0;
        let replaces = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile | FileType::Symlink => true,
                FileType::Directory => return Err(Errno::ISDIR.into()),
                // Replacing `/dev/null` by a file would be nobody's wish.
                _ => {
                    return Err(io::Error::other(
                        "it exists and is neither a file nor a link",
                    ));
                }
            },
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(errno.into()),
        };
        if let Passing::Nameless(fd) = &self.passing {
            let own = own_path(fd);
            let named = |name: &OsStr| linkat(CWD, &own, directory, name, AtFlags::SYMLINK_FOLLOW);
            match named(name) {
                Ok(()) => {
                    self.passing = Passing::Settled;
                    return Ok(());
                }
                Err(Errno::EXIST) if replaces => {}
                Err(errno) => return Err(errno.into()),
            }
            let temporary = temporary_name();
            named(OsStr::new(&temporary))?;
            self.passing = Passing::Named(temporary);
        }
        if let Passing::Named(temporary) = &self.passing {
            renameat(directory, temporary, directory, name)?;
        }
        self.passing = Passing::Settled;
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Passing::Named(temporary) = &self.passing {
            // Nothing more can be done about it.
            unlinkat(&self.directory.0, temporary, AtFlags::empty()).unwrap_or_default();
        }
    }
}

/// Writes bytes to the end of a file whose length is set when it is whole; blocks of zeros take nothing
/// on the disk, so that a file with holes does not fill it.
pub(super) fn append(mut file: &std::fs::File, bytes: &[u8]) -> io::Result<()> {
    let hole = usize::from(HOLE_BYTES);
    for block in bytes.chunks(hole) {
        if block.len() == hole && block.iter().all(|byte| *byte == 0) {
            io::Seek::seek(&mut file, io::SeekFrom::Current(HOLE_BYTES.into()))?;
        } else {
            io::Write::write_all(&mut file, block)?;
        }
    }
    Ok(())
}

/// Gives a file the length that has been written, and its permission bits and time.
pub(super) fn complete(
    mut file: &std::fs::File,
    mode: u32,
    modified: SystemTime,
) -> io::Result<()> {
    let length = io::Seek::stream_position(&mut file)?;
    file.set_len(length)?;
    look_like(file, mode, modified)
}

/// Gives a file permission bits and a time; set-id and sticky bits are dropped.
fn look_like(file: impl AsFd, mode: u32, modified: SystemTime) -> io::Result<()> {
    fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
    let (seconds, nanoseconds) = match modified.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()), since.subsec_nanos()),
        Err(error) => (
            i64::try_from(error.duration().as_secs()).map(|before| -before),
            0,
        ),
    };
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds.unwrap_or_default(),
            tv_nsec: nanoseconds.into(),
        },
    };
    Ok(futimens(&file, &times)?)
}

/// A name that nobody else has: another process may have this one's number, in a container of its own
/// or since this one was killed.
/// A file without a name, where the system has such files and can name them later.
#[cfg(target_os = "linux")]
fn nameless(directory: &OwnedFd, mode: Mode) -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let fd = openat(directory, ".", flags, mode).ok()?;
    let (own, seen) = (
        rustix::fs::fstat(&fd).ok()?,
        statat(CWD, own_path(&fd), AtFlags::empty()).ok()?,
    );
    ((own.st_dev, own.st_ino) == (seen.st_dev, seen.st_ino)).then_some(fd)
}

#[cfg(not(target_os = "linux"))]
fn nameless(_: &OwnedFd, _: Mode) -> Option<OwnedFd> {
    None
}

fn own_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn temporary_name() -> String {
    let random = RandomState::new().build_hasher().finish();
    format!(".podkit-{random:016x}.part")
}

/// A link that is to be made below the root of a copy.
#[derive(Debug)]
pub(super) struct Link {
    /// Where, from the root.
    pub(super) path: PathBuf,
    /// What it says.
    pub(super) target: PathBuf,
}

/// Makes the links of a finished tree that stay inside it, and gives the others back.
///
/// A link stays inside whatever else is there, now or later: its target goes up first, at most to the
/// root, and from there only down. Of one that goes up behind a name, the name may become another
/// link, in this copy or the next.
pub(super) fn make_links(root: &Directory, links: Vec<Link>) -> Vec<(Link, io::Error)> {
    let mut failed = Vec::new();
    for link in links {
        let result = if stays_inside(&link) {
            place(root, &link)
        } else {
            Err(io::Error::other("it may lead out of what is copied"))
        };
        if let Err(error) = result {
            failed.push((link, error));
        }
    }
    failed
}

fn place(root: &Directory, link: &Link) -> io::Result<()> {
    let name = link.path.file_name().ok_or(Errno::INVAL)?;
    let parent = link.path.parent().unwrap_or(Path::new(""));
    below(root, parent)?.link(name, link.target.as_os_str())
}

pub(super) fn stays_inside(link: &Link) -> bool {
    let above = link.path.components().count().saturating_sub(1);
    let mut parts = link.target.components().peekable();
    let mut up = 0;
    while parts
        .next_if(|part| matches!(part, Component::ParentDir | Component::CurDir))
        .is_some_and(|part| {
            up += usize::from(part == Component::ParentDir);
            true
        })
    {}
    let down = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    up <= above && !link.target.as_os_str().is_empty() && parts.all(down)
}

/// Opens a directory of the copy again, without following links.
#[cfg(target_os = "linux")]
pub(super) fn below(root: &Directory, path: &Path) -> io::Result<Directory> {
    use rustix::fs::{ResolveFlags, openat2};
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    Ok(Directory(openat2(
        &root.0,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS,
    )?))
}

/// Opens a directory of the copy again, a name at a time; no link is followed, and `..` is refused.
#[cfg(not(target_os = "linux"))]
pub(super) fn below(root: &Directory, path: &Path) -> io::Result<Directory> {
    let mut at = Directory(root.0.try_clone()?);
    for part in path.components() {
        let Component::Normal(name) = part else {
            return Err(Errno::XDEV.into());
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = Directory(openat(&at.0, name, flags, Mode::empty())?);
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn links_that_lead_out_are_not_made() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("tree");
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::write(root.join("sub/file"), "x").unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        let link = |path: &str, target: &str| Link {
            path: path.into(),
            target: target.into(),
        };
        let links = vec![
            link("sub/deep/up", "../file"),
            link("chain", "sub/deep/up"),
            link("dangling", "later"),
            link("here", "."),
            link("sneaky", "here/../secret"),
            link("out", "../secret"),
            link("absolute", "/etc/passwd"),
            link("nowhere", "missing/../../secret"),
        ];
        let failed = make_links(&Directory::open(&root).unwrap(), links);
        let mut failed: Vec<_> = failed
            .iter()
            .map(|(link, _)| link.path.to_str().unwrap())
            .collect();
        failed.sort_unstable();
        assert_eq!(failed, ["absolute", "nowhere", "out", "sneaky"]);
        assert_eq!(fs::read(root.join("chain")).unwrap(), b"x");
        assert!(fs::symlink_metadata(root.join("sneaky")).is_err());
    }

    #[test]
    fn links_that_are_replaced_lead_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("a/b/tree");
        fs::create_dir_all(root.join("d/d/d/d")).unwrap();
        fs::write(root.join("d/secret"), "x").unwrap();
        fs::write(outside.path().join("a/secret"), "s").unwrap();
        let directory = Directory::open(&root).unwrap();
        let link = |path: &str, target: &str| Link {
            path: path.into(),
            target: target.into(),
        };
        // The second leads to a file of the tree, until the first says something else.
        let links = vec![
            link("first", "d/d/d"),
            link("second", "first/../../secret"),
            link("first", "."),
            link("d/d/up", "../../d/secret"),
        ];
        let failed = make_links(&directory, links);
        make_links(&directory, vec![link("first", ".")]);
        assert!(fs::read(root.join("second")).is_err(), "it leads out");
        let failed: Vec<_> = failed.iter().map(|(link, _)| &link.path).collect();
        assert_eq!(failed, [Path::new("second")]);
        assert_eq!(fs::read(root.join("d/d/up")).unwrap(), b"x");
    }

    #[test]
    fn file_that_is_not_finished_has_no_name() {
        let home = tempfile::tempdir_in("/var/tmp").unwrap();
        let directory = Directory::open(home.path()).unwrap();
        let (_file, unfinished) = directory.create(0o644).unwrap();
        // What a program leaves that is killed now.
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        unfinished.finish(OsStr::new("name")).unwrap();
        let (_file, unfinished) = directory.create(0o644).unwrap();
        unfinished.finish(OsStr::new("name")).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn file_replaces_a_link_and_never_writes_through_it() {
        let home = tempfile::tempdir().unwrap();
        let victim = home.path().join("victim");
        fs::write(&victim, "old").unwrap();
        std::os::unix::fs::symlink(&victim, home.path().join("name")).unwrap();
        let directory = Directory::open(home.path()).unwrap();
        let (mut file, unfinished) = directory.create(0o6755).unwrap();
        io::Write::write_all(&mut file, b"new").unwrap();
        unfinished.finish(OsStr::new("name")).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"old");
        assert_eq!(fs::read(home.path().join("name")).unwrap(), b"new");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(home.path().join("name"))
                .unwrap()
                .permissions(),
        );
        assert_eq!(mode & 0o7000, 0);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
    }

    #[test]
    fn file_does_not_replace_a_directory_or_a_fifo() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("dir")).unwrap();
        let directory = Directory::open(home.path()).unwrap();
        let (_, unfinished) = directory.create(0o644).unwrap();
        assert!(unfinished.finish(OsStr::new("dir")).is_err());
        assert_eq!(
            fs::read_dir(home.path()).unwrap().count(),
            1,
            "the unfinished file is gone"
        );
    }

    #[test]
    fn file_that_was_left_by_a_process_of_the_same_number_is_in_nobodys_way() {
        let home = tempfile::tempdir().unwrap();
        for number in 0..64 {
            let left = format!(".podkit-{}-{number}.part", std::process::id());
            fs::write(home.path().join(left), "half").unwrap();
        }
        let directory = Directory::open(home.path()).unwrap();
        let (_, unfinished) = directory.create(0o644).unwrap();
        unfinished.finish(OsStr::new("name")).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 65);
    }

    #[test]
    fn fifo_is_not_opened_by_a_look() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("fifo");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let opening = std::thread::spawn(move || fs::File::options().write(true).open(path));
        let directory = Directory::open(home.path()).unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(200) {
            let entry = directory.entry(OsStr::new("fifo"), false).unwrap();
            assert!(matches!(entry, Entry::Other));
            assert!(!opening.is_finished(), "whoever writes was let in");
        }
        drop(directory.entry(OsStr::new("fifo"), true).unwrap());
    }

    #[test]
    fn make_directory_does_not_follow_a_link() {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/tmp", home.path().join("name")).unwrap();
        let directory = Directory::open(home.path()).unwrap();
        assert!(directory.make_directory(OsStr::new("name"), 0o755).is_err());
    }
}
