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

use jeton_net::identity::not_after_s;
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
/// How long certificates of the development authority hold, and the authority itself, in days.
const VALID_DAYS: i64 = 365;
const AUTHORITY_VALID_DAYS: i64 = 10 * 365;
/// A server's certificate is renewed, or warned of, when it holds for fewer days than this.
pub const RENEW_DAYS: i64 = 30;

/// Why certificates cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file.
    #[error("{path}: {cause}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
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
    /// There is an identity of that name already.
    #[error("{path} exists: its key would be replaced; say --force to do that", path = path.display())]
    Exists {
        /// Its folder.
        path: PathBuf,
    },
    /// There is a server's key, and nobody it trusts.
    #[error("{path} is missing although {key} is there: restore it; to begin anew with a development authority, remove both", path = path.display(), key = key.display())]
    NoTrust {
        /// The certificates of the authorities.
        path: PathBuf,
        /// The server's key.
        key: PathBuf,
    },
    /// There is no authority to sign with.
    #[error("{path} does not exist: this data directory has no development authority; `jeton serve` makes one", path = path.display())]
    NoAuthority {
        /// The authority's key.
        path: PathBuf,
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
    move |cause| CredentialsError::Io { path: path.to_owned(), cause }
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

fn dated(params: &mut CertificateParams, common_name: &str, valid_days: i64) {
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::days(1);
    params.not_after = now + time::Duration::days(valid_days);
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

    /// Whether the authority is one that a first start made: its key lies here.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.dir.join("ca.key").exists()
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
        let server_key = self.dir.join("server/server.key");
        if server_key.exists() && !self.is_development() {
            return Err(CredentialsError::NoTrust { path: authority, key: server_key });
        }
        fs::create_dir_all(&self.dir).map_err(io_at(&self.dir))?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        dated(&mut params, "jeton development authority", AUTHORITY_VALID_DAYS);
        let certificate = params.self_signed(&key)?;
        write_private(&self.dir.join("ca.key"), &key.serialize_pem())?;
        let issuer = Issuer::new(params, key);
        self.sign_server(&issuer)?;
        self.sign_client("admin", &issuer, &certificate.pem())?;
        // Last of all: a start that was cut short begins anew.
        write_private(&authority, &certificate.pem())?;
        Ok(true)
    }

    /// Renews the server's certificate if it is the development authority's and about to expire. Returns the days that
    /// it, and the authority, still hold.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn renew_server(&self) -> Result<[i64; 2], CredentialsError> {
        let path = self.dir.join("server/server.pem");
        let mut days = [days_left(&path)?, days_left(&self.dir.join("ca.pem"))?];
        if self.is_development() && days[0] < RENEW_DAYS && days[1] > days[0] {
            self.sign_server(&self.issuer()?.0)?;
            days[0] = days_left(&path)?;
        }
        Ok(days)
    }

    /// The authority, to sign with, and its certificate.
    fn issuer(&self) -> Result<(Issuer<'static, KeyPair>, String), CredentialsError> {
        let key = self.dir.join("ca.key");
        if !key.exists() {
            return Err(CredentialsError::NoAuthority { path: key });
        }
        let read = |path: &Path| fs::read_to_string(path).map_err(io_at(path));
        let authority = read(&self.dir.join("ca.pem"))?;
        let issuer = Issuer::from_ca_cert_pem(&authority, KeyPair::from_pem(&read(&key)?)?)?;
        Ok((issuer, authority))
    }

    fn sign_server(&self, issuer: &Issuer<'_, KeyPair>) -> Result<(), CredentialsError> {
        let dir = self.dir.join("server");
        fs::create_dir_all(&dir).map_err(io_at(&dir))?;
        let names = [SERVER_NAME, "localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        dated(&mut params, SERVER_NAME, VALID_DAYS);
        let key = KeyPair::generate()?;
        write_private(&dir.join("server.pem"), &params.signed_by(&key, issuer)?.pem())?;
        write_private(&dir.join("server.key"), &key.serialize_pem())
    }

    /// Makes a certificate for a client; its identity is `jeton:client:<name>`. Returns identity and folder. One that is
    /// there is replaced only if `replace` says so.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn create_client(&self, name: &str, replace: bool) -> Result<(String, PathBuf), CredentialsError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty()
            || name.len() > 100
            || !name.chars().all(is_allowed)
            || name.starts_with('.')
            || name == "server"
        {
            return Err(CredentialsError::Name(name.to_owned()));
        }
        let (issuer, authority) = self.issuer()?;
        let dir = self.client_dir(name);
        if dir.join("client.key").exists() && !replace {
            return Err(CredentialsError::Exists { path: dir });
        }
        self.sign_client(name, &issuer, &authority)
    }

    fn sign_client(
        &self,
        name: &str,
        issuer: &Issuer<'_, KeyPair>,
        authority: &str,
    ) -> Result<(String, PathBuf), CredentialsError> {
        let identity = format!("jeton:client:{name}");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        dated(&mut params, name, VALID_DAYS);
        let key = KeyPair::generate()?;
        let dir = self.client_dir(name);
        fs::create_dir_all(&dir).map_err(io_at(&dir))?;
        write_private(&dir.join("client.key"), &key.serialize_pem())?;
        write_private(&dir.join("client.pem"), &params.signed_by(&key, issuer)?.pem())?;
        write_private(&dir.join("ca.pem"), authority)?;
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

/// Days until the certificate in a file expires; negative if it has.
fn days_left(path: &Path) -> Result<i64, CredentialsError> {
    let unusable = |reason: String| CredentialsError::Unusable { path: path.to_owned(), reason };
    let chain = certificates(path)?;
    let own = chain.first().ok_or_else(|| unusable("there is none in it".to_owned()))?;
    let not_after_s = not_after_s(own).map_err(|error| unusable(error.to_string()))?;
    let left_s =
        i64::try_from(not_after_s).unwrap_or(i64::MAX) - time::OffsetDateTime::now_utc().unix_timestamp();
    Ok(left_s.div_euclid(24 * 60 * 60))
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let pem = fs::read(path).map_err(io_at(path))?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| CredentialsError::Unusable { path: path.to_owned(), reason: error.to_string() })
}
