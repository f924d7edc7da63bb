//! Host ports from a range, given out once.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, ErrorKind, Result},
    sync::Lock,
};

/// Gives out ports of this machine from a range, each to one holder at a time, and only those that
/// nobody listens on.
///
/// [`shared_in`](Self::shared_in) has several processes share one range: what a process holds is free
/// again when it ends, however it ends. A port that was given out is not listened on, so another
/// program may take it; whoever publishes it then gets `Conflict`.
///
/// # Examples
/// ```
/// use podkit::{Port, PortPool, SessionSpec};
///
/// # fn main() -> podkit::Result<()> {
/// let pool = PortPool::new(21_000..=21_099)?;
/// let ports = pool.allocate(2)?;
/// let spec = SessionSpec::new().port(Port::new(8000).at(ports[0]));
/// # drop(spec);
/// pool.release(&ports);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PortPool {
    range: RangeInclusive<u16>,
    address: IpAddr,
    directory: Option<PathBuf>,
    /// What was given out, with the lock that says so to other processes.
    given: Lock<BTreeMap<u16, Option<File>>>,
}

impl PortPool {
    /// A pool of this process's own, both ends included.
    ///
    /// # Errors
    /// `InvalidInput` for a range that is empty, or begins at 0.
    pub fn new(range: RangeInclusive<u16>) -> Result<Self> {
        if range.is_empty() || *range.start() == 0 {
            return Err(Error::invalid_input(format!(
                "{}..={} is no range of ports",
                range.start(),
                range.end()
            )));
        }
        Ok(Self {
            range,
            address: Ipv4Addr::LOCALHOST.into(),
            directory: None,
            given: Lock::default(),
        })
    }

    /// Says at which address of this machine ports have to be free; `127.0.0.1` without.
    #[must_use]
    pub const fn on(mut self, address: IpAddr) -> Self {
        self.address = address;
        self
    }

    /// Shares the range with other processes that name the same directory, which is made when it is
    /// missing.
    ///
    /// # Errors
    /// `PermissionDenied` or `InvalidInput` when it cannot be made.
    pub fn shared_in(mut self, directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref().to_owned();
        fs::create_dir_all(&directory).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::InvalidInput,
            };
            let text = format!("the directory `{}` cannot be made", directory.display());
            Error::new(kind, text).with_source(error)
        })?;
        self.directory = Some(directory);
        Ok(self)
    }

    /// Gives out so many ports, the lowest that are free: all or none.
    ///
    /// # Errors
    /// `LimitExceeded` when there are not so many; whatever keeps the shared directory from being
    /// used.
    pub fn allocate(&self, count: usize) -> Result<Vec<u16>> {
        let mut given = self.given.lock();
        let mut taken = Vec::new();
        for port in self.range.clone() {
            if taken.len() == count {
                break;
            }
            if given.contains_key(&port) {
                continue;
            }
            if let Some(lock) = self.take(port)? {
                taken.push((port, lock));
            }
        }
        if taken.len() < count {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("{count} ports were asked for, and {} are free", taken.len()),
            )
            .with_hint("release some, or use a larger range"));
        }
        let ports = taken.iter().map(|(port, _)| *port).collect();
        given.extend(taken);
        Ok(ports)
    }

    /// Takes ports back; those that were not given out are passed over.
    pub fn release(&self, ports: &[u16]) {
        let mut given = self.given.lock();
        for port in ports {
            given.remove(port);
        }
    }

    /// Ports that this process holds, in order.
    #[must_use]
    pub fn allocated(&self) -> Vec<u16> {
        self.given.lock().keys().copied().collect()
    }

    /// A port, if nobody has it: its lock, where there is one.
    #[expect(
        clippy::option_option,
        reason = "a port without a lock is taken as well"
    )]
    fn take(&self, port: u16) -> Result<Option<Option<File>>> {
        let lock = match &self.directory {
            None => None,
            Some(directory) => {
                let path = directory.join(port.to_string());
                let failed = |error: std::io::Error| {
                    let text = format!("`{}` cannot be locked", path.display());
                    Error::new(ErrorKind::Unexpected, text).with_source(error)
                };
                let file = File::options()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&path)
                    .map_err(failed)?;
                match file.try_lock() {
                    Ok(()) => Some(file),
                    Err(TryLockError::WouldBlock) => return Ok(None),
                    Err(TryLockError::Error(error)) => return Err(failed(error)),
                }
            }
        };
        let address = SocketAddr::new(self.address, port);
        let free = TcpListener::bind(address).is_ok();
        Ok(free.then_some(lock))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_out_once_and_only_when_free() {
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = busy.local_addr().unwrap().port();
        let pool = PortPool::new(port..=port).unwrap();
        assert_eq!(
            pool.allocate(1).unwrap_err().kind(),
            ErrorKind::LimitExceeded
        );
        drop(busy);
        assert_eq!(pool.allocate(1).unwrap(), [port]);
        assert!(pool.allocate(1).is_err());
        assert_eq!(pool.allocated(), [port]);
        pool.release(&[port, 1]);
        assert_eq!(pool.allocate(1).unwrap(), [port]);
        assert!(pool.allocate(0).unwrap().is_empty());
    }

    #[test]
    fn pools_that_share_a_directory_give_out_different_ports() {
        let directory = tempfile::tempdir().unwrap();
        let pool = || {
            let pool = PortPool::new(38_400..=38_499).unwrap();
            pool.shared_in(directory.path()).unwrap()
        };
        let (one, other) = (pool(), pool());
        let first = one.allocate(5).unwrap();
        let second = other.allocate(5).unwrap();
        assert!(first.iter().all(|port| !second.contains(port)));
        drop(one);
        let third = other.allocate(5).unwrap();
        assert_eq!(third, first);
    }

    #[test]
    fn ranges_that_are_none_are_refused() {
        let backwards = RangeInclusive::new(10, 9);
        for range in [backwards, 0..=5] {
            assert_eq!(
                PortPool::new(range).unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
        }
    }
}
