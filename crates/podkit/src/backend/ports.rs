//! Numbers for ports of the host's that may be any.
//!
//! They follow from the container's name. So a session keeps its ports over restarts, and also when its
//! container is made anew, by whichever client, with nothing on record.

use crate::{config::Port, id::ContainerId};

/// The lowest number. The range lies below those that Linux gives to outgoing connections and those that
/// Kubernetes gives to its nodes.
const FIRST: u16 = 20_000;

/// How many there are: a prime, so that every step leads through all of them.
const COUNT: u16 = 9_973;

/// Numbers that are tried for one port.
const CANDIDATES: u16 = 64;

/// The numbers to try for this port of the container's, the first one first.
pub(super) fn candidates(name: &ContainerId, port: &Port) -> impl Iterator<Item = u16> {
    let text = format!("{name}/{}/{}", port.container, port.protocol.as_str());
    let hash = fnv1a(text.as_bytes());
    let below = |number: u64, bound: u16| u16::try_from(number % u64::from(bound)).unwrap_or(0);
    let (begin, step) = (below(hash, COUNT), 1 + below(hash >> 32, COUNT - 1));
    (0..CANDIDATES).map(move |nth| {
        let offset = u32::from(begin) + u32::from(step) * u32::from(nth);
        FIRST + below(u64::from(offset), COUNT)
    })
}

/// The same on every machine and in every version, which the standard library's hashes are not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn of(name: &str, port: Port) -> Vec<u16> {
        candidates(&ContainerId::new(name).unwrap(), &port).collect()
    }

    #[test]
    fn candidates_are_apart_in_range_and_the_same_for_ever() {
        let some = of("podkit-a", Port::new(80).anywhere());
        assert_eq!(some, of("podkit-a", Port::new(80).anywhere()));
        assert_eq!(some.iter().collect::<BTreeSet<_>>().len(), some.len());
        assert!(some.iter().all(|number| (20_000..29_973).contains(number)));
        assert_eq!(some.first(), Some(&23_846));
    }

    #[test]
    fn candidates_differ_by_container_port_and_protocol() {
        let firsts = [
            of("podkit-a", Port::new(80).anywhere()),
            of("podkit-b", Port::new(80).anywhere()),
            of("podkit-a", Port::new(81).anywhere()),
            of("podkit-a", Port::new(80).anywhere().udp()),
        ];
        let firsts: BTreeSet<_> = firsts.iter().map(|all| all.first()).collect();
        assert_eq!(firsts.len(), 4);
    }
}
