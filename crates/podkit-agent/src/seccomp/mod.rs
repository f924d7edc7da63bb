//! The system call filter: what is allowed is listed, everything else is refused.

mod tables;
mod tree;

use alloc::{vec, vec::Vec};

use tables::{ALLOWED, HIGHEST, NONE};
use tree::{Instruction, Segment, build, done, encode, if_any_bit, if_equal, load, unless_equal};

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EAFNOSUPPORT: u32 = 97;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn low_word_of_argument(index: u32) -> u32 {
    16 + 8 * index
}

/// `CLONE_NEW*` but the time namespace, whose bit means something else here.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;

/// The x32 interface: numbers of its own on top of this.
const X32: u32 = 0x4000_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    X86_64,
    Aarch64,
}

impl Architecture {
    const NATIVE: Self = if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else {
        Self::X86_64
    };

    /// `AUDIT_ARCH_*`.
    const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    const fn number(self, call: &(&'static str, u32, u32)) -> u32 {
        match self {
            Self::X86_64 => call.1,
            Self::Aarch64 => call.2,
        }
    }
}

/// What a filter lets pass, beyond what all do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    /// `clone3`, where commands have a filter of their own, because the agent needs it.
    pub clone3: bool,
    /// Files with set-id bits. In a directory of the host's such a file would give the rights of
    /// its owner to every user of the host, whoever made it.
    pub set_ids: bool,
}

/// The filter of everything in a container, its agent too.
#[must_use]
pub fn filter(passes: Passes) -> Vec<u8> {
    encode(&program(Architecture::NATIVE, passes))
}

/// The further filter of every command: flags of `clone3` are behind a pointer, which no filter
/// can follow, so it does not exist and libraries use `clone`.
#[must_use]
pub fn command_filter() -> Vec<u8> {
    encode(&command_program(Architecture::NATIVE))
}

fn program(architecture: Architecture, passes: Passes) -> Vec<Instruction> {
    let mut all = vec![
        load(ARCHITECTURE),
        if_equal(architecture.audit(), 1),
        done(KILL_PROCESS),
        load(NUMBER),
    ];
    all.extend(build(&segments(architecture, passes)));
    all
}

fn command_program(architecture: Architecture) -> Vec<Instruction> {
    let clone3 = ALLOWED
        .iter()
        .find(|call| call.0 == "clone3")
        .map_or(NONE, |call| architecture.number(call));
    vec![
        load(ARCHITECTURE),
        if_equal(architecture.audit(), 1),
        done(KILL_PROCESS),
        load(NUMBER),
        if_equal(clone3, 1),
        done(ALLOW),
        done(ERRNO | ENOSYS),
    ]
}

/// What happens from which number on.
fn segments(architecture: Architecture, passes: Passes) -> Vec<Segment> {
    let mut calls: Vec<(u32, Vec<Instruction>)> = ALLOWED
        .iter()
        .map(|call| (architecture.number(call), verdict(call.0, passes)))
        .filter(|(number, _)| *number != NONE)
        .collect();
    calls.sort_unstable_by_key(|(number, _)| *number);
    let refuse = vec![done(ERRNO | EPERM)];
    let mut all: Vec<Segment> = Vec::new();
    let mut add = |first: u32, code: Vec<Instruction>| {
        // Neighbours with the same end are one segment.
        if all.last().is_none_or(|last: &Segment| last.code != code) {
            all.push(Segment { first, code });
        }
    };
    let mut next = 0;
    for (number, code) in calls {
        if number > next {
            add(next, refuse.clone());
        }
        add(number, code);
        next = number + 1;
    }
    if next <= HIGHEST {
        add(next, refuse.clone());
    }
    add(HIGHEST + 1, vec![done(ERRNO | ENOSYS)]);
    add(X32, refuse);
    all
}

/// Refuses a mode with set-id bits.
fn without_set_ids(mode: u32) -> Vec<Instruction> {
    const SET_IDS: u32 = 0o6000;
    vec![
        load(low_word_of_argument(mode)),
        if_any_bit(SET_IDS, 1),
        done(ALLOW),
        done(ERRNO | EPERM),
    ]
}

/// Refuses to make a file with set-id bits; without making one, there is no mode.
fn opened_without_set_ids(flags: u32) -> Vec<Instruction> {
    /// `O_CREAT` and the bit of `O_TMPFILE`.
    const MAKING: u32 = 0x40_0040;
    let mut all = vec![
        load(low_word_of_argument(flags)),
        if_any_bit(MAKING, 1),
        done(ALLOW),
    ];
    all.extend(without_set_ids(flags + 1));
    all
}

