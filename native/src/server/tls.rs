//! Certificates for a listener, and who the client proved to be.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

#[pyclass(frozen, module = "pyetcd._native")]
pub struct Tls {
    pub config: Arc<ServerConfig>,
}

#[pymethods]
impl Tls {
    #[new]
    #[pyo3(signature = (cert_chain, key, client_ca = None))]
    fn new(cert_chain: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> PyResult<Self> {
        let config = server_config(cert_chain, key, client_ca).map_err(PyValueError::new_err)?;
        Ok(Self { config: Arc::new(config) })
    }
}

fn server_config(cert_chain: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let roots = Arc::new(root_store(pem)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
        }
    };
    let mut config =
        builder.with_single_cert(certificates(cert_chain)?, private_key(key)?).map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
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

/// The common names in a certificate's subject. rustls has verified the chain but does not look at subjects, and an X.509
/// library would be a dozen crates for this one field.
pub fn common_names(certificate: &[u8]) -> Vec<String> {
    find_common_names(certificate).unwrap_or_default()
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const VERSION: u8 = 0xa0;
const BMP_STRING: u8 = 0x1e;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Certificate ::= SEQUENCE { tbs SEQUENCE { [0] version?, serial, algorithm, issuer, validity, subject … } … }
fn find_common_names(certificate: &[u8]) -> Option<Vec<String>> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut tbs, _) = element(certificate)?;
    let (tag, _, rest) = element(tbs)?;
    if tag == VERSION {
        tbs = rest;
    }
    for _ in 0..4 {
        (_, _, tbs) = element(tbs)?;
    }
    let (_, mut subject, _) = element(tbs)?;
    let mut names = Vec::new();
    while !subject.is_empty() {
        let (tag, mut attributes, rest) = element(subject)?;
        subject = rest;
        while tag == SET && !attributes.is_empty() {
            let (tag, attribute, rest) = element(attributes)?;
            attributes = rest;
            if tag != SEQUENCE {
                continue;
            }
            let (tag, kind, rest) = element(attribute)?;
            let (encoding, value, _) = element(rest)?;
            if tag == OBJECT_ID && kind == COMMON_NAME {
                names.push(text(encoding, value));
            }
        }
    }
    Some(names)
}

fn text(encoding: u8, value: &[u8]) -> String {
    if encoding == BMP_STRING {
        let units: Vec<u16> = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        return String::from_utf16_lossy(&units);
    }
    String::from_utf8_lossy(value).into_owned()
}

/// One DER element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let digits = usize::from(first & 0x7f);
        if digits == 0 || digits > 4 || rest.len() < digits {
            return None;
        }
        length = rest[..digits].iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = &rest[digits..];
    }
    (length <= rest.len()).then(|| (tag, &rest[..length], &rest[length..]))
}
