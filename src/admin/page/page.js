"use strict";
// Shows /v1/status and /v1/reloads, asked once a second, and /v1/explain. It changes nothing.

const at = (id) => document.getElementById(id);

/** An element with text or children; never markup from data. */
function make(name, className, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

function table(heads, rows) {
  const numeric = (head) => (head.startsWith("#") ? "number" : "");
  const head = make("tr", "", ...heads.map((text) => make("th", numeric(text), text.replace("#", ""))));
  const body = rows.map((row) => make("tr", "", ...row.map((cell, column) => make("td", numeric(heads[column]), cell))));
  return make("table", "", make("thead", "", head), make("tbody", "", ...body));
}

function ago(unixMs) {
  const seconds = Math.max(0, Math.round((Date.now() - unixMs) / 1000));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const tones = { up: "good", usable: "good", unknown: "warn", suspect: "warn", draining: "warn", down: "bad", out: "bad" };

function verdict(endpoint) {
  const word = endpoint.standing === "suspect" ? `${endpoint.verdict}, suspected` : endpoint.verdict;
  const tone = endpoint.standing === "suspect" ? "warn" : tones[endpoint.verdict] || "";
  return make("span", tone, `● ${word}`);
}

let before = null;
const newest = { status: null, rates: new Map() };

/** Requests per second to each endpoint since the last look. */
function rates(status) {
  const now = performance.now();
  const counts = new Map();
  for (const pool of status.pools) for (const endpoint of pool.endpoints) counts.set(`${pool.name} ${endpoint.address}`, endpoint.requests);
  const found = new Map();
  if (before) {
    const seconds = (now - before.now) / 1000;
    for (const [key, count] of counts) found.set(key, Math.max(0, count - (before.counts.get(key) ?? count)) / seconds);
  }
  before = { now, counts };
  return found;
}

function pool(pool, perSecond) {
  const rate = (endpoint) => perSecond.get(`${pool.name} ${endpoint.address}`) ?? 0;
  const total = pool.endpoints.reduce((sum, endpoint) => sum + rate(endpoint), 0);
  const rows = pool.endpoints.map((endpoint) => {
    const share = make("meter");
    share.max = 1;
    share.value = total > 0 ? rate(endpoint) / total : 0;
    share.title = total > 0 ? `${Math.round((100 * rate(endpoint)) / total)} % of the pool's requests` : "no requests now";
    const evidence = endpoint.evidence
      ? make("span", endpoint.evidence.healthy ? "quiet" : "bad", `${endpoint.evidence.source}, ${ago(endpoint.evidence.at_unix_ms)} ago: ${endpoint.evidence.detail}`)
      : make("span", "quiet", "no check");
    const name = make("span", "mono", endpoint.address);
    return [make("span", "", name, endpoint.backup ? make("span", "quiet", " backup") : null), verdict(endpoint), ago(endpoint.since_unix_ms), endpoint.weight, endpoint.in_flight, rate(endpoint).toFixed(0), share, evidence];
  });
  return [make("h3", "", pool.name), table(["endpoint", "verdict", "for", "#weight", "#in flight", "#requests/s", "share", "last evidence"], rows)];
}

function show(status, perSecond) {
  at("version").textContent = status.version;
  const state = at("state");
  state.textContent = status.draining ? "draining" : "serving";
  state.className = `badge ${status.draining ? "warn" : "good"}`;
  for (const name of ["generation", "connections", "requests", "workers"]) at(name).textContent = status[name];
  at("rate").textContent = [...perSecond.values()].reduce((sum, rate) => sum + rate, 0).toFixed(0);
  at("pools").replaceChildren(...status.pools.flatMap((each) => pool(each, perSecond)));
  at("listeners").replaceChildren(table(["name", "address", "speaks"], status.listeners.map((listener) => [listener.name, make("span", "mono", listener.address), listener.tls ? "TLS" : "clear"])));
  at("routes").replaceChildren(table(["name", "paths", "does"], status.routes.map((route) => [route.name, make("span", "mono", route.paths.join(" ") || "all"), route.action])));
}

function reloads(receipts) {
  const rows = receipts.slice(0, 8).map((receipt) => {
    const list = (texts, tone) => (texts.length ? make("ul", tone, ...texts.map((text) => make("li", "", make("pre", "", text)))) : null);
    const told = make("div", "", list(receipt.changes, ""), list(receipt.warnings, "warn"), list(receipt.faults, "bad"));
    if (!told.childNodes.length) told.append(make("span", "quiet", receipt.ok ? "nothing changed" : ""));
    return [`${ago(receipt.at_unix_ms)} ago`, receipt.cause, make("span", receipt.ok ? "good" : "bad", receipt.ok ? `applied as ${receipt.generation}` : `refused, ${receipt.generation} serves on`), told];
  });
  at("reloads").replaceChildren(table(["when", "cause", "outcome", "what"], rows));
}

function explanation(answer) {
  const rows = [["listener", answer.listener], ["route", answer.route ? `${answer.route} (${answer.origin})` : "none"], ["outcome", answer.outcome]];
  if (answer.side) rows.push(["side", answer.side]);
  if (answer.forwarded_path) rows.push(["path", make("span", "mono", answer.forwarded_path)]);
  for (const each of answer.rejected) rows.push(["not", `${each.route}: ${each.why}`]);
  for (const each of answer.pools) {
    const shares = each.endpoints.map((endpoint) => `${endpoint.address} ${endpoint.share.toFixed(0)} % (${endpoint.standing}${endpoint.backup ? ", backup" : ""})`);
    rows.push([each.overflow ? `overflow to ${each.name}` : `pool ${each.name}`, make("ul", "", ...shares.map((share) => make("li", "mono", share)))]);
    if (each.no_pick) rows.push(["no endpoint", make("span", "bad", each.no_pick)]);
  }
  if (answer.cache) rows.push(["cache", `${answer.cache.zone}: ${answer.cache.looked_up ? "looked up" : `not looked up (${answer.cache.why_not})`}`]);
  return table(["", ""], rows);
}

async function ask(path, body) {
  const options = body ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) } : {};
  const answer = await fetch(path, options);
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error || answer.statusText);
  return value;
}

async function look() {
  try {
    const [status, receipts] = await Promise.all([ask("v1/status"), ask("v1/reloads")]);
    show(status, rates(status));
    reloads(receipts);
  } catch (error) {
    const state = at("state");
    state.textContent = `no answer: ${error.message}`;
    state.className = "badge bad";
  }
  setTimeout(look, 1000);
}

at("explain").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  try {
    at("explanation").replaceChildren(explanation(await ask("v1/explain", { method: form.get("method"), url: form.get("url"), headers: [] })));
  } catch (error) {
    at("explanation").replaceChildren(make("p", "bad", error.message));
  }
});

look();
