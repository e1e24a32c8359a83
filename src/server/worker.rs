//! A worker: one thread with its own runtime, listening sockets, idle connections, counters and log buffer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::base::boxed::pinned;
use crate::base::reason::Reason;
use crate::base::record::ConnectionRecord;
use crate::base::task::spawn_local;
use crate::base::{allocator, clock};
use crate::config::model::Name;
use crate::proxy::{Contained, Intake, WorkerContext, WorkerSnapshot};
use crate::server::connection::{Accepted, Open};
use crate::server::listener::BACKLOG;
use crate::server::phase::{Phase, Phases};
use crate::server::room::{Limits, READ_ANEW, Room};
use crate::server::socket::Socket;
use crate::snapshot::plane::{Plane, WorkerCommand, WorkerSender};

/// How often a worker shows that it is alive, and hands its log over.
const TICK: Duration = Duration::from_millis(200);
/// In so many ticks memory is given back once.
const GIVES_BACK_EVERY: u32 = 5;
/// How long a worker rests when the operating system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often it says so.
const COMPLAINT_EVERY: Duration = Duration::from_secs(10);
/// How many turns a worker gives its connections to go when it stops: 61 of them, at least, go in each.
const MOST_LAST_TURNS: usize = 10_000;

/// A running worker.
pub struct Worker {
    /// The way to it.
    pub commands: WorkerSender,
    /// Ends after [`WorkerCommand::Stop`].
    pub thread: thread::JoinHandle<()>,
}

/// Starts a worker.
///
/// # Errors
/// The operating system's, where it has no thread or descriptor left.
pub fn spawn(index: usize, plane: Arc<Plane>) -> io::Result<Worker> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    // A `LocalRuntime` cannot change threads: this one only shows early that one can be made.
    drop(runtime?);
    let (commands, receiver) = mpsc::unbounded_channel();
    let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let mut builder = Builder::new_current_thread();
        match builder.enable_all().on_thread_park(Intake::rests).build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(run(index, plane, receiver)),
            Err(error) => tracing::error!(worker = index, %error, "the worker has no runtime"),
        }
    })?;
    Ok(Worker { commands, thread })
}

async fn run(index: usize, plane: Arc<Plane>, mut commands: mpsc::UnboundedReceiver<WorkerCommand>) {
    let context = Rc::new(WorkerContext::new(plane.clone()));
    let phases = Rc::new(Phases::default());
    let keeping = context.clone();
    spawn_local(async move { keeping.intake.keep().await });
    let mut sockets: HashMap<(Name, SocketAddr), Listening> = HashMap::new();
    let mut listeners: Vec<JoinHandle<()>> = Vec::new();
    let mut tick = tokio::time::interval(TICK);
    let mut ticks = 0_u32;
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            () = plane.asked_for_room(index) => {
                context.idle.make_room();
                continue;
            }
            _ = tick.tick() => {
                plane.heartbeats.beat(index, clock::now());
                for listening in sockets.values() {
                    listening.snapshot(&context);
                }
                // What no release tells: see `upstream::queue`.
                context.snapshot().pools.iter().for_each(|pool| pool.queue.look());
                context.log.tick();
                context.sweep(clock::now());
                ticks = ticks.wrapping_add(1);
                if ticks.is_multiple_of(GIVES_BACK_EVERY) {
                    allocator::give_back();
                }
                continue;
            }
        };
        match command {
            Some(WorkerCommand::Listen { listener, address, socket, snapshot }) => {
                let listening = Listening {
                    name: Rc::new(RefCell::new(listener.clone())),
                    held: Rc::new(RefCell::new(WorkerSnapshot::new(snapshot))),
                    closing: CancellationToken::new(),
                };
                if let Some(before) = sockets.insert((listener, address), listening.clone()) {
                    before.closing.cancel();
                }
                listeners.retain(|task| !task.is_finished());
                listeners.push(spawn_local(listen(context.clone(), listening, socket, phases.clone())));
            }
            Some(WorkerCommand::Rename { from, to, address, snapshot }) => {
                if let Some(listening) = sockets.remove(&(from, address)) {
                    listening.held.replace(WorkerSnapshot::new(snapshot));
                    listening.name.replace(to.clone());
                    sockets.insert((to, address), listening);
                }
            }
            Some(WorkerCommand::Unlisten { listener, address }) => {
                if let Some(listening) = sockets.remove(&(listener, address)) {
                    listening.closing.cancel();
                }
            }
            Some(WorkerCommand::Drain(accepted)) => {
                phases.enter(Phase::Drain);
                // All sockets were told to close before. Beside this loop: without a free descriptor it takes long, and a stop
                // must be heard meanwhile.
                let closing = std::mem::take(&mut listeners);
                spawn_local(async move {
                    for listener in closing {
                        drop(listener.await);
                    }
                    // Whoever gave up waiting needs no answer.
                    let _ = accepted.send(());
                });
            }
            Some(WorkerCommand::Stop) | None => break,
        }
    }
    phases.enter(Phase::Stop);
    // Every connection sees the word and writes its record; the runtime polls a few of them in each turn.
    for _ in 0..MOST_LAST_TURNS {
        tokio::task::yield_now().await;
        if phases.is_followed_by_none() {
            break;
        }
    }
    context.log.tick();
}

/// A socket that is accepted on.
#[derive(Clone)]
struct Listening {
    /// Its listener: a reload may rename it.
    name: Rc<RefCell<Name>>,
    /// The newest snapshot that has the listener: who waited in the queue while it was removed is served as before.
    held: Rc<RefCell<Rc<WorkerSnapshot>>>,
    closing: CancellationToken,
}

