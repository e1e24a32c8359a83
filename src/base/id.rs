//! Ids: requests by UUID v7, things of a snapshot by index.

use std::fmt;

use uuid::Uuid;

use crate::base::clock;

/// Names one request in logs, headers and traces: a UUID v7 (RFC 9562 §5.7), sortable by time.
///
/// Its random part comes from the thread's own generator, so it costs no syscall; it is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A new id for a request that began now.
    pub fn new() -> Self {
        let random = fastrand::u128(..).to_ne_bytes();
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&random[..10]);
        Self(uuid::Builder::from_unix_timestamp_millis(clock::recent_unix_millis(), &bytes).into_uuid())
    }

    /// Writes the 36 characters of the id into `buffer`.
    pub fn encode(self, buffer: &mut [u8; 36]) -> &str {
        self.0.hyphenated().encode_lower(buffer)
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

macro_rules! index {
    ($(#[$doc:meta] $name:ident),+ $(,)?) => {$(
        #[$doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in its list.
            pub fn at(self) -> usize {
                self.0 as usize
            }
        }
    )+};
}

index! {
    /// A listener's place in its snapshot.
    ListenerIndex,
    /// A route's place in its snapshot, in file order.
    RouteIndex,
    /// A pool's place in its snapshot.
    PoolIndex,
    /// An endpoint's place in its pool.
    EndpointIndex,
    /// A cache zone's place in its snapshot.
    CacheIndex,
}