/// What happens at an allowed call.
fn verdict(name: &str, passes: Passes) -> Vec<Instruction> {
    if !passes.set_ids {
        match name {
            "chmod" | "fchmod" | "creat" | "mknod" => return without_set_ids(1),
            "fchmodat" | "fchmodat2" | "mknodat" => return without_set_ids(2),
            "open" => return opened_without_set_ids(1),
            "openat" => return opened_without_set_ids(2),
            // Its mode is behind a pointer.
            "openat2" => return vec![done(ERRNO | ENOSYS)],
            _ => {}
        }
    }
    let allow = done(ALLOW);
    let refuse = done(ERRNO | EPERM);
    match name {
        "clone" => vec![
            load(low_word_of_argument(0)),
            if_any_bit(NAMESPACE_FLAGS, 1),
            allow,
            refuse,
        ],
        "clone3" if !passes.clone3 => vec![done(ERRNO | ENOSYS)],
        // Characters put into the input of a terminal, or of the console, come from its user.
        "ioctl" => {
            const TIOCSTI: u32 = 0x5412;
            const TIOCLINUX: u32 = 0x541c;
            vec![
                load(low_word_of_argument(1)),
                if_equal(TIOCSTI, 2),
                if_equal(TIOCLINUX, 1),
                allow,
                refuse,
            ]
        }
        // Linux, its 32 bit variant, both without randomisation of mmap (UNAME26), and asking.
        "personality" => vec![
            load(low_word_of_argument(0)),
            if_equal(0, 5),
            if_equal(0x8, 4),
            if_equal(0x2_0000, 3),
            if_equal(0x2_0008, 2),
            if_equal(u32::MAX, 1),
            refuse,
            allow,
        ],
        "socket" => sockets(),
        "socketpair" => vec![
            load(low_word_of_argument(0)),
            unless_equal(AF_UNIX, 1),
            allow,
            done(ERRNO | EAFNOSUPPORT),
        ],
        _ => vec![allow],
    }
}

const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;

/// Local and internet sockets, and the kernel's answers about routes and addresses.
fn sockets() -> Vec<Instruction> {
    const NETLINK_ROUTE: u32 = 0;
    vec![
        load(low_word_of_argument(0)),
        if_equal(AF_UNIX, 5),
        if_equal(AF_INET, 4),
        if_equal(AF_INET6, 3),
        unless_equal(AF_NETLINK, 3),
        load(low_word_of_argument(2)),
        unless_equal(NETLINK_ROUTE, 1),
        done(ALLOW),
        done(ERRNO | EAFNOSUPPORT),
    ]
}

#[cfg(test)]
mod tests {
    use super::{tree::interpret, *};

    const BOTH: [Architecture; 2] = [Architecture::X86_64, Architecture::Aarch64];

    const OPEN: Passes = Passes {
        clone3: false,
        set_ids: true,
    };

    fn run(architecture: Architecture, number: u32, arguments: [u32; 3]) -> u32 {
        run_with(architecture, OPEN, number, &arguments)
    }

    fn run_with(architecture: Architecture, passes: Passes, number: u32, arguments: &[u32]) -> u32 {
        let mut data = [0; 16];
        data[0] = number;
        data[1] = architecture.audit();
        for (index, argument) in arguments.iter().enumerate() {
            data[4 + 2 * index] = *argument;
        }
        interpret(&program(architecture, passes), &data)
    }

    fn number(architecture: Architecture, name: &str) -> u32 {
        let call = ALLOWED.iter().find(|call| call.0 == name).unwrap();
        architecture.number(call)
    }

    fn special(name: &str) -> bool {
        verdict(name, OPEN) != vec![done(ALLOW)]
    }

    #[test]
    fn every_number_has_the_verdict_of_the_table() {
        for architecture in BOTH {
            for nr in 0..=HIGHEST + 50 {
                let call = ALLOWED.iter().find(|call| architecture.number(call) == nr);
                let expected = match call {
                    Some(call) if special(call.0) => continue,
                    Some(_) => ALLOW,
                    None if nr > HIGHEST => ERRNO | ENOSYS,
                    None => ERRNO | EPERM,
                };
                assert_eq!(
                    run(architecture, nr, [0; 3]),
                    expected,
                    "{architecture:?} {nr}"
                );
            }
        }
    }

    #[test]
    fn other_architectures_die_and_x32_is_refused() {
        let mut data = [0; 16];
        data[1] = 0x4000_0003;
        let native = program(Architecture::X86_64, OPEN);
        assert_eq!(interpret(&native, &data), KILL_PROCESS);
        for nr in [X32, X32 + 1, X32 + 520, u32::MAX] {
            assert_eq!(run(Architecture::X86_64, nr, [0; 3]), ERRNO | EPERM);
        }
    }

