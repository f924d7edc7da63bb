//! The files of a simulated container: directories and regular files, nothing else.

use std::{collections::BTreeMap, time::SystemTime};

use bytes::Bytes;
use podkit_agent::{FailureKind, FileKind, FileStat};

use super::place::{Place, Result, place};
use crate::backend::ContainerSpec;

/// Directories that every container has; they can be written below a read-only root.
const DIRECTORIES: &[&[u8]] = &[b"/root", b"/tmp", b"/workspace"];

/// Whose a new file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// All files of one container.
#[derive(Debug)]
pub(super) struct Tree {
    root: Node,
    /// Where a container with a read-only root may write; everywhere without.
    writable: Option<Vec<Vec<Vec<u8>>>>,
}

#[derive(Debug)]
struct Node {
    contents: Contents,
    mode: u32,
    user: User,
    modified: SystemTime,
}

#[derive(Debug)]
enum Contents {
    File(Bytes),
    Directory(BTreeMap<Vec<u8>, Node>),
}

impl Node {
    fn directory(mode: u32, user: User) -> Self {
        Self::new(Contents::Directory(BTreeMap::new()), mode, user)
    }

    fn new(contents: Contents, mode: u32, user: User) -> Self {
        let modified = SystemTime::now();
        Self {
            contents,
            mode,
            user,
            modified,
        }
    }

    fn stat(&self) -> FileStat {
        let (kind, size) = match &self.contents {
            Contents::File(bytes) => (FileKind::File, bytes.len()),
            Contents::Directory(_) => (FileKind::Directory, 0),
        };
        let since = self
            .modified
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        FileStat {
            kind,
            mode: self.mode,
            uid: self.user.uid,
            gid: self.user.gid,
            size_bytes: size as u64,
            modified_ns: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            link_target: Vec::new(),
        }
    }
}

impl Tree {
    /// The files of a container that was just made.
    pub(super) fn new(spec: &ContainerSpec) -> Self {
        let root = User::default();
        let mut tree = Self {
            root: Node::directory(0o755, root),
            writable: None,
        };
        let mut open = Vec::new();
        let targets = spec
            .mounts
            .iter()
            .map(|mount| mount.target.as_os_str().as_encoded_bytes());
        for path in DIRECTORIES.iter().copied().chain(targets) {
            // Checked when the spec was resolved; what is no path has no directory.
            if let Ok(place) = place(b"/", path)
                && tree
                    .directory(&place, &place.parts, Some((0o755, root)))
                    .is_ok()
            {
                open.push(place.parts);
            }
        }
        if let Ok(Some(node)) = place(b"/", b"/tmp").map(|place| tree.node_mut(&place)) {
            node.mode = 0o1777;
        }
        tree.writable = spec.read_only_root.then_some(open);
        tree
    }

    fn node(&self, place: &Place) -> Result<&Node> {
        let mut node = &self.root;
        for name in &place.parts {
            let Contents::Directory(entries) = &node.contents else {
                return Err(place.not_a_directory());
            };
            node = entries.get(name).ok_or_else(|| place.missing())?;
        }
        Ok(node)
    }

    fn node_mut(&mut self, place: &Place) -> Option<&mut Node> {
        let mut node = &mut self.root;
        for name in &place.parts {
            let Contents::Directory(entries) = &mut node.contents else {
                return None;
            };
            node = entries.get_mut(name)?;
        }
        Some(node)
    }

    /// The entries of the directory `parts`; what is missing is made with `make`.
    fn directory(
        &mut self,
        place: &Place,
        parts: &[Vec<u8>],
        make: Option<(u32, User)>,
    ) -> Result<&mut BTreeMap<Vec<u8>, Node>> {
        let mut node = &mut self.root;
        for name in parts {
            let Contents::Directory(entries) = &mut node.contents else {
                return Err(place.not_a_directory());
            };
            node = match (entries.entry(name.clone()), make) {
                (std::collections::btree_map::Entry::Occupied(entry), _) => entry.into_mut(),
                (std::collections::btree_map::Entry::Vacant(entry), Some((mode, user))) => {
                    entry.insert(Node::directory(mode, user))
                }
                _ => return Err(place.missing()),
            };
        }
        match &mut node.contents {
            Contents::Directory(entries) => Ok(entries),
            Contents::File(_) => Err(place.not_a_directory()),
        }
    }

    fn check_writable(&self, place: &Place) -> Result<()> {
        let open = |open: &Vec<Vec<u8>>| place.parts.starts_with(open) && place.parts != *open;
        match &self.writable {
            Some(writable) if !writable.iter().any(open) => Err(place.fail(
                FailureKind::PermissionDenied,
                30,
                "the file system is read-only",
            )),
            _ => Ok(()),
        }
    }

    /// Whether a command can begin in this directory.
    ///
    /// # Errors
    /// `InvalidInput`, naming it.
    pub(super) fn check_cwd(&self, place: &Place) -> Result<()> {
        let why = match self.node(place).map(|node| &node.contents) {
            Ok(Contents::Directory(_)) => return Ok(()),
            Ok(Contents::File(_)) => "the working directory is not a directory",
            Err(_) => "the working directory does not exist",
        };
        Err(place.fail(FailureKind::InvalidInput, 0, why))
    }