impl Listening {
    /// Takes a newer snapshot where that has the listener. Also called by the clock, so that no old one is held for
    /// long by a listener that nobody comes to.
    fn snapshot(&self, context: &WorkerContext) -> Rc<WorkerSnapshot> {
        let newest = context.snapshot();
        if newest.listener_named(&self.name.borrow()).is_some() {
            self.held.replace(newest);
        }
        self.held.borrow().clone()
    }
}

/// Accepts on one socket until it is told to close; then takes what is queued, so that nobody who was let in is lost.
async fn listen(context: Rc<WorkerContext>, listening: Listening, socket: TcpListener, phases: Rc<Phases>) {
    let socket = match polled(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(listener = %listening.name.borrow(), %error, "cannot listen"),
    };
    let (mut complain_from, mut tell_from) = (clock::now(), clock::now());
    let mut pause = None;
    loop {
        let mut ready = tokio::select! {
            biased;
            () = listening.closing.cancelled() => break,
            ready = socket.readable() => match ready {
                Ok(ready) => ready,
                Err(error) => return tracing::error!(listener = %listening.name.borrow(), %error, "cannot listen"),
            },
        };
        let snapshot = listening.snapshot(&context);
        let Some(index) = snapshot.listener_named(&listening.name.borrow()) else { break };
        let listener = &snapshot.listeners[index.at()];
        let limits = Limits::new(&context, &snapshot, listener);
        let room = match limits.room() {
            Some(room) => room,
            None => {
                if pause.is_none() {
                    context.metrics.pause(&listener.spec.name);
                    pause = Some(listener.open.pause());
                }
                let now = clock::now();
                if now >= tell_from {
                    tracing::warn!(listener = %listener.spec.name, "accepting pauses: {}", limits.reached());
                    tell_from = now + COMPLAINT_EVERY;
                }
                let waiting = tokio::time::timeout(READ_ANEW, limits.room_when_free());
                tokio::select! {
                    biased;
                    () = listening.closing.cancelled() => break,
                    room = waiting => match room {
                        Ok(room) => room,
                        Err(_) => continue,
                    },
                }
            }
        };
        pause = None;
        match ready.try_io(|socket| socket.get_ref().accept()) {
            Ok(Ok((stream, peer))) => accept(&context, &listening, stream, peer, room, &phases),
            Ok(Err(error)) if is_shortage(&error) => {
                drop((room, ready));
                let now = clock::now();
                if now >= complain_from {
                    let name = listening.name.borrow().clone();
                    tracing::warn!(listener = %name, %error, "cannot accept: raise the limit of open files (ulimit -n)");
                    complain_from = now + COMPLAINT_EVERY;
                }
                // The socket stays ready: without a rest this loop would take the whole core.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The client was gone before we came to it; or another look found nobody.
            Ok(Err(_)) | Err(_) => {}
        }
    }
    // Asked of the kernel itself: the runtime may not have heard yet of who has come.
    let socket = socket.into_inner();
    for _ in 0..BACKLOG {
        match socket.accept() {
            Ok((stream, peer)) => accept_last(&context, &listening, stream, peer, &phases),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if is_shortage(&error) => tokio::time::sleep(ACCEPT_PAUSE).await,
            // One who has left already is not the last in the queue.
            Err(_) => {}
        }
    }
}

/// The runtime's own listener would put each accepted socket in its poller, needed or not.
#[expect(unsafe_code, reason = "a listener of std keeps its one descriptor open for as long as it lives")]
fn polled(socket: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    // SAFETY: the descriptor is the listener's own and never changes; the poller forgets it before it is closed.
    unsafe { Ok(AsyncFd::register_with_interest(socket, Interest::READABLE)?) }
}

fn is_shortage(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

/// Takes one who waits on a socket that closes: without room there is no later for it.
fn accept_last(
    context: &Rc<WorkerContext>,
    listening: &Listening,
    stream: TcpStream,
    peer: SocketAddr,
    phases: &Rc<Phases>,
) {
    let snapshot = listening.snapshot(context);
    let name = &*listening.name.borrow();
    let Some(index) = snapshot.listener_named(name) else { return };
    let limits = Limits::new(context, &snapshot, &snapshot.listeners[index.at()]);
    if let Some(room) = limits.room() {
        return accept(context, listening, stream, peer, room, phases);
    }
    let record = ConnectionRecord {
        client_ip: peer.ip(),
        listener: index,
        listener_name: name,
        status: None,
        reason: Reason::ConnectionLimit,
        detail: &limits.reached(),
    };
    context.metrics.connection(&record);
    context.log.connection(&record);
}

fn accept(
    context: &Rc<WorkerContext>,
    listening: &Listening,
    stream: TcpStream,
    peer: SocketAddr,
    room: Room,
    phases: &Rc<Phases>,
) {
    let snapshot = listening.snapshot(context);
    let name = &*listening.name.borrow();
    let Some(index) = snapshot.listener_named(name) else { return };
    let accepted = Accepted {
        open: Open::new(context, &snapshot.listeners[index.at()], room),
        socket: Cell::new(Some(Socket::new(stream))),
        peer,
        listener: name.clone(),
        index,
        snapshot,
        worker: context.clone(),
        phases: phases.clone(),
    };
    // Boxed: the runtime copies a task's future from place to place when it begins, and once more when it has ended.
    spawn_local(pinned(|| Contained::new(accepted.serve(), context.clone(), "connection", || ())));
}
