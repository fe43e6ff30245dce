//! Addresses of peers other than Jeton: `redis://`, `rediss://`, `http://`, `https://`.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use hyper::Uri;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::introspection::Endpoint;
use super::redis::{RedisAddress, Tls};

/// Which other server to load.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Remote {
    /// Another kind of server: redis://HOST:PORT, or http://HOST:PORT/PATH of an introspection endpoint (RFC 7662); rediss://
    /// and https:// are over TLS.
    #[arg(long, value_name = "URL")]
    pub(crate) peer: Option<String>,
    /// The authority of its certificate.
    #[arg(long, value_name = "FILE")]
    peer_ca: Option<PathBuf>,
    /// Our certificate for it, and its key.
    #[arg(long, value_name = "FILE", requires = "peer_key")]
    peer_cert: Option<PathBuf>,
    #[arg(long, value_name = "FILE", requires = "peer_cert")]
    peer_key: Option<PathBuf>,
    /// The password of a Redis.
    #[arg(long, env = "JETON_LOAD_PEER_PASSWORD", hide_env_values = true)]
    peer_password: Option<String>,
    /// Tokens that an introspection endpoint calls active, one a line.
    #[arg(long, value_name = "FILE")]
    token_list: Option<PathBuf>,
    /// The Authorization header for it: 'Basic ...' or 'Bearer ...'.
    #[arg(long, env = "JETON_LOAD_AUTHORIZATION", hide_env_values = true)]
    authorization: Option<String>,
    /// Speak HTTP/2 to it.
    #[arg(long)]
    http2: bool,
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).with_context(|| path.display().to_string())?.collect();
    found.with_context(|| format!("{} holds no certificate", path.display()))
}

/// The address that a host and port stand for.
pub(crate) fn resolve(text: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = text.to_socket_addrs().with_context(|| format!("{text} is no address"))?;
    addresses.next().with_context(|| format!("{text} has no address"))
}

/// Names of flags that were given, and what they need.
type Given = (&'static str, bool);

impl Remote {
    /// Refuses flags that the peer, or Jeton, has no use for: they would change nothing. What is only in the environment
    /// may be there for another command.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let is_typed =
            |value: &Option<String>, variable| value.is_some() && *value != std::env::var(variable).ok();
        let scheme = self.peer.as_deref().map_or("", |url| url.split("://").next().unwrap_or(url));
        let tls: [Given; 3] = [
            ("--peer-ca", self.peer_ca.is_some()),
            ("--peer-cert", self.peer_cert.is_some()),
            ("--peer-key", self.peer_key.is_some()),
        ];
        let redis: [Given; 1] =
            [("--peer-password", is_typed(&self.peer_password, "JETON_LOAD_PEER_PASSWORD"))];
        let introspection: [Given; 3] = [
            ("--token-list", self.token_list.is_some()),
            ("--authorization", is_typed(&self.authorization, "JETON_LOAD_AUTHORIZATION")),
            ("--http2", self.http2),
        ];
        let groups: [(&[Given], &[&str], &str); 3] = [
            (&tls, &["rediss", "https"], "--peer rediss://... or https://..."),
            (&redis, &["redis", "rediss"], "--peer redis://..."),
            (&introspection, &["http", "https"], "--peer http://..."),
        ];
        for (flags, schemes, needed) in groups {
            let given = flags.iter().find(|(_, is_given)| *is_given);
            if let Some((flag, _)) = given.filter(|_| !schemes.contains(&scheme)) {
                bail!("{flag} is of no use without {needed}");
            }
        }
        Ok(())
    }

    /// Refuses a user or a password within the URL, which reports name, and does not repeat it.
    pub(crate) fn check_credentials(&self) -> anyhow::Result<()> {
        let Some(url) = &self.peer else { return Ok(()) };
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let is_http = scheme.starts_with("http");
        // In a path an `@` is an `@`. But an address that has none is all authority.
        let authority = if is_http { rest.split(['/', '?', '#']).next().unwrap_or(rest) } else { rest };
        let instead = if is_http {
            "--authorization 'Basic ...' or JETON_LOAD_AUTHORIZATION"
        } else {
            "JETON_LOAD_PEER_PASSWORD"
        };
        ensure!(
            !authority.contains('@'),
            "the URL of --peer holds a user or a password, which every report would show: use {instead}"
        );
        Ok(())
    }

    /// The Redis of a `redis://` or `rediss://` address.
    pub(crate) fn redis(&self, url: &str) -> anyhow::Result<RedisAddress> {
        let (scheme, rest) = url.split_once("://").with_context(|| format!("{url} is no URL"))?;
        let place = rest.trim_end_matches('/');
        let tls = match scheme {
            "redis" => None,
            "rediss" => Some(self.tls(place)?),
            _ => bail!("{url} is none of redis://, rediss://, http:// and https://"),
        };
        Ok(RedisAddress { address: resolve(place)?, tls, password: self.peer_password.clone() })
    }

    /// The endpoint of an `http://` or `https://` address.
    pub(crate) fn endpoint(&self, url: &str) -> anyhow::Result<Endpoint> {
        // It may hold a password with a `/` in it: such a URL is not repeated.
        let shown = if url.contains('@') { "what --peer names" } else { url };
        let uri: Uri = url.parse().with_context(|| format!("{shown} is no URL"))?;
        let host = uri.host().with_context(|| format!("{url} names no host"))?;
        let is_tls = uri.scheme_str() == Some("https");
        let place = format!("{host}:{}", uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }));
        let list = self.token_list.as_deref();
        let list =
            list.context("an introspection endpoint makes no tokens: give it active ones, --token-list")?;
        Ok(Endpoint {
            address: resolve(&place)?,
            tls: is_tls.then(|| self.tls(&place)).transpose()?,
            is_http2: self.http2,
            authorization: self.authorization.clone(),
            tokens: Endpoint::read_tokens(list)?,
            uri,
        })
    }

    /// TLS 1.3 with the authority that was given, and AES-128 first, as with Jeton.
    pub(crate) fn tls(&self, place: &str) -> anyhow::Result<Tls> {
        let ca = self
            .peer_ca
            .as_deref()
            .context("TLS needs the authority of the peer's certificate: --peer-ca")?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).with_context(|| ca.display().to_string())?;
        }
        let builder = ClientConfig::builder_with_provider(jeton_net::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let config = match (&self.peer_cert, &self.peer_key) {
            (Some(cert), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
                builder.with_client_auth_cert(certificates(cert)?, private)?
            }
            _ => builder.with_no_client_auth(),
        };
        let host = place.rsplit_once(':').map_or(place, |(host, _)| host).trim_matches(['[', ']']);
        let server_name = ServerName::try_from(host.to_owned())
            .with_context(|| format!("{host} is no name for a certificate"))?;
        Ok(Tls { config: Arc::new(config), server_name })
    }
}