    /// The bytes of a file as they are now.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput` for a directory.
    pub(super) fn read(&self, place: &Place) -> Result<Bytes> {
        match &self.node(place)?.contents {
            Contents::File(bytes) => Ok(bytes.clone()),
            Contents::Directory(_) => Err(place.is_a_directory()),
        }
    }

    /// Checks that a file can be written here, and makes its parents.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `InvalidInput`.
    pub(super) fn prepare(&mut self, place: &Place, parents: bool, user: User) -> Result<()> {
        self.check_writable(place)?;
        let (name, above) = place.split().map_err(|_| place.is_a_directory())?;
        let make = parents.then_some((0o755, user));
        let entry = self.directory(place, above, make)?.get(name);
        match entry.map(|node| &node.contents) {
            Some(Contents::Directory(_)) => Err(place.is_a_directory()),
            Some(Contents::File(_)) | None => Ok(()),
        }
    }

    /// Replaces a file, or appends to it, in one step.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub(super) fn write(
        &mut self,
        place: &Place,
        bytes: &[u8],
        append: bool,
        mode: Option<u32>,
        user: User,
    ) -> Result<()> {
        self.prepare(place, false, user)?;
        let (name, above) = place.split()?;
        let entries = self.directory(place, above, None)?;
        let new = || {
            Node::new(
                Contents::File(Bytes::new()),
                mode.unwrap_or(0o644) & 0o7777,
                user,
            )
        };
        let node = entries.entry(name.to_vec()).or_insert_with(new);
        node.contents = match &node.contents {
            Contents::File(old) if append => Contents::File([&old[..], bytes].concat().into()),
            _ => Contents::File(Bytes::copy_from_slice(bytes)),
        };
        if let (Some(mode), false) = (mode, append) {
            node.mode = mode & 0o7777;
        }
        node.modified = SystemTime::now();
        Ok(())
    }

    /// Facts about a file.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput` below a file.
    pub(super) fn stat(&self, place: &Place) -> Result<FileStat> {
        self.node(place).map(Node::stat)
    }

    /// Names and facts of what is in a directory.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput` for a file.
    pub(super) fn list(&self, place: &Place) -> Result<Vec<(Vec<u8>, FileStat)>> {
        match &self.node(place)?.contents {
            Contents::Directory(entries) => Ok(entries
                .iter()
                .map(|(name, node)| (name.clone(), node.stat()))
                .collect()),
            Contents::File(_) => Err(place.not_a_directory()),
        }
    }

    /// Makes a directory; with `parents` also what is missing above, and it may exist.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound`, `PermissionDenied`, `InvalidInput`.
    pub(super) fn make_dir(
        &mut self,
        place: &Place,
        mode: Option<u32>,
        parents: bool,
        user: User,
    ) -> Result<()> {
        if let (true, Ok(Contents::Directory(_))) =
            (parents, self.node(place).map(|node| &node.contents))
        {
            return Ok(());
        }
        let exists = || place.fail(FailureKind::AlreadyExists, 17, "it exists already");
        let (name, above) = place.split().map_err(|_| exists())?;
        self.check_writable(place)?;
        let make = parents.then_some((0o755, user));
        let entries = self.directory(place, above, make)?;
        if entries.contains_key(name) {
            return Err(exists());
        }
        let mode = mode.unwrap_or(0o755) & 0o7777;
        entries.insert(name.to_vec(), Node::directory(mode, user));
        Ok(())
    }

    /// Renames; a file, or an empty directory, at the target is replaced by its like.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `InvalidInput`.
    pub(super) fn rename(&mut self, from: &Place, to: &Place) -> Result<()> {
        self.check_writable(from)?;
        self.check_writable(to)?;
        let is_directory = matches!(self.node(from)?.contents, Contents::Directory(_));
        if from.parts == to.parts {
            return Ok(());
        }
        if to.parts.starts_with(&from.parts) {
            return Err(to.fail(
                FailureKind::InvalidInput,
                22,
                "it is inside what is renamed",
            ));
        }
        let (to_name, to_above) = to.split()?;
        match self
            .directory(to, to_above, None)?
            .get(to_name)
            .map(|node| &node.contents)
        {
            Some(Contents::File(_)) if is_directory => return Err(to.not_a_directory()),
            Some(Contents::Directory(_)) if !is_directory => return Err(to.is_a_directory()),
            Some(Contents::Directory(entries)) if !entries.is_empty() => {
                return Err(to.not_empty());
            }
            _ => {}
        }
        let (name, above) = from.split()?;
        let node = self
            .directory(from, above, None)?
            .remove(name)
            .ok_or_else(|| from.missing())?;
        self.directory(to, to_above, None)?
            .insert(to_name.to_vec(), node);
        Ok(())
    }

    /// Removes a file or a directory.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `InvalidInput` for a directory that is not empty.
    pub(super) fn remove(&mut self, place: &Place, recursive: bool) -> Result<()> {
        let (name, above) = place.split()?;
        self.check_writable(place)?;
        let entries = self.directory(place, above, None)?;
        match entries.get(name).map(|node| &node.contents) {
            None => Err(place.missing()),
            Some(Contents::Directory(inner)) if !inner.is_empty() && !recursive => {
                Err(place.not_empty())
            }
            Some(_) => {
                entries.remove(name);
                Ok(())
            }
        }
    }
}
