//! Floor 8: HTTP for operators. It reads the plane and sends commands to control; it executes nothing itself.

mod page;
mod serve;

use std::sync::atomic::Ordering;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

pub use serve::{Door, serve};

use crate::base::clock;
use crate::control::Handle;
use crate::control::explain::{Question, explain};
use crate::control::order::{Order, Refusal};
use crate::control::receipts::{Cause, Receipt};
use crate::control::status::{PoolStatus, Status, pool, pools, status, stuck_worker};
use crate::telemetry::exposition::CONTENT_TYPE;

/// The longest body that is read.
const LARGEST_QUESTION: usize = 64 * 1024;

/// `/metrics`, `/livez`, `/readyz`.
pub fn metrics_router(handle: Handle) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(handle)
}

/// `/` and `/v1/*`. `tcp`: any page in the operator's browser can reach it, so the Host must be loopback.
pub fn admin_router(handle: Handle, tcp: bool) -> Router {
    let router = Router::new()
        .route("/", get(page::page))
        .route("/v1/status", get(show_status))
        .route("/v1/pools", get(show_pools))
        .route("/v1/pools/{pool}", get(show_pool))
        .route("/v1/reloads", get(reloads))
        .route("/v1/reload", post(reload))
        .route("/v1/explain", post(explain_request))
        .route("/v1/orders", post(order))
        .route("/v1/failback", post(failback))
        .fallback(async || problem(StatusCode::NOT_FOUND, "there is nothing here: see /v1/status"))
        .method_not_allowed_fallback(async || problem(StatusCode::METHOD_NOT_ALLOWED, "another method is needed here"))
        .layer(DefaultBodyLimit::max(LARGEST_QUESTION))
        .with_state(handle);
    router.layer(middleware::from_fn(move |request, next| guard(tcp, request, next)))
}

async fn metrics(State(handle): State<Handle>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], handle.plane.metrics.encode()).into_response()
}

async fn livez(State(handle): State<Handle>) -> Response {
    match stuck_worker(&handle.plane, clock::now()) {
        None => "ok\n".into_response(),
        Some(at) => (StatusCode::SERVICE_UNAVAILABLE, format!("worker {at} does not tick\n")).into_response(),
    }
}

async fn readyz(State(handle): State<Handle>) -> Response {
    if handle.plane.draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    "ok\n".into_response()
}

async fn show_status(State(handle): State<Handle>) -> Json<Status> {
    Json(status(&handle.plane, handle.receipts.last(), clock::now()))
}

async fn show_pools(State(handle): State<Handle>) -> Json<Vec<PoolStatus>> {
    Json(pools(&handle.plane.snapshot.load(), clock::now()))
}

async fn show_pool(State(handle): State<Handle>, Path(name): Path<String>) -> Response {
    match pool(&handle.plane.snapshot.load(), &name, clock::now()) {
        Some(pool) => Json(pool).into_response(),
        None => problem(StatusCode::NOT_FOUND, &format!("there is no pool `{name}`: see /v1/pools")),
    }
}

async fn reloads(State(handle): State<Handle>) -> Json<Vec<Receipt>> {
    Json(handle.receipts.all())
}

async fn reload(State(handle): State<Handle>) -> Response {
    match handle.reload(Cause::Admin).await {
        Ok(receipt) if receipt.ok => Json(receipt).into_response(),
        Ok(receipt) => (StatusCode::UNPROCESSABLE_ENTITY, Json(receipt)).into_response(),
        Err(gone) => problem(StatusCode::SERVICE_UNAVAILABLE, &gone.to_string()),
    }
}

async fn order(State(handle): State<Handle>, order: Result<Json<Order>, JsonRejection>) -> Response {
    let order = match order {
        Ok(Json(order)) => order,
        Err(fault) => return problem(fault.status(), &fault.body_text()),
    };
    match handle.order(order).await {
        Ok(Ok(followed)) => Json(followed).into_response(),
        Ok(Err(refusal @ Refusal::NotThere(_))) => problem(StatusCode::NOT_FOUND, &refusal.to_string()),
        Err(gone) => problem(StatusCode::SERVICE_UNAVAILABLE, &gone.to_string()),
    }
}

/// The pool whose traffic goes back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failback {
    pool: String,
}

async fn failback(State(handle): State<Handle>, asked: Result<Json<Failback>, JsonRejection>) -> Response {
    let asked = match asked {
        Ok(Json(asked)) => asked,
        Err(fault) => return problem(fault.status(), &fault.body_text()),
    };
    match handle.failback(&asked.pool) {
        Ok(()) => Json(serde_json::json!({ "pool": asked.pool })).into_response(),
        Err(refused) => problem(StatusCode::CONFLICT, &refused.to_string()),
    }
}

async fn explain_request(State(handle): State<Handle>, question: Result<Json<Question>, JsonRejection>) -> Response {
    let question = match question {
        Ok(Json(question)) => question,
        Err(fault) => return problem(fault.status(), &fault.body_text()),
    };
    match explain(&handle.plane.snapshot.load(), &question, clock::now()) {
        Ok(explanation) => Json(explanation).into_response(),
        Err(why) => problem(StatusCode::BAD_REQUEST, &why),
    }
}

fn problem(status: StatusCode, detail: &str) -> Response {
    (status, Json(serde_json::json!({ "error": detail }))).into_response()
}

async fn guard(tcp: bool, request: Request, next: Next) -> Response {
    if let Err((status, why)) = check(tcp, request.method(), request.headers()) {
        return problem(status, why);
    }
    next.run(request).await
}

/// What keeps a web page in the operator's browser from commanding headgate.
fn check(tcp: bool, method: &Method, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST).unwrap_or_default();
    if tcp && !is_loopback(host) {
        return Err((StatusCode::FORBIDDEN, "the Host of the admin API must be a loopback name"));
    }
    // A page of our own: over TCP, or over a socket that was forwarded to a port (`ssh -L`).
    if let Some(origin) = text(header::ORIGIN)
        && !(is_loopback(host) && origin.strip_prefix("http://") == Some(host))
    {
        return Err((StatusCode::FORBIDDEN, "another site's page may not ask the admin API"));
    }
    let is_json = text(header::CONTENT_TYPE)
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if *method == Method::POST && !is_json {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "changes need Content-Type: application/json"));
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<axum::http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_hosts_and_origins_are_refused() {
        let allowed = |method: Method, fields: &[(header::HeaderName, &str)]| {
            let headers = fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            check(true, &method, &headers).map_err(|(status, _)| status.as_u16())
        };
        let local = (header::HOST, "127.0.0.1:9901");
        let json = (header::CONTENT_TYPE, "application/json");
        assert_eq!(allowed(Method::GET, std::slice::from_ref(&local)), Ok(()));
        assert_eq!(allowed(Method::GET, &[(header::HOST, "evil.example")]), Err(403));
        assert_eq!(allowed(Method::GET, &[local.clone(), (header::ORIGIN, "http://evil.example")]), Err(403));
        assert_eq!(allowed(Method::POST, std::slice::from_ref(&local)), Err(415));
        assert_eq!(allowed(Method::POST, &[local, json]), Ok(()));
    }
}
