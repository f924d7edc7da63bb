//! What comes out of a container, as files of this machine. Names, links and bits come from the
//! container and are not believed.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use podkit_agent::archive::{Member, MemberKind, Step, Unpacker, parts};
use tokio::sync::mpsc::Receiver;

use super::{
    Counts, MAX_DEPTH,
    local::{self, Directory, Link},
    local_error, shown,
};
use crate::{
    agent::Failures,
    error::{Error, ErrorKind, Result},
};

/// Makes one file; the last chunk is empty, unless the bytes stopped coming.
pub(super) fn file(
    to: &Path,
    mode: u32,
    modified: SystemTime,
    mut chunks: Receiver<Bytes>,
) -> Result<()> {
    let failed = |error| local_error("write", to, error);
    let name = to.file_name().ok_or_else(|| {
        Error::invalid_input(format!("`{}` is not a name for a file", to.display()))
    })?;
    let parent = Directory::open(to.parent().unwrap_or(Path::new(""))).map_err(failed)?;
    let (file, unfinished) = parent.create(mode).map_err(failed)?;
    while let Some(bytes) = chunks.blocking_recv() {
        if bytes.is_empty() {
            local::complete(&file, mode, modified).map_err(failed)?;
            return unfinished.finish(name).map_err(failed);
        }
        local::append(&file, &bytes).map_err(failed)?;
    }
    Err(Error::new(
        ErrorKind::Unexpected,
        "the bytes of the file stopped coming",
    ))
}

/// Makes the tree `to` of the archive that comes; `mode` is for the directory itself where it is
/// missing. Gives back what could not be made.
pub(super) fn make(
    to: &Path,
    mode: u32,
    chunks: Receiver<Bytes>,
    counts: &Counts,
) -> Result<Failures> {
    let failed = |error| local_error("write", to, error);
    let (root, is_fresh) = match (to.parent(), to.file_name()) {
        (Some(parent), Some(name)) if !to.is_dir() => Directory::open(parent)
            .and_then(|parent| parent.make_directory(name, mode))
            .map(|root| (root, true))
            .map_err(failed)?,
        _ => (Directory::open(to).map_err(failed)?, false),
    };
    let mut sink = Sink {
        to,
        root: Rc::new(root),
        is_fresh,
        archive: Archive {
            unpacker: Unpacker::default(),
            chunks,
        },
        counts,
        parent: None,
        links: Vec::new(),
        directories: Vec::new(),
        failures: Failures::default(),
    };
    sink.run()?;
    Ok(sink.finish())
}

/// The archive as it comes.
struct Archive {
    unpacker: Unpacker,
    chunks: Receiver<Bytes>,
}

impl Archive {
    fn step(&mut self) -> Result<Step> {
        loop {
            match self.unpacker.step().map_err(malformed)? {
                Step::More => match self.chunks.blocking_recv() {
                    Some(bytes) => self.unpacker.push(&bytes),
                    None => return Err(malformed("it ends in the middle")),
                },
                step => return Ok(step),
            }
        }
    }

    fn skip(&mut self) -> Result<()> {
        while self.step()? != Step::MemberEnd {}
        Ok(())
    }
}

fn malformed(why: &str) -> Error {
    Error::invalid_input(format!(
        "what the container sends is no tree of files: {why}"
    ))
}

struct Sink<'a> {
    to: &'a Path,
    root: Rc<Directory>,
    /// Whether the root was missing, and looks like the container's.
    is_fresh: bool,
    archive: Archive,
    counts: &'a Counts,
    /// The directory that was written to last.
    parent: Option<(PathBuf, Rc<Directory>)>,
    links: Vec<Link>,
    directories: Vec<(PathBuf, u32, SystemTime)>,
    failures: Failures,
}

