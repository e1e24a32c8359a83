//! What stands in a proxy's place while a generator's own ceiling is measured: it ends TLS and answers at once.
//!
//! Only for loads over TLS, which the origin does not speak. It runs on the proxy's core.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::origin::{Site, serve_connection, serve_each};

/// Serves HTTPS until it is ended, with the certificate in `directory`.
pub async fn serve(listen: SocketAddr, directory: &Path) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls_config(directory)?));
    serve_each(listen, async move |stream, site| serve_stream(stream, &acceptor, &site).await).await
}

async fn serve_stream(stream: TcpStream, acceptor: &TlsAcceptor, site: &Site) -> Result<()> {
    let stream = acceptor.accept(stream).await?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve_http2(stream).await
    } else {
        serve_connection(stream, site).await
    }
}

/// Whatever is asked for, it is 1 KiB.
async fn serve_http2(stream: TlsStream<TcpStream>) -> Result<()> {
    let body = Bytes::from_static(&[b'x'; 1024]);
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request?;
        let response = http::Response::builder().header("content-length", body.len()).body(())?;
        respond.send_response(response, false)?.send_data(body.clone(), true)?;
    }
    Ok(())
}

fn tls_config(directory: &Path) -> Result<ServerConfig> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(directory.join("localhost.pem"))?.collect();
    let key = PrivateKeyDer::from_pem_file(directory.join("localhost.key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain?, key)?;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
