//! A TCP relay that ill-treats what passes: between headgate and an endpoint, or between a client and headgate.
//!
//! What is done is told per connection (they are numbered from 0) and per direction, by a rule that the story may
//! change at any time for the connections to come; [`Chaos::sever`] and [`Chaos::refuse`] act at once. Plain threads
//! and blocking sockets. The only waiting is that of [`Way::Delay`].

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// What is done to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Passed on.
    Pass,
    /// Passed on, each piece so much later.
    Delay(Duration),
    /// So many are passed on, then both sides see an orderly end (FIN).
    Close(usize),
    /// So many are passed on, then both sides see a reset (RST).
    Reset(usize),
    /// So many are passed on, the others vanish and the connection stays: 0 is a peer that hangs.
    Swallow(usize),
}

/// What is done to a connection: towards the side that was dialled, and back.
pub(crate) type Plan = (Way, Way);

type Rule = dyn Fn(usize) -> Plan + Send;

/// A relay on port 0.
pub(crate) struct Chaos {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    /// Bound to the address and never listening: while connections are refused no other socket gets the port.
    _held: Socket,
}

struct Shared {
    target: SocketAddr,
    rule: Mutex<Box<Rule>>,
    listener: Mutex<Option<TcpListener>>,
    open: Mutex<Vec<Arc<Link>>>,
    accepted: AtomicUsize,
    /// Never set: who waits on it waits for the time alone.
    delay: (Mutex<()>, Condvar),
}

/// Both halves of a relayed connection.
struct Link {
    near: TcpStream,
    far: TcpStream,
    /// A pump that wakes up for the reset must not end its direction in good order first.
    resetting: AtomicBool,
    /// Dropped last, behind the sockets.
    end: End,
}

/// Tells that the sockets beside it are closed.
#[derive(Default)]
struct End(Arc<AtomicBool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Link {
    fn close(&self) {
        for stream in [&self.near, &self.far] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The reset itself is sent when the last thread has let go of the sockets.
    fn reset(&self) {
        self.resetting.store(true, Ordering::SeqCst);
        for stream in [&self.near, &self.far] {
            let socket = SockRef::from(stream);
            let _ = socket.set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Read);
        }
    }
}

impl Chaos {
    /// Passes everything on until told otherwise.
    pub(crate) fn before(target: SocketAddr) -> Self {
        Self::with(target, |_| (Way::Pass, Way::Pass))
    }

    /// Treats each connection as the rule says.
    pub(crate) fn with(target: SocketAddr, rule: impl Fn(usize) -> Plan + Send + 'static) -> Self {
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        held.set_reuse_address(true).unwrap();
        held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = held.local_addr().unwrap().as_socket().unwrap();
        let listener = TcpListener::bind(address).unwrap();
        let shared = Arc::new(Shared {
            target,
            rule: Mutex::new(Box::new(rule)),
            listener: Mutex::default(),
            open: Mutex::default(),
            accepted: AtomicUsize::new(0),
            delay: (Mutex::default(), Condvar::new()),
        });
        let chaos = Self { address, shared, _held: held };
        chaos.listen(listener);
        chaos
    }

    /// How connections from now on are treated.
    pub(crate) fn rule(&self, rule: impl Fn(usize) -> Plan + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
    }

    /// Connections that were let in so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Resets every open connection; returns when the resets are sent.
    pub(crate) fn sever(&self) {
        let links: Vec<_> = self.shared.open.lock().unwrap().drain(..).collect();
        let ends: Vec<_> = links.iter().map(|link| link.end.0.clone()).collect();
        for link in links {
            link.reset();
        }
        super::eventually("the resets are sent", || ends.iter().all(|end| end.load(Ordering::SeqCst)));
    }

    /// Ends every open connection in good order.
    pub(crate) fn hang_up(&self) {
        for link in self.shared.open.lock().unwrap().drain(..) {
            link.close();
        }
    }

    /// From now on connections are refused by the operating system.
    pub(crate) fn refuse(&self) {
        if let Some(listener) = self.shared.listener.lock().unwrap().take() {
            SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
        }
        // The port is closed when the accepting thread has let go of it, too.
        while TcpStream::connect(self.address).is_ok() {}
    }

    /// Ends what [`Chaos::refuse`] began.
    pub(crate) fn listen_again(&self) {
        self.listen(TcpListener::bind(self.address).unwrap());
    }

    fn listen(&self, listener: TcpListener) {
        *self.shared.listener.lock().unwrap() = Some(listener.try_clone().unwrap());
        let shared = self.shared.clone();
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                shared.carry(near);
            }
        });
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        if let Some(listener) = self.shared.listener.lock().unwrap().take() {
            let _ = SockRef::from(&listener).shutdown(Shutdown::Both);
        }
        self.hang_up();
    }
}

impl Shared {
    fn carry(self: &Arc<Self>, near: TcpStream) {
        let number = self.accepted.fetch_add(1, Ordering::SeqCst);
        let (out, back) = (self.rule.lock().unwrap())(number);
        let Ok(far) = TcpStream::connect(self.target) else { return };
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
        }
        let link = Arc::new(Link { near, far, resetting: AtomicBool::new(false), end: End::default() });
        self.open.lock().unwrap().push(link.clone());
        let (shared, there) = (self.clone(), link.clone());
        std::thread::spawn(move || shared.pump(&there, &there.near, &there.far, out));
        let shared = self.clone();
        std::thread::spawn(move || {
            shared.pump(&link, &link.far, &link.near, back);
            shared.open.lock().unwrap().retain(|open| !Arc::ptr_eq(open, &link));
        });
    }

    fn pump(&self, link: &Link, mut from: &TcpStream, mut to: &TcpStream, way: Way) {
        let mut buffer = vec![0; 64 * 1024];
        let mut passed = 0;
        loop {
            let left = match way {
                Way::Pass | Way::Delay(_) => buffer.len(),
                Way::Close(most) | Way::Reset(most) | Way::Swallow(most) => most - passed,
            };
            match way {
                Way::Close(_) if left == 0 => return link.close(),
                Way::Reset(_) if left == 0 => return link.reset(),
                _ => {}
            }
            let swallow = left == 0;
            let most = if swallow { buffer.len() } else { left.min(buffer.len()) };
            let count = match from.read(&mut buffer[..most]) {
                Ok(0) if !link.resetting.load(Ordering::SeqCst) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                // A reset goes through as one.
                Ok(0) | Err(_) => return link.reset(),
                Ok(count) => count,
            };
            if swallow {
                continue;
            }
            if let Way::Delay(time) = way {
                let (lock, never) = &self.delay;
                drop(never.wait_timeout_while(lock.lock().unwrap(), time, |()| true).unwrap());
            }
            if to.write_all(&buffer[..count]).is_err() {
                return;
            }
            passed += count;
        }
    }
}
