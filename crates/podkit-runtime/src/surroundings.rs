//! What around this process forbids containers: the kernel's settings, security modules, an outer
//! container. Says so in the user's words, with all that helps at once.

use std::fs;

use podkit_agent::plan::SHOW_IDS;
use rustix::io::Errno;

use crate::error::{Error, ErrorKind};

/// What helps where the state directory's file system cannot do what containers need.
const STATE_ELSEWHERE: &str = "put the state directory on ext4, XFS or Btrfs: `--state-dir`, or in a container a volume at \
     /var/lib/podkit";

/// What may forbid something, as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Surroundings {
    /// `kernel.apparmor_restrict_unprivileged_userns`.
    apparmor_userns: String,
    /// `kernel.unprivileged_userns_clone`.
    userns_clone: String,
    /// `user.max_user_namespaces`.
    user_namespaces: String,
    /// Whether a filter of system calls is on this process.
    filtered: bool,
    /// The AppArmor profile that this process is confined by.
    profile: Option<String>,
    /// Whether something is mounted over parts of `/proc`.
    proc_hidden: bool,
    /// Whether the kernel lacks what containers are made with.
    too_old: bool,
}

/// Says what the kernel refused at a step of the helper's; `None` where nothing better is known
/// than the step itself.
pub(crate) fn explain(step: &str, errno: Errno) -> Option<Error> {
    let (cause, fix) = Surroundings::look().explain(step, errno)?;
    let reason = std::io::Error::from_raw_os_error(errno.raw_os_error());
    let error = Error::new(ErrorKind::Unsupported, format!("{step}: {cause}: {reason}"));
    Some(error.with_hint(fix))
}

/// Says why the system's program for sub-ids refused.
pub(crate) fn explain_mapper(step: &str) -> Option<Error> {
    let (program, _) = step.strip_prefix("map ids with ")?.split_once(": ")?;
    let error = Error::new(
        ErrorKind::Unsupported,
        format!("give a container ids of its own: `{program}` refused"),
    );
    Some(error.with_hint(
        "check that it is set-id root (or has `cap_setuid`), that its file system is not `nosuid`, \
         and that the ranges in /etc/subuid and /etc/subgid exist here",
    ))
}

