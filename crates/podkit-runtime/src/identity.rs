//! Whose ids containers get: what the calling user may give.

use std::{
    fs,
    path::{Path, PathBuf},
};

use podkit_agent::plan::{HOST_IDS, IdMaps, IdRange};
use rustix::thread::{CapabilitySet, capabilities};

use crate::{
    error::{Error, ErrorKind, Result},
    options::RuntimeOptions,
    ranges::{FIRST_ID, RANGE_IDS, Ranges},
    spec::Isolation,
    sys,
};

/// What the calling user may give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    uid: u32,
    gid: u32,
    /// Whether this is the host's root, with all ids and capabilities.
    pub(crate) privileged: bool,
    /// Whether layers are shown with the container's ids, and not copied.
    pub(crate) shows_layers: bool,
    sub_ids: Option<SubIds>,
}

/// Ids that the administrator gave to the calling user.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SubIds {
    first_uid: u32,
    first_gid: u32,
    count: u32,
    writers: (Vec<u8>, Vec<u8>),
}

impl Identity {
    pub(crate) fn of_caller() -> Self {
        let (uid, gid) = (sys::uid(), sys::gid());
        let privileged = uid == 0 && may_administer() && has_all_ids();
        Self {
            uid,
            gid,
            privileged,
            shows_layers: privileged,
            sub_ids: if uid == 0 { None } else { SubIds::of(uid) },
        }
    }

    /// The same caller without what may not work here, with what is lost then.
    pub(crate) fn with_less(&self) -> Option<(Self, &'static str)> {
        let mut less = self.clone();
        if self.shows_layers {
            less.shows_layers = false;
            return Some((
                less,
                "Images cannot be shown with other ids here, so each container has a copy",
            ));
        }
        less.sub_ids.take()?;
        Some((less, "The sub-ids of this user cannot be used"))
    }

    /// Programs that write the maps of who has sub-ids.
    pub(crate) fn mappers() -> [Option<PathBuf>; 2] {
        ["newuidmap", "newgidmap"].map(program)
    }

    /// The best isolation of user ids.
    pub(crate) fn best(&self) -> Isolation {
        match &self.sub_ids {
            _ if self.privileged => Isolation::OwnRange,
            Some(ids) if ids.count >= 2 * RANGE_IDS => Isolation::OwnRange,
            Some(_) => Isolation::SharedRange,
            None => Isolation::CallerUid,
        }
    }

    /// What a container gets that asks for this.
    pub(crate) fn choose(&self, wanted: Option<Isolation>) -> Result<Isolation> {
        let best = self.best();
        match wanted {
            None => Ok(best),
            Some(Isolation::SharedRange) if self.sub_ids.is_none() => Err(Error::new(
                ErrorKind::Unsupported,
                "a shared range of ids is for users who have sub-ids",
            )
            .with_hint("ask for no isolation in particular, to get the best one")),
            Some(wanted) if wanted <= best => Ok(wanted),
            Some(wanted) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "isolation `{}` needs more ids than this user has",
                    wanted.as_str()
                ),
            )
            .with_hint(
                "give the user sub-ids in /etc/subuid and /etc/subgid (131072 or more) and install \
                 newuidmap, or run as root",
            )),
        }
    }

    /// Who hands ranges out, where every container has its own.
    pub(crate) fn ranges(&self, options: &RuntimeOptions, state_dir: &Path) -> Ranges {
        match &self.sub_ids {
            Some(ids) => Ranges::within(&state_dir.join("uid-ranges"), ids.first_uid, ids.count),
            None => Ranges::of_host(&options.uid_range_dir),
        }
    }

    /// First id of a container that shares its range.
    pub(crate) fn shared_first(&self) -> u32 {
        self.sub_ids.as_ref().map_or(0, |ids| ids.first_uid)
    }

    /// The maps of a container whose range begins at `first`.
    pub(crate) fn maps(&self, isolation: Isolation, first: u32) -> IdMaps {
        let one = |outside, count| {
            vec![IdRange {
                inside: 0,
                outside,
                count,
            }]
        };
        let (uid, gid) = self.root(isolation, first);
        if isolation == Isolation::CallerUid {
            return IdMaps {
                uids: one(uid, 1),
                gids: one(gid, 1),
                deny_setgroups: !self.privileged,
                writers: None,
            };
        }
        IdMaps {
            uids: one(uid, RANGE_IDS),
            gids: one(gid, RANGE_IDS),
            deny_setgroups: false,
            writers: self.sub_ids.as_ref().map(|ids| ids.writers.clone()),
        }
    }

    /// The same for copying an image: after the container's ids come those that may own the image's files on
    /// the host, so that the copier, who is the container's root, can read them and knows whose they are. For
    /// an ordinary user that is the caller alone; for the host's root as many ids as a container has.
    pub(crate) fn maps_with_host(&self, isolation: Isolation, first: u32) -> IdMaps {
        let mut maps = self.maps(isolation, first);
        if self.needs_namespace(isolation) {
            let count = if self.privileged { RANGE_IDS } else { 1 };
            let theirs = |outside| IdRange {
                inside: HOST_IDS,
                outside,
                count,
            };
            maps.uids.push(theirs(self.uid));
            maps.gids.push(theirs(self.gid));
        }
        maps
    }

    /// User and group on the host that are the container's root.
    pub(crate) fn root(&self, isolation: Isolation, first: u32) -> (u32, u32) {
        match (isolation, &self.sub_ids) {
            (Isolation::CallerUid, _) => (self.uid, self.gid),
            (_, Some(ids)) => (
                first,
                ids.first_gid
                    .saturating_add(first.saturating_sub(ids.first_uid)),
            ),
            (_, None) => (first, first),
        }
    }

    /// Whether files of the container can only be changed from inside its user namespace.
    pub(crate) fn needs_namespace(&self, isolation: Isolation) -> bool {
        !self.shows_layers && isolation != Isolation::CallerUid
    }
}

