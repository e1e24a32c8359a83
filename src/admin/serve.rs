//! Serves a router on the calling thread, within bounds: few connections, and little time for each head.

use std::cell::{Cell, RefCell};
use std::fs::File;
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
/// Descriptors that each server keeps for itself.
const RESERVED: usize = 8;
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

/// Descriptors for the hour of need: clients may have taken all others, and that is when an operator must be let in. Several,
/// because a worker that waits for one can be quicker to what this gives up.
#[derive(Clone, Default)]
struct Reserve(Rc<RefCell<Vec<File>>>);

impl Reserve {
    fn fill(&self) {
        let mut held = self.0.borrow_mut();
        while held.len() < RESERVED {
            let Ok(file) = File::open("/dev/null") else { return };
            held.push(file);
        }
    }

    /// Gives one up. False where there was none.
    fn spend(&self) -> bool {
        self.0.borrow_mut().pop().is_some()
    }
}

async fn accept(door: Door, router: Router) -> std::io::Result<()> {
    let open = Rc::new(Cell::new(0));
    let reserve = Reserve::default();
    reserve.fill();
    match door {
        Door::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let accepted = listener.accept().await;
                handle(accepted.map(|(stream, _)| stream), &router, &open, &reserve).await;
            }
        }
        Door::Unix(listener, path) => {
            let _file = RemoveFile::new(path);
            listener.set_nonblocking(true)?;
            let listener = tokio::net::UnixListener::from_std(listener)?;
            loop {
                let accepted = listener.accept().await;
                handle(accepted.map(|(stream, _)| stream), &router, &open, &reserve).await;
            }
        }
    }
}

async fn handle<S>(accepted: std::io::Result<S>, router: &Router, open: &Rc<Cell<usize>>, reserve: &Reserve)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Ok(stream) = accepted else {
        // Mostly a lack of descriptors. Where this gives one up, the next turn has it, unless a worker is quicker; without
        // one, asking again at once heals nothing.
        if !reserve.spend() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            reserve.fill();
        }
        return;
    };
    if open.get() >= MOST_CONNECTIONS {
        return;
    }
    open.set(open.get() + 1);
    let (router, open, reserve) = (router.clone(), open.clone(), reserve.clone());
    task::spawn_local(async move {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(TIME_LIMIT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        // A client that goes away is no news.
        drop(tokio::time::timeout(TIME_LIMIT * 6, connection).await);
        open.set(open.get() - 1);
        // At once: what this connection had is free now.
        reserve.fill();
    });
}
