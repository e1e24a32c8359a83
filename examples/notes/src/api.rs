//! The routes and their handlers.
//!
//! A read server is built without the routes that write, so the 405 and its `Allow` come from the
//! routing table itself and no handler has to remember the role.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware::map_response_with_state,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;

use crate::{
    input::{BODY_BYTES_MAX, Checked, Content, Id, Search, SlowQuery, UserName, WindowQuery},
    options::{Role, ServerName},
    page,
    problem::{Code, Problem},
    store::{NewNote, Note, Store, User},
};

const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// The longest a readiness answer waits for the database: shorter than headgate's probe timeout,
/// so that the reason arrives instead of a timeout.
const READY_WITHIN: Duration = Duration::from_millis(400);

/// What every handler can reach.
#[derive(Clone)]
struct App {
    store: Arc<Store>,
    role: Role,
}

/// A part of a list of notes, newest first.
#[derive(Serialize)]
struct NotesPage {
    notes: Vec<Note>,
    /// Pass as `before` for the next part; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before: Option<i64>,
}

/// A part of the list of users, newest first.
#[derive(Serialize)]
struct UsersPage {
    users: Vec<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before: Option<i64>,
}

/// Everything this server answers, each answer signed with its name and role.
pub(crate) fn router(name: &ServerName, role: Role, store: Arc<Store>) -> Router {
    let served_by =
        HeaderValue::try_from(format!("{name} {role}")).unwrap_or_else(|_| HeaderValue::from_static("unnamed"));
    let mut users = get(list_users);
    let mut notes = get(list_notes);
    let mut note = get(read_note);
    if role.writes() {
        users = users.post(create_user);
        notes = notes.post(create_note);
        note = note.put(update_note).delete(delete_note);
    }
    Router::new()
        .route("/", get(page::home))
        .route("/static/{file}", get(page::asset))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/users", users)
        .route("/api/users/{id}", get(read_user))
        .route("/api/users/{id}/notes", get(list_notes_of_user))
        .route("/api/notes", notes)
        .route("/api/notes/{id}", note)
        .route("/api/search", post(search))
        .route("/api/slow", get(slow))
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(map_response_with_state(served_by, sign))
        .with_state(App { store, role })
}

// === users ===

async fn create_user(State(app): State<App>, Checked(UserName(name)): Checked<UserName>) -> Result<Response, Problem> {
    let user = app.store.create_user(name).await?;
    Ok(created(&format!("/api/users/{}", user.id), &user))
}

async fn read_user(State(app): State<App>, Id(id): Id) -> Result<Json<User>, Problem> {
    let user = app.store.read_user(id).await?;
    user.map(Json).ok_or_else(|| Problem::unknown_user(id))
}

async fn list_users(State(app): State<App>, WindowQuery(window): WindowQuery) -> Result<Json<UsersPage>, Problem> {
    let mut users = app.store.list_users(window.plus_one()).await?;
    let next_before = cut(&mut users, window.limit, |user| user.id);
    Ok(Json(UsersPage { users, next_before }))
}

async fn list_notes_of_user(
    State(app): State<App>,
    Id(user_id): Id,
    WindowQuery(window): WindowQuery,
) -> Result<Json<NotesPage>, Problem> {
    let mut notes = app.store.list_notes(Some(user_id), window.plus_one()).await?;
    // Only an empty list leaves open whether the user exists.
    if notes.is_empty() && app.store.read_user(user_id).await?.is_none() {
        return Err(Problem::unknown_user(user_id));
    }
    let next_before = cut(&mut notes, window.limit, |note| note.id);
    Ok(Json(NotesPage { notes, next_before }))
}

// === notes ===

async fn create_note(State(app): State<App>, Checked(new): Checked<NewNote>) -> Result<Response, Problem> {
    let note = app.store.create_note(new).await?;
    Ok(created(&format!("/api/notes/{}", note.id), &note))
}

async fn read_note(State(app): State<App>, Id(id): Id) -> Result<Json<Note>, Problem> {
    let note = app.store.read_note(id).await?;
    note.map(Json).ok_or_else(|| Problem::unknown_note(id))
}

async fn update_note(
    State(app): State<App>,
    Id(id): Id,
    Checked(Content(content)): Checked<Content>,
) -> Result<Json<Note>, Problem> {
    let note = app.store.update_note(id, content).await?;
    note.map(Json).ok_or_else(|| Problem::unknown_note(id))
}

async fn delete_note(State(app): State<App>, Id(id): Id) -> Result<StatusCode, Problem> {
    if app.store.delete_note(id).await? { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::unknown_note(id)) }
}

async fn list_notes(State(app): State<App>, WindowQuery(window): WindowQuery) -> Result<Json<NotesPage>, Problem> {
    let mut notes = app.store.list_notes(None, window.plus_one()).await?;
    let next_before = cut(&mut notes, window.limit, |note| note.id);
    Ok(Json(NotesPage { notes, next_before }))
}

/// A read by POST: the text is in the body so that it stays out of logs and histories.
async fn search(
    State(app): State<App>,
    Checked(Search { text, limit }): Checked<Search>,
) -> Result<Json<NotesPage>, Problem> {
    let notes = app.store.search_notes(text, limit).await?;
    Ok(Json(NotesPage { notes, next_before: None }))
}

// === probes and trials ===

async fn healthz() -> &'static str {
    "alive\n"
}

async fn readyz(State(app): State<App>) -> Result<&'static str, Problem> {
    match app.store.check(READY_WITHIN).await {
        Ok(()) => Ok("ready\n"),
        // A probe's reader runs this machine: it may see the whole chain of causes.
        Err(error) => Err(Problem::new(Code::StoreUnavailable, error.chain())),
    }
}

/// Answers late, for trying out timeouts, drains and load.
async fn slow(SlowQuery(ms): SlowQuery) -> String {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("answered after {ms} ms\n")
}

// === what no route takes ===

async fn no_such_path(uri: Uri) -> Problem {
    Problem::new(Code::NoSuchPath, format!("nothing is at {}", uri.path()))
}

async fn method_not_allowed(State(app): State<App>, method: Method, uri: Uri) -> Problem {
    let path = uri.path();
    let is_write = !method.is_safe() && method != Method::OPTIONS && path.starts_with("/api/");
    if is_write && !app.role.writes() {
        let detail = format!("this is a read server: {method} {path} belongs to a write server");
        Problem::new(Code::ReadOnlyServer, detail)
    } else {
        let detail = format!("{method} is not possible at {path}");
        Problem::new(Code::MethodNotAllowed, detail)
    }
}

// === answers ===

fn created(location: &str, body: &impl Serialize) -> Response {
    (StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response()
}

/// Drops the one item read beyond the limit; its being there says that the list goes on.
fn cut<T>(items: &mut Vec<T>, limit: u32, id: impl Fn(&T) -> i64) -> Option<i64> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if items.len() <= limit {
        return None;
    }
    items.truncate(limit);
    items.last().map(id)
}

async fn sign(State(served_by): State<HeaderValue>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(SERVED_BY, served_by);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    no_store_unless_said(headers);
    response
}

/// What comes out of the database must not be kept by anyone between it and the reader.
fn no_store_unless_said(headers: &mut HeaderMap) {
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
