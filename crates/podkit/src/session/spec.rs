//! Wishes laid over one another, and compared with what a container has. Pure functions.

use std::path::Path;

use crate::{
    config::{Bytes, Image, Mount, SessionSpec, WORKSPACE_PATH},
    config::{DEFAULT_PIDS_MAX, DEFAULT_USER, Security},
    container::ContainerInfo,
    container::{auto_stop, cpu_millis, memory_bytes},
};

/// `over` where it says something, `base` elsewhere. Maps are joined, lists replaced.
pub(super) fn merged(base: &SessionSpec, over: &SessionSpec) -> SessionSpec {
    let mut spec = base.clone();
    macro_rules! options {
        ($($field:ident),* $(,)?) => {$(
            if over.$field.is_some() {
                spec.$field.clone_from(&over.$field);
            }
        )*};
    }
    options![
        image,
        cpus,
        memory,
        swap,
        pids_max,
        shm,
        cwd,
        user,
        network,
        hostname,
        gpus,
        runtime,
        platform,
        pull,
        auto_remove,
        read_only_root,
        workspace,
        auto_stop,
        idle_timeout,
        max_lifetime,
        exec_timeout,
    ];
    // A wish to inherit is a wish for another network or image; one that is named wins.
    if over.inherit_networks && over.network.is_none() {
        spec.network = None;
    }
    if over.inherit_image && over.image.is_none() {
        spec.image = None;
    }
    spec.inherit_networks =
        spec.network.is_none() && (base.inherit_networks || over.inherit_networks);
    spec.inherit_image = spec.image.is_none() && (base.inherit_image || over.inherit_image);
    if over.image_defaults || over.entrypoint.is_some() || over.command.is_some() {
        // They belong together: an own command is not the arguments of another's entrypoint.
        spec.image_defaults = over.image_defaults;
        spec.entrypoint.clone_from(&over.entrypoint);
        spec.command.clone_from(&over.command);
    }
    macro_rules! lists {
        ($($field:ident),* $(,)?) => {$(
            if !over.$field.is_empty() {
                spec.$field.clone_from(&over.$field);
            }
        )*};
    }
    lists![host_paths, mounts, aliases, ports, dns, devices];
    // A mount there takes the place of a workspace that is only usual.
    let own = |mount: &Mount| mount.target == Path::new(WORKSPACE_PATH);
    if over.workspace.is_none() && over.mounts.iter().any(own) {
        spec.workspace = None;
    }
    if over.security != Security::default() {
        spec.security.clone_from(&over.security);
    }
    spec.env.extend(over.env.clone());
    spec.hosts.extend(over.hosts.clone());
    spec.ulimits.extend(over.ulimits.clone());
    spec.labels.extend(over.labels.clone());
    spec
}

/// A wish for nothing but this image.
impl From<Image> for SessionSpec {
    fn from(image: Image) -> Self {
        let spec = Self::new().image(image.to_string());
        match image {
            Image::Host { paths } => paths.into_iter().fold(spec, Self::host_path),
            _ => spec,
        }
    }
}

/// Names of the fields that `wish` sets and the container has otherwise. Never a value.
pub(super) fn differences(
    wish: &SessionSpec,
    have: &SessionSpec,
    info: &ContainerInfo,
    default_image: &Image,
) -> Vec<String> {
    let mut fields = Vec::new();
    let mut compare = |field: &str, set: bool, same: bool| {
        if set && !same {
            fields.push(field.to_owned());
        }
    };
    macro_rules! plain {
        ($($field:ident),* $(,)?) => {$(
            compare(stringify!($field), wish.$field.is_some(), wish.$field == have.$field);
        )*};
    }
    plain![
        swap,
        shm,
        hostname,
        workspace,
        idle_timeout,
        max_lifetime,
        exec_timeout,
        entrypoint,
        command,
        gpus,
        runtime,
        platform,
        auto_remove,
    ];
    macro_rules! lists {
        ($($field:ident),* $(,)?) => {$(
            compare(stringify!($field), !wish.$field.is_empty(), wish.$field == have.$field);
        )*};
    }
    lists![mounts, host_paths, aliases, ports, dns, devices];
    let default_image = default_image.to_string();
    let image = have.image.as_deref().unwrap_or(&default_image);
    compare(
        "image",
        wish.image.is_some(),
        wish.image.as_deref() == Some(image),
    );
    compare(
        "cpus",
        wish.cpus.is_some(),
        cpu_millis(wish).ok() == cpu_millis(have).ok(),
    );
    compare(
        "memory",
        wish.memory.is_some(),
        memory_bytes(wish).ok() == memory_bytes(have).ok(),
    );
    let pids = have.pids_max.unwrap_or(DEFAULT_PIDS_MAX);
    compare(
        "pids_max",
        wish.pids_max.is_some(),
        wish.pids_max == Some(pids),
    );
    let directory = have.cwd.clone().unwrap_or_else(|| WORKSPACE_PATH.into());
    compare(
        "cwd",
        wish.cwd.is_some(),
        wish.cwd.as_ref() == Some(&directory),
    );
    let user = have.user.as_deref().unwrap_or(DEFAULT_USER);
    compare(
        "user",
        wish.user.is_some(),
        wish.user.as_deref() == Some(user),
    );
    let network = have.network.clone().unwrap_or_default();
    compare(
        "network",
        wish.network.is_some(),
        wish.network.as_ref() == Some(&network),
    );
    let read_only = have.read_only_root.unwrap_or(false);
    compare(
        "read_only_root",
        wish.read_only_root.is_some(),
        wish.read_only_root == Some(read_only),
    );
    let clock = auto_stop(have).ok();
    compare(
        "auto_stop",
        wish.auto_stop.is_some(),
        auto_stop_of(wish) == clock,
    );
    compare("image_defaults", wish.image_defaults, have.image_defaults);
    compare(
        "security",
        wish.security != Security::default(),
        wish.security == have.security,
    );
    for (name, value) in &wish.env {
        compare(
            &format!("env.{name}"),
            true,
            have.env.get(name).or_else(|| info.env.get(name)) == Some(value),
        );
    }
    for (name, limit) in &wish.ulimits {
        compare(
            &format!("ulimits.{name}"),
            true,
            have.ulimits.get(name) == Some(limit),
        );
    }
    for (name, address) in &wish.hosts {
        compare(
            &format!("hosts.{name}"),
            true,
            have.hosts.get(name) == Some(address),
        );
    }
    for (name, value) in &wish.labels {
        compare(
            &format!("labels.{name}"),
            true,
            info.labels.get(name) == Some(value),
        );
    }
    // Sizes that are written differently are the same size.
    let same_size = |a: &Option<Bytes>, b: &Option<Bytes>| match (a, b) {
        (Some(a), Some(b)) => matches!((a.resolve(), b.resolve()), (Ok(a), Ok(b)) if a == b),
        _ => false,
    };
    fields.retain(|field| match field.as_str() {
        "swap" => !same_size(&wish.swap, &have.swap),
        "shm" => !same_size(&wish.shm, &have.shm),
        _ => true,
    });
    fields
}

