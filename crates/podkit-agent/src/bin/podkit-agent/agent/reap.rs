//! Children that ended: the agent's own, and orphans of the container.

use alloc::vec::Vec;

use super::{
    Agent,
    exec::{Exec, Hold},
    signals::CONTINUE,
    tree::{Hunt, Stat},
};
use crate::sys::serve::{self, Ended};

impl Agent {
    /// Takes all away that have ended.
    pub(super) fn reap(&mut self) {
        while let Ok(Some(ended)) = serve::reap(false) {
            if ended.is_stopped() {
                self.child_stopped(ended.pid);
            } else {
                self.child_ended(ended);
            }
        }
        let groups = core::mem::take(&mut self.remnant_groups);
        self.remnant_groups = groups
            .into_iter()
            .filter(|id| !self.remove_group_of(*id))
            .collect();
    }

    /// A command may stop its supervisor, which then could not tell how it ended.
    fn child_stopped(&self, pid: i32) {
        let supervises = |exec: &Exec| matches!(exec.hold, Hold::Supervisor { pid: own, ended: false, .. } if own == pid);
        if self.remnants.contains(&pid) || self.execs.values().any(supervises) {
            let _ = serve::kill(pid, CONTINUE);
        }
    }

    fn child_ended(&mut self, ended: Ended) {
        let Ended { pid, status, used } = ended;
        if let Some(at) = self.remnants.iter().position(|remnant| *remnant == pid) {
            self.remnants.swap_remove(at);
            if status != 0 {
                self.orphans.get_or_insert_with(Hunt::default);
            }
            return;
        }
        if let Some(at) = self.lingering.iter().position(|(child, _)| *child == pid) {
            self.lingering.swap_remove(at);
            return;
        }
        if let Some(at) = self.bridges.iter().position(|child| *child == pid) {
            self.bridges.swap_remove(at);
            return self.mind_callers();
        }
        let commands: Vec<u32> = self
            .execs
            .iter()
            .filter(|(_, exec)| exec.pid == Some(pid) && exec.is_running())
            .map(|(id, _)| *id)
            .collect();
        if let Some(id) = commands.first() {
            return self.exec_ended(*id, status, used);
        }
        let supervised = self.execs.iter().find_map(|(id, exec)| match exec.hold {
            Hold::Supervisor {
                pid: own,
                ended: false,
                ..
            } if own == pid => Some(*id),
            _ => None,
        });
        if let Some(id) = supervised {
            return self.supervisor_ended(id, status);
        }
        if self.logger_ended(pid) {
            return;
        }
        let file = self.files.iter().find(|(_, job)| job.pid == pid);
        if let Some(id) = file.map(|(id, _)| *id) {
            self.file_child_ended(id);
        }
    }

    /// A supervisor that was killed leaves its processes to PID 1. They are its command's still, and
    /// end with it: at its deadline, when it is given up, or when it ends.
    fn supervisor_ended(&mut self, id: u32, status: i32) {
        // What it has told last is still in the pipe.
        self.hear_supervisor(id);
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        if let Hold::Supervisor { ended, .. } = &mut exec.hold {
            *ended = true;
        }
        let (running, pid) = (exec.is_running(), exec.pid);
        if !running {
            // One that ended by itself had nothing left below it.
            if status != 0 {
                self.orphans.get_or_insert_with(Hunt::default);
            }
            return self.settle(id);
        }
        // It may have taken the command's status with it.
        if pid.is_none_or(|pid| Stat::of(&self.processes, pid).is_none()) {
            self.exec_ended(id, KILLED, serve::Used::default());
        }
        self.settle(id);
    }
}

/// A status of `wait`: ended by SIGKILL.
const KILLED: i32 = 9;
