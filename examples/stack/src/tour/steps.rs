//! The steps. Each waits for what it expects to see, never for a time that should be enough, except where the
//! time is the point: load before and after a crash.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use serde_json::json;

use crate::front::text_of;
use crate::scene::HOST;
use crate::tour::Tour;
use crate::tour::load::{Reads, WRITERS, Write, Writes};

const LOAD_BEFORE: Duration = Duration::from_secs(1);
const LOAD_AFTER: Duration = Duration::from_secs(2);
/// How long headgate may take to see that a server is back, or a file has changed.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);
/// How long the first write after the crash of the active server may take.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(25);

pub(super) async fn read_and_write(tour: &Tour<'_>) -> Result<()> {
    let client = &tour.running.client;
    let user = make_user(tour, "Ada").await?;
    let answer = client.post("/api/notes", &json!({ "user_id": user, "content": "Hello, headgate" })).await?;
    let note = answer.expect(StatusCode::CREATED)?.id()?;
    tour.say(format!(
        "POST /api/notes → {} by {}, over {:?}",
        answer.status,
        answer.header("x-served-by"),
        answer.version
    ));
    ensure!(is_one_of(answer.server(), &names(tour.running.apps.write())), "no write server answered a write");

    let path = format!("/api/notes/{note}");
    let written = Instant::now();
    // The replica may be a moment behind.
    let answer = until("the note can be read", async || {
        let answer = client.get(&path).await?;
        Ok((answer.status != StatusCode::NOT_FOUND).then_some(answer))
    })
    .await?;
    answer.expect(StatusCode::OK)?;
    ensure!(answer.text().contains("Hello, headgate"), "the note reads otherwise: {}", answer.text());
    tour.say(format!(
        "GET {path} → {} by {}, {} after the write",
        answer.status,
        answer.header("x-served-by"),
        millis(written.elapsed())
    ));
    ensure!(is_one_of(answer.server(), &names(tour.running.apps.read())), "no read server answered a read");
    Ok(())
}

pub(super) async fn cached_file(tour: &Tour<'_>) -> Result<()> {
    let path = format!("/static/app.css?{}", tour.run);
    for (time, wanted) in [("first", "fwd="), ("second", "hit")] {
        let answer = tour.running.client.get(&path).await?;
        answer.expect(StatusCode::OK)?;
        let status = answer.header("cache-status");
        tour.say(format!("GET /static/app.css, the {time} time → {} bytes, Cache-Status: {status}", answer.body.len()));
        ensure!(
            status.contains("headgate") && status.contains(wanted),
            "Cache-Status is {status:?}, which does not say {wanted:?}"
        );
    }
    Ok(())
}

pub(super) async fn kill_read_server(tour: &Tour<'_>) -> Result<()> {
    let user = make_user(tour, "Grace").await?;
    let note = json!({ "user_id": user, "content": "Read me under load" });
    let note = tour.running.client.post("/api/notes", &note).await?.expect(StatusCode::CREATED)?.id()?;
    tour.running.store.settle().await?;
    let path = format!("/api/notes/{note}");

    let [victim, other] = tour.running.apps.read();
    let reads = Reads::start(&tour.running.client, &path);
    tokio::time::sleep(LOAD_BEFORE).await;
    crash(tour, victim.name).await?;
    tour.say(format!("kill -9 {} under load on GET {path}", victim.name));
    tokio::time::sleep(LOAD_AFTER).await;
    let tally = reads.finish().await?;
    tour.say(format!(
        "{} reads on kept connections and {} on new ones: {} failed; the slowest took {}; by {}",
        tally.kept,
        tally.fresh,
        tally.failed,
        millis(tally.slowest),
        tally.servers()
    ));

    tour.running.apps.start_one(victim, tour.scene.supervisor()).await?;
    let restarted = Instant::now();
    until(&format!("{} answers again", victim.name), async || {
        let answer = tour.running.client.get(&path).await?;
        Ok((answer.expect(StatusCode::OK)?.server() == victim.name).then_some(()))
    })
    .await?;
    tour.say(format!("{} restarted, and answers again after {}", victim.name, millis(restarted.elapsed())));
    tally.expect_no_failure()?;
    ensure!(tally.kept > 0 && tally.fresh > 0, "the load did not run");
    for server in [victim.name, other.name] {
        ensure!(tally.by_server.contains_key(server), "{server} answered none of the reads");
    }
    Ok(())
}

