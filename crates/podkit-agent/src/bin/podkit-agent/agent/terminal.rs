//! Terminals of commands.

use alloc::vec::Vec;

use podkit_agent::TerminalSize;
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, Mode, OFlags, fstatfs, openat},
    io::{Errno, Result, ioctl_fionbio},
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    termios::{
        InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Winsize, tcgetattr, tcsetattr,
        tcsetwinsize,
    },
};

use super::Agent;

/// Where terminals are, and what kind of file system that is.
const DIRECTORY: &str = "/dev/pts";
const TERMINALS_MAGIC: i64 = 0x1cd1;

/// The container's terminals, as they were before anything else ran here.
pub(super) struct Terminals(Option<OwnedFd>);

impl Terminals {
    pub(super) fn new() -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, DIRECTORY, flags, Mode::empty()).ok();
        Self(directory.filter(|directory| {
            fstatfs(directory).is_ok_and(|stat| stat.f_type == TERMINALS_MAGIC)
        }))
    }

    /// A new terminal: our end, which does not block, and the command's.
    pub(super) fn open(&self, size: TerminalSize) -> Result<(OwnedFd, OwnedFd)> {
        let directory = self.0.as_ref().ok_or(Errno::NODEV)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let ours = openat(directory, "ptmx", flags, Mode::empty())?;
        unlockpt(&ours)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = ioctl_tiocgptpeer(&ours, flags)?;
        // What is erased is a character, not a byte of it.
        if let Ok(mut modes) = tcgetattr(&theirs) {
            modes.input_modes |= InputModes::IUTF8;
            let _ = tcsetattr(&theirs, OptionalActions::Now, &modes);
        }
        set_size(&ours, size)?;
        ioctl_fionbio(&ours, true)?;
        Ok((ours, theirs))
    }
}

fn set_size(terminal: impl AsFd, size: TerminalSize) -> Result<()> {
    tcsetwinsize(
        terminal,
        Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )
}

/// What is typed to say that no more comes: nothing where the program takes every character as it
/// is.
pub(super) fn end_of_input(terminal: impl AsFd) -> Vec<u8> {
    match tcgetattr(terminal) {
        Ok(modes) if modes.local_modes.contains(LocalModes::ICANON) => {
            // Once ends the line that was begun, twice the input.
            let character = modes.special_codes[SpecialCodeIndex::VEOF];
            alloc::vec![character, character]
        }
        _ => Vec::new(),
    }
}

impl Agent {
    /// Changes the size of a command's terminal; whoever is in its foreground is told by the
    /// kernel.
    pub(super) fn resize(&self, id: u32, size: TerminalSize) {
        if let Some(exec) = self.execs.get(&id)
            && exec.terminal
            && let Some(out) = &exec.outs[0]
        {
            let _ = set_size(out.as_fd(), size);
        }
    }
}
