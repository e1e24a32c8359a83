//! Other doors to an endpoint: TLS, a unix socket, or both. What comes through goes on to an [`Origin`] in clear.
//!
//! [`Origin`]: crate::kit::Origin

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use headgate::base::task::spawn_local;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::runtime::{Builder, LocalOptions};
use tokio_rustls::TlsAcceptor;

/// Runs a door in a thread of its own, for as long as the test does.
fn open<F: Future<Output = ()>>(door: impl FnOnce() -> F + Send + 'static) {
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(door());
    });
}

/// A door with TLS; gives its address.
pub(crate) fn tls_door(origin: SocketAddr, config: Arc<ServerConfig>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    open(move || async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(lead(stream, origin, Some(config.clone())));
        }
    });
    address
}

/// A unix socket, with TLS or without.
pub(crate) fn unix_door(origin: SocketAddr, path: &Path, config: Option<Arc<ServerConfig>>) {
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    open(move || async move {
        let listener = UnixListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(lead(stream, origin, config.clone()));
        }
    });
}

/// The origin sees a connection only behind a handshake that succeeded.
async fn lead(mut stream: impl AsyncRead + AsyncWrite + Unpin, origin: SocketAddr, config: Option<Arc<ServerConfig>>) {
    match config {
        None => {
            let mut inner = TcpStream::connect(origin).await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut inner).await;
        }
        Some(config) => {
            let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await else { return };
            let mut inner = TcpStream::connect(origin).await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut inner).await;
        }
    }
}
