//! Values that are known only when somebody asks for the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::clock;
use crate::snapshot::Snapshot;
use crate::snapshot::plane::Plane;
use crate::telemetry::names;
use crate::upstream::endpoint::Verdict;

/// Has the plane's metrics ask the plane at each scrape.
pub fn install(plane: &Arc<Plane>) {
    // Weak: the metrics are a part of the plane, which must not keep itself alive.
    let weak = Arc::downgrade(plane);
    plane.metrics.set_gauges(Box::new(move |sink| {
        let Some(plane) = weak.upgrade() else { return };
        plane.metrics.access_log_dropped().store(plane.access_log.dropped(), Ordering::Relaxed);
        let (snapshot, now) = (plane.snapshot.load(), clock::now());
        for pool in &snapshot.pools {
            let name = [&*pool.spec.name];
            sink.set(&names::POOL_PANIC, &name, f64::from(u8::from(pool.state.is_panicking())));
            sink.set(&names::POOL_STAGE, &name, pool.state.held() as f64);
            if pool.spec.most_requests().is_some() {
                sink.set(&names::POOL_QUEUE_LENGTH, &[&*pool.spec.name], pool.queue.len() as f64);
            }
            for endpoint in &pool.endpoints {
                let labels = [&*pool.spec.name, &*endpoint.name];
                let is_up = endpoint.state.verdict() != Verdict::Down;
                sink.set(&names::ENDPOINT_UP, &labels, f64::from(u8::from(is_up)));
                let passive = &endpoint.state.passive;
                sink.set(&names::ENDPOINT_EJECTED, &labels, f64::from(u8::from(passive.is_ejected(now))));
                sink.set(&names::ENDPOINT_EJECTIONS, &labels, passive.ejections() as f64);
                sink.set(&names::ENDPOINT_IN_FLIGHT, &labels, f64::from(endpoint.state.in_flight()));
                sink.set(&names::ENDPOINT_CONNECTIONS, &labels, endpoint.state.connections().taken() as f64);
            }
        }
        let pools = snapshot.pools.iter();
        for (pool, name) in pools.flat_map(|pool| pool.names.iter().map(move |name| (pool, name))) {
            if name.is_empty {
                sink.set(&names::ENDPOINT_UP, &[&pool.spec.name, &name.text], 0.0);
            }
            let known = name.state.known();
            for (fault, count) in &known.failed {
                sink.set(&names::DNS_FAILURES, &[&name.text, fault.as_str()], *count as f64);
            }
            sink.set(&names::DNS_ENDPOINTS, &[&name.text], known.targets.len() as f64);
            sink.set(&names::DNS_LAST_ANSWER, &[&name.text], (known.answered_unix_ms / 1000) as f64);
        }
        for listener in &snapshot.listeners {
            sink.set(&names::LISTENER_PAUSED, &[&*listener.spec.name], listener.open.paused() as f64);
        }
        sink.set(&names::BODIES_HELD, &[], plane.held_bodies.taken() as f64);
        for (name, ends) in certificate_ends(&snapshot) {
            sink.set(&names::TLS_NOT_AFTER, &[name], ends as f64);
        }
        for (zone, cache) in snapshot.config.caches.iter().zip(&snapshot.caches) {
            sink.set(&names::CACHE_BYTES, &[&zone.name], cache.bytes() as f64);
        }
    }));
}

/// Each name that a certificate is for, with the time of the certificate that ends first: that is the one to renew.
fn certificate_ends(snapshot: &Snapshot) -> BTreeMap<&str, i64> {
    let mut ends = BTreeMap::new();
    for certificate in
        snapshot.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| &tls.certificates)
    {
        for name in &certificate.names {
            let end = ends.entry(name.as_str()).or_insert(certificate.not_after_unix);
            *end = certificate.not_after_unix.min(*end);
        }
    }
    ends
}
