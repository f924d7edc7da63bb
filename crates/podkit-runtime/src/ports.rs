//! Ports of a container at addresses of the host.
//!
//! The engine listens, on the host's network, before the container is started; the container's first
//! process takes the sockets over and passes what is sent to them on. So nothing of it is left when
//! the container ends, however it ends.

use std::{
    io::ErrorKind as IoErrorKind,
    net::{SocketAddr, TcpListener},
};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    spec::{ContainerSpec, Port},
};

impl Port {
    /// The port of the host, once it is known.
    #[must_use]
    pub fn host_port(&self) -> Option<u16> {
        self.host.or(self.chosen)
    }

    /// At the number that it had, or the first that is free.
    fn listen_anywhere(&self) -> Result<TcpListener> {
        for number in self.chosen.iter().chain(&self.preferred) {
            match self.listen(*number) {
                // Somebody else has it.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                other => return other,
            }
        }
        self.listen(0)
    }

    fn listen(&self, number: u16) -> Result<TcpListener> {
        let address = SocketAddr::new(self.address, number);
        TcpListener::bind(address).map_err(|error| {
            let (kind, hint) = match error.kind() {
                IoErrorKind::AddrInUse => (
                    ErrorKind::Conflict,
                    "choose another port, or let the engine choose one",
                ),
                IoErrorKind::PermissionDenied => (
                    ErrorKind::PermissionDenied,
                    "ports below 1024 are root's; choose a higher one",
                ),
                IoErrorKind::AddrNotAvailable => {
                    (ErrorKind::InvalidInput, "use an address of this machine")
                }
                _ => (ErrorKind::Unexpected, "look at the machine's network"),
            };
            Error::new(kind, format!("cannot listen on {address}: {error}"))
                .with_hint(hint)
                .with_source(error)
        })
    }
}

/// Finds out whether the ports can be had, and chooses those that may be any.
pub(crate) fn choose(spec: &mut ContainerSpec) -> Result<()> {
    for port in &mut spec.ports {
        port.chosen = None;
    }
    listen(spec).map(drop)
}

/// Listens for a container that is about to start; whether another number had to be chosen.
pub(crate) fn listen(spec: &mut ContainerSpec) -> Result<(Vec<TcpListener>, bool)> {
    let (mut listeners, mut changed) = (Vec::new(), false);
    for port in &mut spec.ports {
        let listener = match port.host {
            Some(number) => port.listen(number)?,
            None => port.listen_anywhere()?,
        };
        if port.host.is_none() {
            let number = listener
                .local_addr()
                .context(|| "ask which port was chosen".to_owned())?
                .port();
            changed |= port.chosen != Some(number);
            port.chosen = Some(number);
        }
        listeners.push(listener);
    }
    Ok((listeners, changed))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn any_port_is_the_first_free_one_of_those_that_are_preferred() {
        let at = |number| TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        let number = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let (taken, free) = (at(0), at(0));
        let row = [number(&taken), number(&free)];
        drop(free);
        let port = Port::new(80, Ipv4Addr::LOCALHOST.into(), None).prefer(row);
        let mut spec = ContainerSpec::new("a");
        spec.ports = vec![port];
        let (listeners, changed) = listen(&mut spec).unwrap();
        assert!(changed);
        assert_eq!(number(&listeners[0]), row[1]);
        assert_eq!(spec.ports[0].host_port(), Some(row[1]));
    }
}
