//! A small HTTP client: over TLS to headgate, trusting the dev certificate's authority and nothing else, and in
//! cleartext to one address or unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);

/// Makes connections to headgate, as a browser that was told to trust the dev certificate would.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    authority: String,
    server_name: ServerName<'static>,
    newest: TlsConnector,
    http1: TlsConnector,
}

/// One connection.
pub struct Connection {
    sender: Sender,
    authority: String,
    scheme: &'static str,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The protocol it came in.
    pub version: Version,
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

// === impl Client ===

impl Client {
    /// For the host `name`, found at `address`, certified by `authority_file`.
    pub fn new(name: &str, address: SocketAddr, authority_file: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(authority_file)
            .with_context(|| format!("cannot read {}", authority_file.display()))?;
        for certificate in certificates {
            let certificate = certificate.with_context(|| format!("{} is not PEM", authority_file.display()))?;
            roots.add(certificate).context("the dev certificate's authority cannot be trusted")?;
        }
        let connector = |protocols: &[&[u8]]| -> Result<TlsConnector> {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .context("no TLS version is available")?
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Ok(TlsConnector::from(Arc::new(config)))
        };
        Ok(Self {
            address,
            authority: format!("{name}:{}", address.port()),
            server_name: ServerName::try_from(name.to_owned()).context("the host's name is not one")?,
            newest: connector(&[b"h2", b"http/1.1"])?,
            http1: connector(&[b"http/1.1"])?,
        })
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority)
    }

    /// A connection in the newest protocol both sides know.
    pub async fn connect(&self) -> Result<Connection> {
        self.connect_with(&self.newest).await
    }

    /// A connection in HTTP/1.1.
    pub async fn connect_http1(&self) -> Result<Connection> {
        self.connect_with(&self.http1).await
    }

    /// One GET on a connection of its own.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.connect().await?.send(Method::GET, path, None).await
    }

    /// One POST on a connection of its own.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> Result<Answer> {
        self.connect().await?.send(Method::POST, path, Some(body)).await
    }

    async fn connect_with(&self, connector: &TlsConnector) -> Result<Connection> {
        let connect = async {
            let tcp = TcpStream::connect(self.address).await.context("cannot connect")?;
            tcp.set_nodelay(true).context("cannot set TCP_NODELAY")?;
            let tls = connector.connect(self.server_name.clone(), tcp).await.context("TLS fails")?;
            let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            let sender = if is_http2 { Sender::http2(tls).await? } else { Sender::http1(tls).await? };
            Ok(Connection { sender, authority: self.authority.clone(), scheme: "https" })
        };
        let attempt = tokio::time::timeout(EXCHANGE_LIMIT, connect).await;
        attempt.unwrap_or_else(|_| Err(anyhow!("no connection within {EXCHANGE_LIMIT:?}")))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// One GET in cleartext.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    get_over(stream, address.to_string(), path).await
}

/// One GET on a unix socket.
pub async fn get_unix(socket: &Path, path: &str) -> Result<Answer> {
    let stream =
        UnixStream::connect(socket).await.with_context(|| format!("cannot connect to {}", socket.display()))?;
    get_over(stream, "localhost".to_owned(), path).await
}

async fn get_over<S>(stream: S, authority: String, path: &str) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = Connection { sender: Sender::http1(stream).await?, authority, scheme: "http" };
    connection.send(Method::GET, path, None).await
}

// === impl Connection ===

impl Connection {
    /// Whether the next request can be sent on it; false once the other side has closed it.
    pub async fn is_open(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request, with a JSON body when there is one, and reads the whole answer.
    pub async fn send(&mut self, method: Method, path: &str, body: Option<&serde_json::Value>) -> Result<Answer> {
        let request = self.request(method, path, body)?;
        let exchange = async {
            let response = match &mut self.sender {
                Sender::Http1(sender) => sender.send_request(request).await,
                Sender::Http2(sender) => sender.send_request(request).await,
            };
            let (parts, body) = response.context("the request fails")?.into_parts();
            let body = body.collect().await.context("the answer breaks off")?.to_bytes();
            Ok(Answer { version: parts.version, status: parts.status, headers: parts.headers, body })
        };
        let answer = tokio::time::timeout(EXCHANGE_LIMIT, exchange).await;
        answer.unwrap_or_else(|_| Err(anyhow!("no answer within {EXCHANGE_LIMIT:?}")))
    }

    fn request(&self, method: Method, path: &str, body: Option<&serde_json::Value>) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method);
        request = match self.sender {
            Sender::Http1(_) => request.uri(path).header(header::HOST, &self.authority),
            Sender::Http2(_) => request.uri(format!("{}://{}{path}", self.scheme, self.authority)),
        };
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        request.body(Full::new(body)).context("the request is not one")
    }
}

// === impl Sender ===

impl Sender {
    async fn http1<S>(stream: S) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("HTTP/1.1 fails")?;
        // An error of the connection reaches whoever waits for its answer.
        tokio::spawn(connection);
        Ok(Self::Http1(sender))
    }

    async fn http2<S>(stream: S) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.context("HTTP/2 fails")?;
        tokio::spawn(connection);
        Ok(Self::Http2(sender))
    }
}

// === impl Answer ===

impl Answer {
    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The app server that answered: the name of `X-Served-By: name role`.
    pub fn server(&self) -> &str {
        self.header("x-served-by").split(' ').next().unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }

    /// Fails unless the status is this one.
    pub fn expect(&self, status: StatusCode) -> Result<&Self> {
        ensure!(self.status == status, "the answer is {} instead of {status}: {}", self.status, self.text());
        Ok(self)
    }

    /// The `id` of what was made.
    pub fn id(&self) -> Result<u64> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).context("the answer is not JSON")?;
        body["id"].as_u64().with_context(|| format!("the answer has no id: {}", self.text()))
    }
}
