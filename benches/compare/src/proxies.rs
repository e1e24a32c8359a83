//! The proxies under test: their config files, how they are started, when they are ready.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Uid, User};

use crate::ports::Ports;
use crate::probe;
use crate::process::{Process, find};
use crate::template::fill;

const NGINX: &str = include_str!("../peers/nginx.conf");
const HAPROXY: &str = include_str!("../peers/haproxy.cfg");
const HEADGATE: &str = include_str!("../peers/headgate.toml");

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Headgate,
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// Bytes there and back.
    Relay,
}

/// What is needed to start one.
#[derive(Debug)]
pub struct Setting {
    /// Where config files, logs and caches go.
    pub directory: PathBuf,
    /// Who listens where.
    pub ports: Ports,
    /// The program headgate.
    pub headgate: PathBuf,
    /// This one.
    pub own: PathBuf,
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Proxy {
    /// Which one.
    pub kind: Kind,
    /// Its process.
    pub process: Process,
    ports: [u16; 2],
    access_log: Option<PathBuf>,
}

// === impl Kind ===

impl Kind {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Headgate => "headgate",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Relay => "relay",
        }
    }
}

// === impl Setting ===

impl Setting {
    /// Starts a proxy on cores 0 to `workers` - 1, and waits until it answers.
    pub async fn start(&self, kind: Kind, workers: usize) -> Result<Proxy> {
        let cores: Vec<usize> = (0..workers).collect();
        let (program, arguments, ports) = self.command(kind, workers)?;
        let process = Process::start(kind.name(), &program, arguments, &cores, &self.directory)?;
        let log = self.directory.join(format!("{}.log", kind.name()));
        let access_log = matches!(kind, Kind::Headgate | Kind::Nginx).then_some(log);
        let mut proxy = Proxy { kind, process, ports, access_log };
        let address = proxy.address(false);
        let serves = async || probe::get(address, "/1k").await.is_ok_and(|response| response.status == 200);
        proxy.process.await_ready(serves).await?;
        Ok(proxy)
    }

    fn command(&self, kind: Kind, workers: usize) -> Result<(PathBuf, Vec<String>, [u16; 2])> {
        let ports = &self.ports;
        Ok(match kind {
            Kind::Headgate => {
                let config = self.write("headgate.toml", HEADGATE, ports.headgate, workers)?;
                (self.headgate.clone(), vec!["run".into(), "--config".into(), config], ports.headgate)
            }
            Kind::Nginx => {
                let config = self.write("nginx.conf", NGINX, ports.nginx, workers)?;
                let prefix = self.directory.display().to_string();
                (find("nginx")?, vec!["-c".into(), config, "-p".into(), prefix], ports.nginx)
            }
            Kind::Haproxy => {
                let config = self.write("haproxy.cfg", HAPROXY, ports.haproxy, workers)?;
                (find("haproxy")?, vec!["-db".into(), "-f".into(), config], ports.haproxy)
            }
            Kind::Relay => {
                let [listen, target] = [ports.relay, ports.origin].map(|port| format!("127.0.0.1:{port}"));
                (self.own.clone(), vec!["relay".into(), listen, target], [ports.relay; 2])
            }
        })
    }

    /// Writes a config file; its path.
    fn write(&self, name: &str, template: &str, [http, https]: [u16; 2], workers: usize) -> Result<String> {
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let user = User::from_uid(Uid::effective())?.map_or_else(|| "nobody".to_owned(), |user| user.name);
        let [metrics, admin] = self.ports.control;
        let text = fill(
            template,
            &[
                ("workers", &workers),
                ("http", &http),
                ("https", &https),
                ("origin", &self.ports.origin),
                ("metrics", &metrics),
                ("admin", &admin),
                ("dir", &self.directory.display()),
                ("user", &user),
                ("descriptors", &descriptors),
                // nginx counts connections to the origin too; HAProxy needs two descriptors for each client.
                ("connections", &descriptors.saturating_sub(256).min(32_768)),
                ("maxconn", &(descriptors.saturating_sub(256) / 2).clamp(10_100, 25_000)),
            ],
        )?;
        let path = self.directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {name}"))?;
        Ok(path.display().to_string())
    }
}

// === impl Proxy ===

impl Proxy {
    /// Where it listens.
    pub fn address(&self, tls: bool) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port(tls)))
    }

    /// Its port.
    pub fn port(&self, tls: bool) -> u16 {
        self.ports[usize::from(tls)]
    }

    /// Empties the access log, so that runs do not fill the disk: both loggers append.
    pub fn truncate_log(&self) -> Result<()> {
        if let Some(path) = &self.access_log {
            OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0)).context("no access log")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_config_file_has_all_it_names() {
        let directory = tempfile::tempdir().unwrap();
        let setting = Setting {
            directory: directory.path().to_owned(),
            ports: Ports::find().unwrap(),
            headgate: PathBuf::new(),
            own: PathBuf::new(),
        };
        for (name, template) in [("nginx.conf", NGINX), ("haproxy.cfg", HAPROXY), ("headgate.toml", HEADGATE)] {
            setting.write(name, template, [8001, 8002], 1).unwrap();
        }
        let text = fs::read_to_string(directory.path().join("headgate.toml")).unwrap();
        match headgate::config::load::parse_text("headgate.toml", &text, &|_| None) {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{warnings:#?}"),
            Err(faults) => panic!("{faults:#?}"),
        }
    }
}