impl SubIds {
    fn of(uid: u32) -> Option<Self> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = user_name(&passwd, uid);
        let largest = |path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            largest_range(&text, uid, name)
        };
        let (first_uid, uids) = largest("/etc/subuid")?;
        let (first_gid, gids) = largest("/etc/subgid")?;
        let count = uids.min(gids) / RANGE_IDS * RANGE_IDS;
        (count > 0).then_some(())?;
        let bytes = |path: PathBuf| path.into_os_string().into_encoded_bytes();
        let [Some(uid_mapper), Some(gid_mapper)] = Identity::mappers() else {
            return None;
        };
        Some(Self {
            first_uid,
            first_gid,
            count,
            writers: (bytes(uid_mapper), bytes(gid_mapper)),
        })
    }
}

fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The largest range of a user, by name or number.
fn largest_range(text: &str, uid: u32, name: Option<&str>) -> Option<(u32, u32)> {
    let ours = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range: (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (Some(owner) == name || owner.parse() == Ok(uid)).then_some(range)
    });
    ours.max_by_key(|(_, count)| *count)
}

/// The set-id program of this name. Only where the system keeps its own.
fn program(name: &str) -> Option<PathBuf> {
    [
        "/usr/bin",
        "/bin",
        "/usr/sbin",
        "/run/wrappers/bin",
        "/usr/local/bin",
    ]
    .iter()
    .map(|directory| Path::new(directory).join(name))
    .find(|path| path.is_file())
}

fn may_administer() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Root of a user namespace has the ids of that namespace only.
fn has_all_ids() -> bool {
    let text = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    covers(&text, FIRST_ID, u32::MAX - RANGE_IDS)
}

fn covers(map: &str, first: u32, last: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u32>);
        match (fields.next(), fields.next(), fields.next()) {
            (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) => {
                inside <= first && inside.saturating_add(count) > last
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(count: u32) -> Identity {
        Identity {
            uid: 1000,
            gid: 1000,
            privileged: false,
            shows_layers: false,
            sub_ids: (count > 0).then(|| SubIds {
                first_uid: 100_000,
                first_gid: 300_000,
                count,
                writers: (b"u".to_vec(), b"g".to_vec()),
            }),
        }
    }

    #[test]
    fn isolation_follows_the_ids_that_there_are() {
        assert_eq!(user(0).best(), Isolation::CallerUid);
        assert_eq!(user(RANGE_IDS).best(), Isolation::SharedRange);
        assert_eq!(user(2 * RANGE_IDS).best(), Isolation::OwnRange);
        let refused = user(0).choose(Some(Isolation::OwnRange)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        let chosen = user(RANGE_IDS).choose(Some(Isolation::CallerUid));
        assert_eq!(chosen.unwrap(), Isolation::CallerUid);
    }

    #[test]
    fn groups_follow_their_own_first_id() {
        let first = 100_000 + RANGE_IDS;
        let maps = user(2 * RANGE_IDS).maps(Isolation::OwnRange, first);
        assert_eq!(maps.uids[0].outside, first);
        assert_eq!(maps.gids[0].outside, 300_000 + RANGE_IDS);
        let single = user(0).maps(Isolation::CallerUid, 0);
        assert_eq!((single.uids[0].outside, single.uids[0].count), (1000, 1));
        assert!(single.deny_setgroups);
    }

    #[test]
    fn caller_comes_after_the_range_where_it_is_not_in_it() {
        let maps = user(RANGE_IDS).maps_with_host(Isolation::SharedRange, 100_000);
        let caller = |ranges: &[IdRange]| (ranges[1].inside, ranges[1].outside, ranges[1].count);
        assert_eq!(caller(&maps.uids), (HOST_IDS, 1000, 1));
        assert_eq!(caller(&maps.gids), (HOST_IDS, 1000, 1));
        let single = user(0).maps_with_host(Isolation::CallerUid, 0);
        assert_eq!(single, user(0).maps(Isolation::CallerUid, 0));
    }

    #[test]
    fn less_is_a_copy_for_root_and_no_sub_ids_for_others() {
        let root = Identity {
            privileged: true,
            shows_layers: true,
            ..user(0)
        };
        assert!(!root.needs_namespace(Isolation::OwnRange));
        let (copying, _) = root.with_less().unwrap();
        assert!(copying.needs_namespace(Isolation::OwnRange));
        assert_eq!(copying.best(), Isolation::OwnRange);
        assert_eq!(copying.with_less(), None);
        let (alone, _) = user(RANGE_IDS).with_less().unwrap();
        assert_eq!(alone, user(0));
        assert_eq!(alone.with_less(), None);
    }

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "bob:1:65536\nalice:100000:65536\n1000:300000:131072\n";
        assert_eq!(
            largest_range(text, 1000, Some("alice")),
            Some((300_000, 131_072))
        );
        assert_eq!(
            largest_range(text, 7, Some("alice")),
            Some((100_000, 65_536))
        );
        assert_eq!(largest_range(text, 7, None), None);
    }

    #[test]
    fn all_ids_are_there_on_the_host_only() {
        assert!(covers(
            "         0          0 4294967295\n",
            FIRST_ID,
            u32::MAX - RANGE_IDS
        ));
        assert!(!covers("0 100000 65536\n", FIRST_ID, u32::MAX - RANGE_IDS));
    }
}
