//! What is on disk while others look at it.

use std::{fs, mem::MaybeUninit, time::Duration};

use podkit_runtime::{ContainerSpec, LimitChange};
use rustix::fs::inotify;

use super::support::Place;

#[test]
fn limits_that_change_are_read_whole() {
    let (place, mut spec) = (Place::new(), ContainerSpec::new("a"));
    spec.cpu_millis = Some(1000);
    let runtime = place.runtime();
    runtime.create(&spec).unwrap();
    let news = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let container = place.path().join("state/containers/a");
    inotify::add_watch(&news, &container, inotify::WatchFlags::ALL_EVENTS).unwrap();
    let mut change = LimitChange::default();
    change.cpu_millis = Some(500);
    runtime.set_limits("a", change).unwrap();
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut reader = inotify::Reader::new(&news, &mut buffer);
    let mut seen = Vec::new();
    while let Ok(event) = reader.next() {
        let read = inotify::ReadFlags::OPEN
            | inotify::ReadFlags::ACCESS
            | inotify::ReadFlags::CLOSE_NOWRITE;
        if event.file_name() == Some(c"config.json") && !read.contains(event.events()) {
            seen.push(event.events());
        }
    }
    // Nobody finds half of it, or none.
    assert_eq!(seen, [inotify::ReadFlags::MOVED_TO]);
}

#[test]
fn sweep_spares_what_is_young() {
    let place = Place::new();
    let runtime = place.runtime();
    // Its maker died before it had locked it, or is about to.
    let half = place
        .path()
        .join("state/tmp/0123456789abcdef0123456789abcdef");
    fs::create_dir(&half).unwrap();
    let hour = Duration::from_secs(3600);
    let report = runtime.sweep(hour).unwrap();
    assert!(half.is_dir() && report.removed.is_empty(), "{report:?}");
    let report = runtime.sweep(Duration::ZERO).unwrap();
    assert!(!half.exists() && report.failed.is_empty(), "{report:?}");
}
