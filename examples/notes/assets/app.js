// The page: choose or create a writer, write, list, change and delete notes, and see for every
// request which server answered. Text from notes only ever becomes text nodes.
"use strict";

const CONTENT_BYTES_MAX = 1024;
const NOTES_A_PAGE = 10;
const LOG_LINES_MAX = 60;
const STATUS_MS = 6000;
const USER_KEY = "notes.user";

const byId = (id) => document.getElementById(id);
const bytes = (text) => new TextEncoder().encode(text).length;

const users = new Map();
const answers = new Map();
let nextBefore = null;
let lastServer = { text: "no server", role: "" };
let statusTimer = 0;

// === talking to the servers ===

/** Sends one request, logs who answered, and returns the body; throws what the problem says. */
async function call(method, path, body) {
  const started = performance.now();
  const request = { method, headers: { accept: "application/json" } };
  if (body !== undefined) {
    request.headers["content-type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch {
    logAnswer(method, path, null, performance.now() - started);
    throw new Error("No answer: the connection failed.");
  }
  const text = await response.text().catch(() => "");
  logAnswer(method, path, response, performance.now() - started);
  let value = null;
  try {
    value = JSON.parse(text);
  } catch {
    // Not every answer has a JSON body; a proxy's error page does not.
  }
  if (!response.ok) {
    throw new Error((value && value.detail) || proxyWords(response, text));
  }
  return value;
}

/** What a proxy on the way says in its own answer: status, a line for people, `reason: word`. */
function proxyWords(response, text) {
  const [, words = ""] = text.split("\n");
  const reason = /^reason: (\w+)$/m.exec(text);
  const said = response.headers.has("proxy-status") && reason ? ` (${reason[1]}). ${words}` : ".";
  return `The answer was ${response.status}${said}`;
}

function logAnswer(method, path, response, ms) {
  const signature = response ? response.headers.get("x-served-by") : null;
  // An answer that no server signed is the proxy's own, which names itself first (RFC 9209).
  const proxy = response ? (response.headers.get("proxy-status") || "").split(";")[0].trim() : "";
  const [name, role] = signature ? signature.split(" ") : [proxy || "no server", ""];
  const failed = !response || response.status >= 400;
  lastServer = { text: role ? `${name} (${role})` : name, role };

  const line = element("li");
  line.append(element("code", "", `${method} ${path}`));
  const answer = element("div", "answer");
  answer.append(badge(lastServer.text, role));
  answer.append(element("span", failed ? "failed" : "", response ? String(response.status) : "failed"));
  answer.append(element("span", "", ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`));
  line.append(answer);
  const log = byId("activity");
  log.prepend(line);
  while (log.children.length > LOG_LINES_MAX) log.lastElementChild.remove();

  const seen = answers.get(name) || { count: 0, role };
  answers.set(name, { count: seen.count + 1, role });
  const sorted = [...answers].sort(([a], [b]) => a.localeCompare(b));
  byId("tally").replaceChildren(...sorted.map(([server, { count, role: its }]) => {
    const item = element("li");
    item.append(badge(`${server} × ${count}`, its));
    return item;
  }));
}

// === small parts ===

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function badge(text, role) {
  const known = ["read", "write", "all"].includes(role) ? ` ${role}` : "";
  return element("span", `badge${known}`, text);
}

function button(text, className, onClick) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

/** Shows for a while what became of an action, and which server it was. */
function say(text, bad = false) {
  const status = byId("status");
  status.replaceChildren(element("span", "", text), badge(lastServer.text, lastServer.role));
  status.classList.toggle("bad", bad);
  clearTimeout(statusTimer);
  statusTimer = setTimeout(() => status.replaceChildren(), STATUS_MS);
}

/** Runs an action of a person; what goes wrong is said, never lost. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    say(error.message, true);
  }
}

function when(note) {
  const time = new Date(note.created_ms).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  return note.updated_ms > note.created_ms ? `${time}, changed` : time;
}

// === writers ===

function currentUser() {
  return Number(byId("user").value) || null;
}

function showUsers(chosen) {
  const select = byId("user");
  const options = [...users.values()].sort((a, b) => b.id - a.id).map((user) => {
    const option = element("option", "", `${user.name} (#${user.id})`);
    option.value = String(user.id);
    return option;
  });
  if (options.length > 0) {
    select.replaceChildren(...options);
    select.value = String(users.has(chosen) ? chosen : options[0].value);
  }
  select.disabled = options.length === 0;
  countBytes();
}

async function loadUsers() {
  const { users: list } = await call("GET", "/api/users?limit=100");
  list.forEach((user) => users.set(user.id, user));
  const remembered = Number(localStorage.getItem(USER_KEY));
  if (remembered && !users.has(remembered)) {
    // An older writer than the list shows, or one of another database.
    await call("GET", `/api/users/${remembered}`)
      .then((user) => users.set(user.id, user))
      .catch(() => localStorage.removeItem(USER_KEY));
  }
  showUsers(remembered);
}

async function createUser(event) {
  event.preventDefault();
  await attempt(async () => {
    const user = await call("POST", "/api/users", { name: byId("user-name").value });
    users.set(user.id, user);
    byId("user-name").value = "";
    chooseUser(user.id);
    showUsers(user.id);
    showNotes([], null);
    say(`Welcome, ${user.name}.`);
    byId("content").focus();
  });
}

function chooseUser(id) {
  localStorage.setItem(USER_KEY, String(id));
}

// === notes ===

function countBytes() {
  const size = bytes(byId("content").value);
  const label = byId("content-size");
  label.textContent = `${size} of ${CONTENT_BYTES_MAX} bytes`;
  label.classList.toggle("over", size > CONTENT_BYTES_MAX);
  byId("save").disabled = !currentUser() || size === 0 || size > CONTENT_BYTES_MAX;
}

async function createNote(event) {
  event.preventDefault();
  const save = byId("save");
  if (save.disabled) return;
  save.disabled = true;
  await attempt(async () => {
    const note = await call("POST", "/api/notes", { user_id: currentUser(), content: byId("content").value });
    byId("content").value = "";
    byId("notes").prepend(noteItem(note));
    byId("empty").hidden = true;
    say("Saved.");
  });
  countBytes();
}

async function loadNotes() {
  const user = currentUser();
  if (!user) return showNotes([], null);
  const page = await call("GET", `/api/users/${user}/notes?limit=${NOTES_A_PAGE}`);
  showNotes(page.notes, page.next_before ?? null);
}

/** Reads everything again; with nothing on the page, what went wrong stays on it. */
async function refresh() {
  try {
    if (users.size === 0) await loadUsers();
    await loadNotes();
  } catch (error) {
    if (!byId("notes").children.length) showNotes([], null, `${error.message} Refresh tries again.`);
    throw error;
  }
}

async function loadMore() {
  const page = await call("GET", `/api/users/${currentUser()}/notes?limit=${NOTES_A_PAGE}&before=${nextBefore}`);
  byId("notes").append(...page.notes.map((note) => noteItem(note)));
  nextBefore = page.next_before ?? null;
  byId("more").hidden = nextBefore === null;
}

async function searchNotes(event) {
  event.preventDefault();
  const text = byId("search").value;
  await attempt(async () => {
    if (!text.trim()) return loadNotes();
    const page = await call("POST", "/api/search", { text });
    showNotes(page.notes, null, `Nothing contains “${text}”.`, true);
    say(`Found: ${page.notes.length}.`);
  });
}

function showNotes(notes, before, nothing, named = false) {
  byId("notes").replaceChildren(...notes.map((note) => noteItem(note, named)));
  const empty = byId("empty");
  empty.hidden = notes.length > 0;
  empty.textContent = nothing || (currentUser() ? "No notes yet. Write the first one." : "Create a writer to begin.");
  nextBefore = before;
  byId("more").hidden = before === null;
}

function noteItem(note, named = false) {
  const item = element("li", "note");
  const author = named ? `${users.get(note.user_id)?.name || `Writer #${note.user_id}`} · ` : "";
  const footer = element("footer");
  footer.append(element("span", "quiet", `${author}#${note.id} · ${when(note)}`));
  const edit = button("Edit", "plain", () => editNote(item, note, named));
  edit.setAttribute("aria-label", `Edit note ${note.id}`);
  footer.append(edit, deleteButton(item, note));
  item.append(element("p", "text", note.content), footer);
  return item;
}

/** Deletes on the second press, so that one slip loses nothing. */
function deleteButton(item, note) {
  let armed = false;
  const made = button("Delete", "plain", async () => {
    if (!armed) {
      armed = true;
      made.textContent = "Really delete?";
      made.classList.add("danger");
      return;
    }
    await attempt(async () => {
      await call("DELETE", `/api/notes/${note.id}`);
      item.remove();
      if (!byId("notes").children.length) showNotes([], nextBefore);
      say("Deleted.");
    });
  });
  made.addEventListener("blur", () => {
    armed = false;
    made.textContent = "Delete";
    made.classList.remove("danger");
  });
  return made;
}

function editNote(item, note, named) {
  const label = element("label", "hidden", `Text of note ${note.id}`);
  const field = element("textarea");
  field.id = `edit-${note.id}`;
  label.htmlFor = field.id;
  field.rows = 3;
  field.value = note.content;
  const size = element("span", "quiet");
  const save = button("Save", "primary", () => attempt(async () => {
    const changed = await call("PUT", `/api/notes/${note.id}`, { content: field.value });
    item.replaceWith(noteItem(changed, named));
    say("Changed.");
  }));
  const cancel = button("Cancel", "", () => item.replaceWith(noteItem(note, named)));
  const count = () => {
    const length = bytes(field.value);
    size.textContent = `${length} of ${CONTENT_BYTES_MAX} bytes`;
    size.classList.toggle("over", length > CONTENT_BYTES_MAX);
    save.disabled = length === 0 || length > CONTENT_BYTES_MAX;
  };
  field.addEventListener("input", count);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") cancel.click();
  });
  const footer = element("footer");
  footer.append(size, cancel, save);
  item.replaceChildren(label, field, footer);
  count();
  field.focus();
}

// === start ===

byId("user-form").addEventListener("submit", createUser);
byId("note-form").addEventListener("submit", createNote);
byId("search-form").addEventListener("submit", searchNotes);
byId("content").addEventListener("input", countBytes);
byId("content").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("note-form").requestSubmit();
});
byId("user").addEventListener("change", () => {
  chooseUser(currentUser());
  countBytes();
  attempt(loadNotes);
});
byId("refresh").addEventListener("click", () => attempt(async () => {
  await refresh();
  say("Read again.");
}));
byId("more").addEventListener("click", () => attempt(loadMore));

attempt(refresh);
