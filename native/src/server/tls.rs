//! Certificates for a listener, and which clients it takes.
//!
//! Rules that hold here, all etcd's (client/pkg/transport):
//! * Names that are allowed are looked at within the handshake; revocation and, where asked for, the address a client comes
//!   from after it. Either way nothing of the client is read before.
//! * Sessions are not resumed where certificates are asked for: a resumed one would not be verified again.
//! * `replace` changes what new connections meet. Of those that stand it ends the ones whose certificate a new revocation
//!   list names, which etcd leaves alone; a list that cannot be read ends none.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio::net::lookup_host;
use tokio::sync::watch;

use super::x509::{revoked, Certificate};
use crate::crypto::Choice;
use crate::dial::system_roots;

/// Go's words for a certificate none of whose names is allowed.
pub const NOT_ALLOWED: &str = "client certificate authentication failed";

/// The names one of which the other side's certificate must bear; none: any will do.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    pub common_names: Vec<String>,
    pub hosts: Vec<String>,
}

impl Allowed {
    pub fn check(&self, certificate: &[u8]) -> Result<(), Error> {
        if self.common_names.is_empty() && self.hosts.is_empty() {
            return Ok(());
        }
        let certificate = Certificate::read(certificate);
        let common_name = certificate.common_name();
        if self.common_names.iter().any(|name| name == common_name)
            || self.hosts.iter().any(|host| certificate.names(host))
        {
            return Ok(());
        }
        // Go answers with the alert "bad certificate", which rustls keeps for names that do not fit.
        Err(CertificateError::NotValidForName.into())
    }
}

/// What a listener's new connections meet.
pub struct Secured {
    pub config: Arc<ServerConfig>,
    /// Serial numbers, or why the list cannot be had: then nobody with a certificate gets in.
    revoked: Option<Result<HashSet<Vec<u8>>, String>>,
    check_address: bool,
}

impl Secured {
    /// Whom a handshake has let in may still be turned away.
    pub async fn check(&self, chain: &[CertificateDer<'_>], address: Option<IpAddr>) -> Result<(), String> {
        if let (true, [leaf, ..], Some(address)) = (self.check_address, chain, address) {
            check_address(&Certificate::read(leaf), address).await?;
        }
        match &self.revoked {
            Some(Err(error)) if !chain.is_empty() => Err(error.clone()),
            _ => self.revokes(&serials(chain)).map_or(Ok(()), Err),
        }
    }

    /// Whether there is a list at all, now or later.
    pub fn has_list(&self) -> bool {
        self.revoked.is_some()
    }

    /// Go's words for the first of these serial numbers that the list names.
    pub fn revokes(&self, chain: &[Vec<u8>]) -> Option<String> {
        let Some(Ok(listed)) = &self.revoked else { return None };
        let serial = chain.iter().find(|serial| listed.contains(*serial))?;
        let digits: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("transport: certificate serial {digits} revoked"))
    }
}

