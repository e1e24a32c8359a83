//! One `notes` process, ended with its test.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    thread::JoinHandle,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{Response, eventually, request};

/// A server that said where it listens.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
    served_by: String,
    log: Option<JoinHandle<String>>,
}

/// What became of a process that was expected to end by itself.
pub(crate) struct Started {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

// === impl Server ===

impl Server {
    /// Starts a server on a free port and waits for its line; it may not be ready yet.
    pub(crate) fn start(name: &str, role: &str, store: &str) -> Self {
        Self::start_with(name, role, store, &[])
    }

    pub(crate) fn start_with(name: &str, role: &str, store: &str, more: &[&str]) -> Self {
        let mut process = command()
            .args(["--listen", "127.0.0.1:0", "--name", name])
            .args(["--role", role, "--store", store])
            .args(more)
            .spawn()
            .expect("the binary starts");
        let log = collect(process.stderr.take().expect("stderr is piped"));
        let stdout = process.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("stdout is text");
        let Some(address) = line.strip_prefix("listening on ") else {
            let _ = process.kill();
            panic!("{line:?} instead of an address: {}", log.join().unwrap());
        };
        Self {
            address: address.trim().parse().expect("an address"),
            served_by: format!("{name} {role}"),
            process,
            log: Some(log),
        }
    }

    /// Starts a server on a database in its own memory, and waits until it is ready.
    pub(crate) fn in_memory() -> Self {
        let server = Self::start("app-1", "all", "sqlite::memory:");
        server.await_ready();
        server
    }

    /// Runs with these arguments until it ends by itself.
    pub(crate) fn run_to_end(arguments: &[&str]) -> Started {
        let output = command().args(arguments).output().expect("the binary starts");
        Started { status: output.status, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
    }

    pub(crate) fn await_ready(&self) {
        eventually("readiness", || (self.get("/readyz").status == 200).then_some(()));
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        self.request("GET", target, &[], b"")
    }

    pub(crate) fn post(&self, target: &str, body: &Value) -> Response {
        self.send_json("POST", target, body)
    }

    pub(crate) fn put(&self, target: &str, body: &Value) -> Response {
        self.send_json("PUT", target, body)
    }

    pub(crate) fn delete(&self, target: &str) -> Response {
        self.request("DELETE", target, &[], b"")
    }

    /// One request; whatever the answer is, it must say who gave it.
    pub(crate) fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let response = request(self.address, method, target, headers, body)
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"));
        assert_eq!(response.header("x-served-by"), Some(self.served_by.as_str()), "{method} {target}");
        response
    }

    pub(crate) fn create_user(&self, name: &str) -> i64 {
        let response = self.post("/api/users", &json!({ "name": name }));
        assert_eq!(response.status, 201, "{}", response.text());
        response.json()["id"].as_i64().expect("an id")
    }

    pub(crate) fn create_note(&self, user_id: i64, content: &str) -> i64 {
        let note = json!({ "user_id": user_id, "content": content });
        let response = self.post("/api/notes", &note);
        assert_eq!(response.status, 201, "{}", response.text());
        response.json()["id"].as_i64().expect("an id")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("the process is there");
    }

    /// Waits for the end; gives the exit status and what it logged.
    pub(crate) fn await_end(mut self) -> Started {
        let status = eventually("the end of the server", || self.process.try_wait().expect("a child"));
        let log = self.log.take().expect("taken once");
        Started { status, stderr: log.join().expect("the log is text") }
    }

    /// SIGKILL: no goodbye to anyone.
    pub(crate) fn kill_hard(self) {
        self.signal(Signal::SIGKILL);
        self.await_end();
    }

    fn send_json(&self, method: &str, target: &str, body: &Value) -> Response {
        let headers = [("content-type", "application/json")];
        self.request(method, target, &headers, body.to_string().as_bytes())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_notes"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["LISTEN", "NAME", "ROLE", "STORE", "DRAIN_TIMEOUT", "LOG"] {
        command.env_remove(format!("NOTES_{name}"));
    }
    command
}

/// Reads the log all the time, so that the server never waits for a full pipe.
fn collect(mut stderr: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut log = Vec::new();
        let _ = stderr.read_to_end(&mut log);
        String::from_utf8_lossy(&log).into_owned()
    })
}
