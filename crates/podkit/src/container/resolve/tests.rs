use super::*;
use crate::{
    backend::TreeKill,
    config::{Isolation, MountSource, Security, Workspace},
    error::ErrorKind,
};

fn able(all: bool) -> Capabilities {
    Capabilities {
        default_image: Image::host(),
        local_images: all,
        image_references: all,
        memory_limit: all,
        swap_limit: all,
        cpu_limit: all,
        pids_limit: all,
        pause: all,
        live_limits: all,
        stats: all,
        bind_mounts: all,
        writable_binds: all,
        volumes: all,
        outbound: all,
        parts_sessions: all,
        named_networks: all,
        ports: all,
        dns: all,
        ulimits: all,
        devices: all,
        gpus: all,
        runtimes: if all {
            vec!["runc".to_owned()]
        } else {
            Vec::new()
        },
        platforms: all,
        inherit: all,
        auto_remove: all,
        bind_flags: all,
        stop_keeps_files: all,
        outlives_client: all,
        tree_kill: TreeKill::Kernel,
        isolation: all.then_some(Isolation::SharedRange),
        limitations: Vec::new(),
    }
}

fn resolved(spec: SessionSpec, all: bool) -> Result<ContainerSpec> {
    let name = ContainerId::new("podkit-x").unwrap();
    resolve(&ContainerRequest::new(name, spec), &able(all))
}

fn new() -> SessionSpec {
    SessionSpec::new()
}

#[test]
fn resolve_without_wishes_fills_in_the_documented_defaults() {
    let spec = resolved(new(), true).unwrap();
    let limits = spec.limits;
    assert_eq!(limits.memory_bytes, Some(512 << 20));
    assert_eq!(limits.swap_bytes, Some(0));
    assert_eq!(
        (limits.cpu_millis, limits.pids_max),
        (Some(1000), Some(512))
    );
    assert_eq!(
        (spec.cwd.as_str(), spec.user.as_str()),
        ("/workspace", "root")
    );
    assert_eq!(spec.hostname, "podkit-x");
    assert_eq!(spec.shm_bytes, 64 << 20);
    assert!(spec.seccomp && spec.no_new_privileges);
    assert_eq!(spec.auto_stop, Some(Duration::from_secs(60)));
    assert_eq!(spec.main, MainCommand::None);
}

#[test]
fn resolve_of_defaults_on_a_poor_engine_drops_them() {
    assert_eq!(resolved(new(), false).unwrap().limits, Limits::default());
}

#[test]
fn resolve_of_unusable_fields_is_invalid_input() {
    let bad = [
        new().cpus(f64::NAN),
        new().cpus(-1.0),
        new().cpus(0.001),
        new().cpus(f64::INFINITY),
        new().memory("lots"),
        new().memory("5m"),
        new().pids_max(0),
        new().env("A=B", "x"),
        new().env("", "x"),
        new().env("A", "\0"),
        new().mount(Mount::bind("/x", "relative")),
        new().mount(Mount::bind("x", "/abs")),
        new().mount(Mount::bind("/x", "/")),
        new().mount(Mount::bind("/x", "/a/..")),
        new().mount(Mount::bind("/x", "/a/../../b")),
        new().mount(Mount::bind("/x", "/proc/sys")),
        new().mount(Mount::bind("/x", "/.podkit")),
        new()
            .mount(Mount::bind("/x", "/a"))
            .mount(Mount::bind("/y", "/b/../a")),
        new().mount(Mount::tmpfs("/a", Some(1 << 40))),
        new().mount(Mount::tmpfs("/a", Some(0))),
        new().shm("1t"),
        new().hostname("-x"),
        new().hostname("a b"),
        new().host("a", "not-an-address"),
        new().host("a b", "127.0.0.1"),
        new().label("podkit.user", "eve"),
        new().image(""),
        new().image("dir:relative"),
        new().image("python").host_path("/opt"),
        new().image_defaults(true).command(["x"]),
        new().command(["a\0b"]),
        new().user(""),
        new().cwd("../.."),
        new().auto_stop(Limit::After(Duration::ZERO)),
        new().idle_timeout(Limit::After(Duration::ZERO)),
        new().network(Network::Named(Vec::new())),
    ];
    for (index, spec) in bad.into_iter().enumerate() {
        let error = resolved(spec, true).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidInput,
            "case {index}: {error}"
        );
    }
}

#[test]
fn resolve_of_what_the_engine_lacks_is_unsupported_and_names_the_field() {
    let security = Security {
        isolation: Some(Isolation::OwnRange),
        ..Security::default()
    };
    let bad = [
        (new().cpus(1.0), "cpus"),
        (new().memory("1g"), "memory"),
        (new().swap("1g"), "swap"),
        (new().pids_max(9), "pids_max"),
        (new().image("python"), "python"),
        (new().image("host"), "host"),
        (new().mount(Mount::bind("/x", "/y")), "bind"),
        (new().mount(Mount::volume("x", "/y")), "volume"),
        (new().workspace(Workspace::new("/x")), "workspace"),
        (new().network(Network::Outbound), "outbound"),
        (new().network(Network::Named(vec!["a".into()])), "network"),
        (new().security(security.clone()), "isolation"),
        (new().inherit_image(true), "inherit_image"),
        (new().inherit_networks(true), "inherit_networks"),
    ];
    for (spec, field) in bad {
        let error = resolved(spec, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{field}");
        assert!(error.to_string().contains(field), "{error}");
    }
    let error = resolved(new().security(security), true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn resolve_of_tmpfs_shares_half_the_memory() {
    let spec = new()
        .memory("64m")
        .mount(Mount::tmpfs("/a", None))
        .mount(Mount::tmpfs("/b", None))
        .mount(Mount::tmpfs("/c", Some(1 << 20)));
    let spec = resolved(spec, true).unwrap();
    let size = |mount: &Mount| match mount.source {
        MountSource::Tmpfs { size_bytes } => size_bytes.unwrap(),
        _ => 0,
    };
    let total: u64 = spec.mounts.iter().map(size).sum::<u64>() + spec.shm_bytes;
    assert!(total <= 32 << 20, "{total}");
}

#[test]
fn resolve_with_a_program_of_its_own_has_no_auto_stop() {
    for spec in [
        new().command(["x"]),
        new().entrypoint(["x"]),
        new().image_defaults(true),
    ] {
        assert_eq!(resolved(spec, true).unwrap().auto_stop, None);
    }
    let cleared = resolved(new().entrypoint(Vec::<String>::new()), true).unwrap();
    assert_eq!((cleared.main, cleared.auto_stop), (MainCommand::None, None));
}

#[test]
fn resolve_of_a_relative_cwd_is_in_the_workspace() {
    assert_eq!(
        resolved(new().cwd("a/./b"), true).unwrap().cwd,
        "/workspace/a/b"
    );
    assert_eq!(resolved(new().cwd("/srv"), true).unwrap().cwd, "/srv");
}
