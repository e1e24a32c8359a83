//! Serves a router on the calling thread, within bounds: few connections, and little time for each head.

use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::base::task;

/// Connections at the same time.
const MOST_CONNECTIONS: usize = 64;
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// A bound socket to serve on.
pub enum Door {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A unix socket; its file is removed at the end.
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

/// Removes a socket's file at the end, unless it is another's by then.
struct RemoveFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl RemoveFile {
    fn new(path: PathBuf) -> Self {
        Self { identity: identity(&path), path }
    }
}

impl Drop for RemoveFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Gone already is as good.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Serves `router` behind `door` until the runtime ends.
pub fn serve(door: Door, router: Router) {
    task::spawn_local(async move {
        if let Err(error) = accept(door, router).await {
            tracing::error!(%error, "the admin or metrics server could not start");
        }
    });
}

async fn accept(door: Door, router: Router) -> std::io::Result<()> {
    let open = Rc::new(Cell::new(0));
    match door {
        Door::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let accepted = listener.accept().await;
                handle(accepted.map(|(stream, _)| stream), &router, &open).await;
            }
        }
        Door::Unix(listener, path) => {
            let _file = RemoveFile::new(path);
            listener.set_nonblocking(true)?;
            let listener = tokio::net::UnixListener::from_std(listener)?;
            loop {
                let accepted = listener.accept().await;
                handle(accepted.map(|(stream, _)| stream), &router, &open).await;
            }
        }
    }
}

async fn handle<S>(accepted: std::io::Result<S>, router: &Router, open: &Rc<Cell<usize>>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Ok(stream) = accepted else {
        // Mostly a lack of descriptors, which asking again at once does not heal.
        tokio::time::sleep(Duration::from_millis(50)).await;
        return;
    };
    if open.get() >= MOST_CONNECTIONS {
        return;
    }
    open.set(open.get() + 1);
    let (router, open) = (router.clone(), open.clone());
    task::spawn_local(async move {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(TIME_LIMIT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        // A client that goes away is no news.
        drop(tokio::time::timeout(TIME_LIMIT * 6, connection).await);
        open.set(open.get() - 1);
    });
}
