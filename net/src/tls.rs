//! TLS 1.3, mutual, for QUIC: no tickets, no early data, AES-128-GCM first.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate chain with its key, and whom to trust.
#[derive(Debug)]
pub struct Credentials {
    /// The own certificate first, then the ones that signed it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// The authorities whose certificates the other side may have.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// Credentials that TLS cannot be done with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refused them.
    #[error("the TLS credentials are unusable: {0}")]
    Rustls(#[from] rustls::Error),
    /// The authorities make no verifier.
    #[error("the certificate authority is unusable: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// What both sides encrypt with. AES-128-GCM is the fastest here and as strong as a token's secret.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..default_provider() })
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    authorities.iter().try_for_each(|authority| roots.add(authority.clone()))?;
    Ok(roots)
}

/// The server's side: clients without a certificate of the authorities do not get past the handshake.
///
/// # Errors
/// [`TlsError`].
pub fn server_config(credentials: Credentials) -> Result<ServerConfig, TlsError> {
    let roots = Arc::new(roots(&credentials.authorities)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain, credentials.key)?;
    config.alpn_protocols = vec![jeton_wire::ALPN.to_vec()];
    // A resumed session would outlive the certificate that opened it.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.ignore_client_order = true; // AES-128-GCM first, whatever the client would rather have
    Ok(config)
}

/// The client's side.
///
/// # Errors
/// [`TlsError`].
pub fn client_config(credentials: Credentials) -> Result<ClientConfig, TlsError> {
    let roots = roots(&credentials.authorities)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(credentials.chain, credentials.key)?;
    config.alpn_protocols = vec![jeton_wire::ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
