//! Certificates: the development authority that a first start makes, and the identities it signs.
//!
//! ```text
//! <data>/identities/ca.pem, ca.key              the authority
//! <data>/identities/server/server.pem, .key     the server
//! <data>/identities/<name>/ca.pem, client.pem, client.key   one folder for each client: what --identity takes
//! ```
//!
//! Keys are readable by their owner alone. An operation with an authority of its own replaces these files.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jeton_net::tls::Credentials;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The name that the server's certificate has, and that clients expect by default.
pub const SERVER_NAME: &str = "jeton";
/// The identity of the first client.
pub const ADMIN: &str = "jeton:client:admin";
/// How long development certificates hold, in days.
const VALID_DAYS: i64 = 365;

/// Why certificates cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Making one.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// Reading one.
    #[error("{path} holds no usable certificate or key: {reason}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A client's short name.
    #[error("'{0}' cannot name an identity: letters, digits, '-', '_' and '.' can, and 'server' is taken")]
    Name(String),
}

/// The identities below a data directory.
#[derive(Clone, Debug)]
pub struct Identities {
    dir: PathBuf,
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> CredentialsError + '_ {
    move |source| CredentialsError::Io { path: path.to_owned(), source }
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, content: &str) -> Result<(), CredentialsError> {
    let next = path.with_extension("next");
    let write = || {
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().map_err(io_at(path))
}

fn dated(params: &mut CertificateParams, common_name: &str) {
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::days(1);
    params.not_after = now + time::Duration::days(VALID_DAYS);
    params.distinguished_name.push(DnType::CommonName, common_name);
}

impl Identities {
    /// Those below `data`.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self { dir: data.join("identities") }
    }

    /// The folder of a client: what `--identity` takes.
    #[must_use]
    pub fn client_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes the authority, the server's certificate and the first client's, unless they are there. Returns whether
    /// they were made.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn create_missing(&self) -> Result<bool, CredentialsError> {
        let authority = self.dir.join("ca.pem");
        if authority.exists() {
            return Ok(false);
        }
        fs::create_dir_all(&self.dir).map_err(io_at(&self.dir))?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        dated(&mut params, "jeton development authority");
        let certificate = params.self_signed(&key)?;
        write_private(&self.dir.join("ca.key"), &key.serialize_pem())?;
        self.sign_server(&Issuer::new(params, key))?;
        // Last of all: a start that was cut short begins anew.
        write_private(&authority, &certificate.pem())?;
        self.create_client("admin")?;
        Ok(true)
    }

    fn sign_server(&self, issuer: &Issuer<'_, KeyPair>) -> Result<(), CredentialsError> {
        let dir = self.dir.join("server");
        fs::create_dir_all(&dir).map_err(io_at(&dir))?;
        let names = [SERVER_NAME, "localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        dated(&mut params, SERVER_NAME);
        let key = KeyPair::generate()?;
        write_private(&dir.join("server.pem"), &params.signed_by(&key, issuer)?.pem())?;
        write_private(&dir.join("server.key"), &key.serialize_pem())
    }

    /// Makes a certificate for a client; its identity is `jeton:client:<name>`. Returns identity and folder.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn create_client(&self, name: &str) -> Result<(String, PathBuf), CredentialsError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty()
            || name.len() > 100
            || !name.chars().all(is_allowed)
            || name.starts_with('.')
            || name == "server"
        {
            return Err(CredentialsError::Name(name.to_owned()));
        }
        let read = |file: &str| {
            let path = self.dir.join(file);
            fs::read_to_string(&path).map_err(io_at(&path))
        };
        let authority = read("ca.pem")?;
        let issuer = Issuer::from_ca_cert_pem(&authority, KeyPair::from_pem(&read("ca.key")?)?)?;
        let identity = format!("jeton:client:{name}");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        dated(&mut params, name);
        let key = KeyPair::generate()?;
        let dir = self.client_dir(name);
        fs::create_dir_all(&dir).map_err(io_at(&dir))?;
        write_private(&dir.join("client.key"), &key.serialize_pem())?;
        write_private(&dir.join("client.pem"), &params.signed_by(&key, &issuer)?.pem())?;
        write_private(&dir.join("ca.pem"), &authority)?;
        Ok((identity, dir))
    }

    /// What the server shows and whom it trusts.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn server(&self) -> Result<Credentials, CredentialsError> {
        let dir = self.dir.join("server");
        Ok(Credentials {
            chain: certificates(&dir.join("server.pem"))?,
            key: key(&dir.join("server.key"))?,
            authorities: certificates(&self.dir.join("ca.pem"))?,
        })
    }

    /// The first 16 bytes of the authority's blake3 hash, in hexadecimal: to compare by eye what two machines hold.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn fingerprint(&self) -> Result<String, CredentialsError> {
        let authority = certificates(&self.dir.join("ca.pem"))?;
        let hash = jeton_core::fingerprint(authority.first().map(AsRef::as_ref).unwrap_or_default());
        Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let unusable = |reason: String| CredentialsError::Unusable { path: path.to_owned(), reason };
    let pem = fs::read(path).map_err(io_at(path))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| unusable(error.to_string()))?;
    if all.is_empty() { Err(unusable("there is none in it".to_owned())) } else { Ok(all) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let pem = fs::read(path).map_err(io_at(path))?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| CredentialsError::Unusable { path: path.to_owned(), reason: error.to_string() })
}
