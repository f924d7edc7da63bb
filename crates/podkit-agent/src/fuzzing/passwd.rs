//! Users and groups of a container.

use crate::{FailureKind, passwd::Identity};

/// Between the three texts of an input.
const CUT: u8 = 0xff;

/// Whom a text means, by two lists that may hold anything.
pub fn passwd(input: &[u8]) {
    let mut texts = input.splitn(3, |byte| *byte == CUT);
    let mut text = || texts.next().unwrap_or_default();
    let (spec, users, groups) = (text(), text(), text());
    let found = Identity::resolve(spec, users, groups);
    assert_eq!(found, Identity::resolve(spec, users, groups));
    let mut words = spec.splitn(2, |byte| *byte == b':');
    let (user, group) = (words.next().unwrap_or_default(), words.next());
    let identity = match found {
        Ok(identity) => identity,
        Err(failure) => {
            assert_eq!(failure.kind, FailureKind::InvalidInput);
            assert!(failure.message.len() < 1024, "a text without end");
            return;
        }
    };
    assert_ne!(identity.uid, u32::MAX, "which means no user to the kernel");
    assert_ne!(identity.gid, u32::MAX);
    assert!(identity.groups.is_sorted_by(|one, next| one < next));
    assert!(identity.groups.len() <= 65_536 && !identity.groups.contains(&u32::MAX));
    assert!(identity.home.starts_with(b"/"));
    for name in [&identity.name, &identity.home] {
        assert!(!name.contains(&0) && !name.contains(&b'\n'));
    }
    // Nobody is root who is not asked for as root, or is root by the list.
    let named = |word: &[u8]| users.windows(word.len()).any(|there| there == word);
    if identity.uid == 0 {
        let asked = user.is_empty() || user == b"root" || is_zero(user);
        assert!(
            asked || (named(user) && named(b":0")) || named(b":00"),
            "root"
        );
    }
    if let Some(id) = number(user) {
        let by_name = identity.name == user;
        assert!(by_name || u64::from(identity.uid) == id);
    } else if !user.is_empty() && user != b"root" {
        assert!(identity.name == user && named(user));
    }
    if group.is_some_and(|group| !group.is_empty()) {
        assert!(
            identity.groups.is_empty(),
            "a group that is given stands alone"
        );
    }
}

fn is_zero(text: &[u8]) -> bool {
    number(text) == Some(0)
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = core::str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok().or(Some(u64::MAX))
}
