//! Trees of files of a simulated container: it has files and directories alone.

use podkit_agent::{
    Failure, FailureKind, FileKind, FileStat, FileUsage, Output, Reply,
    archive::{ARCHIVE_END, Member, MemberKind, Step, Unpacker, padding, parts},
};

use super::{
    agent::{Channel, Input},
    files::User,
    place::{Place, Result},
    transfer::Transfer,
};

/// Most bytes of one frame.
const CHUNK_BYTES: usize = podkit_agent::MAX_DATA_BYTES;

impl Transfer {
    /// All that is below a place, with it: a directory before what is in it.
    fn walk(&self, place: &Place) -> Result<Vec<(Vec<u8>, Place, FileStat)>> {
        let tree = self.container.tree.lock();
        let top = tree.stat(place)?;
        let name = match top.kind {
            FileKind::Directory => b".".to_vec(),
            _ => place.parts.last().cloned().unwrap_or_default(),
        };
        let (mut all, mut open) = (Vec::new(), vec![(name, place.clone(), top)]);
        while let Some((path, place, stat)) = open.pop() {
            if stat.kind == FileKind::Directory {
                for (name, stat) in tree.list(&place)? {
                    let path = match &path[..] {
                        b"." => name.clone(),
                        above => [above, b"/", &name].concat(),
                    };
                    open.push((path, place.below(&name), stat));
                }
            }
            all.push((path, place, stat));
        }
        Ok(all)
    }

    pub(super) fn usage(&self, place: &Place) -> Result<Vec<u8>> {
        let mut usage = FileUsage::default();
        for (_, _, stat) in self.walk(place)? {
            match stat.kind {
                FileKind::Directory => usage.directories += 1,
                _ => usage.files += 1,
            }
            usage.size_bytes += stat.size_bytes;
            usage.disk_bytes += stat.size_bytes;
        }
        let mut frame = Vec::new();
        usage.encode(&mut frame);
        Ok(frame)
    }

    pub(super) async fn archive(&self, place: &Place, channel: &Channel) -> Result<()> {
        let mut out = Vec::new();
        for (path, place, stat) in self.walk(place)? {
            let (kind, bytes) = match stat.kind {
                FileKind::Directory => (MemberKind::Directory, bytes::Bytes::new()),
                _ => (MemberKind::File, self.container.tree.lock().read(&place)?),
            };
            let size = bytes.len() as u64;
            Member {
                path,
                kind,
                mode: stat.mode,
                uid: stat.uid,
                gid: stat.gid,
                size,
                modified_s: stat.modified_ns / 1_000_000_000,
                target: Vec::new(),
            }
            .encode(&mut out);
            out.extend_from_slice(&bytes);
            out.resize(
                out.len() + usize::try_from(padding(size)).unwrap_or_default(),
                0,
            );
        }
        out.extend_from_slice(&ARCHIVE_END);
        for chunk in out.chunks(CHUNK_BYTES) {
            channel.data(Output::Stdout, chunk).await;
        }
        Ok(())
    }

    pub(super) async fn extract(
        &self,
        place: &Place,
        user: User,
        channel: &Channel,
        mut input: Input,
    ) -> Result<()> {
        let tree = &self.container.tree;
        tree.lock().make_dir(place, None, true, user)?;
        let malformed = |why: &str| Failure {
            kind: FailureKind::InvalidInput,
            errno: 0,
            message: format!("`the archive`: {why}"),
        };
        let mut unpacker = Unpacker::default();
        let mut current: Option<(Member, Place)> = None;
        let mut failures = Vec::new();
        loop {
            match unpacker.step().map_err(malformed)? {
                Step::More => match input.next().await {
                    Some(bytes) => unpacker.push(&bytes),
                    None => return Err(malformed("it ends in the middle")),
                },
                Step::Member(member) => {
                    let names = parts(&member.path).map_err(malformed)?;
                    let at = names
                        .iter()
                        .fold(place.clone(), |place, name| place.below(name));
                    let mode = Some(member.mode & 0o777);
                    let made = match member.kind {
                        _ if names.is_empty() => Ok(()),
                        MemberKind::Directory => tree.lock().make_dir(&at, mode, true, user),
                        MemberKind::File => {
                            let prepared = tree.lock().prepare(&at, true, user);
                            prepared.and_then(|()| tree.lock().write(&at, &[], false, mode, user))
                        }
                        _ => Err(at.fail(
                            FailureKind::Unsupported,
                            0,
                            "a simulated container has files and directories alone",
                        )),
                    };
                    match made {
                        Ok(()) => current = Some((member, at)),
                        Err(failure) => {
                            Reply::Failed(failure).encode(0, &mut failures);
                            current = None;
                        }
                    }
                }
                Step::Data => {
                    if let Some((member, at)) = &current
                        && member.kind == MemberKind::File
                    {
                        tree.lock().write(at, unpacker.data(), true, None, user)?;
                    }
                }
                Step::MemberEnd => current = None,
                Step::End => break,
            }
        }
        while input.next().await.is_some() {}
        for chunk in failures.chunks(CHUNK_BYTES) {
            channel.data(Output::Stdout, chunk).await;
        }
        Ok(())
    }
}
