//! An archive as a tree: every name is reached from the top, without following a link, so that no
//! archive writes anywhere else.

use alloc::{ffi::CString, vec::Vec};

use podkit_agent::{
    FailureKind, Output,
    archive::{Member, MemberKind, Step, Unpacker, parts},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{
        AtFlags, CWD, FileType, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens,
        linkat, mkdirat, openat, renameat, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

use super::{
    channel::{Answers, Input, Stop, write_all},
    content::Fresh,
    error::{failure, invalid, refused},
    place::{Place, make_directories, open_directory, passing_name},
    walk::DIRECTORY,
};

/// Bits that are taken over; those for other users' rights never are.
const MODE: u32 = 0o777;

/// Bits of directories that the archive does not tell of.
const PARENT_MODE: u32 = 0o755;

/// Bytes of directories that are kept before those are finished that nothing comes for any more.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// Makes below `path` what comes.
pub(super) fn extract(
    path: &[u8],
    input: &mut Input<'_>,
    answers: &mut Answers<'_>,
) -> Result<(), Stop> {
    let is_fresh = matches!(statat(CWD, path, AtFlags::empty()), Err(Errno::NOENT));
    make_directories(path)?;
    let mut extraction = Extraction {
        top: open_directory(path)?,
        archive: Archive {
            unpacker: Unpacker::default(),
            input,
        },
        answers,
        parent: None,
        is_fresh,
        directories: Vec::new(),
        kept_bytes: 0,
    };
    extraction.run()
}

/// The archive as it comes.
struct Archive<'a, 'b> {
    unpacker: Unpacker,
    input: &'a mut Input<'b>,
}

/// What is kept of a directory until all is in it.
struct Directory {
    path: Vec<u8>,
    mode: u32,
    modified_s: i64,
}

struct Extraction<'a, 'b, 'c> {
    top: OwnedFd,
    archive: Archive<'a, 'b>,
    answers: &'a mut Answers<'c>,
    /// The directory that was written to last, and its path.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Whether the top was missing, and gets the bits and the time that the archive has for it.
    is_fresh: bool,
    directories: Vec<Directory>,
    /// Bytes of `directories`.
    kept_bytes: usize,
}

impl Archive<'_, '_> {
    /// The next step that is not waiting for more.
    fn step(&mut self) -> Result<Step, Stop> {
        let malformed = |why| failure(b"the archive", FailureKind::InvalidInput, 0, why);
        loop {
            match self.unpacker.step().map_err(malformed)? {
                Step::More => match self.input.next()? {
                    Some(bytes) => self.unpacker.push(bytes),
                    None => return Err(malformed("it ends in the middle").into()),
                },
                step => return Ok(step),
            }
        }
    }

    /// Passes over the bytes of a member.
    fn skip(&mut self) -> Result<(), Stop> {
        while self.step()? != Step::MemberEnd {}
        Ok(())
    }

    /// Passes over what follows the end.
    fn drain(&mut self) -> Result<(), Stop> {
        while self.input.next()?.is_some() {}
        Ok(())
    }
}

impl Extraction<'_, '_, '_> {
    fn run(&mut self) -> Result<(), Stop> {
        let mut made = self.members();
        // Those deeper down first: a directory may be closed by its own bits.
        while let Some(directory) = self.directories.pop() {
            if let Err(errno) = self.finish(&directory)
                && made.is_ok()
            {
                made = self.failed(&directory.path, errno);
            }
        }
        made
    }

    fn members(&mut self) -> Result<(), Stop> {
        loop {
            match self.archive.step()? {
                Step::Member(member) => {
                    let made = self.member(&member)?;
                    if let Err(errno) = made {
                        self.failed(&member.path, errno)?;
                    }
                }
                Step::End => return self.archive.drain(),
                Step::More | Step::Data | Step::MemberEnd => {}
            }
        }
    }

    /// Tells of what could not be made; what will not get better ends it all.
    fn failed(&mut self, path: &[u8], errno: Errno) -> Result<(), Stop> {
        let failure = refused(path, errno);
        if matches!(errno, Errno::IO | Errno::ROFS) || failure.kind == FailureKind::LimitExceeded {
            return Err(failure.into());
        }
        self.answers.failure(Output::Stdout, failure)
    }

    /// Tells of what could not be made, and passes over its bytes.
    fn pass_over(&mut self, path: &[u8], errno: Errno) -> Result<Result<(), Errno>, Stop> {
        self.failed(path, errno)?;
        self.archive.skip()?;
        Ok(Ok(()))
    }

    fn member(&mut self, member: &Member) -> Result<Result<(), Errno>, Stop> {
        let path = &member.path;
        let names = parts(path).map_err(|why| invalid(path, why))?;
        let Some((name, above)) = names.split_last() else {
            self.archive.skip()?;
            return match member.kind {
                MemberKind::Directory => {
                    if core::mem::take(&mut self.is_fresh) {
                        self.keep(Vec::new(), member)?;
                    }
                    Ok(Ok(()))
                }
                _ => Err(invalid(path, "it has no name").into()),
            };
        };
        let place = match self.place(above, name) {
            Ok(place) => place,
            Err(errno) => return self.pass_over(path, errno),
        };
        let made = match member.kind {
            MemberKind::File => return self.file(member, &place),
            MemberKind::Directory => match directory(&place) {
                Ok(()) => {
                    self.keep(names.join(&b'/'), member)?;
                    Ok(())
                }
                refused => refused,
            },
            MemberKind::Symlink => symlink(&member.target, &place),
            MemberKind::HardLink => {
                let target = parts(&member.target).map_err(|why| invalid(path, why))?;
                self.hard_link(&target, &place)
            }
            MemberKind::Other => {
                let why = "it is neither a file, a directory nor a link";
                self.answers.failure(
                    Output::Stdout,
                    failure(path, FailureKind::Unsupported, 0, why),
                )?;
                Ok(())
            }
        };
        self.archive.skip()?;
        Ok(made)
    }

    /// The place of a name, below directories that are made where they are missing.
    fn place(&mut self, above: &[&[u8]], name: &[u8]) -> Result<Place, Errno> {
        let path = above.join(&b'/');
        let directory = match &self.parent {
            Some((known, directory)) if *known == path => directory.try_clone(),
            _ => {
                let directory = self.open(above, true)?;
                let kept = directory.try_clone();
                self.parent = kept.ok().map(|kept| (path, kept));
                Ok(directory)
            }
        };
        Ok(Place {
            directory: directory.map_err(|_| Errno::MFILE)?,
            name: CString::new(name).map_err(|_| Errno::INVAL)?,
        })
    }

    /// Opens a directory below the top; `make` makes what is missing of it.
    fn open(&self, names: &[&[u8]], make: bool) -> Result<OwnedFd, Errno> {
        let mut at = openat(&self.top, c".", DIRECTORY, Mode::empty())?;
        for name in names {
            at = match openat(&at, *name, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) if make => {
                    match mkdirat(&at, *name, Mode::from_raw_mode(PARENT_MODE)) {
                        // Somebody else has made it meanwhile.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    openat(&at, *name, DIRECTORY, Mode::empty())?
                }
                opened => opened?,
            };
        }
        Ok(at)
    }

    /// Keeps what a directory gets when all is in it.
    fn keep(&mut self, path: Vec<u8>, member: &Member) -> Result<(), Stop> {
        if self.kept_bytes > KEPT_BYTES {
            self.settle(&path)?;
        }
        self.kept_bytes += size_of::<Directory>() + path.len();
        self.directories.push(Directory {
            path,
            mode: member.mode & MODE,
            modified_s: member.modified_s,
        });
        Ok(())
    }

    /// Finishes the directories that are not above this path: most likely all is in them.
    fn settle(&mut self, path: &[u8]) -> Result<(), Stop> {
        let mut above: Vec<Directory> = Vec::new();
        while let Some(directory) = self.directories.pop() {
            if is_above(&directory.path, path) {
                // What was said last of one counts.
                if above.iter().all(|other| other.path != directory.path) {
                    above.push(directory);
                }
            } else if let Err(errno) = self.finish(&directory) {
                self.failed(&directory.path, errno)?;
            }
        }
        above.reverse();
        self.kept_bytes = 0;
        self.directories = above;
        Ok(())
    }

    /// Gives a directory its bits and its time.
    fn finish(&mut self, directory: &Directory) -> Result<(), Errno> {
        let names = parts(&directory.path).map_err(|_| Errno::INVAL)?;
        let fd = self.open(&names, false)?;
        fchmod(&fd, Mode::from_raw_mode(directory.mode))?;
        futimens(&fd, &times(directory.modified_s))
    }

    fn file(&mut self, member: &Member, place: &Place) -> Result<Result<(), Errno>, Stop> {
        let begun = present(place).and_then(|old| Ok((old, Fresh::make(place)?)));
        let (old, mut fresh) = match begun {
            Ok(begun) => begun,
            Err(errno) => return self.pass_over(&member.path, errno),
        };
        loop {
            match self.archive.step()? {
                Step::Data => {
                    let data = self.archive.unpacker.data();
                    if let Err(errno) = write_all(fresh.file.as_fd(), data) {
                        return self.pass_over(&member.path, errno);
                    }
                }
                Step::MemberEnd => break,
                Step::More | Step::Member(_) | Step::End => {}
            }
        }
        // What is no file is replaced, and nothing taken over from it.
        let old = old.filter(|old| FileType::from_raw_mode(old.st_mode) == FileType::RegularFile);
        let mut finish = || {
            fresh.look_like(old.as_ref(), Some(member.mode & MODE))?;
            futimens(&fresh.file, &times(member.modified_s))?;
            fresh.put(&place.name)
        };
        Ok(finish())
    }

    fn hard_link(&mut self, target: &[&[u8]], place: &Place) -> Result<(), Errno> {
        let (name, above) = target.split_last().ok_or(Errno::INVAL)?;
        let from = self.open(above, false)?;
        under_passing_name(place, |passing| {
            linkat(&from, *name, &place.directory, passing, AtFlags::empty())
        })
    }
}

