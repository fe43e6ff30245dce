//! What attacks are made of: a server to aim at, certificates good and bad, and connections without manners.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use jeton_wire::request::{Hello, Request};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

/// The name in the server's certificate.
pub const SERVER_NAME: &str = "jeton";
/// Nothing that is waited for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server, seen by whoever has its data directory.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its data directory.
    pub data: PathBuf,
}

/// Says that it is enough.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on [`Self::is_over`].
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is enough.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that attackers count, whichever of them.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// All so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A certificate chain, its key and the authorities trusted.
#[derive(Debug)]
pub struct Papers {
    /// The own certificate first; empty for nobody at all.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// Whom to take the server's certificate from.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl Clone for Papers {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), authorities: self.authorities.clone() }
    }
}

/// What a client certificate says.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The URIs among its names.
    pub uris: Vec<String>,
    /// From when it holds, in seconds from now.
    pub from_s: i64,
    /// Until when, in seconds from now.
    pub until_s: i64,
    /// Whether it is for clients, or for servers.
    pub for_clients: bool,
}

impl Wish {
    /// A good one, for a day.
    #[must_use]
    pub fn good(uri: &str) -> Self {
        Self { uris: vec![uri.to_owned()], from_s: -3_600, until_s: 86_400, for_clients: true }
    }

    /// The certificate's content.
    ///
    /// # Errors
    /// A URI that is none.
    pub fn params(&self) -> anyhow::Result<CertificateParams> {
        let mut params = CertificateParams::default();
        for uri in &self.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        let now = OffsetDateTime::now_utc();
        params.not_before = now + time::Duration::seconds(self.from_s);
        params.not_after = now + time::Duration::seconds(self.until_s);
        params.extended_key_usages = vec![if self.for_clients {
            ExtendedKeyUsagePurpose::ClientAuth
        } else {
            ExtendedKeyUsagePurpose::ServerAuth
        }];
        Ok(params)
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(path).with_context(|| path.display().to_string())?;
    CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().with_context(|| path.display().to_string())
}

impl Target {
    /// The server of a data directory, by its own note.
    ///
    /// # Errors
    /// If none runs there.
    pub fn of(data: &Path) -> anyhow::Result<Self> {
        let note = std::fs::read_to_string(data.join("server.json"));
        let note = note.with_context(|| format!("no server runs on {}", data.display()))?;
        let note: serde_json::Value = serde_json::from_str(&note)?;
        let address = note.get("address").and_then(|address| address.as_str()).context("an address")?;
        Ok(Self { address: address.parse()?, data: data.to_owned() })
    }

    /// The server's process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let note = std::fs::read_to_string(self.data.join("server.json")).ok()?;
        let note: serde_json::Value = serde_json::from_str(&note).ok()?;
        u32::try_from(note.get("pid")?.as_u64()?).ok()
    }

    fn identities(&self) -> PathBuf {
        self.data.join("identities")
    }

    /// Whom its clients trust, and it trusts.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn authorities(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        certificates(&self.identities().join("ca.pem"))
    }

    /// The papers of an identity that the server's own command made.
    ///
    /// # Errors
    /// If there are none.
    pub fn papers_of(&self, name: &str) -> anyhow::Result<Papers> {
        let dir = self.identities().join(name);
        Ok(Papers {
            chain: certificates(&dir.join("client.pem"))?,
            key: PrivateKeyDer::from_pem_file(dir.join("client.key")).context("client.key")?,
            authorities: self.authorities()?,
        })
    }

    /// Papers signed by the server's own authority.
    ///
    /// # Errors
    /// If its key cannot be had.
    pub fn sign(&self, wish: &Wish) -> anyhow::Result<Papers> {
        let read = |file| std::fs::read_to_string(self.identities().join(file)).context(file);
        let issuer = Issuer::from_ca_cert_pem(&read("ca.pem")?, KeyPair::from_pem(&read("ca.key")?)?)?;
        let key = KeyPair::generate()?;
        let certificate = wish.params()?.signed_by(&key, &issuer)?;
        Ok(Papers {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?,
            authorities: self.authorities()?,
        })
    }

    /// A connection of quinn's own, which says and reads nothing by itself.
    ///
    /// # Errors
    /// If the server does not take it.
    pub async fn connect(&self, papers: &Papers) -> anyhow::Result<Connection> {
        self.connect_with(papers, TransportConfig::default()).await
    }

    /// As [`Self::connect`], with windows and timers of one's own.
    ///
    /// # Errors
    /// If the server does not take it.
    pub async fn connect_with(
        &self,
        papers: &Papers,
        transport: TransportConfig,
    ) -> anyhow::Result<Connection> {
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls(papers)?)?));
        config.transport_config(Arc::new(transport));
        let endpoint = Endpoint::client("127.0.0.1:0".parse()?)?;
        let connecting = endpoint.connect_with(config, self.address, SERVER_NAME)?;
        Ok(tokio::time::timeout(PATIENCE, connecting).await??)
    }

    /// A stream of a new connection on which hello was said.
    ///
    /// # Errors
    /// If the server does not take it.
    pub async fn greeted(&self, papers: &Papers) -> anyhow::Result<(Connection, SendStream, RecvStream)> {
        let connection = self.connect(papers).await?;
        let (mut send, receive) = connection.open_bi().await?;
        send.write_all(&hello()).await?;
        Ok((connection, send, receive))
    }
}

fn tls(papers: &Papers) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    papers.authorities.iter().try_for_each(|authority| roots.add(authority.clone()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut tls = if papers.chain.is_empty() {
        tls.with_no_client_auth()
    } else {
        tls.with_client_auth_cert(papers.chain.clone(), papers.key.clone_key())?
    };
    tls.alpn_protocols = vec![jeton_wire::ALPN.to_vec()];
    Ok(tls)
}

/// The first frame of a conversation.
#[must_use]
pub fn hello() -> Vec<u8> {
    let mut frame = Vec::new();
    let hello = Hello { version_min: jeton_wire::VERSION, version_max: jeton_wire::VERSION, features: 0 };
    Request::Hello(hello).encode(0, &mut frame);
    frame
}

/// The application code that the server closed with; `None` if it ended otherwise.
#[must_use]
pub fn close_code(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

/// Waits for the server to close a connection; the code it did so with.
///
/// # Errors
/// If it does not in time.
pub async fn closed(connection: &Connection) -> anyhow::Result<Option<u64>> {
    let closed = tokio::time::timeout(PATIENCE, connection.closed()).await;
    Ok(close_code(&closed.context("the server did not close the connection")?))
}
