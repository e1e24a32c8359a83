//! The app servers: two that read, two that write, of which the second is the backup.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::client;
use crate::database::Store;
use crate::ports::Ports;
use crate::process::{Process, Spec, Supervisor};

const READY_WITHIN: Duration = Duration::from_secs(20);
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The app servers, by what they do.
#[derive(Debug)]
pub struct Apps {
    program: PathBuf,
    read: [App; 2],
    write: [App; 2],
}

/// One app server, which may be started again.
#[derive(Debug, Clone)]
pub struct App {
    /// The name it gives in `X-Served-By`.
    pub name: &'static str,
    role: &'static str,
    about: &'static str,
    address: SocketAddr,
    store: String,
}

impl Apps {
    /// Starts all four. Write servers come first: they make the tables, and the replica must have them before a
    /// read server asks for them.
    pub async fn start(program: &Path, store: &Store, ports: &Ports, supervisor: &Supervisor) -> Result<Self> {
        let app = |name, role, about, address, store| App { name, role, about, address, store };
        let [write_1, write_2] = ports.write;
        let [read_1, read_2] = ports.read;
        let apps = Self {
            program: program.to_owned(),
            write: [
                app("write-1", "write", "app server, writes", write_1, store.write_url()),
                app("write-2", "write", "app server, writes when write-1 is down", write_2, store.write_url()),
            ],
            read: [
                app("read-1", "read", "app server, reads", read_1, store.read_url()),
                app("read-2", "read", "app server, reads", read_2, store.read_url()),
            ],
        };
        for app in &apps.write {
            apps.start_one(app, supervisor).await?;
        }
        store.settle().await?;
        for app in &apps.read {
            apps.start_one(app, supervisor).await?;
        }
        Ok(apps)
    }

    /// The read servers.
    pub fn read(&self) -> &[App; 2] {
        &self.read
    }

    /// The write servers, the active one first.
    pub fn write(&self) -> &[App; 2] {
        &self.write
    }

    /// Starts one and waits until it is ready.
    pub async fn start_one(&self, app: &App, supervisor: &Supervisor) -> Result<Arc<Process>> {
        let arguments =
            ["--listen", &app.address.to_string(), "--name", app.name, "--role", app.role, "--store", &app.store];
        let process = supervisor.start(Spec {
            name: app.name,
            role: app.about.to_owned(),
            address: app.address.to_string(),
            program: self.program.clone(),
            arguments: arguments.iter().map(Into::into).collect(),
            environment: Vec::new(),
            grace: STOP_GRACE,
            remedy: "The program is given by --notes PATH, its port by --base-port PORT.".to_owned(),
        })?;
        let is_ready = async || {
            let answer = client::get(app.address, "/readyz").await?;
            ensure!(answer.status.is_success(), "/readyz answers {}: {}", answer.status, answer.text());
            Ok(())
        };
        supervisor.wait_ready(&process, READY_WITHIN, is_ready).await?;
        Ok(process)
    }
}
