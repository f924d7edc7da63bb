//! What people write on a command line or in a file.

use crate::{
    ContainerId, Device, ErrorKind, Gpus, Image, Mount, MountSource, Network, Port, Prefix,
    Protocol, PullPolicy, SessionKey, Ulimit, agent, parse_bytes, parse_duration,
};

/// Any text, read as all that a text may be: what is understood is written and read again.
pub fn words(input: &[u8]) {
    let lossy = String::from_utf8_lossy(input);
    let shown = agent::printable(&lossy);
    assert!(shown.chars().count() <= 1001 && !shown.contains(char::is_control));
    agent::fuzzing::listening_port(&lossy);
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match parse_bytes(text) {
        Ok(bytes) => {
            assert!(bytes > 0 && bytes <= i64::MAX.unsigned_abs());
            assert_eq!(parse_bytes(&bytes.to_string()).ok(), Some(bytes));
            assert_eq!(crate::Bytes::from(text).resolve().ok(), Some(bytes));
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput),
    }
    if let Ok(time) = parse_duration(text) {
        let whole = std::time::Duration::from_millis(time.as_secs());
        let again = parse_duration(&format!("{}ms", time.as_secs()));
        assert!(again.is_ok_and(|again| again.abs_diff(whole) <= whole / 1_000_000));
    }
    names(text);
    mounts(text);
    let _ = (
        Network::parse(text),
        PullPolicy::parse(text),
        Gpus::parse(text),
    );
    if let Ok(device) = Device::parse(text) {
        assert!(device.host.is_absolute() && device.container.is_absolute());
    }
    if let Ok((name, limit)) = Ulimit::parse(text) {
        assert!(limit.soft <= limit.hard);
        let again = format!("{name}={}:{}", limit.soft, limit.hard);
        assert_eq!(Ulimit::parse(&again).ok(), Some((name, limit)));
    }
}

fn names(text: &str) {
    if let Ok(key) = SessionKey::parse(text, "somebody") {
        assert_eq!(
            SessionKey::parse(&key.to_string(), "x").ok(),
            Some(key.clone())
        );
        let prefix = Prefix::new(text).unwrap_or_default();
        let name = key.container_name(&prefix);
        assert!(
            name.len() <= 63 && name.starts_with(prefix.as_str()),
            "{name}"
        );
        assert!(ContainerId::new(name).is_ok());
    }
    if let Ok(id) = ContainerId::new(text) {
        assert!(!id.as_str().contains('/') && !id.as_str().starts_with('.'));
    }
    if let Ok(image) = Image::parse(text) {
        assert_eq!(Image::parse(&image.to_string()).ok(), Some(image));
    }
}

fn mounts(text: &str) {
    if let Ok(mount) = Mount::parse(text) {
        assert!(mount.target.is_absolute());
        let source = match &mount.source {
            MountSource::Bind(path) => path.display().to_string(),
            MountSource::Volume(name) => name.clone(),
            MountSource::Tmpfs { .. } => String::new(),
        };
        let rights = if mount.read_only { "ro" } else { "rw" };
        let again = format!("{source}:{}:{rights}", mount.target.display());
        assert_eq!(Mount::parse(&again).ok(), Some(mount));
    }
    if let Ok(port) = Port::parse(text) {
        assert_ne!(port.container, 0);
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let host = port.host_number().unwrap_or(0);
        let again = format!("[{}]:{host}:{}/{protocol}", port.address, port.container);
        let again = Port::parse(&again).map(|again| (again.address, again.host_number()));
        assert_eq!(again.ok(), Some((port.address, port.host_number())));
    }
}