impl Surroundings {
    fn look() -> Self {
        let found = |path: &str| {
            fs::read_to_string(path)
                .map(|text| text.trim_end_matches('\0').trim().to_owned())
                .unwrap_or_default()
        };
        Self {
            apparmor_userns: found("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            userns_clone: found("/proc/sys/kernel/unprivileged_userns_clone"),
            user_namespaces: found("/proc/sys/user/max_user_namespaces"),
            filtered: found("/proc/self/status")
                .lines()
                .any(|line| line.split_whitespace().eq(["Seccomp:", "2"])),
            profile: profile(&found("/proc/self/attr/current")),
            proc_hidden: hides_proc(&found("/proc/self/mountinfo")),
            too_old: is_too_old(&found("/proc/sys/kernel/osrelease")),
        }
    }

    fn explain(&self, step: &str, errno: Errno) -> Option<(String, String)> {
        let forbidden = matches!(errno, Errno::PERM | Errno::ACCESS);
        match step {
            // What it answers to what it does not know is no guide.
            _ if self.too_old => Some((
                "this kernel is too old".to_owned(),
                "use a kernel from 5.12".to_owned(),
            )),
            "make the namespaces" | "make a user namespace" => Some(self.namespaces(errno)),
            "mount proc" | "mount sysfs" if forbidden && self.proc_hidden => Some((
                "a surrounding container hides parts of /proc".to_owned(),
                self.open_up(),
            )),
            _ if forbidden && self.profile.is_some() && is_confinable(step) => {
                Some((self.confined(), self.open_up()))
            }
            // Ids are a matter of the file system.
            _ if step.starts_with(SHOW_IDS) => None,
            _ if step.starts_with("show ") && errno == Errno::INVAL => Some((
                "the state directory's file system cannot".to_owned(),
                STATE_ELSEWHERE.to_owned(),
            )),
            "mount the overlay root" if errno == Errno::INVAL => Some((
                "the state directory's file system cannot hold what containers write".to_owned(),
                STATE_ELSEWHERE.to_owned(),
            )),
            _ if errno == Errno::NOSYS && self.filtered => Some((
                "the system call filter of a surrounding container forbids it".to_owned(),
                self.open_up(),
            )),
            _ => None,
        }
    }

    fn confined(&self) -> String {
        format!(
            "the AppArmor profile `{}` forbids it",
            self.profile.as_deref().unwrap_or_default()
        )
    }

    /// Why the kernel makes no namespaces for this user.
    fn namespaces(&self, errno: Errno) -> (String, String) {
        let (cause, fix) = match errno {
            _ if self.user_namespaces == "0" => (
                "user namespaces are switched off by `user.max_user_namespaces`",
                "as root: `sysctl user.max_user_namespaces=15000`",
            ),
            Errno::NOSPC | Errno::USERS => (
                "the limit of namespaces, or of their nesting, is reached",
                "raise `user.max_user_namespaces` and its relatives, or remove containers",
            ),
            _ if self.userns_clone == "0" => (
                "unprivileged user namespaces are switched off by \
                 `kernel.unprivileged_userns_clone`",
                "as root: `sysctl kernel.unprivileged_userns_clone=1`",
            ),
            _ if self.apparmor_userns == "1" => (
                "AppArmor restricts unprivileged user namespaces",
                "as root: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
            ),
            _ if self.filtered => {
                return (
                    "the system call filter of a surrounding container forbids it".to_owned(),
                    self.open_up(),
                );
            }
            _ if self.profile.is_some() => return (self.confined(), self.open_up()),
            _ => (
                "the kernel refuses",
                "run outside of a chroot or container, or as root; `podkit doctor` shows more",
            ),
        };
        (cause.to_owned(), fix.to_owned())
    }

    /// All that an outer container has to be given, and not only what was in the way first.
    fn open_up(&self) -> String {
        let options: Vec<_> = [
            (self.filtered, "seccomp=unconfined"),
            (self.profile.is_some(), "apparmor=unconfined"),
            (self.proc_hidden, "systempaths=unconfined"),
        ]
        .into_iter()
        .filter(|(needed, _)| *needed)
        .map(|(_, option)| format!("--security-opt {option}"))
        .collect();
        let podman = if self.proc_hidden {
            " (Podman: `unmask=ALL` for `systempaths=unconfined`)"
        } else {
            ""
        };
        let profile = if self.profile.is_some() {
            ", or allow it in the profile (`userns,` `mount,`)"
        } else {
            ""
        };
        format!(
            "give the surrounding container `{}`{podman}, or run outside of it{profile}",
            options.join(" ")
        )
    }
}

/// Whether a step is one that profiles for containers forbid, and not one that depends on whose files
/// are named.
fn is_confinable(step: &str) -> bool {
    let mounting = [
        "mount ",
        "cut mount",
        "attach ",
        "cover ",
        "switch the root",
    ];
    mounting.iter().any(|begin| step.starts_with(begin))
}

/// Whether mounts cannot be given attributes yet: before 5.12.
fn is_too_old(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (5, 12),
        _ => false,
    }
}

/// The profile in what the kernel says of a process: `docker-default (enforce)`. Who is unconfined,
/// or confined by another security module, has none.
fn profile(text: &str) -> Option<String> {
    let (name, mode) = text.rsplit_once(" (")?;
    (mode == "enforce)" && !name.is_empty()).then(|| name.to_owned())
}

