//! Ports of a session's container.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tracing::debug;

use super::{handle::Session, open::Effort};
use crate::{
    agent::{ListeningPort, PortStream},
    config::{Protocol, PublishedPort},
    error::{Error, ErrorKind, Result},
};

/// Most connections of one forwarding at the same time.
const MOST_CONNECTIONS: usize = 1024;

impl Session {
    /// The ports that the host offers for the container while it runs, as its spec says
    /// ([`SessionSpec::port`](crate::SessionSpec::port)). No activity.
    ///
    /// # Errors
    /// As [`info`](Self::info).
    pub async fn ports(&self) -> Result<Vec<PublishedPort>> {
        Ok(self.info().await?.ports)
    }

    /// Where the host offers a TCP port of the container: `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// `NotFound` for a port that is not published, with what can be done; as [`info`](Self::info).
    pub async fn url(&self, port: u16) -> Result<String> {
        let ports = self.ports().await?;
        let published = ports
            .iter()
            .find(|one| one.container == port && one.protocol == Protocol::Tcp);
        let Some(published) = published else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("port {port} of the container is not published"),
            )
            .with_container(self.container())
            .with_hint("open the session with `SessionSpec::port`, or forward the port"));
        };
        let mut address = published.address;
        if address.is_unspecified() {
            address = if address.is_ipv4() {
                std::net::Ipv4Addr::LOCALHOST.into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            };
        }
        Ok(format!(
            "http://{}",
            SocketAddr::new(address, published.host)
        ))
    }

    /// The TCP ports on which somebody listens in the container, published or not. No activity, and
    /// nothing is started.
    ///
    /// # Errors
    /// `NotFound` when the container does not run; `Unsupported` where nothing real runs in it;
    /// `AgentUnreachable`.
    pub async fn listening_ports(&self) -> Result<Vec<ListeningPort>> {
        let containers = self.manager().containers().clone();
        self.on_live("list ports", Effort::Connect, move |live| {
            let containers = containers.clone();
            async move {
                let listed = live.client.list_ports();
                containers.ask("list ports", &live.container, listed).await
            }
        })
        .await
    }

    /// Waits until somebody listens on a TCP port in the container, for so long at most.
    ///
    /// # Errors
    /// `TimedOut`; `InvalidInput` for port 0; `Unsupported` where nothing real runs in the container;
    /// `ContainerGone` when it stops; `AgentUnreachable`.
    ///
    /// # Cancel safety
    /// Nothing changes when the future is dropped.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(session: podkit::Session) -> podkit::Result<()> {
    /// session.spawn(["python3", "-m", "http.server", "8000"]).await?;
    /// session.wait_for_port(8000, std::time::Duration::from_secs(10)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_for_port(&self, port: u16, limit: Duration) -> Result<()> {
        check(port)?;
        self.on_live("wait for a port", Effort::Create, move |live| async move {
            live.client.wait_port(port, limit).await
        })
        .await
    }

    /// Connects to a TCP port in the container, published or not, on any engine.
    ///
    /// # Errors
    /// `NotFound` when nobody listens; `InvalidInput` for port 0; `Unsupported` where nothing real
    /// runs in the container; `AgentUnreachable`.
    ///
    /// # Cancel safety
    /// A connection that nobody gets is closed.
    pub async fn connect_port(&self, port: u16) -> Result<PortStream> {
        check(port)?;
        let containers = self.manager().containers().clone();
        self.on_live("connect to a port", Effort::Create, move |live| {
            let containers = containers.clone();
            async move {
                let dialled = live.client.dial_port(port);
                let text = "connect to a port";
                containers.ask(text, &live.container, dialled).await
            }
        })
        .await
    }

    /// Listens at an address of this machine (port 0 for any that is free) and connects whoever calls
    /// to a TCP port in the container, as long as the result is kept. The container is started again
    /// for a caller when it has stopped.
    ///
    /// # Errors
    /// `InvalidInput` for port 0 of the container; `Conflict` when the address is taken;
    /// `PermissionDenied`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(session: podkit::Session) -> podkit::Result<()> {
    /// let forward = session.forward_port("127.0.0.1:0".parse().unwrap(), 8000).await?;
    /// println!("http://{}", forward.address());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn forward_port(&self, local: SocketAddr, port: u16) -> Result<PortForward> {
        check(port)?;
        let listen = async {
            let listener = TcpListener::bind(local).await?;
            let address = listener.local_addr()?;
            std::io::Result::Ok((listener, address))
        };
        let (listener, address) = listen.await.map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::AddrInUse => ErrorKind::Conflict,
                std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::InvalidInput,
            };
            Error::new(kind, format!("cannot listen on {local}"))
                .with_source(error)
                .with_operation("forward a port")
        })?;
        let session = self.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(session, listener, port));
        Ok(PortForward {
            address,
            _tasks: tasks,
        })
    }
}

fn check(port: u16) -> Result<()> {
    if port == 0 {
        return Err(Error::invalid_input("0 is no port"));
    }
    Ok(())
}

/// A port of the container's at an address of this machine. Dropping it ends it with all its
/// connections.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct PortForward {
    address: SocketAddr,
    /// Ends with this.
    _tasks: JoinSet<()>,
}

impl PortForward {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(session: Session, listener: TcpListener, port: u16) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // A caller who has gone already, or no descriptor left: the next one may do better.
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(bridge(session.clone(), socket, port));
                }
                Err(error) => {
                    debug!(%error, "a connection cannot be taken");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn bridge(session: Session, mut socket: TcpStream, port: u16) {
    match session.connect_port(port).await {
        Ok(mut stream) => {
            if let Err(error) = copy_bidirectional(&mut socket, &mut stream).await {
                debug!(%error, "a forwarded connection broke");
            }
        }
        // Whoever called sees the connection closed.
        Err(error) => debug!(%error, "a call cannot be forwarded"),
    }
}
