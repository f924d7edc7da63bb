//! Files of this machine, as what goes into a container. Links are not followed below the first
//! directory.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use podkit_agent::archive::{ARCHIVE_END, MAX_PATH_BYTES, Member, MemberKind, padding};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::mpsc::Sender,
};

use super::{
    CHUNK_BYTES, Counts, MAX_DEPTH,
    local::{Directory, Entry},
    local_error, shown,
};
use crate::{
    agent::Failures,
    error::{Error, ErrorKind, Result},
};

/// What the caller has named.
pub(super) enum Source {
    File { file: File, mode: u32 },
    Tree(Tree),
}

/// A directory of this machine.
pub(super) struct Tree {
    path: PathBuf,
    top: Directory,
}

/// Opens what the caller has named; it may be a link of the caller's.
pub(super) fn open(from: &Path) -> Result<Source> {
    let failed = |error| local_error("read", from, error);
    let entry = match (from.parent(), from.file_name()) {
        (Some(parent), Some(name)) => Directory::open(parent)
            .and_then(|parent| parent.entry(name, true))
            .map_err(failed)?,
        _ => Entry::Directory(Directory::open(from).map_err(failed)?),
    };
    match entry {
        Entry::Directory(top) => Ok(Source::Tree(Tree {
            path: from.to_owned(),
            top,
        })),
        Entry::File(file, mode) => Ok(Source::File { file, mode }),
        Entry::Link(_) | Entry::Other => Err(Error::unsupported(format!(
            "`{}` is neither a file nor a directory",
            shown(from)
        ))),
    }
}

/// Nobody takes any more.
struct CutOff;

/// Sends a tree as an archive; gives back what could not be read.
pub(super) fn send(tree: Tree, to: &Sender<Bytes>, counts: &Counts) -> Result<Failures> {
    let mut packer = Packer {
        out: Vec::with_capacity(CHUNK_BYTES),
        to,
        counts,
        failures: Failures::default(),
        limit: Ok(()),
    };
    // The other side says why it takes no more.
    let _ = packer.walk(tree);
    packer.limit?;
    Ok(packer.failures)
}

struct Packer<'a> {
    out: Vec<u8>,
    to: &'a Sender<Bytes>,
    counts: &'a Counts,
    failures: Failures,
    limit: Result<()>,
}

/// One directory that is being sent.
struct Level {
    directory: Directory,
    path: PathBuf,
    names: std::vec::IntoIter<std::ffi::CString>,
}

