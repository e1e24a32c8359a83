//! What ties a request to an endpoint: the hash of its key, the cookie that binds it. Read from the request's facts, the
//! same for traffic and for `headgate explain`.

use crate::base::id::EndpointIndex;
use crate::config::model::Balance;
use crate::route::table::RequestView;
use crate::upstream::balance::key::{cookies, request_key};
use crate::upstream::pool::Pool;
use crate::upstream::sticky::Bond;

/// What ties one request to endpoints of one pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Affinity {
    /// Where the pool hashes.
    pub key: u64,
    /// What the client's cookie says, where the pool is sticky.
    pub bond: Option<Bond>,
    /// The endpoint that it names.
    pub endpoint: Option<EndpointIndex>,
}

impl Pool {
    /// Whether anything in a request ties it to an endpoint here.
    pub fn has_affinity(&self) -> bool {
        self.sticky.is_some() || matches!(self.spec.balance, Balance::Hash(_))
    }

    /// What ties this request; `now_s` is in seconds since the Unix epoch.
    pub fn affinity(&self, request: &RequestView<'_>, now_s: u64) -> Affinity {
        let key = match &self.spec.balance {
            Balance::Hash(hashing) => request_key(&hashing.key, request),
            _ => 0,
        };
        let bond =
            self.sticky.as_ref().and_then(|sticky| sticky.open(cookies(request.headers, sticky.cookie()), now_s));
        let endpoint = self.sticky.as_ref().zip(bond).and_then(|(sticky, bond)| sticky.endpoint(bond));
        Affinity { key, bond, endpoint }
    }
}