/// Whether a mount lies below `/proc`. Mounts that only watch it, as systemd's of `binfmt_misc` do,
/// hide nothing that matters: the kernel wants to see all of it elsewhere, too.
fn hides_proc(mountinfo: &str) -> bool {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .any(|point| point.starts_with("/proc/") && !point.starts_with("/proc/sys/fs/binfmt_misc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Surroundings {
        Surroundings {
            user_namespaces: "100".to_owned(),
            ..Surroundings::default()
        }
    }

    fn docker() -> Surroundings {
        Surroundings {
            filtered: true,
            profile: profile("docker-default (enforce)"),
            proc_hidden: true,
            ..open()
        }
    }

    #[test]
    fn each_way_to_forbid_namespaces_has_its_fix() {
        let with = |change: fn(&mut Surroundings)| {
            let mut around = open();
            change(&mut around);
            around
        };
        for (around, errno, fix) in [
            (
                with(|around| around.apparmor_userns = "1".to_owned()),
                Errno::PERM,
                "apparmor_restrict_unprivileged_userns",
            ),
            (
                with(|around| around.userns_clone = "0".to_owned()),
                Errno::PERM,
                "unprivileged_userns_clone",
            ),
            (
                with(|around| around.user_namespaces = "0".to_owned()),
                Errno::NOSPC,
                "user.max_user_namespaces=",
            ),
            (open(), Errno::NOSPC, "max_user_namespaces"),
            (docker(), Errno::PERM, "seccomp=unconfined"),
            (docker(), Errno::NOSYS, "seccomp=unconfined"),
            (
                with(|around| around.too_old = is_too_old("5.10.0-32-cloud-amd64")),
                Errno::NOENT,
                "kernel from 5.12",
            ),
            (
                with(|around| around.profile = Some("p".to_owned())),
                Errno::ACCESS,
                "apparmor=unconfined",
            ),
        ] {
            let given = around.explain("make the namespaces", errno).unwrap();
            assert!(given.1.contains(fix), "{given:?}");
        }
    }

    #[test]
    fn outer_container_is_told_all_that_is_needed_at_once() {
        for (step, errno) in [
            ("make the namespaces", Errno::NOSYS),
            ("mount proc", Errno::PERM),
            ("switch the root", Errno::ACCESS),
        ] {
            let (_, fix) = docker().explain(step, errno).unwrap();
            for option in ["seccomp", "apparmor", "systempaths"] {
                let option = format!("--security-opt {option}=unconfined");
                assert!(fix.contains(&option), "{step}: {fix}");
            }
        }
    }

    #[test]
    fn what_nobody_around_forbids_is_left_to_the_step() {
        assert_eq!(open().explain("mount proc", Errno::PERM), None);
        assert_eq!(docker().explain("bind /x", Errno::ACCESS), None);
        let shown = format!("{SHOW_IDS} /x, whose file system cannot");
        assert_eq!(open().explain(&shown, Errno::OPNOTSUPP), None);
        let lower = "show /x with the container's ids";
        for step in [lower, "mount the overlay root"] {
            let (_, fix) = open().explain(step, Errno::INVAL).unwrap();
            assert!(fix.contains("--state-dir"), "{fix}");
        }
    }

    #[test]
    fn profiles_hidden_parts_and_versions_are_read_from_the_kernels_words() {
        assert!(!is_too_old("6.1.0-50-amd64") && !is_too_old("5.12.1") && !is_too_old("7.3"));
        assert_eq!(profile("unconfined"), None);
        assert_eq!(profile("/usr/bin/x (complain)"), None);
        assert_eq!(
            profile("docker-default (enforce)").as_deref(),
            Some("docker-default")
        );
        assert!(hides_proc("1 2 0:5 /null /proc/kcore rw - tmpfs tmpfs rw"));
        let watched = "1 2 0:5 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw";
        assert!(!hides_proc(watched));
    }

    #[test]
    fn refusal_of_the_id_mapper_says_what_to_look_at() {
        let error =
            explain_mapper("map ids with /usr/bin/newuidmap: it ended with Some(1)").unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("`/usr/bin/newuidmap` refused"));
        assert!(error.hint().is_some_and(|hint| hint.contains("set-id")));
        assert!(explain_mapper("mount the overlay root").is_none());
    }
}
