//! Files of a container, as client and agent speak of them.

use alloc::vec::Vec;

use super::wire::option_u32;
use crate::codec::{DecodeError, Decoder, Encoder};

/// A file operation, resolved inside the container under `user`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileCall {
    /// Sends the file's bytes as `Output(Stdout)`, then `Done`.
    Read {
        /// First byte.
        offset: u64,
        /// Most bytes; all without.
        limit: Option<u64>,
    },
    /// Replaces the file at once (a reader sees the old bytes or the new ones) with what follows
    /// as `Stdin` frames up to `StdinEnd`, then `Done`. A call cut off before its `StdinEnd`
    /// changes nothing.
    Write {
        /// Permission bits of a file that is made; one that exists keeps its own without.
        mode: Option<u32>,
        /// Whether missing parent directories are made.
        parents: bool,
    },
    /// Appends what follows as `Stdin` frames, making the file if it is missing, then `Done`.
    Append {
        /// Permission bits of a file that is made.
        mode: Option<u32>,
        /// Whether missing parent directories are made.
        parents: bool,
    },
    /// Sends one `Entry` for each entry of the directory, in no order, then `Done`.
    List,
    /// Sends one `Entry` (with an empty name), then `Done`.
    Stat {
        /// Whether a link at the end of the path is followed.
        follow: bool,
    },
    /// Makes a directory.
    MakeDir {
        /// Permission bits; 0o755 without.
        mode: Option<u32>,
        /// Whether missing parents are made and an existing directory is fine.
        parents: bool,
    },
    /// Renames `path`; an existing file at the target is replaced.
    Rename {
        /// Target path.
        to: Vec<u8>,
    },
    /// Removes a file, a link or a directory.
    Remove {
        /// Whether a directory is removed with all that is in it. Links are not followed.
        recursive: bool,
    },
    /// Sends a file, or a directory with all below it, as an [archive](crate::archive) in
    /// `Output(Stdout)`, then `Done`. What could not be read comes as frames of `Failed` in
    /// `Output(Stderr)`.
    Archive,
    /// Makes in a directory, which is made if it is missing, what comes as an
    /// [archive](crate::archive) in `Stdin` frames up to `StdinEnd`, then `Done`. What could not be
    /// made comes as frames of `Failed` in `Output(Stdout)`.
    Extract,
    /// Sends frames of [`FileChange`] in `Output(Stdout)` as they happen: one of
    /// [`Watching`](FileChangeKind::Watching) first, once nothing is missed any more.
    Watch {
        /// Whether what is below is watched as well.
        recursive: bool,
    },
    /// Sends one frame of [`FileUsage`] in `Output(Stdout)`, then `Done`.
    Usage,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChangeKind {
    /// Nothing yet; from now on nothing is missed.
    Watching,
    /// It is new.
    Created,
    /// Its bytes changed.
    Modified,
    /// Its permissions, owner or times changed.
    Attributes,
    /// It was removed.
    Removed,
    /// It went away by being renamed.
    MovedFrom,
    /// It came by being renamed.
    MovedTo,
    /// Changes were missed; the path has no meaning.
    Missed,
}

/// One change below a directory that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// What happened.
    pub kind: FileChangeKind,
    /// Whether it happened to a directory.
    pub directory: bool,
    /// Where, from the directory that is watched; empty for that one.
    pub path: Vec<u8>,
}

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileUsage {
    /// Bytes on the disk.
    pub disk_bytes: u64,
    /// Bytes of all files.
    pub size_bytes: u64,
    /// What is no directory.
    pub files: u64,
    /// Directories, with the first.
    pub directories: u64,
    /// Directories that could not be read.
    pub unread: u64,
}

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Device, FIFO or socket.
    Other,
}

