//! The container's own program: a child like any other command, with which the container ends.

use podkit_agent::{ExecSpec, StopReason};
use rustix::{
    fd::OwnedFd,
    fs::{fstat, ftruncate},
    io::{pread, pwrite},
};

use super::Agent;

/// Bytes of the log; beyond it the older half is dropped.
const MOST: u64 = 1024 * 1024;

const KEPT: u64 = MOST / 2;

/// What the container's own program has written: the last 512 KiB to 1 MiB of it.
pub(super) struct Log {
    file: OwnedFd,
    length: u64,
}

impl Log {
    /// Goes on after what earlier lives of the container have written.
    pub(super) fn new(file: OwnedFd) -> Self {
        let length = fstat(&file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        Self { file, length }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.length + bytes.len() as u64 > MOST {
            self.drop_older_half();
        }
        // A full disk costs the log, never the program.
        if let Ok(count) = pwrite(&self.file, bytes, self.length) {
            self.length += count as u64;
        }
    }

    fn drop_older_half(&mut self) {
        let from = self.length.saturating_sub(KEPT);
        let mut buffer = alloc::vec![0_u8; 64 * 1024];
        let mut moved = 0;
        while from + moved < self.length {
            let count = match pread(&self.file, buffer.as_mut_slice(), from + moved) {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            if pwrite(&self.file, bytes, moved) != Ok(count) {
                break;
            }
            moved += count as u64;
        }
        let _ = ftruncate(&self.file, moved);
        self.length = moved;
    }
}

impl Agent {
    /// Starts the container's own program, if it has one.
    pub(super) fn start_main(&mut self) {
        let Some(argv) = self.config.main.clone() else {
            return;
        };
        let spec = ExecSpec {
            argv,
            merge_output: true,
            detached: true,
            passive: true,
            ..ExecSpec::default()
        };
        match self.start_exec(&spec, None) {
            Ok(id) => {
                if let Some(exec) = self.execs.get_mut(&id) {
                    exec.main = true;
                }
                self.main = Some(id);
                self.resume_output(id);
            }
            Err(_) => self.close(StopReason::MainExited, 126, 0),
        }
    }
}