/// Makes a directory, or finds one.
fn directory(place: &Place) -> Result<(), Errno> {
    // The call goes on below it, whatever its own bits will be.
    let passing = Mode::from_raw_mode(0o700);
    match mkdirat(&place.directory, &place.name, passing) {
        Err(Errno::EXIST) => {
            openat(&place.directory, &place.name, DIRECTORY, Mode::empty()).map(drop)
        }
        made => made,
    }
}

/// Whether a directory is on the way to a path, or at its end.
fn is_above(directory: &[u8], path: &[u8]) -> bool {
    directory.is_empty()
        || path
            .strip_prefix(directory)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn symlink(target: &[u8], place: &Place) -> Result<(), Errno> {
    under_passing_name(place, |passing| {
        symlinkat(target, &place.directory, passing)
    })
}

/// Makes something under a name that nobody looks for, and renames it.
fn under_passing_name(
    place: &Place,
    make: impl FnOnce(&CString) -> Result<(), Errno>,
) -> Result<(), Errno> {
    present(place)?;
    let passing = passing_name()?;
    make(&passing)?;
    let directory = &place.directory;
    let renamed = renameat(directory, &passing, directory, &place.name);
    // Two names of one file are left as they are by the kernel.
    let _ = unlinkat(directory, &passing, AtFlags::empty());
    renamed
}

/// What is at a place; a directory is not replaced.
fn present(place: &Place) -> Result<Option<Stat>, Errno> {
    match statat(&place.directory, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            Err(Errno::ISDIR)
        }
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn times(modified_s: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: modified_s,
            tv_nsec: 0,
        },
    }
}