impl Sink<'_> {
    fn run(&mut self) -> Result<()> {
        loop {
            match self.archive.step()? {
                Step::Member(member) => {
                    self.counts.add_entry()?;
                    self.member(&member)?;
                }
                Step::End => return Ok(()),
                Step::More | Step::Data | Step::MemberEnd => {}
            }
        }
    }

    fn member(&mut self, member: &Member) -> Result<()> {
        let names = parts(&member.path).map_err(malformed)?;
        if names.len() > MAX_DEPTH {
            return Err(malformed("it is too deep"));
        }
        let path: PathBuf = names.iter().map(|name| OsStr::from_bytes(name)).collect();
        let modified = time(member.modified_s);
        let Some(name) = path.file_name() else {
            if self.is_fresh && member.kind == MemberKind::Directory {
                self.is_fresh = false;
                self.directories.push((path, member.mode, modified));
            }
            return self.archive.skip();
        };
        let parent = match self.parent(path.parent().unwrap_or(Path::new(""))) {
            Ok(parent) => parent,
            Err(error) => return self.pass_over(&path, error),
        };
        match member.kind {
            MemberKind::File => return self.file(member, &path, &parent, name),
            MemberKind::Directory => match parent.make_directory(name, member.mode) {
                Ok(_) => {
                    self.counts.keep(member.path.len())?;
                    self.directories.push((path.clone(), member.mode, modified));
                }
                Err(error) => return self.pass_over(&path, error),
            },
            MemberKind::Symlink => {
                self.counts.keep(member.path.len() + member.target.len())?;
                self.links.push(Link {
                    path: path.clone(),
                    target: OsStr::from_bytes(&member.target).into(),
                });
            }
            MemberKind::HardLink | MemberKind::Other => {
                let path = shown(&path);
                let what = format!("`{path}` is neither a file, a directory nor a link");
                self.failures.add(Error::unsupported(what));
            }
        }
        self.archive.skip()
    }

    fn file(
        &mut self,
        member: &Member,
        path: &Path,
        parent: &Directory,
        name: &OsStr,
    ) -> Result<()> {
        let (file, unfinished) = match parent.create(member.mode) {
            Ok(begun) => begun,
            Err(error) => return self.pass_over(path, error),
        };
        loop {
            match self.archive.step()? {
                Step::Data => {
                    let data = self.archive.unpacker.data();
                    self.counts.add_bytes(data.len());
                    if let Err(error) = local::append(&file, data) {
                        return self.pass_over(path, error);
                    }
                }
                Step::MemberEnd => break,
                Step::More | Step::Member(_) | Step::End => {}
            }
        }
        let finished = local::complete(&file, member.mode, time(member.modified_s))
            .and_then(|()| unfinished.finish(name));
        if let Err(error) = finished {
            self.fail(path, error)?;
        }
        Ok(())
    }

    /// Leaves a member out.
    fn pass_over(&mut self, path: &Path, error: std::io::Error) -> Result<()> {
        self.fail(path, error)?;
        self.archive.skip()
    }

    /// Remembers what failed; a full disk ends it all.
    fn fail(&mut self, path: &Path, error: std::io::Error) -> Result<()> {
        let error = local_error("write", &self.to.join(path), error);
        if error.kind() == ErrorKind::LimitExceeded {
            return Err(error);
        }
        self.failures.add(error);
        Ok(())
    }

    fn parent(&mut self, path: &Path) -> std::io::Result<Rc<Directory>> {
        if path.as_os_str().is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some((known, directory)) = &self.parent
            && known == path
        {
            return Ok(Rc::clone(directory));
        }
        let directory = Rc::new(local::below(&self.root, path)?);
        self.parent = Some((path.to_owned(), Rc::clone(&directory)));
        Ok(directory)
    }

    /// Makes the links, and gives directories their bits and times once all is in them.
    fn finish(mut self) -> Failures {
        for (link, error) in local::make_links(&self.root, self.links) {
            let what = format!(
                "the link `{}` to `{}` was not copied",
                shown(&link.path),
                shown(&link.target)
            );
            let error = Error::new(ErrorKind::Unsupported, what).with_source(error);
            self.failures.add(error);
        }
        // Those deeper down first: a directory may be closed by its own bits.
        for (path, mode, modified) in self.directories.iter().rev() {
            let finished = local::below(&self.root, path)
                .and_then(|directory| directory.look_like(*mode, *modified));
            if let Err(error) = finished {
                let error = local_error("finish", &self.to.join(path), error);
                self.failures.add(error);
            }
        }
        self.failures
    }
}