pub(super) async fn kill_write_server(tour: &Tour<'_>) -> Result<()> {
    let user = make_user(tour, "Edsger").await?;
    let prefix = format!("{}-", tour.run);
    let [active, backup] = tour.running.apps.write();
    let writes = Writes::start(&tour.running.client, user, &prefix);
    tokio::time::sleep(LOAD_BEFORE).await;
    let killed = Instant::now();
    crash(tour, active.name).await?;
    tour.say(format!("kill -9 {} under 100 POST /api/notes a second", active.name));
    tokio::time::sleep(LOAD_AFTER).await;
    let writes = writes.finish().await?;

    let takeover = report_writes(tour, &writes, killed, backup.name);
    let stored = report_stored(tour, &writes, &prefix).await;
    tour.running.apps.start_one(active, tour.scene.supervisor()).await?;
    let restarted = Instant::now();
    until(&format!("{} takes writes again", active.name), async || {
        let note = json!({ "user_id": user, "content": "Back again" });
        let answer = tour.running.client.post("/api/notes", &note).await?;
        Ok((answer.expect(StatusCode::CREATED)?.server() == active.name).then_some(()))
    })
    .await?;
    tour.say(format!("{} restarted, and takes the writes again after {}", active.name, millis(restarted.elapsed())));
    takeover?;
    stored
}

/// What the writers saw: failures are bounded by the writes in flight at the crash, and the backup takes over soon.
fn report_writes(tour: &Tour<'_>, writes: &[Write], killed: Instant, backup: &str) -> Result<()> {
    let failures: Vec<&String> = writes.iter().filter_map(|write| write.outcome.as_ref().err()).collect();
    let by_backup = writes.iter().filter(|write| write.outcome.as_deref() == Ok(backup)).count();
    let first =
        writes.iter().filter(|write| write.sent >= killed && write.outcome.is_ok()).map(|write| write.done).min();
    let first = first.context("no write succeeded after the crash")?.duration_since(killed);
    tour.say(format!(
        "{} writes: {} failed; the first to succeed after the crash took {}; {by_backup} by {backup}",
        writes.len(),
        failures.len(),
        millis(first)
    ));
    for failure in failures.iter().take(3) {
        tour.quote(failure);
    }
    let before = writes.iter().filter(|write| write.sent < killed && write.outcome.is_ok()).count();
    ensure!(before > 0, "no write succeeded before the crash");
    ensure!(by_backup > 0, "{backup} took no write");
    ensure!(
        first <= TAKEN_OVER_WITHIN,
        "the backup took over after {}, not within {}",
        millis(first),
        millis(TAKEN_OVER_WITHIN)
    );
    let limit = usize::try_from(WRITERS).unwrap_or(usize::MAX);
    ensure!(failures.len() <= limit, "{} writes failed, and at most {limit} were in flight", failures.len());
    Ok(())
}

/// What the database says: what was acknowledged is there, and nothing is there twice.
async fn report_stored(tour: &Tour<'_>, writes: &[Write], prefix: &str) -> Result<()> {
    let mut stored: BTreeMap<String, u64> = BTreeMap::new();
    for content in tour.running.store.contents(prefix).await? {
        *stored.entry(content).or_default() += 1;
    }
    let acknowledged: Vec<&Write> = writes.iter().filter(|write| write.outcome.is_ok()).collect();
    let lost: Vec<&str> = acknowledged
        .iter()
        .map(|write| write.content.as_str())
        .filter(|content| !stored.contains_key(*content))
        .collect();
    let twice: Vec<&str> =
        stored.iter().filter(|(_, count)| **count > 1).map(|(content, _)| content.as_str()).collect();
    tour.say(format!(
        "in the database: {} notes; of {} acknowledged {} are lost; {} are there twice",
        stored.len(),
        acknowledged.len(),
        lost.len(),
        twice.len()
    ));
    ensure!(lost.is_empty(), "acknowledged and not stored: {}", lost.join(", "));
    ensure!(twice.is_empty(), "stored twice: {}", twice.join(", "));
    Ok(())
}

pub(super) async fn edit_config(tour: &Tour<'_>) -> Result<()> {
    let client = &tour.running.client;
    let before = client.get("/tour/anything").await?;
    ensure!(!before.status.is_redirection(), "/tour/anything is already redirected");
    let text = tour.running.front.read_config()?;
    let route = format!(
        "\n[routes.tour]\nmatch.host = \"{HOST}\"\nmatch.path = \"/tour/{{*rest}}\"\n\
         redirect = {{ to = \"/static/{{rest}}\", status = 308 }}\n"
    );
    tour.running.front.write_config(&(text + &route))?;
    let edited = Instant::now();
    tour.say("added to the config:");
    tour.quote(route.trim());
    let answer = until("the new route answers", async || {
        let answer = client.get("/tour/app.css").await?;
        Ok((answer.status == StatusCode::PERMANENT_REDIRECT).then_some(answer))
    })
    .await?;
    tour.say(format!("GET /tour/anything → {} before", before.status));
    tour.say(format!(
        "GET /tour/app.css → {} to {}, {} after the edit, with no signal sent",
        answer.status,
        answer.header("location"),
        millis(edited.elapsed())
    ));
    ensure!(answer.header("location").ends_with("/static/app.css"), "the redirect goes elsewhere");
    Ok(())
}

