//! Floor 2: an HTTP cache (RFC 9111), shared kind. It decides and stores; it never fetches and reads no clock.
//!
//! In reading order: [`key`] names an object, [`usable`] says whether a request may use the cache, [`freshness`]
//! whether a response may be kept and for how long, [`stored`] is what is kept and how it answers, [`store`] is the
//! bounded memory, [`recorder`] collects a body as it passes, [`status`] tells the client (RFC 9211).
//!
//! What never happens here:
//! - A stale response is served without the endpoint's word: stale means revalidate, or fetch anew.
//! - A response is kept because of its name or its extension; only its own fields, or the route's `default_ttl`, allow it.
//! - Two different requests share an object by collision: keys are compared byte by byte.
//!
//! Not here yet: collapsing concurrent misses into one fetch (each miss goes to the endpoint), serving ranges from a
//! stored whole, `stale-while-revalidate` and `stale-if-error`, disk. A fetch that began before an unsafe request and
//! ends after it may store the older state; it lives no longer than its freshness.

mod directives;
pub mod freshness;
pub mod key;
pub mod recorder;
pub mod status;
pub mod store;
pub mod stored;
pub mod usable;
mod vary;

pub use freshness::{Freshness, NoStoreReason, may_store};
pub use key::CacheKey;
pub use recorder::Recorder;
pub use status::{CacheStatus, cache_status};
pub use store::{Cache, Lookup, MissReason};
pub use stored::Stored;
pub use usable::{BypassReason, may_use, only_if_cached};