/// The clock that a set `auto_stop` means.
fn auto_stop_of(wish: &SessionSpec) -> Option<Option<std::time::Duration>> {
    wish.auto_stop.map(crate::config::Limit::duration)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::{Limit, Network, Workspace},
        id::ContainerId,
    };

    fn different(wish: &SessionSpec, have: &SessionSpec) -> Vec<String> {
        let id = ContainerId::new("x").unwrap();
        let info = super::super::fuzzing::info(id, "x", have.labels.clone(), ("A", "1".to_owned()));
        differences(wish, have, &info, &Image::host())
    }

    #[test]
    fn differences_of_fields_not_set_are_none() {
        let have = SessionSpec::new()
            .cpus(2.0)
            .memory("1g")
            .image("python")
            .label("a", "b");
        assert!(different(&SessionSpec::new(), &have).is_empty());
    }

    #[test]
    fn differences_of_equal_meaning_are_none() {
        let have = SessionSpec::new().memory("1024m").shm("1m").label("l", "v");
        let wish = SessionSpec::new()
            .memory("1g")
            .shm(1_u64 << 20)
            .cpus(1.0)
            .pids_max(512)
            .user("root")
            .cwd("/workspace")
            .image("host")
            .network(Network::Default)
            .read_only_root(false)
            .auto_stop(Limit::After(Duration::from_secs(60)))
            .env("A", "1")
            .label("l", "v");
        assert_eq!(different(&wish, &have), Vec::<String>::new());
    }

    #[test]
    fn differences_name_fields_and_never_values() {
        let wish = SessionSpec::new()
            .memory("2g")
            .image("python")
            .env("A", "secret")
            .env("B", "secret")
            .mount(Mount::bind("/a", "/a"))
            .auto_stop(Limit::Off)
            .label("l", "w");
        let mut found = different(&wish, &SessionSpec::new());
        found.sort();
        let expected = [
            "auto_stop",
            "env.A",
            "env.B",
            "image",
            "labels.l",
            "memory",
            "mounts",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn merged_specs_inherit_where_the_upper_one_names_nothing() {
        let named = SessionSpec::new().image("a").network(Network::None);
        let inherit = SessionSpec::new()
            .inherit_image(true)
            .inherit_networks(true);
        let spec = merged(&named, &inherit);
        assert_eq!((spec.image, spec.network), (None, None));
        assert!(spec.inherit_image && spec.inherit_networks);

        let spec = merged(&inherit, &named);
        assert_eq!(
            (spec.image.as_deref(), spec.network),
            (Some("a"), Some(Network::None))
        );
        assert!(!spec.inherit_image && !spec.inherit_networks);
        let both = inherit.clone().image("a").network(Network::None);
        assert!(!merged(&SessionSpec::new(), &both).inherit_image);
        assert!(merged(&inherit, &SessionSpec::new()).inherit_networks);
    }

    #[test]
    fn merged_specs_have_a_mount_instead_of_a_usual_workspace() {
        let usual = SessionSpec::new().workspace(Workspace::new("/srv"));
        let own = SessionSpec::new().mount(Mount::bind("/data", "/workspace"));
        assert_eq!(merged(&usual, &own).workspace, None);
        let other = SessionSpec::new().mount(Mount::bind("/data", "/data"));
        assert!(merged(&usual, &other).workspace.is_some());
    }

    #[test]
    fn merged_specs_take_the_upper_one_where_it_speaks() {
        let base = SessionSpec::new().cpus(2.0).env("A", "1").entrypoint(["x"]);
        let over = SessionSpec::new().env("A", "2").memory("1g").command(["y"]);
        let spec = merged(&base, &over);
        assert_eq!((spec.cpus, spec.env["A"].as_str()), (Some(2.0), "2"));
        assert_eq!((spec.entrypoint, spec.command.unwrap().len()), (None, 1));
    }
}
