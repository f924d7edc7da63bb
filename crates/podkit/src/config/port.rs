//! Ports of a container that the host offers.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A port of the container's that is reached through one of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Port {
    /// Port in the container, not 0.
    pub container: u16,
    /// Port of the host.
    pub host: HostPort,
    /// Address of the host on which it is offered.
    pub address: IpAddr,
    /// What is spoken.
    pub protocol: Protocol,
}

/// Which port of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HostPort {
    /// The same as in the container.
    Same,
    /// This one.
    Number(u16),
    /// Any free one, from 20000 to 29972 while there is one; the session's info says which. It follows from the
    /// session's name, so it stays the same over restarts, and when the container is made anew, as long as nobody else takes
    /// it. Where somebody has while the container was stopped, the embedded engine chooses another one; Docker and
    /// Podman, which bind a container to its ports for good, refuse to start it: `Conflict`.
    Any,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As in `8000/tcp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Port {
    /// The container's TCP port, at the same port of `127.0.0.1`.
    #[must_use]
    pub const fn new(container: u16) -> Self {
        Self {
            container,
            host: HostPort::Same,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            protocol: Protocol::Tcp,
        }
    }

    /// Offers it at this port of the host's.
    #[must_use]
    pub const fn at(mut self, host: u16) -> Self {
        self.host = HostPort::Number(host);
        self
    }

    /// Offers it at any free port of the host's.
    #[must_use]
    pub const fn anywhere(mut self) -> Self {
        self.host = HostPort::Any;
        self
    }

    /// Offers it on this address of the host's. `0.0.0.0` offers it to everybody who reaches the
    /// host.
    #[must_use]
    pub const fn on(mut self, address: IpAddr) -> Self {
        self.address = address;
        self
    }

    /// Speaks UDP.
    #[must_use]
    pub const fn udp(mut self) -> Self {
        self.protocol = Protocol::Udp;
        self
    }

    /// The number on the host; `None` for any free one.
    #[must_use]
    pub const fn host_number(&self) -> Option<u16> {
        match self.host {
            HostPort::Same => Some(self.container),
            HostPort::Number(number) => Some(number),
            HostPort::Any => None,
        }
    }

    /// Parses `[ADDRESS:][HOST:]CONTAINER[/tcp|/udp]`, where a host port of `0` is any free one and
    /// an IPv6 address stands in brackets.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid_input(format!("{text:?} is not a port"))
                .with_hint("write `8000`, `8080:8000`, `0:8000` or `127.0.0.1:8080:8000/tcp`")
        };
        let (rest, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some(_) => return Err(bad()),
        };
        let (rest, container) = match rest.rsplit_once(':') {
            Some((rest, container)) => (Some(rest), container),
            None => (None, rest),
        };
        let number = |text: &str| text.parse::<u16>().map_err(|_| bad());
        let container = number(container)?;
        if container == 0 {
            return Err(bad());
        }
        let (address, host) = match rest.map(|rest| rest.rsplit_once(':')) {
            None => (None, None),
            Some(None) => (None, rest),
            Some(Some((address, host))) => (Some(address), Some(host)),
        };
        let mut port = Self::new(container);
        port.protocol = protocol;
        if let Some(address) = address {
            let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
            port.address = bare.unwrap_or(address).parse().map_err(|_| bad())?;
        }
        port.host = match host.map(number).transpose()? {
            None => HostPort::Same,
            Some(0) => HostPort::Any,
            Some(number) => HostPort::Number(number),
        };
        Ok(port)
    }
}

/// The container's TCP port, at the same port of `127.0.0.1`.
impl From<u16> for Port {
    fn from(container: u16) -> Self {
        Self::new(container)
    }
}

/// A port of the container's as the engine offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct PublishedPort {
    /// Port in the container.
    pub container: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// Address of the host.
    pub address: IpAddr,
    /// Port of the host.
    pub host: u16,
}

impl PublishedPort {
    /// A port as an engine says it.
    #[must_use]
    pub const fn new(container: u16, protocol: Protocol, address: IpAddr, host: u16) -> Self {
        Self {
            container,
            protocol,
            address,
            host,
        }
    }
}

/// As `127.0.0.1:8080->8000/tcp`.
impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = std::net::SocketAddr::new(self.address, self.host);
        write!(
            f,
            "{address}->{}/{}",
            self.container,
            self.protocol.as_str()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_forms_are_read() {
        assert_eq!(Port::parse("8000").unwrap(), Port::new(8000));
        assert_eq!(Port::parse("8080:8000").unwrap(), Port::new(8000).at(8080));
        assert_eq!(
            Port::parse("0:80/udp").unwrap(),
            Port::new(80).anywhere().udp()
        );
        let all = Port::new(80).at(81).on("0.0.0.0".parse().unwrap());
        assert_eq!(Port::parse("0.0.0.0:81:80/tcp").unwrap(), all);
        let six = Port::new(80).at(81).on("::1".parse().unwrap());
        assert_eq!(Port::parse("[::1]:81:80").unwrap(), six);
        assert_eq!(six.host_number(), Some(81));
    }

    #[test]
    fn port_forms_that_mean_nothing_are_invalid_input() {
        for bad in [
            "", "0", "x", "70000", "1:2:3:4", "a:1", "80/sctp", ":80", "1:", "host:1:2",
        ] {
            assert!(Port::parse(bad).is_err(), "{bad}");
        }
    }
}
