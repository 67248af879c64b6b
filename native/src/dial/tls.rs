//! Whom we trust and who we are when we dial, and Go's words for a handshake that fails.

use std::io;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_name, WebPkiServerVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, PeerIncompatible,
    RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;
use tokio_rustls::TlsConnector;

use super::Target;
use crate::crypto::Choice;
use crate::server::tls::{certificates, private_key, root_store, Allowed, NOT_ALLOWED};
use crate::server::x509::{rfc3339, Certificate};

/// Where distributions keep the system's certificate authorities.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Go's words for a certificate that is not valid now.
const OUT_OF_TIME: &str = "certificate has expired or is not yet valid";

pub struct Tls {
    config: Arc<ClientConfig>,
    /// Whom the certificate must name, if not the target's host.
    server_name: Option<String>,
}

pub struct TlsOptions<'a> {
    pub ca: Option<&'a [u8]>,
    pub cert: Option<&'a [u8]>,
    pub key: Option<&'a [u8]>,
    pub server_name: Option<&'a str>,
    pub insecure_skip_verify: bool,
    /// The protocols offered by ALPN; none: nothing is offered.
    pub protocols: &'a [&'a [u8]],
    pub choice: Choice<'a>,
    /// Whom the server's certificate must name besides.
    pub allowed: Allowed,
}

impl TlsOptions<'_> {
    pub fn build(&self) -> Result<Tls, String> {
        let provider = self.choice.provider();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.choice.versions())
            .map_err(|error| error.to_string())?;
        let builder = if self.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        } else {
            let roots = self.ca.map_or_else(|| Ok(system_roots()), root_store)?;
            let named = self.ca.map_or_else(|| Ok(Vec::new()), certificates)?;
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let inner = inner.map_err(|error| error.to_string())?;
            let verifier = ServerVerifier { inner, named, allowed: self.allowed.clone() };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        };
        let mut config = match (self.cert, self.key) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|error| error.to_string())?,
            (None, None) => builder.with_no_client_auth(),
            _ => return Err("cert and key belong together".into()),
        };
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Tls { config: Arc::new(config), server_name: self.server_name.map(str::to_owned) })
    }
}

impl Tls {
    /// The name the server's certificate must bear.
    pub fn name(&self, target: &Target) -> Result<ServerName<'static>, String> {
        let name = self.server_name.as_deref().unwrap_or_else(|| target.host());
        ServerName::try_from(name.to_owned()).map_err(|_| format!("{name:?} is not a server name"))
    }

    pub async fn shake_hands<S>(&self, target: &Target, stream: S) -> Result<TlsStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(self.config.clone());
        connector.connect(self.name(target)?, stream).await.map_err(|error| match error.kind() {
            // Go tells the end of a handshake from the end of what came after it.
            io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
            _ => super::words(&error),
        })
    }
}

/// Certificates for dialling members, PEM bytes. No protocol is offered by ALPN, as Go's etcd does among members.
#[pyclass(frozen, module = "pyetcd._native")]
pub struct ClientTls {
    pub tls: Arc<Tls>,
}

#[pymethods]
impl ClientTls {
    #[new]
    #[pyo3(signature = (
        *, ca = None, cert = None, key = None, server_name = None, insecure_skip_verify = false, allowed_cns = vec![],
        allowed_hostnames = vec![], cipher_suites = vec![], min_version = 12, max_version = 13,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        ca: Option<&[u8]>,
        cert: Option<&[u8]>,
        key: Option<&[u8]>,
        server_name: Option<&str>,
        insecure_skip_verify: bool,
        allowed_cns: Vec<String>,
        allowed_hostnames: Vec<String>,
        cipher_suites: Vec<u16>,
        min_version: u8,
        max_version: u8,
    ) -> PyResult<Self> {
        let choice = Choice { suites: &cipher_suites, no_tls12: min_version > 12, no_tls13: max_version < 13 };
        let allowed = Allowed { common_names: allowed_cns, hosts: allowed_hostnames };
        let options = TlsOptions { ca, cert, key, server_name, insecure_skip_verify, protocols: &[], choice, allowed };
        Ok(Self { tls: Arc::new(options.build().map_err(PyValueError::new_err)?) })
    }
}

/// The system's authorities; certificates rustls cannot read are skipped, as every TLS library does.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let named = std::env::var("SSL_CERT_FILE").ok();
    let files = named.iter().map(String::as_str).chain(SYSTEM_ROOTS);
    if let Some(pem) = files.filter_map(|file| std::fs::read(file).ok()).next() {
        roots.add_parsable_certificates(certificates(&pem).unwrap_or_default());
    }
    roots
}

/// Go's words for what went wrong, where it has its own.
pub fn words(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => remote_alert(*alert),
        Error::DecryptError => "local error: tls: bad record MAC".to_owned(),
        // Nobody asks a client for its host: only the allowed names are refused so.
        Error::InvalidCertificate(CertificateError::NotValidForName) => NOT_ALLOWED.to_owned(),
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "tls: no cipher suite supported by both client and server".to_owned()
        }
        Error::InvalidCertificate(found) => {
            format!("tls: failed to verify certificate: x509: {}", certificate_words(found))
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        other => format!("tls: {other}"),
    }
}

/// Go's words for what the other side says before it goes.
pub fn remote_alert(alert: AlertDescription) -> String {
    format!("remote error: tls: {}", alert_words(alert))
}

fn alert_words(alert: AlertDescription) -> String {
    let text = match alert {
        AlertDescription::UnexpectedMessage => "unexpected message",
        AlertDescription::BadRecordMac => "bad record MAC",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::IllegalParameter => "illegal parameter",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InternalError => "internal error",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        other => return format!("alert({})", u8::from(other)),
    };
    text.to_owned()
}

fn certificate_words(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("{OUT_OF_TIME}: current time {} is after {}", rfc3339(*time), rfc3339(*not_after))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("{OUT_OF_TIME}: current time {} is before {}", rfc3339(*time), rfc3339(*not_before))
        }
        CertificateError::Expired | CertificateError::NotValidYet => OUT_OF_TIME.to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| bare(name)).collect();
            format!("certificate is valid for {}, not {}", names.join(", "), expected.to_str())
        }
        other => other.to_string(),
    }
}

/// A name out of what rustls calls it, `DnsName("localhost")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"')
}

/// rustls' own verification, and the allowed names.
#[derive(Debug)]
struct ServerVerifier {
    inner: Arc<WebPkiServerVerifier>,
    /// The authorities given: a server may be one of them itself, as with a certificate it made.
    named: Vec<CertificateDer<'static>>,
    allowed: Allowed,
}

impl ServerVerifier {
    fn verify_itself(
        &self,
        leaf: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        if !Certificate::read(leaf).is_valid(now) {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = match self.inner.verify_server_cert(leaf, rest, name, ocsp, now) {
            // rustls takes no authority for a server; Go does where it was named as trusted.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.named.contains(leaf) => {
                self.verify_itself(leaf, name, now)?
            }
            verified => verified?,
        };
        self.allowed.check(leaf)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
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
