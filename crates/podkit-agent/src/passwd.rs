//! Whom `user:group` means, by the lists of users and groups of a container.
//!
//! Both lists are the container's own and so may hold anything: a line that is not well formed is
//! passed over. As with other engines, a name is looked up before it is taken for a number, a
//! number without an entry is fine and has group 0, and a group that is given stands alone.

use alloc::{format, string::String, vec::Vec};

use crate::{Failure, FailureKind};

/// Most supplementary groups that the kernel takes.
const MAX_GROUPS: usize = 65_536;

/// Who a command or a file call runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, each once.
    pub groups: Vec<u32>,
    /// Name; empty for a number without an entry.
    pub name: Vec<u8>,
    /// Home directory; `/` for a number without an entry.
    pub home: Vec<u8>,
}

/// A line of `passwd`: name, password, uid, gid, comment, home, shell.
struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

/// A line of `group`: name, password, gid, members.
struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl Identity {
    /// Looks `user`, `uid`, `user:group` or `uid:gid` up in what `/etc/passwd` and `/etc/group`
    /// hold; nothing is root.
    ///
    /// # Errors
    /// `InvalidInput` for a name that has no entry, and for a number that is no id.
    pub fn resolve(spec: &[u8], passwd: &[u8], group: &[u8]) -> Result<Self, Failure> {
        let mut parts = spec.splitn(2, |byte| *byte == b':');
        let user = parts.next().filter(|user| !user.is_empty());
        let with_group = parts.next().filter(|group| !group.is_empty());
        let mut identity = Self::of_user(user.unwrap_or(b"0"), passwd, group)?;
        if let Some(name) = with_group {
            let mut known = groups(group);
            let entry = known.find(|entry| entry.name == name);
            let gid = entry.map(|entry| entry.gid).or_else(|| number(name));
            identity.gid = gid.ok_or_else(|| unknown("group", name))?;
            identity.groups.clear();
        }
        Ok(identity)
    }

    fn of_user(user: &[u8], passwd: &[u8], group: &[u8]) -> Result<Self, Failure> {
        let id = number(user);
        let by_name = users(passwd).find(|entry| entry.name == user);
        let entry = by_name.or_else(|| {
            let id = id?;
            users(passwd).find(|entry| entry.uid == id)
        });
        let Some(entry) = entry else {
            // Root is there in every container, also in one without a list.
            if user == b"root" {
                return Ok(Self {
                    name: b"root".to_vec(),
                    home: b"/root".to_vec(),
                    ..Self::default()
                });
            }
            return Ok(Self {
                uid: id.ok_or_else(|| unknown("user", user))?,
                home: b"/".to_vec(),
                ..Self::default()
            });
        };
        let is_member = |entry_of: &Group<'_>| {
            let mut members = entry_of.members.split(|byte| *byte == b',');
            members.any(|member| member.trim_ascii() == entry.name)
        };
        let found = groups(group).filter(is_member).map(|found| found.gid);
        let mut supplementary: Vec<u32> = found.take(MAX_GROUPS).collect();
        supplementary.sort_unstable();
        supplementary.dedup();
        let home = if entry.home.starts_with(b"/") {
            entry.home
        } else {
            b"/"
        };
        Ok(Self {
            uid: entry.uid,
            gid: entry.gid,
            groups: supplementary,
            name: entry.name.to_vec(),
            home: home.to_vec(),
        })
    }
}

fn users(passwd: &[u8]) -> impl Iterator<Item = User<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        Some(User {
            name,
            uid: number(fields.next()?)?,
            gid: number(fields.next()?)?,
            home: fields.nth(1).unwrap_or_default(),
        })
    })
}

fn groups(group: &[u8]) -> impl Iterator<Item = Group<'_>> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        Some(Group {
            name,
            gid: number(fields.next()?)?,
            members: fields.next().unwrap_or_default(),
        })
    })
}

/// Lines that may hold an entry. A NUL would end a name early for whoever it is passed on to.
fn lines(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = list.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.starts_with(b"#") && !line.contains(&0))
}

