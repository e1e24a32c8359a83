//! The floor: bytes from a client to the origin and back, with no idea of HTTP. What any proxy in user space pays.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

/// The same buffer that HAProxy has for each direction, in bytes.
const BUFFER: usize = 16 * 1024;

/// Relays until it is ended.
pub async fn serve(listen: SocketAddr, target: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    loop {
        let (client, _) = listener.accept().await.context("cannot accept")?;
        tokio::spawn(relay(client, target));
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr) -> std::io::Result<()> {
    let mut origin = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    origin.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut origin, BUFFER, BUFFER).await?;
    Ok(())
}
