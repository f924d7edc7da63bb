//! The container's own program: a child like any other command, with which the container ends.

use super::{Agent, start::Written};
use podkit_agent::{ExecSpec, StopReason};

impl Agent {
    /// Starts the container's own program, if it has one.
    pub(super) fn start_main(&mut self) {
        let Some(argv) = self.config.main.clone() else {
            return;
        };
        let spec = ExecSpec {
            argv,
            user: self.config.main_user.clone(),
            cwd: self.config.main_cwd.clone(),
            merge_output: true,
            detached: true,
            passive: true,
            ..ExecSpec::default()
        };
        match self.start_exec(&spec, None, Written::Here) {
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