/// The serial numbers of a chain.
pub fn serials(chain: &[CertificateDer<'_>]) -> Vec<Vec<u8>> {
    chain.iter().map(|each| Certificate::read(each).serial).collect()
}

/// A certificate that names addresses or hosts must name the one it comes from.
async fn check_address(certificate: &Certificate, address: IpAddr) -> Result<(), String> {
    let host = address.to_string();
    if certificate.addresses.is_empty() && certificate.dns_names.is_empty() || certificate.addresses.contains(&address)
    {
        return Ok(());
    }
    if certificate.dns_names.is_empty() {
        return Err(certificate.not_named(&host));
    }
    let mut trouble = String::new();
    let called = tokio::task::spawn_blocking(move || crate::socket::host_of(address)).await.ok().flatten();
    match called {
        Some(called) => {
            let called = called.trim_end_matches('.');
            let fits = |name: &String| match name.strip_prefix('*').filter(|rest| rest.starts_with('.')) {
                Some(domain) => called.ends_with(domain),
                None => called == name,
            };
            if certificate.dns_names.iter().any(fits) {
                return Ok(());
            }
        }
        None => trouble = format!(" (lookup {host}: no such host)"),
    }
    for name in certificate.dns_names.iter().filter(|name| !name.starts_with("*.")) {
        match lookup_host((name.as_str(), 0)).await {
            Ok(mut found) => {
                if found.any(|each| each.ip().to_canonical() == address) {
                    return Ok(());
                }
            }
            Err(_) => trouble = format!(" (lookup {name}: no such host)"),
        }
    }
    let names: Vec<_> = certificate.dns_names.iter().map(|name| format!("{name:?}")).collect();
    Err(format!("tls: {host:?} does not match any of DNSNames [{}]{trouble}", names.join(" ")))
}

/// Where a connection comes from, if that is an address at all.
pub fn ip_of(address: &str) -> Option<IpAddr> {
    address.parse::<SocketAddr>().ok().map(|address| address.ip().to_canonical())
}

#[pyclass(frozen, module = "pyetcd._native")]
pub struct Tls {
    pub current: Arc<Current>,
}

pub struct Current(watch::Sender<Arc<Secured>>);

impl Current {
    pub fn get(&self) -> Arc<Secured> {
        self.0.borrow().clone()
    }

    /// What replaces it from now on.
    pub fn changes(&self) -> watch::Receiver<Arc<Secured>> {
        self.0.subscribe()
    }
}

#[pymethods]
impl Tls {
    #[new]
    #[pyo3(signature = (
        cert_chain, key, client_ca = None, *, client_auth = None, crl = None, crl_error = None, allowed_cns = vec![],
        allowed_hostnames = vec![], check_address = false, cipher_suites = vec![], min_version = 12, max_version = 13,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        cert_chain: &[u8],
        key: &[u8],
        client_ca: Option<&[u8]>,
        client_auth: Option<bool>,
        crl: Option<&[u8]>,
        crl_error: Option<String>,
        allowed_cns: Vec<String>,
        allowed_hostnames: Vec<String>,
        check_address: bool,
        cipher_suites: Vec<u16>,
        min_version: u8,
        max_version: u8,
    ) -> PyResult<Self> {
        let choice = Choice { suites: &cipher_suites, no_tls12: min_version > 12, no_tls13: max_version < 13 };
        let allowed = Allowed { common_names: allowed_cns, hosts: allowed_hostnames };
        let asks = client_auth.unwrap_or(client_ca.is_some());
        let config =
            server_config(cert_chain, key, client_ca, asks, allowed, &choice).map_err(PyValueError::new_err)?;
        let revoked = match crl_error {
            Some(error) => Some(Err(error)),
            None => crl.map(revoked),
        };
        let secured = Secured { config: Arc::new(config), revoked, check_address };
        Ok(Self { current: Arc::new(Current(watch::Sender::new(Arc::new(secured)))) })
    }

    /// New connections meet what `other` has.
    fn replace(&self, other: &Bound<'_, Tls>) {
        self.current.0.send_replace(other.get().current.get());
    }
}

fn server_config(
    cert_chain: &[u8],
    key: &[u8],
    client_ca: Option<&[u8]>,
    asks: bool,
    allowed: Allowed,
    choice: &Choice<'_>,
) -> Result<ServerConfig, String> {
    let provider = choice.provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&choice.versions())
        .map_err(|error| error.to_string())?;
    let builder = if asks {
        let roots = Arc::new(client_ca.map_or_else(|| Ok(system_roots()), root_store)?);
        let inner = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
        let inner = inner.map_err(|error| error.to_string())?;
        let named = client_ca.map_or_else(|| Ok(Vec::new()), certificates)?;
        builder.with_client_cert_verifier(Arc::new(ClientVerifier { inner, named, allowed }))
    } else {
        builder.with_no_client_auth()
    };
    let (chain, key) = (certificates(cert_chain)?, private_key(key)?);
    let mut config = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if asks {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// rustls' own verification, and the allowed names.
#[derive(Debug)]
struct ClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    /// The authorities given: a client may be one of them itself, as in Go.
    named: Vec<CertificateDer<'static>>,
    allowed: Allowed,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = match self.inner.verify_client_cert(leaf, rest, now) {
            // An authority of the same name that did not sign it: to Go, one that is not known.
            Err(Error::InvalidCertificate(CertificateError::BadSignature)) => {
                return Err(CertificateError::UnknownIssuer.into());
            }
            // rustls takes no authority for a client; Go does where it was named as trusted.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.named.contains(leaf) => {
                if !Certificate::read(leaf).is_valid(now) {
                    return Err(CertificateError::Expired.into());
                }
                ClientCertVerified::assertion()
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
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("no certificate in the PEM data".into()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("certificate: {error}")),
    }
}

pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| format!("private key: {error}"))
}

pub fn root_store(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("CA certificate: {error}"))?;
    }
    Ok(roots)
}
