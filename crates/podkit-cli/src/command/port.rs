//! `podkit port` and `podkit forward`.

use std::net::{Ipv4Addr, SocketAddr};

use podkit::{ListeningPort, PublishedPort};
use serde_json::{Value, json};

use super::{Context, exec};
use crate::{
    output::{Exit, Failure, printable, table},
    port_args::{ForwardArgs, PortArgs},
    signals::Signals,
};

/// Shows a session's ports.
pub(super) async fn port(context: &Context, args: PortArgs) -> Result<Exit, Failure> {
    let key = context.key(&args.session)?;
    let podkit = context.podkit().await?;
    if args.listening {
        let session = podkit.open(&key).create(false).await?;
        let ports = session.listening_ports().await?;
        let json = || ports.iter().map(listening_json).collect();
        let text = || {
            let rows: Vec<Vec<String>> = ports.iter().map(listening_row).collect();
            table(&["PORT", "ADDRESS", "PID", "PROGRAM"], &rows)
        };
        context.output.result(json, text)?;
        return Ok(Exit::Success);
    }
    let ports = podkit.inspect(&key).await?.ports;
    let json = || json!(ports);
    let text = || ports.iter().map(published_line).collect();
    context.output.result(json, text)?;
    Ok(Exit::Success)
}

fn published_line(port: &PublishedPort) -> String {
    let address = SocketAddr::new(port.address, port.host);
    format!(
        "{}/{} -> {address}\n",
        port.container,
        port.protocol.as_str()
    )
}

fn listening_row(port: &ListeningPort) -> Vec<String> {
    let name = port.name.as_deref().unwrap_or("-");
    vec![
        port.port.to_string(),
        port.address.to_string(),
        port.pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        printable(name).into_owned(),
    ]
}

fn listening_json(port: &ListeningPort) -> Value {
    json!({
        "port": port.port,
        "address": port.address.to_string(),
        "pid": port.pid,
        "name": port.name,
    })
}

/// Connects callers of this machine to a port in a session's container, until it is interrupted.
pub(super) async fn forward(context: &Context, args: ForwardArgs) -> Result<Exit, Failure> {
    let key = context.key(&args.session)?;
    let mut signals = Signals::listen()?;
    let podkit = context.podkit().await?;
    let session = podkit.open(&key).await?;
    exec::note_opened(context, &podkit, &session, None, args.quiet);
    let address = args.address.unwrap_or_else(|| Ipv4Addr::LOCALHOST.into());
    let local = SocketAddr::new(address, args.local.unwrap_or(args.port));
    let forward = session.forward_port(local, args.port).await?;
    let address = forward.address();
    context.output.result(
        || json!({ "session": key.to_string(), "address": address.to_string(), "port": args.port }),
        || format!("{address}\n"),
    )?;
    let _number = signals.number().await;
    Ok(Exit::Success)
}