/// An id in decimal digits. The last number means `no change` to the kernel, so it is none.
fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let id = core::str::from_utf8(text).ok()?.parse().ok()?;
    (id != u32::MAX).then_some(id)
}

fn unknown(what: &str, name: &[u8]) -> Failure {
    let name = String::from_utf8_lossy(name.get(..256).unwrap_or(name));
    Failure {
        kind: FailureKind::InvalidInput,
        errno: 0,
        message: format!("there is no {what} `{name}`"),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# comment\nbroken:x\nodd:x:-1:7::/:\n\
        bob:x:1000:1001:Bob,,,:/home/bob:/bin/sh\r\n77:x:5:6::/five:/bin/sh\n\
        short:x:8:9\nlast:x:4294967295:1::/:\nno\0:x:30:30::/:\n:x:31:31::/:\n+::::::";
    const GROUP: &[u8] = b"root:x:0:\nstaff:x:50:alice, bob\nwheel:x:10:bob,root\n\
        twice:x:10:bob\nbob:x:1001:\nbobby:x:60:bobb,xbob\nbad:x:y:bob\n";

    fn resolve(spec: &str) -> Result<Identity, Failure> {
        Identity::resolve(spec.as_bytes(), PASSWD, GROUP)
    }

    #[test]
    fn resolve_names_and_numbers_find_their_entry() {
        let bob = Identity {
            uid: 1000,
            gid: 1001,
            groups: vec![10, 50],
            name: b"bob".to_vec(),
            home: b"/home/bob".to_vec(),
        };
        assert_eq!(resolve("bob").unwrap(), bob);
        assert_eq!(resolve("1000").unwrap(), bob);
        assert_eq!(resolve("bob:").unwrap(), bob);
        let root = resolve("").unwrap();
        assert_eq!((root.uid, root.gid, &*root.groups), (0, 0, &[10][..]));
        assert_eq!(root.home, b"/root");
        // A name of digits is a name first.
        assert_eq!(resolve("77").unwrap().uid, 5);
        assert_eq!(resolve("short").unwrap().home, b"/");
    }

    #[test]
    fn resolve_group_given_stands_alone() {
        let identity = resolve("bob:staff").unwrap();
        assert_eq!((identity.uid, identity.gid), (1000, 50));
        assert!(identity.groups.is_empty());
        let identity = resolve("1234:4321").unwrap();
        assert_eq!((identity.uid, identity.gid), (1234, 4321));
        assert_eq!((&*identity.name, &*identity.home), (&b""[..], &b"/"[..]));
        assert_eq!(resolve(":wheel").unwrap().gid, 10);
    }

    #[test]
    fn resolve_without_lists_takes_numbers_and_root_only() {
        let identity = Identity::resolve(b"7", b"", b"").unwrap();
        assert_eq!((identity.uid, identity.gid), (7, 0));
        assert_eq!(Identity::resolve(b"", b"", b"").unwrap().uid, 0);
        let root = Identity::resolve(b"root", b"", b"").unwrap();
        assert_eq!((root.uid, &*root.home), (0, &b"/root"[..]));
        assert!(Identity::resolve(b"nobody", b"", b"").is_err());
    }

    #[test]
    fn resolve_unknown_is_invalid_input_that_names_it() {
        for (spec, named) in [
            ("eve", "user `eve`"),
            ("-1", "user `-1`"),
            ("4294967295", "user `4294967295`"),
            ("4294967296", "user `4294967296`"),
            ("last", "user `last`"),
            ("odd", "user `odd`"),
            ("broken", "user `broken`"),
            ("+", "user `+`"),
            ("bob:nobody", "group `nobody`"),
            ("bob:bad", "group `bad`"),
            ("a:b:c", "user `a`"),
            ("bob:b:c", "group `b:c`"),
        ] {
            let failure = resolve(spec).unwrap_err();
            assert_eq!(failure.kind, FailureKind::InvalidInput, "{spec}");
            assert_eq!(failure.message, format!("there is no {named}"));
        }
        let long = resolve(&"é".repeat(10_000)).unwrap_err().message;
        assert!(long.len() < 600, "{}", long.len());
    }
}