pub(super) async fn break_config(tour: &Tour<'_>) -> Result<()> {
    /// A pool nobody has; the message must name it.
    const FAULT: &str = "notes-raed";
    let front = &tour.running.front;
    let good = front.read_config()?;
    let reads = Reads::start(&tour.running.client, "/");
    let broken = format!("{good}\n[routes.broken]\nmatch.path = \"/broken\"\npool = \"{FAULT}\"\n");
    front.write_config(&broken)?;
    tour.say("added a route to a pool that is not there; headgate check says:");
    let outcome = refusal(tour, FAULT).await;
    // Whatever was seen, the good config comes back before the next step.
    front.write_config(&good)?;
    let tally = reads.finish().await?;
    outcome?;

    let still = tour.running.client.get("/tour/app.css").await?;
    tour.say(format!("{} reads meanwhile: {} failed", tally.kept + tally.fresh, tally.failed));
    tally.expect_no_failure()?;
    ensure!(tally.kept > 0 && tally.fresh > 0, "the load did not run");
    ensure!(still.status == StatusCode::PERMANENT_REDIRECT, "the last good config no longer serves");
    tour.say("the last good config served on; it is restored");
    Ok(())
}

/// The same fault from `headgate check`, which a person asks, and from the running headgate, which nobody asked.
async fn refusal(tour: &Tour<'_>, fault: &str) -> Result<()> {
    let front = &tour.running.front;
    let checked = front.command(&["check", &front.config().to_string_lossy()]).await?;
    let text = text_of(&checked);
    tour.quote(&text);
    ensure!(!checked.status.success(), "headgate check accepts it");
    ensure!(text.contains(fault), "headgate check does not name the fault");

    let refused = Instant::now();
    until("the running headgate refuses it", async || {
        Ok(front.admin("/v1/reloads").await?.contains(fault).then_some(()))
    })
    .await?;
    tour.say(format!(
        "the running headgate refused it too ({} later), in /v1/reloads and its log",
        millis(refused.elapsed())
    ));
    // A thread of its own writes the log: a line may come a moment later.
    until("its log names the fault", async || Ok(front.process().output().contains(fault).then_some(()))).await?;
    Ok(())
}

pub(super) async fn explain(tour: &Tour<'_>) -> Result<()> {
    let front = &tour.running.front;
    let admin = front.admin_address();
    let url = tour.running.client.url("/api/notes/1");
    for (method, pool) in [("GET", "notes-read"), ("POST", "notes-write")] {
        tour.say(tour.paint.strong(&format!("headgate explain {method} {url}")));
        let output = front.command(&["explain", method, &url, "--admin", &admin]).await?;
        let text = text_of(&output);
        tour.quote(&text);
        ensure!(output.status.success(), "headgate explain failed ({})", output.status);
        ensure!(text.contains("live") && text.contains(pool), "it does not name the pool {pool} as it is now");
    }
    Ok(())
}

pub(super) async fn why(tour: &Tour<'_>) -> Result<()> {
    let front = &tour.running.front;
    let admin = front.admin_address();
    let [active, backup] = tour.running.apps.write();
    crash(tour, active.name).await?;
    tour.say(tour.paint.strong("headgate why notes-write"));
    let told = until("the pool's traffic is at its backups", async || {
        let text = text_of(&front.command(&["why", "notes-write", "--admin", &admin]).await?);
        Ok(text.contains("traffic is at backups").then_some(text))
    })
    .await;
    let told = told.inspect(|text| tour.quote(text));
    tour.running.apps.start_one(active, tour.scene.supervisor()).await?;
    ensure!(told?.contains("its checks fail"), "it does not say that the checks of {} fail", active.name);
    let text = until("the traffic goes back", async || {
        let text = text_of(&front.command(&["why", "notes-write", "--admin", &admin]).await?);
        Ok(text.contains("traffic is at primaries").then_some(text))
    })
    .await?;
    tour.say(format!("{} restarted: the traffic went back from {}, because", active.name, backup.name));
    tour.quote(text.lines().nth(1).unwrap_or_default());
    Ok(())
}

async fn make_user(tour: &Tour<'_>, name: &str) -> Result<u64> {
    let answer = tour.running.client.post("/api/users", &json!({ "name": name })).await?;
    answer.expect(StatusCode::CREATED)?.id().context("cannot make a user")
}

async fn crash(tour: &Tour<'_>, name: &str) -> Result<()> {
    let processes = tour.scene.supervisor().all();
    let process = processes.iter().find(|process| process.spec().name == name);
    process.with_context(|| format!("{name} does not run"))?.crash().await;
    Ok(())
}

/// Asks until there is an answer; what fails is asked again, for a while.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + NOTICED_WITHIN;
    loop {
        let outcome = ask().await;
        match outcome {
            Ok(Some(value)) => return Ok(value),
            Ok(None) | Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Ok(None) => bail!("waited {NOTICED_WITHIN:?}, and not: {what}"),
            Err(error) => {
                return Err(error).with_context(|| format!("waited {NOTICED_WITHIN:?}, and not: {what}"));
            }
        }
    }
}

fn names(apps: &[crate::apps::App; 2]) -> [&'static str; 2] {
    [apps[0].name, apps[1].name]
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.contains(&name)
}

fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
