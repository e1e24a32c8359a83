//! The life of a server: bind, open the store, serve, and stop without losing a request.
//!
//! The socket is bound before anything else runs, so a taken address is an error at once. The
//! database is not waited for: a server whose database is still starting accepts, answers 503 and
//! says why on `/readyz`, and turns ready by itself.

use std::{io::Write, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use axum::serve::ListenerExt;
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::{sleep, timeout},
};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::{
    api,
    options::{Options, Role, StoreAddress},
    store::Store,
};

/// How long a stop waits for database connections to say goodbye.
const STORE_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a stop waits for a blocking database call that has not come back.
const RUNTIME_STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs a server until a signal stops it.
///
/// # Errors
///
/// The address cannot be bound, the store can never work with these flags, or accepting ended.
pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    start_logging();
    let runtime = Runtime::new().context("the tokio runtime does not start")?;
    let outcome = runtime.block_on(serve(options));
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    outcome
}

async fn serve(options: Options) -> anyhow::Result<()> {
    refuse_hopeless(&options)?;
    let mut stop_signals = StopSignals::new()?;
    let listener =
        TcpListener::bind(options.listen).await.with_context(|| format!("cannot listen on {}", options.listen))?;
    let address = listener.local_addr()?;

    let store = Arc::new(Store::open(&options.store, options.role));
    let app = api::router(&options.name, options.role, Arc::clone(&store));
    if options.role.writes() {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.create_schema_with_patience().await });
    }

    let listener = listener.tap_io(|stream| {
        // Small answers must not wait for the peer's delayed ACK.
        let _ = stream.set_nodelay(true);
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let mut serving = tokio::spawn(serving.into_future());
    announce(address, &options);

    tokio::select! {
        _ = &mut serving => bail!("the listener ended by itself"),
        name = stop_signals.next() => info!("{name}: stopping, waiting for requests in flight"),
    }
    let _ = stop.send(());
    tokio::select! {
        _ = &mut serving => info!("every request was answered"),
        () = sleep(options.drain_timeout) => warn!("drain timeout: open connections are cut"),
        name = stop_signals.next() => warn!("{name} again: open connections are cut"),
    }
    if timeout(STORE_CLOSE_TIMEOUT, store.close()).await.is_err() {
        warn!("the database connections did not close in time");
    }
    Ok(())
}

/// Refuses what no waiting can mend, before anything is bound.
fn refuse_hopeless(options: &Options) -> anyhow::Result<()> {
    match (&options.store, options.role) {
        (StoreAddress::Memory, Role::Read) => {
            bail!("a read server needs a store that some other server writes, not sqlite::memory:")
        }
        (StoreAddress::File(path), Role::Write | Role::All) => {
            let parent = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                Some(_) | None => return Ok(()),
            };
            if !parent.is_dir() {
                bail!("the directory {} of the store does not exist", parent.display());
            }
            Ok(())
        }
        (StoreAddress::Memory | StoreAddress::File(_) | StoreAddress::Mysql(_), _) => Ok(()),
    }
}

/// Tells the one who started this server that it accepts, and where.
fn announce(address: SocketAddr, options: &Options) {
    info!(name = %options.name, role = %options.role, store = %options.store, "serving on {address}");
    let mut stdout = std::io::stdout().lock();
    // Nobody may be reading stdout; that is no reason to stop.
    let _ = writeln!(stdout, "listening on {address}").and_then(|()| stdout.flush());
}

fn start_logging() {
    let filter = EnvFilter::try_from_env("NOTES_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}

/// The signals that end a server.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

// === impl StopSignals ===

impl StopSignals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
