//! Making the connection: TCP or Unix socket, TLS or not, with grpc-go's words for what goes wrong.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::uri::{Authority, Scheme};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{lookup_host, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::server::tls::{certificates, private_key, root_store};
use crate::server::Status;

pub const UNAVAILABLE: u32 = 14;

/// What a server may send before we have taken it: large, since answers of many megabytes are usual here.
const WINDOW_BYTES: u32 = 8 << 20;

/// Where distributions keep the system's certificate authorities.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub enum Target {
    Tcp { host: String, port: u16 },
    Unix(String),
}

impl Target {
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Self::Unix(path.to_owned()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("address {text}: missing port in address"))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| format!("address {text}: invalid port"))?;
        Ok(Self::Tcp { host: host.to_owned(), port })
    }

    fn default_authority(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    fn host(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            Self::Unix(_) => "localhost",
        }
    }
}

pub struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

pub struct TlsOptions<'a> {
    pub ca: Option<&'a [u8]>,
    pub cert: Option<&'a [u8]>,
    pub key: Option<&'a [u8]>,
    pub server_name: Option<&'a str>,
    pub insecure_skip_verify: bool,
}

impl TlsOptions<'_> {
    pub fn build(&self, target: &Target) -> Result<Tls, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if self.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        } else {
            let roots = self.ca.map_or_else(|| Ok(system_roots()), root_store)?;
            builder.with_root_certificates(roots)
        };
        let mut config = match (self.cert, self.key) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|error| error.to_string())?,
            (None, None) => builder.with_no_client_auth(),
            _ => return Err("cert and key belong together".into()),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = self.server_name.unwrap_or_else(|| target.host());
        let name = ServerName::try_from(name.to_owned()).map_err(|_| format!("{name:?} is not a server name"))?;
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

/// The system's authorities; certificates rustls cannot read are skipped, as every TLS library does.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let named = std::env::var("SSL_CERT_FILE").ok();
    let files = named.iter().map(String::as_str).chain(SYSTEM_ROOTS);
    if let Some(pem) = files.filter_map(|file| std::fs::read(file).ok()).next() {
        roots.add_parsable_certificates(certificates(&pem).unwrap_or_default());
    }
    roots
}

/// For --insecure-skip-tls-verify: any certificate will do, but the handshake's signatures must still be right.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A channel's connection, present or to be made.
pub struct Link {
    target: Target,
    tls: Option<Tls>,
    connect_timeout: Duration,
    pub authority: Authority,
    /// Held while dialling, so that calls at the same time share one connection.
    sender: tokio::sync::Mutex<Option<SendRequest<Bytes>>>,
    driver: Mutex<Option<tokio::task::AbortHandle>>,
}

impl Link {
    pub fn new(
        target: Target,
        authority: Option<String>,
        tls: Option<Tls>,
        connect_timeout: Duration,
    ) -> Result<Self, String> {
        let authority = authority.unwrap_or_else(|| target.default_authority());
        let authority = Authority::try_from(authority.clone()).map_err(|_| format!("bad authority {authority:?}"))?;
        let (sender, driver) = (tokio::sync::Mutex::default(), Mutex::default());
        Ok(Self { target, tls, connect_timeout, authority, sender, driver })
    }

    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }

    /// A connection that can take a request now.
    pub async fn ready(&self) -> Result<SendRequest<Bytes>, Status> {
        let mut sender = self.sender.lock().await;
        if let Some(living) = sender.take() {
            if let Ok(ready) = living.ready().await {
                *sender = Some(ready.clone());
                return Ok(ready);
            }
        }
        let dialled = timeout(self.connect_timeout, self.connect()).await;
        let fresh = dialled.unwrap_or_else(|_| Err(dialling(&self.name("i/o timeout"))))?;
        *sender = Some(fresh.clone());
        Ok(fresh)
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, Status> {
        let socket = self.dial().await?;
        let wire: Box<dyn Wire> = match &self.tls {
            None => socket,
            Some(tls) => Box::new(tls.connector.connect(tls.name.clone(), socket).await.map_err(|error| {
                Status::new(
                    UNAVAILABLE,
                    format!("connection error: desc = \"transport: authentication handshake failed: tls: {error}\""),
                )
            })?),
        };
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES).enable_push(false);
        let (sender, connection) = builder.handshake(wire).await.map_err(|error| unavailable(&error))?;
        // Its end is seen by the calls on it.
        let driver = tokio::spawn(async move { drop(connection.await) });
        *self.driver.lock().expect("nobody panics while holding it") = Some(driver.abort_handle());
        Ok(sender)
    }

    async fn dial(&self) -> Result<Box<dyn Wire>, Status> {
        let (host, port) = match &self.target {
            Target::Unix(path) => {
                let socket = UnixStream::connect(path).await;
                return match socket {
                    Ok(socket) => Ok(Box::new(socket)),
                    Err(error) => Err(dialling(&self.name(&format!("connect: {}", words(&error))))),
                };
            }
            Target::Tcp { host, port } => (host.as_str(), *port),
        };
        let addresses: Vec<SocketAddr> = match host.parse() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => lookup_host((host, port))
                .await
                .map_err(|_| dialling(&format!("dial tcp: lookup {host}: no such host")))?
                .collect(),
        };
        let mut failure = dialling(&format!("dial tcp: lookup {host}: no such host"));
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(socket) => {
                    socket.set_nodelay(true).map_err(|error| dialling(&words(&error)))?;
                    return Ok(Box::new(socket));
                }
                Err(error) => failure = dialling(&format!("dial tcp {address}: connect: {}", words(&error))),
            }
        }
        Err(failure)
    }

    /// `dial tcp host:port: what`, as Go's net package says it.
    fn name(&self, what: &str) -> String {
        match &self.target {
            Target::Tcp { .. } => format!("dial tcp {}: {what}", self.target.default_authority()),
            Target::Unix(path) => format!("dial unix {path}: {what}"),
        }
    }

    pub fn close(&self) {
        if let Some(driver) = self.driver.lock().expect("nobody panics while holding it").take() {
            driver.abort();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

fn dialling(what: &str) -> Status {
    Status::new(UNAVAILABLE, format!("connection error: desc = \"transport: Error while dialing: {what}\""))
}

pub fn unavailable(error: &h2::Error) -> Status {
    Status::new(UNAVAILABLE, format!("error reading from server: {error}"))
}

/// The system's words for an error, in Go's lower case and without Rust's number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
