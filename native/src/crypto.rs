//! The algorithms of TLS: ring's, and P-521, which ring lacks and Go's generated certificates use.

use std::sync::{Arc, OnceLock};

use p521::ecdsa::signature::{Signer as _, Verifier as _};
use p521::ecdsa::{DerSignature, Signature, SigningKey as Secret, VerifyingKey};
use p521::pkcs8::DecodePrivateKey;
use rustls::crypto::{ring, CryptoProvider, KeyProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{
    alg_id, AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm,
    SubjectPublicKeyInfoDer,
};
use rustls::sign::{public_key_to_spki, Signer, SigningKey};
use rustls::version::{TLS12, TLS13};
use rustls::{Error, SignatureAlgorithm, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion};

const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP521_SHA512;

/// Which versions and suites may be spoken. Suites concern TLS 1.2 alone, as in Go; none: all there are.
#[derive(Default)]
pub struct Choice<'a> {
    pub suites: &'a [u16],
    pub no_tls12: bool,
    pub no_tls13: bool,
}

impl Choice<'_> {
    pub fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let taken = [(&TLS13, self.no_tls13), (&TLS12, self.no_tls12)];
        taken.into_iter().filter(|(_, refused)| !refused).map(|(version, _)| version).collect()
    }

    pub fn provider(&self) -> Arc<CryptoProvider> {
        if self.suites.is_empty() {
            return provider();
        }
        let mut chosen = CryptoProvider::clone(&provider());
        chosen.cipher_suites.retain(|suite| {
            matches!(suite, SupportedCipherSuite::Tls13(_)) || self.suites.contains(&suite.suite().into())
        });
        Arc::new(chosen)
    }
}

pub fn provider() -> Arc<CryptoProvider> {
    static MADE: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut provider = ring::default_provider();
        provider.signature_verification_algorithms = with_p521(provider.signature_verification_algorithms);
        provider.key_provider = &Keys;
        Arc::new(provider)
    })
    .clone()
}

/// The slices live as long as the process: they are made once.
fn with_p521(known: WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    const P521: &[&dyn SignatureVerificationAlgorithm] = &[&Verification];
    let all: Vec<_> = known.all.iter().chain(P521).copied().collect();
    let mapping: Vec<_> = known.mapping.iter().copied().chain([(SCHEME, P521)]).collect();
    WebPkiSupportedAlgorithms { all: Vec::leak(all), mapping: Vec::leak(mapping) }
}

#[derive(Debug)]
struct Verification;

impl SignatureVerificationAlgorithm for Verification {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA512
    }
}

#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, der: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        let secret = match &der {
            PrivateKeyDer::Sec1(sec1) => p521::SecretKey::from_sec1_der(sec1.secret_sec1_der()).ok(),
            PrivateKeyDer::Pkcs8(pkcs8) => p521::SecretKey::from_pkcs8_der(pkcs8.secret_pkcs8_der()).ok(),
            _ => None,
        };
        match secret.and_then(|secret| Secret::from_slice(&secret.to_bytes()).ok()) {
            Some(secret) => Ok(Arc::new(Key(Arc::new(secret)))),
            None => ring::default_provider().key_provider.load_private_key(der),
        }
    }
}

struct Key(Arc<Secret>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a P-521 key")
    }
}

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SCHEME).then(|| Box::new(Self(self.0.clone())) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        let point = VerifyingKey::from(&*self.0).to_encoded_point(false);
        Some(public_key_to_spki(&alg_id::ECDSA_P521, point.as_bytes()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature: Signature = self.0.sign(message);
        Ok(DerSignature::from(signature).as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}