    #[test]
    fn set_id_bits_are_refused_where_files_are_the_hosts() {
        let closed = Passes::default();
        for arch in BOTH {
            for (name, arguments, set_id_at) in [
                ("chmod", [7, 0o755, 0, 0], 1),
                ("fchmod", [7, 0o1777, 0, 0], 1),
                ("fchmodat", [7, 7, 0o755, 0], 2),
                ("fchmodat2", [7, 7, 0o644, 0], 2),
                ("mknodat", [7, 7, 0o100_644, 0], 2),
                ("creat", [7, 0o644, 0, 0], 1),
                ("open", [7, 0x41, 0o644, 0], 2),
                ("openat", [7, 7, 0x40_0002, 0o600], 3),
            ] {
                let nr = number(arch, name);
                if nr == NONE {
                    continue;
                }
                assert_eq!(run_with(arch, closed, nr, &arguments), ALLOW, "{name}");
                for bits in [0o4000, 0o2000, 0o6000] {
                    let mut with = arguments;
                    with[set_id_at] |= bits;
                    let refused = run_with(arch, closed, nr, &with);
                    assert_eq!(refused, ERRNO | EPERM, "{name} {bits:o}");
                    let open = run_with(arch, OPEN, nr, &with);
                    assert_eq!(open, ALLOW, "{name} {bits:o}");
                }
            }
            // Without making a file there is no mode, whatever is in its place.
            let nr = number(arch, "openat");
            assert_eq!(run_with(arch, closed, nr, &[7, 7, 2, 0o6777]), ALLOW);
            let nr = number(arch, "openat2");
            assert_eq!(run_with(arch, closed, nr, &[0; 4]), ERRNO | ENOSYS);
        }
    }

    #[test]
    fn arguments_decide_where_they_must() {
        for arch in BOTH {
            let at = |name: &str, arguments| run(arch, number(arch, name), arguments);
            assert_eq!(at("clone", [0x0120_0011, 0, 0]), ALLOW);
            for flag in [0x2_0000, 0x200_0000, 0x1000_0000, 0x4000_0000] {
                assert_eq!(at("clone", [flag | 17, 0, 0]), ERRNO | EPERM);
            }
            assert_eq!(at("clone3", [0; 3]), ERRNO | ENOSYS);
            assert_eq!(at("ioctl", [0, 0x5401, 0]), ALLOW);
            assert_eq!(at("ioctl", [0, 0x5412, 0]), ERRNO | EPERM);
            assert_eq!(at("ioctl", [0, 0x541c, 0]), ERRNO | EPERM);
            for (persona, expected) in [
                (0, ALLOW),
                (8, ALLOW),
                (0x2_0000, ALLOW),
                (0x2_0008, ALLOW),
                (u32::MAX, ALLOW),
                (0x4_0000, ERRNO | EPERM),
                (0x40_0000, ERRNO | EPERM),
            ] {
                assert_eq!(at("personality", [persona, 0, 0]), expected, "{persona:#x}");
            }
            for (family, protocol, expected) in [
                (1, 0, ALLOW),
                (2, 6, ALLOW),
                (10, 17, ALLOW),
                (16, 0, ALLOW),
                (16, 2, ERRNO | EAFNOSUPPORT),
                (16, 15, ERRNO | EAFNOSUPPORT),
                (17, 0, ERRNO | EAFNOSUPPORT),
                (38, 0, ERRNO | EAFNOSUPPORT),
                (40, 0, ERRNO | EAFNOSUPPORT),
                (0, 0, ERRNO | EAFNOSUPPORT),
            ] {
                let got = at("socket", [family, 1, protocol]);
                assert_eq!(got, expected, "family {family}, protocol {protocol}");
            }
            assert_eq!(at("socketpair", [1, 1, 0]), ALLOW);
            assert_eq!(at("socketpair", [16, 1, 0]), ERRNO | EAFNOSUPPORT);
        }
    }

    #[test]
    fn what_endangers_the_host_is_refused() {
        // Numbers on x86_64.
        for (name, nr) in [
            ("unshare", 272),
            ("setns", 308),
            ("mount", 165),
            ("bpf", 321),
            ("keyctl", 250),
            ("io_uring_setup", 425),
            ("userfaultfd", 323),
            ("perf_event_open", 298),
            ("kexec_load", 246),
            ("init_module", 175),
            ("open_by_handle_at", 304),
            ("iopl", 172),
        ] {
            assert_eq!(
                run(Architecture::X86_64, nr, [0; 3]),
                ERRNO | EPERM,
                "{name}"
            );
        }
    }

    #[test]
    fn filters_are_small() {
        for architecture in BOTH {
            for (passes, most) in [(OPEN, 200), (Passes::default(), 260)] {
                let length = program(architecture, passes).len();
                assert!(length < most, "{architecture:?}: {length} instructions");
            }
        }
        assert!(command_program(Architecture::X86_64).len() < 10);
    }

    #[test]
    fn commands_have_no_clone3_and_their_agent_has() {
        for arch in BOTH {
            let nr = number(arch, "clone3");
            let mut data = [0; 16];
            data[0] = nr;
            data[1] = arch.audit();
            assert_eq!(
                interpret(
                    &program(
                        arch,
                        Passes {
                            clone3: true,
                            ..OPEN
                        }
                    ),
                    &data
                ),
                ALLOW
            );
            assert_eq!(interpret(&command_program(arch), &data), ERRNO | ENOSYS);
            data[0] = number(arch, "read");
            assert_eq!(interpret(&command_program(arch), &data), ALLOW);
        }
    }
}
