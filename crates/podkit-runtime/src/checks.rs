//! What `doctor` shows: each thing tried, with what helps where it does not work.

use crate::{
    facts::{Cgroups, Check},
    identity::Identity,
    machine::Machine,
    runtime::Runtime,
    spec::Isolation,
};

impl Runtime {
    /// Tries everything that containers need, now, and says what works and what does not.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        let mut all = vec![self.check_state_directory()];
        match Machine::by_trial(self, Identity::of_caller()) {
            Ok(machine) => {
                all.push(good(
                    "make a container",
                    true,
                    "namespaces, mounts and filter work",
                ));
                all.extend(of_machine(&machine));
            }
            Err(error) => all.push(Check {
                name: "make a container",
                essential: true,
                ok: false,
                detail: error.to_string(),
                fix: error.hint().map(str::to_owned),
            }),
        }
        all
    }

    fn check_state_directory(&self) -> Check {
        let name = "write the state directory";
        let path = self.store.state_dir();
        match crate::store::Draft::new(&self.store)
            .and_then(|draft| crate::tree::remove(&draft.path))
        {
            Ok(()) => good(name, true, &format!("`{}`", path.display())),
            Err(error) => Check {
                name,
                essential: true,
                ok: false,
                detail: error.to_string(),
                fix: error.hint().map(str::to_owned),
            },
        }
    }
}

fn of_machine(machine: &Machine) -> Vec<Check> {
    let facts = &machine.facts;
    let check = |name, ok, found: &str, missing: &str, fix: &str| Check {
        name,
        essential: false,
        ok,
        detail: if ok { found } else { missing }.to_owned(),
        fix: (!ok).then(|| fix.to_owned()),
    };
    let groups = "run as root, or in a scope with delegated control groups: `systemd-run --user \
                  --scope -p Delegate=yes`";
    let kind = format!("control groups: {}", facts.cgroups.as_str());
    let none = if facts.cgroups == Cgroups::None {
        "no control group can be used"
    } else {
        "the controller cannot be used"
    };
    vec![
        check(
            "own range of user ids",
            facts.isolation == Isolation::OwnRange,
            "every container has its own 65536 ids",
            match facts.isolation {
                Isolation::SharedRange => "all containers of this user share one range",
                Isolation::CallerUid | Isolation::OwnRange => {
                    "root of a container is the calling user"
                }
            },
            "give the user 131072 or more sub-ids in /etc/subuid and /etc/subgid and install \
             newuidmap, or run as root",
        ),
        check("limit memory", facts.memory_limit, &kind, none, groups),
        check("limit swap", facts.swap_limit, &kind, none, groups),
        check("limit processor time", facts.cpu_limit, &kind, none, groups),
        check("limit processes", facts.pids_limit, &kind, none, groups),
        check(
            "kill process trees at once",
            facts.kernel_tree_kill,
            "cgroup.kill",
            "there is no version 2 control group with cgroup.kill",
            groups,
        ),
        check(
            "pause",
            facts.pause,
            "cgroup.freeze",
            "there is no cgroup.freeze",
            groups,
        ),
        check(
            "keep files over a stop",
            facts.lasting_root,
            "overlay on the state directory",
            "the state directory's file system cannot be an overlay's upper layer",
            "put the state directory on a local disk: `--state-dir`",
        ),
        check(
            "share directories for writing",
            facts.idmapped_binds || facts.isolation == Isolation::CallerUid,
            if facts.idmapped_binds {
                "idmapped mounts"
            } else {
                "the ids are the same"
            },
            "mounts cannot be shown with other ids",
            "run as root on a kernel from 5.12 and a file system with idmapped mounts",
        ),
        check(
            "run the agent from memory",
            facts.memory_exec,
            "a sealed memory file",
            "memory files cannot be executed, a file in the state directory is used",
            "set `vm.memfd_noexec` to 0 or 1",
        ),
        check(
            "outlive the client's service",
            facts.outlives_client,
            "containers are outside its control group",
            "the service manager ends containers with the service",
            "start podkit outside of a service, or set `KillMode=process` in it",
        ),
    ]
}

fn good(name: &'static str, essential: bool, detail: &str) -> Check {
    Check {
        name,
        essential,
        ok: true,
        detail: detail.to_owned(),
        fix: None,
    }
}