/// Facts about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Kind.
    pub kind: FileKind,
    /// Permission bits, with set-id and sticky: 0o7777.
    pub mode: u32,
    /// Owner as seen inside.
    pub uid: u32,
    /// Group as seen inside.
    pub gid: u32,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Nanoseconds since 1970 of the last change.
    pub modified_ns: i64,
    /// Target, for a link.
    pub link_target: Vec<u8>,
}

impl FileCall {
    pub(super) fn encode(&self, frame: &mut Encoder<'_>) {
        match self {
            Self::Read { offset, limit } => frame.u8(1).u64(*offset).option_u64(*limit),
            Self::Write { mode, parents } => {
                frame.u8(2).option_u64(mode.map(u64::from)).bool(*parents)
            }
            Self::Append { mode, parents } => {
                frame.u8(3).option_u64(mode.map(u64::from)).bool(*parents)
            }
            Self::List => frame.u8(4),
            Self::Stat { follow } => frame.u8(5).bool(*follow),
            Self::MakeDir { mode, parents } => {
                frame.u8(6).option_u64(mode.map(u64::from)).bool(*parents)
            }
            Self::Rename { to } => frame.u8(7).bytes(to),
            Self::Remove { recursive } => frame.u8(8).bool(*recursive),
            Self::Archive => frame.u8(9),
            Self::Extract => frame.u8(10),
            Self::Watch { recursive } => frame.u8(11).bool(*recursive),
            Self::Usage => frame.u8(12),
        };
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Read {
                offset: from.u64()?,
                limit: from.option_u64()?,
            },
            2 => Self::Write {
                mode: option_u32(from.option_u64()?)?,
                parents: from.bool()?,
            },
            3 => Self::Append {
                mode: option_u32(from.option_u64()?)?,
                parents: from.bool()?,
            },
            4 => Self::List,
            5 => Self::Stat {
                follow: from.bool()?,
            },
            6 => Self::MakeDir {
                mode: option_u32(from.option_u64()?)?,
                parents: from.bool()?,
            },
            7 => Self::Rename {
                to: from.bytes()?.to_vec(),
            },
            8 => Self::Remove {
                recursive: from.bool()?,
            },
            9 => Self::Archive,
            10 => Self::Extract,
            11 => Self::Watch {
                recursive: from.bool()?,
            },
            12 => Self::Usage,
            tag => return Err(DecodeError::Unknown(tag)),
        })
    }
}

impl FileChange {
    /// Appends this change to `out` as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut frame = Encoder::frame(out, self.kind.tag(), 0);
        frame.bool(self.directory).rest(&self.path);
        frame.end();
    }

    /// Reads a frame's payload.
    ///
    /// # Errors
    /// When it is none of a change.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(payload);
        Ok(Self {
            kind: FileChangeKind::from_tag(kind)?,
            directory: from.bool()?,
            path: from.rest().to_vec(),
        })
    }
}

impl FileUsage {
    /// Appends this to `out` as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut frame = Encoder::frame(out, 1, 0);
        frame.u64(self.disk_bytes).u64(self.size_bytes);
        frame.u64(self.files).u64(self.directories).u64(self.unread);
        frame.end();
    }

    /// Reads a frame's payload.
    ///
    /// # Errors
    /// When it is too short.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(payload);
        Ok(Self {
            disk_bytes: from.u64()?,
            size_bytes: from.u64()?,
            files: from.u64()?,
            directories: from.u64()?,
            unread: from.u64()?,
        })
    }
}

impl FileStat {
    pub(super) fn encode(&self, frame: &mut Encoder<'_>) {
        frame
            .u8(self.kind.tag())
            .u32(self.mode)
            .u32(self.uid)
            .u32(self.gid);
        frame
            .u64(self.size_bytes)
            .i64(self.modified_ns)
            .bytes(&self.link_target);
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: FileKind::from_tag(from.u8()?)?,
            mode: from.u32()?,
            uid: from.u32()?,
            gid: from.u32()?,
            size_bytes: from.u64()?,
            modified_ns: from.i64()?,
            link_target: from.bytes()?.to_vec(),
        })
    }
}
