use std::collections::HashMap;

use bollard::models::{DriverData, EndpointSettings, HostConfig, NetworkSettings};

use super::*;

const A: &str = "8d3055498762f47bc1e6ffba9f1c8a88338c003ac13e45108dd08959200f6f0c";
const B: &str = "1a283777566ee95c67ddfc322fbc0092d7814b01abc7eb5608f8e1209beb9f46";

fn container(id: &str, upper: Option<&str>) -> ContainerInspectResponse {
    let data = upper.map(|upper| ("UpperDir".to_owned(), upper.to_owned()));
    ContainerInspectResponse {
        id: Some(id.to_owned()),
        image: Some("sha256:1".to_owned()),
        graph_driver: Some(DriverData {
            name: "overlay2".to_owned(),
            data: data.into_iter().collect(),
        }),
        ..ContainerInspectResponse::default()
    }
}

fn mounts(hostname_of: &str, upper: &str) -> String {
    format!(
        "74 49 0:39 / / rw,relatime master:3 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir={upper},workdir=/w\n\
         75 74 0:42 / /proc rw - proc proc rw\n\
         92 74 254:0 /var/lib/docker/containers/{hostname_of}/hostname /etc/hostname rw - ext4 /dev/vda rw\n\
         93 74 254:0 /var/lib/docker/containers/{B}/hosts /elsewhere rw - ext4 /dev/vda rw\n"
    )
}

#[test]
fn traces_of_cgroups_are_those_of_the_innermost_container() {
    let table = [
        (format!("8:pids:/docker/{A}"), Some(A)),
        (format!("0::/system.slice/docker-{A}.scope"), Some(A)),
        (
            format!("0::/user.slice/libpod-{A}.scope/container"),
            Some(A),
        ),
        (format!("1:name=x:/docker/{B}/docker/{A}"), Some(A)),
        (format!("0::/machine.slice/libpod-conmon-{A}.scope"), None),
        ("0::/".to_owned(), None),
        ("0::/../..".to_owned(), None),
        (format!("0::/docker/{}", &A[1..]), None),
    ];
    for (text, id) in table {
        let traces = Traces::parse("", &text, "");
        let ids: Vec<&str> = traces.cgroups.iter().map(String::as_str).collect();
        assert_eq!(ids, Vec::from_iter(id), "{text}");
    }
}

#[test]
fn path_of_the_root_is_read_as_the_kernel_writes_it() {
    for (written, path) in [
        (
            "/a\\075b\\054c\\011d\\012e\\134f/diff",
            "/a=b,c\td\ne\\f/diff",
        ),
        ("/a\\13404/diff", "/a\\04/diff"),
        ("/a\\99/diff\\", "/a\\99/diff\\"),
        ("/caf\\303\\251", "/café"),
    ] {
        let traces = Traces::parse(&mounts(A, written), "", "");
        assert_eq!(traces.upper.as_deref(), Some(Path::new(path)), "{written}");
    }
}

#[test]
fn traces_of_mounts_are_the_root_and_the_file_of_the_host_name() {
    let traces = Traces::parse(&mounts(A, "/o/x\\040y/diff"), "0::/", "box\n");
    assert_eq!(traces.hostname_file.as_deref(), Some(A));
    assert_eq!(traces.upper.as_deref(), Some(Path::new("/o/x y/diff")));
    assert_eq!(traces.hostname, None, "it is no id");
    assert!(traces.are_of_a_container());
    let host = "27 1 254:0 / / rw - ext4 /dev/vda rw\nnonsense\n - \n";
    assert!(!Traces::parse(host, "0::/\n::\n", "1a283777566e").are_of_a_container());
}

#[test]
fn proof_is_the_cgroup_or_the_root_and_never_a_name() {
    // Of the file of A's, which a container that shares its network has as well.
    let traces = Traces::parse(&mounts(A, "/o/1/diff"), "0::/", &A[..12]);
    assert_eq!(traces.prove(&container(A, Some("/o/1/diff"))), Some(true));
    assert_eq!(traces.prove(&container(A, Some("/o/2/diff"))), Some(false));
    assert_eq!(traces.prove(&container(A, None)), None);
    let traces = Traces::parse(&mounts(A, "2/diff"), "0::/", "");
    assert_eq!(traces.prove(&container(A, Some("/o/2/diff"))), Some(true));
    let traces = Traces::parse(&mounts(A, ""), "0::/", "");
    assert_eq!(traces.prove(&container(A, Some("/o/2/diff"))), Some(false));
    let traces = Traces::parse("", &format!("1:cpu:/docker/{A}"), "");
    assert_eq!(traces.prove(&container(A, None)), Some(true));
    assert_eq!(traces.prove(&container(B, None)), None);
    // In a container inside of A, as an embedded one.
    let cgroup = format!("1:cpu:/docker/{A}/podkit/x");
    let traces = Traces::parse(&mounts(A, "/inner/diff"), &cgroup, "");
    assert_eq!(traces.prove(&container(A, Some("/o/1/diff"))), Some(false));
}

#[test]
fn networks_begin_with_the_one_that_the_container_was_made_with() {
    let networks = |mode: &str, names: &[&str]| {
        let end = |name: &&str| {
            let end = EndpointSettings {
                network_id: Some(format!("id-{name}")),
                ..EndpointSettings::default()
            };
            ((*name).to_owned(), end)
        };
        let container = ContainerInspectResponse {
            host_config: Some(HostConfig {
                network_mode: Some(mode.to_owned()),
                ..HostConfig::default()
            }),
            network_settings: Some(NetworkSettings {
                networks: Some(names.iter().map(end).collect::<HashMap<_, _>>()),
                ..NetworkSettings::default()
            }),
            ..container(A, None)
        };
        info(container).unwrap().networks
    };
    assert_eq!(networks("m", &["z", "a", "m"]), ["m", "a", "z"]);
    assert_eq!(networks("id-z", &["z", "a", "m"]), ["z", "a", "m"]);
    assert_eq!(networks("default", &["a", "bridge"]), ["bridge", "a"]);
    assert!(networks("host", &["host"]).is_empty());
    assert!(networks("container:x", &["bridge"]).is_empty());
    assert!(networks("none", &["none"]).is_empty());
}
