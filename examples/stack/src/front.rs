//! headgate, in front: its dev certificate, its working config and its commands.
//!
//! The working config is the committed file with this stack's addresses filled in, so that any headgate command
//! can be given it from another terminal without the environment this stack has.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use crate::child_guard::die_with_parent;
use crate::client;
use crate::home::{Home, MARK};
use crate::ports::Ports;
use crate::process::{Process, Spec, Supervisor};

const READY_WITHIN: Duration = Duration::from_secs(20);
/// headgate's own drain deadline is 25 s.
const STOP_GRACE: Duration = Duration::from_secs(30);
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// headgate, and what is known of it.
#[derive(Debug)]
pub struct Front {
    program: PathBuf,
    certificates: PathBuf,
    config: PathBuf,
    home: Arc<Home>,
    process: Arc<Process>,
    https: SocketAddr,
}

/// Addresses and files the committed config leaves open.
type Variables = Vec<(&'static str, OsString)>;

impl Front {
    /// Makes the certificate when there is none, writes the working config, starts headgate, waits until it is ready.
    pub async fn start(
        program: &Path,
        certificates: &Path,
        template: &Path,
        home: &Arc<Home>,
        ports: &Ports,
        supervisor: &Supervisor,
    ) -> Result<Self> {
        let arguments = [OsString::from("dev-cert"), "--dir".into(), certificates.into()];
        let made = command(program, &arguments, home).await?;
        ensure!(made.status.success(), "headgate dev-cert failed: {}", text_of(&made));
        let certificates = certificates
            .canonicalize()
            .with_context(|| format!("headgate dev-cert made no {}", certificates.display()))?;

        let variables = variables(&certificates, home, ports);
        let config = write_config(template, home, &variables)?;
        let process = supervisor.start(Spec {
            name: "headgate",
            role: "reverse proxy".to_owned(),
            address: format!("{}, {}", ports.https, ports.http),
            program: program.to_owned(),
            arguments: vec!["run".into(), "--config".into(), config.clone().into()],
            environment: variables,
            grace: STOP_GRACE,
            remedy: format!("The config is {}; its ports are given by --https-port and so on.", config.display()),
        })?;
        let is_ready = async || {
            let answer = client::get(ports.metrics, "/readyz").await?;
            ensure!(answer.status.is_success(), "/readyz answers {}: {}", answer.status, answer.text());
            Ok(())
        };
        supervisor.wait_ready(&process, READY_WITHIN, is_ready).await?;
        Ok(Self {
            program: program.to_owned(),
            certificates,
            config,
            home: Arc::clone(home),
            process,
            https: reachable(ports.https),
        })
    }

    /// The working config.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The certificate that signs the dev certificate.
    pub fn authority(&self) -> PathBuf {
        self.certificates.join("ca.pem")
    }

    /// Where to connect for HTTPS.
    pub fn https(&self) -> SocketAddr {
        self.https
    }

    /// headgate's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Replaces the working config as careful editors do: a new file takes the old one's name.
    pub fn write_config(&self, text: &str) -> Result<()> {
        let draft = self.config.with_extension("toml.draft");
        fs::write(&draft, text).with_context(|| format!("cannot write {}", draft.display()))?;
        fs::rename(&draft, &self.config).with_context(|| format!("cannot replace {}", self.config.display()))
    }

    /// What the working config says now.
    pub fn read_config(&self) -> Result<String> {
        fs::read_to_string(&self.config).with_context(|| format!("cannot read {}", self.config.display()))
    }

    /// Where its admin API is, as headgate's commands take it.
    pub fn admin_address(&self) -> String {
        format!("unix:{}", self.home.admin_socket().display())
    }

    /// What headgate says on its admin socket.
    pub async fn admin(&self, path: &str) -> Result<String> {
        let answer = client::get_unix(&self.home.admin_socket(), path).await?;
        ensure!(answer.status.is_success(), "the admin API answers {} to {path}", answer.status);
        Ok(answer.text())
    }

    /// Runs a headgate command, as a person would.
    pub async fn command(&self, arguments: &[&str]) -> Result<Output> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        command(&self.program, &arguments, &self.home).await
    }
}

/// A command's words: what it printed, or why it failed.
pub fn text_of(output: &Output) -> String {
    let words = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    words.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Fills `${NAME}` and `${NAME:-default}` in; variables that are not ours are left as they are.
pub fn fill_in(template: &str, variables: &[(&'static str, OsString)]) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else {
            break;
        };
        let inside = &rest[start + 2..start + length];
        let name = inside.split_once(":-").map_or(inside, |(name, _)| name);
        text.push_str(&rest[..start]);
        match variables.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => {
                let value = value.to_str().with_context(|| format!("{name} is not text: {}", value.display()))?;
                // The values stand inside quoted strings of the file.
                ensure!(!value.contains(['"', '\\', '\n']), "{name} cannot be put in a config: {value}");
                text.push_str(value);
            }
            None => text.push_str(&rest[start..=start + length]),
        }
        rest = &rest[start + length + 1..];
    }
    text.push_str(rest);
    Ok(text)
}

fn variables(certificates: &Path, home: &Home, ports: &Ports) -> Variables {
    let mut admin = OsString::from("unix:");
    admin.push(home.admin_socket());
    let address = |address: SocketAddr| OsString::from(address.to_string());
    vec![
        ("HEADGATE_HTTP", address(ports.http)),
        ("HEADGATE_HTTPS", address(ports.https)),
        ("HEADGATE_METRICS", address(ports.metrics)),
        ("HEADGATE_ADMIN", admin),
        ("HEADGATE_CERT", certificates.join("localhost.pem").into()),
        ("HEADGATE_KEY", certificates.join("localhost.key").into()),
        ("HEADGATE_ACCESS_LOG", home.log("access").into()),
        ("NOTES_READ_1", address(ports.read[0])),
        ("NOTES_READ_2", address(ports.read[1])),
        ("NOTES_WRITE_1", address(ports.write[0])),
        ("NOTES_WRITE_2", address(ports.write[1])),
    ]
}

fn write_config(template: &Path, home: &Home, variables: &Variables) -> Result<PathBuf> {
    let text = fs::read_to_string(template).with_context(|| {
        format!("cannot read {}; run this from the repository's root, or give --config FILE", template.display())
    })?;
    let header = format!(
        "# Made from {} by the stack, anew at each start. An edit made while it runs is picked up live.\n\n",
        template.display()
    );
    let path = home.root().join("headgate.toml");
    let text = header + &fill_in(&text, variables)?;
    if fs::read_to_string(&path).is_ok_and(|earlier| earlier != text) {
        // Somebody may have edited it to try something.
        let aside = home.root().join("headgate.toml.previous");
        fs::rename(&path, &aside).with_context(|| format!("cannot set {} aside", path.display()))?;
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

async fn command(program: &Path, arguments: &[OsString], home: &Home) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).env(MARK, home.root()).env("NO_COLOR", "1").kill_on_drop(true);
    die_with_parent(&mut command);
    match tokio::time::timeout(COMMAND_LIMIT, command.output()).await {
        Ok(output) => output
            .with_context(|| format!("cannot run {}; build it, or give its path with --headgate", program.display())),
        Err(_) => bail!("{} {arguments:?} does not end within {COMMAND_LIMIT:?}", program.display()),
    }
}

/// An address to connect to, for one that is bound: every interface is reached through loopback.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, bound.port())
}
