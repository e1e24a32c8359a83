//! What balancers compare: how busy an endpoint is for its weight, and for its latency.

use super::EndpointView;

/// Requests in flight per weight. The next one is not counted in: among idle endpoints the dice decide, which fall by
/// weight already, and the heaviest would win every tie.
#[inline]
pub(super) fn load(view: &EndpointView) -> f64 {
    if view.in_flight == 0 {
        return 0.0;
    }
    f64::from(view.in_flight) / view.weight_now()
}

/// The same for an endpoint with less than its whole share that no dice have chosen: the next one is counted in, so
/// that being idle is no merit yet.
pub(super) fn rising_load(view: &EndpointView) -> f64 {
    f64::from(view.in_flight + 1) / view.weight_now() - 1.0 / f64::from(view.weight.value())
}

/// Latency × (requests in flight + 1), where those count per weight, relative to the heaviest. The next one is not
/// weighed: the dice have done it.
///
/// Without a sample it is the cheapest while it is idle, and dear while it has a request: it is asked, and not flooded
/// before it has answered.
pub(crate) fn cost(view: &EndpointView, heaviest: u32) -> f64 {
    let waiting = f64::from(view.in_flight) * f64::from(heaviest) / view.weight_now();
    match view.latency {
        Some(seconds) => seconds * (waiting + 1.0),
        None if view.in_flight == 0 => 0.0,
        None => UNKNOWN_S * waiting,
    }
}

/// As if an answer took a minute: far more than others take, and yet a new one among slow ones is not left with one
/// request.
const UNKNOWN_S: f64 = 60.0;