impl Packer<'_> {
    fn walk(&mut self, tree: Tree) -> std::result::Result<(), CutOff> {
        let Tree { path: from, top } = tree;
        let mut levels = Vec::new();
        self.enter(&from, top, PathBuf::new(), &mut levels)?;
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            let name = OsStr::from_bytes(name.to_bytes());
            let path = level.path.join(name);
            let entry = match level.directory.entry(name, false) {
                Ok(entry) => entry,
                // It has gone away since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    self.fail(&from, &path, error);
                    continue;
                }
            };
            match entry {
                Entry::Directory(directory)
                    if levels.len() < MAX_DEPTH && path.as_os_str().len() <= MAX_PATH_BYTES =>
                {
                    self.enter(&from, directory, path, &mut levels)?;
                }
                Entry::Directory(..) => {
                    let what = format!(
                        "`{}` is more than {MAX_DEPTH} directories deep, or its path too long",
                        shown(&from.join(path))
                    );
                    self.failures
                        .add(Error::new(ErrorKind::LimitExceeded, what));
                }
                Entry::File(file, _) => self.file(&from, &path, file)?,
                Entry::Link(target) => {
                    let member = Member {
                        target,
                        ..member(&path, MemberKind::Symlink)
                    };
                    self.member(&member)?;
                }
                Entry::Other => {
                    let path = shown(&from.join(path));
                    let what = format!("`{path}` is neither a file, a directory nor a link");
                    self.failures.add(Error::unsupported(what));
                }
            }
        }
        self.push(&ARCHIVE_END)?;
        self.flush()
    }

    fn enter(
        &mut self,
        from: &Path,
        directory: Directory,
        path: PathBuf,
        levels: &mut Vec<Level>,
    ) -> std::result::Result<(), CutOff> {
        let read = directory
            .metadata()
            .and_then(|metadata| Ok((metadata, directory.names()?)));
        let (metadata, names) = match read {
            Ok(read) => read,
            Err(error) => {
                self.fail(from, &path, error);
                return Ok(());
            }
        };
        self.member(&Member {
            mode: metadata.mode() & 0o777,
            modified_s: metadata.mtime(),
            ..member(&path, MemberKind::Directory)
        })?;
        levels.push(Level {
            directory,
            path,
            names: names.into_iter(),
        });
        Ok(())
    }

    /// Sends a file with as many bytes as it had at first.
    fn file(
        &mut self,
        from: &Path,
        path: &Path,
        mut file: File,
    ) -> std::result::Result<(), CutOff> {
        let metadata = match file.metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                self.fail(from, path, error);
                return Ok(());
            }
        };
        let size = metadata.len();
        self.member(&Member {
            mode: metadata.mode() & 0o777,
            modified_s: metadata.mtime(),
            size,
            ..member(path, MemberKind::File)
        })?;
        let mut left = size;
        let mut buffer = vec![0; CHUNK_BYTES];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let count = match file.read(buffer.get_mut(..want).unwrap_or_default()) {
                Ok(0) => {
                    let error = io::Error::other("it became shorter while it was read");
                    self.fail(from, path, error);
                    break;
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.fail(from, path, error);
                    break;
                }
            };
            self.counts.add_bytes(count);
            self.push(buffer.get(..count).unwrap_or_default())?;
            left = left.saturating_sub(count as u64);
        }
        // What has not come is zeros, so that what follows is where it should be.
        let mut zeros = left + padding(size);
        while zeros > 0 {
            let count = usize::try_from(zeros)
                .unwrap_or(usize::MAX)
                .min(CHUNK_BYTES);
            self.push(&vec![0; count])?;
            zeros -= count as u64;
        }
        Ok(())
    }

    fn member(&mut self, member: &Member) -> std::result::Result<(), CutOff> {
        if let Err(error) = self.counts.add_entry() {
            self.limit = Err(error);
            return Err(CutOff);
        }
        let mut header = Vec::new();
        member.encode(&mut header);
        self.push(&header)
    }

    fn push(&mut self, bytes: &[u8]) -> std::result::Result<(), CutOff> {
        self.out.extend_from_slice(bytes);
        if self.out.len() >= CHUNK_BYTES {
            return self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) -> std::result::Result<(), CutOff> {
        let out = std::mem::replace(&mut self.out, Vec::with_capacity(CHUNK_BYTES));
        self.to.blocking_send(out.into()).map_err(|_| CutOff)
    }

    fn fail(&mut self, from: &Path, path: &Path, error: io::Error) {
        let error = local_error("read", &from.join(path), error);
        self.failures.add(error);
    }
}

fn member(path: &Path, kind: MemberKind) -> Member {
    let path = path.as_os_str().as_bytes();
    Member {
        path: if path.is_empty() { b"." } else { path }.to_vec(),
        kind,
        mode: 0o777,
        uid: 0,
        gid: 0,
        size: 0,
        modified_s: 0,
        target: Vec::new(),
    }
}

/// Tells how much is read from a source.
pub(super) struct Counted<R, F> {
    source: R,
    tell: F,
}

impl<R, F: FnMut(usize)> Counted<R, F> {
    pub(super) const fn new(source: R, tell: F) -> Self {
        Self { source, tell }
    }
}

impl<R: AsyncRead + Unpin, F: FnMut(usize) + Unpin> AsyncRead for Counted<R, F> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.source).poll_read(context, buffer))?;
        (this.tell)(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}
