//! Which ports are listened on, from the kernel's tables.

use alloc::{format, string::String, vec, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podkit_agent::Output;
use rustix::{
    fs::{CWD, Dir, Mode, OFlags, openat, readlinkat},
    io::{Errno, read},
};

use crate::files::{Answers, Stop};

/// Most bytes of a table that are read.
const TABLE_BYTES: usize = 4 << 20;

/// Most ports that are told, and processes that are looked through for their owners.
const MOST_PORTS: usize = 4096;
const MOST_PROCESSES: usize = 4096;

/// The state of a socket that listens, in the tables.
const LISTENS: &str = "0A";

/// A socket that listens.
pub(super) struct Listener {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    inode: u64,
}

/// All sockets that listen.
pub(super) fn listeners() -> Vec<Listener> {
    let mut all = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = whole(table);
        let text = String::from_utf8_lossy(&text);
        all.extend(text.lines().skip(1).filter_map(parse));
        all.truncate(MOST_PORTS);
    }
    all
}

pub(super) fn is_listened_on(port: u16) -> bool {
    listeners().iter().any(|one| one.port == port)
}

/// Sends a line for each: address, port, and pid and name of one of its owners where they can be seen.
pub(super) fn list(answers: &mut Answers<'_>) -> Result<(), Stop> {
    let all = listeners();
    for (one, owner) in all.iter().zip(owners(&all)) {
        let name = owner.map(name_of).unwrap_or_default();
        let pid = owner.unwrap_or(0);
        let line = format!("{} {} {pid} {name}\n", one.address, one.port);
        answers.data_of(Output::Stdout, line.into_bytes())?;
    }
    Ok(())
}

fn parse(line: &str) -> Option<Listener> {
    let mut words = line.split_ascii_whitespace();
    let local = words.nth(1)?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?.parse().ok()?;
    if state != LISTENS {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    Some(Listener {
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode,
    })
}

/// Words of 32 bits in the machine's own order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let mut bytes = [0_u8; 16];
    let words = text.len() / 8;
    for number in 0..words.min(4) {
        let word = u32::from_str_radix(text.get(number * 8..number * 8 + 8)?, 16).ok()?;
        bytes
            .get_mut(number * 4..number * 4 + 4)?
            .copy_from_slice(&word.to_ne_bytes());
    }
    match words {
        1 => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        4 => Some(Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

/// For each socket a process that holds it.
fn owners(listeners: &[Listener]) -> Vec<Option<u32>> {
    let mut owners = vec![None; listeners.len()];
    for pid in numbers(b"/proc").into_iter().take(MOST_PROCESSES) {
        let directory = format!("/proc/{pid}/fd");
        for fd in numbers(directory.as_bytes()) {
            let Ok(link) = readlinkat(CWD, format!("{directory}/{fd}"), Vec::new()) else {
                continue;
            };
            let inode: Option<u64> = core::str::from_utf8(link.to_bytes())
                .ok()
                .and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'))
                .and_then(|inode| inode.parse().ok());
            for (listener, owner) in listeners.iter().zip(&mut owners) {
                if Some(listener.inode) == inode {
                    owner.get_or_insert(pid);
                }
            }
        }
    }
    owners
}

/// Entries of a directory whose names are numbers.
fn numbers(directory: &[u8]) -> Vec<u32> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = openat(CWD, directory, flags, Mode::empty()) else {
        return Vec::new();
    };
    let Ok(entries) = Dir::read_from(&directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            core::str::from_utf8(entry.file_name().to_bytes())
                .ok()?
                .parse()
                .ok()
        })
        .collect()
}

/// A process's name, without what would break a line.
fn name_of(pid: u32) -> String {
    let name = whole(&format!("/proc/{pid}/comm"));
    let name = String::from_utf8_lossy(&name);
    name.chars()
        .filter(|one| !one.is_control() && !one.is_whitespace())
        .collect()
}

fn whole(path: &str) -> Vec<u8> {
    let mut all = Vec::new();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(file) = openat(CWD, path, flags, Mode::empty()) else {
        return all;
    };
    let mut buffer = vec![0_u8; 16 * 1024];
    while all.len() < TABLE_BYTES {
        match read(&file, &mut buffer) {
            Ok(0) => break,
            Ok(count) => all.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    all
}
