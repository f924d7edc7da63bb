//! What containers try to take all of.

use super::{Attack, Exhaustion, How, Words, nowhere};
use crate::{backend::Capabilities, config::Isolation};

const fn exhaust(
    about: &'static str,
    (kind, amount, little): (&'static str, &'static str, &'static str),
    refused_with: Words,
) -> Attack {
    Attack {
        about,
        how: How::Exhaustion(Exhaustion {
            kind,
            amount,
            little,
            place: "{tmp}/exhaust",
            as_nobody: false,
        }),
        refused_with,
        optional: false,
        aims_at_host_image: false,
        conceded: nowhere,
    }
}

impl Attack {
    const fn at(mut self, file: &'static str) -> Self {
        if let How::Exhaustion(what) = &mut self.how {
            what.place = file;
        }
        self
    }

    const fn as_nobody(mut self) -> Self {
        if let How::Exhaustion(what) = &mut self.how {
            what.as_nobody = true;
        }
        self
    }
}

fn limits_no_memory(can: &Capabilities) -> Option<&'static str> {
    (!can.memory_limit).then_some("memory is not limited here: there are no rights on cgroups")
}

fn limits_no_processes(can: &Capabilities) -> Option<&'static str> {
    (!can.pids_limit).then_some("processes are not limited here: there are no rights on cgroups")
}

fn limits_no_processor(can: &Capabilities) -> Option<&'static str> {
    (!can.cpu_limit).then_some("processors are not limited here: there are no rights on cgroups")
}

#[expect(clippy::unnecessary_wraps, reason = "no engine limits it")]
fn limits_no_disk(_: &Capabilities) -> Option<&'static str> {
    Some("the disk is not limited: keep the engine's state on a file system of its own")
}

fn counts_for_others(can: &Capabilities) -> Option<&'static str> {
    (can.isolation != Some(Isolation::OwnRange))
        .then_some("the kernel counts these for the user that the container's root is on the host")
}

/// A command that is out of memory is killed by the kernel, or told so.
const NO_MEMORY: Words = &["out of memory", "ENOMEM", "ENOBUFS"];

/// Either that, or there are too few processes to hold more.
const NO_ROOM: Words = &["out of memory", "ENOMEM", "ENOBUFS", "EAGAIN"];

pub(super) const ATTACKS: &[Attack] = &[
    exhaust("take all processes", ("processes", "300", "1"), &["EAGAIN"])
        .conceded(limits_no_processes),
    exhaust("take all memory", ("memory", "256", "1"), NO_MEMORY).conceded(limits_no_memory),
    exhaust(
        "fill memory with cached files",
        ("page_cache", "128", "1"),
        &["reclaimed", "out of memory"],
    )
    .conceded(limits_no_memory),
    exhaust(
        "fill memory by a tmpfs",
        ("file", "128", "1"),
        &["ENOSPC", "out of memory"],
    )
    .at("/dev/shm/podkit-exhaust"),
    exhaust(
        "take all shared memory",
        ("shared_memory", "128", "1"),
        &["out of memory", "ENOMEM", "ENOSPC"],
    )
    .conceded(limits_no_memory),
    exhaust(
        "fill the kernel's memory by sockets' buffers",
        ("socket_buffers", "128", "1"),
        NO_MEMORY,
    )
    .conceded(limits_no_memory),
    exhaust("take all sockets", ("sockets", "70", "1"), NO_ROOM).conceded(limits_no_memory),
    exhaust("take all descriptors", ("descriptors", "70", "1"), NO_ROOM).conceded(limits_no_memory),
    exhaust(
        "take all watchers of files",
        ("watchers", "2000", "1"),
        &["EMFILE"],
    )
    .as_nobody()
    .conceded(counts_for_others),
    exhaust(
        "take all watches of files",
        ("watches", "1100000", "1"),
        &["ENOSPC", "out of memory"],
    )
    .as_nobody()
    .conceded(counts_for_others),
    exhaust("fill the disk", ("file", "128", "1"), &["ENOSPC", "EDQUOT"]).conceded(limits_no_disk),
    exhaust(
        "take all inodes",
        ("inodes", "5000", "1"),
        &["ENOSPC", "EDQUOT"],
    )
    .conceded(limits_no_disk),
    exhaust("take all processors", ("processors", "32", "0"), &["ETIME"])
        .conceded(limits_no_processor),
];
