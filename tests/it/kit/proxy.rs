//! A headgate in this process, from a config text.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use headgate::app::{self, ExitKind, Options, Running};
use headgate::base::address::Address;
use headgate::control::receipts::Receipt;

/// Runs until dropped.
pub(crate) struct Proxy {
    running: Option<Running>,
    pub(crate) config: PathBuf,
    pub(crate) folder: tempfile::TempDir,
}

impl Proxy {
    /// Starts with a config; `@LOG` in it stands for a file in the proxy's own folder.
    pub(crate) fn start(config: &str) -> Self {
        Self::prepared(config, |_| {})
    }

    /// Likewise, once its folder (`@FOLDER` in the config) holds what the config names.
    pub(crate) fn prepared(config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let path = folder.path().join("headgate.toml");
        std::fs::write(&path, Self::fill(config, &folder)).unwrap();
        Self::run(path, folder)
    }

    /// Starts from a file that the story has written.
    pub(crate) fn run(path: PathBuf, folder: tempfile::TempDir) -> Self {
        let running = app::start(Options { config: path.clone(), workers: Some(2) });
        let running = running.unwrap_or_else(|error| panic!("{error:#}"));
        Self { running: Some(running), config: path, folder }
    }

    fn fill(config: &str, folder: &tempfile::TempDir) -> String {
        format!("config_version = 1\n{config}").replace("@FOLDER", &folder.path().display().to_string())
    }

    /// One route to one pool of these endpoints, no checks.
    pub(crate) fn to(endpoints: &[SocketAddr]) -> Self {
        Self::start(&Self::simple(endpoints, ""))
    }

    /// The text of [`Proxy::to`] with more below the route's table.
    pub(crate) fn simple(endpoints: &[SocketAddr], route: &str) -> String {
        Self::text(endpoints, "", "", route)
    }

    /// Likewise, and with more below the listener's and the pool's.
    pub(crate) fn tuned(endpoints: &[SocketAddr], listener: &str, pool: &str, route: &str) -> Self {
        Self::start(&Self::text(endpoints, listener, pool, route))
    }

    /// The text of [`Proxy::tuned`].
    pub(crate) fn text(endpoints: &[SocketAddr], listener: &str, pool: &str, route: &str) -> String {
        let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
        format!(
            r#"
            [access_log]
            output = "@FOLDER/access.log"
            [listeners.http]
            address = "127.0.0.1:0"
            {listener}
            [caches.main]
            memory = "1MiB"
            [pools.app]
            endpoints = [{}]
            {pool}
            [routes.all]
            match.path = "/*"
            pool = "app"
            {route}
            "#,
            endpoints.join(", ")
        )
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running().listeners[0].1
    }

    /// The address of the listener of that name.
    pub(crate) fn address_of(&self, listener: &str) -> SocketAddr {
        self.running().listeners.iter().find(|(name, _)| &**name == listener).unwrap().1
    }

    /// What stands in the file for this config.
    pub(crate) fn filled(&self, config: &str) -> String {
        Self::fill(config, &self.folder)
    }

    /// What loads of the config came to, oldest first.
    pub(crate) fn receipts(&self) -> Vec<Receipt> {
        let mut receipts = self.running().receipts();
        receipts.reverse();
        receipts
    }

    /// Writes another config and loads it; tells the faults where it was refused.
    pub(crate) fn reload(&self, config: &str) -> Result<(), Vec<String>> {
        std::fs::write(&self.config, Self::fill(config, &self.folder)).unwrap();
        self.ask_reload()
    }

    /// Loads the config as it is.
    pub(crate) fn ask_reload(&self) -> Result<(), Vec<String>> {
        let receipt = self.running().reload().unwrap_or_else(|_| panic!("headgate is gone"));
        if receipt.ok { Ok(()) } else { Err(receipt.faults) }
    }

    /// What a scrape gives now.
    pub(crate) fn metrics(&self) -> String {
        let address = self.running().metrics.expect("the config has no [metrics]");
        let mut client = crate::kit::Client::connect(address);
        client.send("GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        String::from_utf8(client.rest()).unwrap()
    }

    /// What the admin API tells; the config must have it on TCP.
    pub(crate) fn status(&self) -> serde_json::Value {
        let Some(Address::Tcp(address)) = self.running().admin else { panic!("no [admin] on TCP") };
        let mut client = crate::kit::Client::connect(address);
        client.send("GET /v1/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        serde_json::from_str(&client.receive().expect("the status").body).unwrap()
    }

    /// What the admin API says would be done with a request; none where it would be refused.
    pub(crate) fn explain(&self, question: &serde_json::Value) -> Option<serde_json::Value> {
        let Some(Address::Tcp(address)) = self.running().admin else { panic!("no [admin] on TCP") };
        let mut client = crate::kit::Client::connect(address);
        let body = question.to_string();
        let head =
            "POST /v1/explain HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json";
        client.send(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        let answer = client.receive().expect("an explanation");
        assert!([200, 400].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then(|| serde_json::from_str(&answer.body).unwrap())
    }

    /// What its access log says so far.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default()
    }

    /// Where metrics are served.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.running().metrics.expect("the config has [metrics]")
    }

    /// Where the admin API is.
    pub(crate) fn admin(&self) -> Address {
        self.running().admin.clone().expect("the config has [admin]")
    }

    /// What the admin API tells of one pool.
    pub(crate) fn pool(&self, name: &str) -> serde_json::Value {
        let Some(Address::Tcp(address)) = self.running().admin else { panic!("no [admin] on TCP") };
        let mut client = crate::kit::Client::connect(address);
        client.send(format!("GET /v1/pools/{name} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
        serde_json::from_str(&client.receive().expect("the pool").body).unwrap()
    }

    /// Sends a pool's traffic back by hand; tells why not.
    pub(crate) fn failback(&self, pool: &str) -> Result<(), String> {
        self.running().failback(pool).map_err(|refused| refused.to_string())
    }

    /// Begins the end, as SIGTERM does.
    pub(crate) fn drain(&self) {
        self.running().drain();
    }

    /// Stops it and gives its access log.
    pub(crate) fn stop(mut self) -> (ExitKind, String) {
        let end = self.running.take().unwrap().shutdown();
        (end, std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default())
    }

    /// Stops it and gives the lines of its access log.
    pub(crate) fn logged(self) -> Vec<serde_json::Value> {
        self.stop().1.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown();
        }
    }
}
