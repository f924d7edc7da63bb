//! Real containers, as root: made, started, stopped, removed.

use podkit_runtime::{ContainerSpec, ContainerState, Runtime, RuntimeOptions};

#[test]
fn first() {
    let place = tempfile::Builder::new().prefix("podkit-runtime-").tempdir_in("/var/tmp").unwrap();
    let options = RuntimeOptions::new(place.path().join("state"), place.path().join("run"));
    let runtime = Runtime::open(options).unwrap();
    println!("{:#?}", runtime.facts());
    println!("{:#?}", runtime.checks());
    let t = std::time::Instant::now();
    runtime.create(&ContainerSpec::new("a")).unwrap();
    println!("create {:?}", t.elapsed());
    let t = std::time::Instant::now();
    runtime.start("a").unwrap();
    println!("start {:?}", t.elapsed());
    let info = runtime.inspect("a").unwrap();
    println!("{info:?}");
    assert_eq!(info.state, ContainerState::Running);
    let t = std::time::Instant::now();
    runtime.remove("a").unwrap();
    println!("remove {:?}", t.elapsed());
    for i in 0..5 {
    let t = std::time::Instant::now();
    runtime.create(&ContainerSpec::new("a")).unwrap();
    println!("create {:?}", t.elapsed());
    let t = std::time::Instant::now();
    runtime.start("a").unwrap();
    println!("start {:?}", t.elapsed());
    if i == 4 { println!("{}", std::process::Command::new("sh").arg("-c").arg(format!("cat /proc/{0}/mountinfo /proc/{0}/status /proc/{0}/cgroup; ls -ln /proc/{0}/root/ /proc/{0}/root/etc /proc/{0}/fd", runtime.inspect("a").unwrap().pid.unwrap())).output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap()); }
    let t = std::time::Instant::now();
    runtime.remove("a").unwrap();
    println!("remove {:?}", t.elapsed());
    }
    println!("{:?}", runtime.sweep(std::time::Duration::ZERO));
}