fn time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _, sync::atomic::Ordering};

    use podkit_agent::archive::ARCHIVE_END;

    use super::{super::MAX_KEPT_BYTES, *};

    fn member(path: &str, kind: MemberKind, target: &str) -> Member {
        Member {
            path: path.into(),
            kind,
            mode: 0o500,
            uid: 0,
            gid: 0,
            size: 0,
            modified_s: 1_000_000_000,
            target: target.into(),
        }
    }

    fn made(to: &Path, members: &[Member], counts: &Counts) -> Result<Failures> {
        let mut bytes = Vec::new();
        members.iter().for_each(|member| member.encode(&mut bytes));
        bytes.extend_from_slice(&ARCHIVE_END);
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.try_send(bytes.into()).unwrap();
        drop(sender);
        make(to, 0o755, receiver, counts)
    }

    #[test]
    fn names_without_end_are_not_kept() {
        let home = tempfile::tempdir().unwrap();
        let again = member("d", MemberKind::Directory, "");
        let link = member("l", MemberKind::Symlink, &"t".repeat(60_000));
        for (about, members, kept) in [
            ("one directory again and again", vec![again; 20], 1000),
            ("links", vec![link; 20], 100_000),
        ] {
            let counts = Counts::default();
            counts.kept.store(MAX_KEPT_BYTES - kept, Ordering::Relaxed);
            let error = made(&home.path().join("to"), &members, &counts).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{about}");
        }
    }

    #[test]
    fn names_that_drive_a_terminal_are_not_in_errors() {
        let home = tempfile::tempdir().unwrap();
        let to = home.path().join("to");
        let evil = "\x1b[2J\n\u{202e}";
        fs::create_dir_all(to.join(evil)).unwrap();
        let members = [
            member(evil, MemberKind::File, ""),
            member(
                &format!("{evil}1"),
                MemberKind::Symlink,
                &format!("../{evil}"),
            ),
            member(&format!("{evil}2"), MemberKind::Other, ""),
            member(&format!("{}/f", "x".repeat(60_000)), MemberKind::File, ""),
        ];
        let mut failures = made(&to, &members, &Counts::default()).unwrap();
        // One that is no file, as nobody encodes it.
        failures.kept.push(local_error(
            "write",
            Path::new(evil),
            std::io::ErrorKind::NotFound.into(),
        ));
        assert_eq!(failures.kept.len(), 4, "{failures:?}");
        for error in &failures.kept {
            let text = error.to_string();
            let bad = |c: char| c.is_control() || c == '\u{202e}';
            assert!(!text.contains(bad) && text.len() < 5000, "{text:?}");
        }
    }

    #[test]
    fn directory_that_was_missing_looks_like_the_containers() {
        let home = tempfile::tempdir().unwrap();
        let to = home.path().join("to");
        let top = [member(".", MemberKind::Directory, "")];
        made(&to, &top, &Counts::default()).unwrap();
        let facts = fs::metadata(&to).unwrap();
        assert_eq!(
            (facts.mode() & 0o777, facts.mtime()),
            (0o500, 1_000_000_000)
        );
        // One that was there is the caller's.
        let there = fs::metadata(home.path()).unwrap().mode();
        made(home.path(), &top, &Counts::default()).unwrap();
        assert_eq!(fs::metadata(home.path()).unwrap().mode(), there);
    }
}
