//! Where groups can be made: read from the kernel, then tried.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use super::{Layout, PREFIX, Unified};

/// One mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    /// The group that is shown at the mount point.
    root: PathBuf,
    mount: PathBuf,
    version_2: bool,
    options: Vec<String>,
}

pub(super) fn find() -> Layout {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let hierarchies = parse_mounts(&mounts);
    let controller = |name: &str, needed: &str| {
        let hierarchy = hierarchies
            .iter()
            .find(|one| !one.version_2 && one.options.iter().any(|option| option == name))?;
        candidates(hierarchy, own_group(&own, name))
            .into_iter()
            .find(|base| try_group(base, &["tasks", needed]).is_some())
    };
    let memory = controller("memory", "memory.limit_in_bytes");
    let swap = memory
        .as_ref()
        .is_some_and(|base| base.join("memory.memsw.limit_in_bytes").exists());
    let unified = hierarchies
        .iter()
        .find(|one| one.version_2)
        .and_then(|hierarchy| unified(hierarchy, own_group(&own, "")));
    Layout {
        swap,
        memory,
        cpu: controller("cpu", "cpu.cfs_quota_us"),
        pids: controller("pids", "pids.max"),
        unified,
    }
}

fn unified(hierarchy: &Hierarchy, own: Option<&str>) -> Option<Unified> {
    candidates(hierarchy, own).into_iter().find_map(|base| {
        // Processes come from another group, so the right to move them is needed here as well.
        File::options()
            .write(true)
            .open(base.join("cgroup.procs"))
            .ok()?;
        let handed_down = fs::read_to_string(base.join("cgroup.subtree_control")).ok()?;
        for controller in ["memory", "cpu", "pids"] {
            if !handed_down
                .split_whitespace()
                .any(|word| word == controller)
            {
                // What is not there, or in the way, shows when the trial group is looked at.
                let _ = super::write(
                    &base.join("cgroup.subtree_control"),
                    format!("+{controller}").as_bytes(),
                );
            }
        }
        let has = try_group(
            &base,
            &[
                "memory.max",
                "memory.swap.max",
                "cpu.max",
                "pids.max",
                "cgroup.kill",
                "cgroup.freeze",
            ],
        )?;
        let has = |file: &str| has.iter().any(|one| one == file);
        Some(Unified {
            memory: has("memory.max"),
            swap: has("memory.swap.max"),
            cpu: has("cpu.max"),
            pids: has("pids.max"),
            kill: has("cgroup.kill"),
            freeze: has("cgroup.freeze"),
            base,
        })
    })
}

/// Makes a group, says which of `files` it has, and removes it.
fn try_group(base: &Path, files: &[&str]) -> Option<Vec<String>> {
    let group = base.join(format!("{PREFIX}try-{}", std::process::id()));
    fs::create_dir(&group).ok()?;
    let found = files
        .iter()
        .filter(|file| group.join(file).exists())
        .map(|file| (*file).to_owned())
        .collect();
    fs::remove_dir(&group).ok()?;
    Some(found)
}

/// Outermost first: the further out, the less a container depends on who started it.
fn candidates(hierarchy: &Hierarchy, own: Option<&str>) -> Vec<PathBuf> {
    let mut all = vec![hierarchy.mount.clone()];
    let below = own.and_then(|own| Path::new(own).strip_prefix(&hierarchy.root).ok());
    let mut path = hierarchy.mount.clone();
    for part in below.into_iter().flat_map(Path::components) {
        path.push(part);
        all.push(path.clone());
    }
    all
}

/// The group that this process is in, by its controller; the empty one is version 2.
fn own_group<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let matches = if controller.is_empty() {
            number == "0"
        } else {
            names.split(',').any(|name| name == controller)
        };
        matches.then_some(path)
    })
}

fn parse_mounts(text: &str) -> Vec<Hierarchy> {
    text.lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            let (root, point) = (mount.next()?, mount.next()?);
            let mut file_system = file_system.split(' ');
            let version_2 = match file_system.next()? {
                "cgroup" => false,
                "cgroup2" => true,
                _ => return None,
            };
            Some(Hierarchy {
                root: root.into(),
                mount: point.into(),
                version_2,
                options: file_system.nth(1)?.split(',').map(str::to_owned).collect(),
            })
        })
        .collect()
}

/// Whether a container lives on when the service manager ends the service that this process
/// belongs to: it kills whoever is in the service's group of its own hierarchy.
pub(super) fn outlives(base: Option<&Path>) -> bool {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let managed = |path: &str| path != "/" && !path.starts_with("/..");
    match own_group(&own, "name=systemd") {
        // Containers stay where their starter is in this hierarchy.
        Some(path) => !managed(path),
        None => match own_group(&own, "") {
            Some(path) if managed(path) => {
                base.is_some_and(|base| !base.ends_with(path.trim_start_matches('/')))
            }
            _ => true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
31 24 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 /docker/x /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory
34 31 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn mounts_are_read_with_root_point_and_controllers() {
        let found = parse_mounts(MOUNTS);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].mount, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert!(found[0].options.contains(&"cpu".to_owned()));
        assert_eq!(found[1].root, Path::new("/docker/x"));
        assert!(found[2].version_2);
    }

    #[test]
    fn candidates_go_from_the_mount_to_the_own_group() {
        let memory = &parse_mounts(MOUNTS)[1];
        let paths = candidates(memory, Some("/docker/x/a/b"));
        let expected = ["", "a", "a/b"].map(|below| memory.mount.join(below));
        assert_eq!(paths, expected);
        assert_eq!(candidates(memory, Some("/elsewhere")).len(), 1);
    }

    #[test]
    fn own_group_is_found_by_controller() {
        let text = "4:memory:/a\n2:cpu,cpuacct:/b\n0::/c\n";
        assert_eq!(own_group(text, "memory"), Some("/a"));
        assert_eq!(own_group(text, "cpu"), Some("/b"));
        assert_eq!(own_group(text, ""), Some("/c"));
        assert_eq!(own_group(text, "pids"), None);
    }
}
