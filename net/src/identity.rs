//! Who a client is: the one URI SAN of its certificate.

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// The longest identity, in bytes: that of a name everywhere.
pub const IDENTITY_BYTES_MAX: usize = 255;

/// A client, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The URI.
    pub name: String,
    /// When the certificate ends, in seconds since 1970: the connection ends with it.
    pub not_after_s: u64,
}

/// Why a certificate names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It does not parse.
    #[error("the certificate does not parse")]
    Malformed,
    /// It has no URI, or more than one.
    #[error("a client certificate has exactly one URI among its subject alternative names, not {0}")]
    Uris(usize),
    /// The URI is too long, empty or has control characters.
    #[error(
        "the URI of a client certificate has 1 to {IDENTITY_BYTES_MAX} bytes, none of them control characters"
    )]
    Uri,
}

impl Identity {
    /// The identity in a certificate (DER).
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = parse_x509_certificate(der).map_err(|_| IdentityError::Malformed)?;
        let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        let [uri] = uris[..] else { return Err(IdentityError::Uris(uris.len())) };
        if !(1..=IDENTITY_BYTES_MAX).contains(&uri.len()) || uri.chars().any(char::is_control) {
            return Err(IdentityError::Uri);
        }
        let not_after_s = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self { name: uri.to_owned(), not_after_s })
    }
}

/// When a certificate (DER) ends, in seconds since 1970.
///
/// # Errors
/// [`IdentityError::Malformed`].
pub fn not_after_s(der: &[u8]) -> Result<u64, IdentityError> {
    let (_, certificate) = parse_x509_certificate(der).map_err(|_| IdentityError::Malformed)?;
    Ok(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_with_one_uri_names_a_client_and_no_other_does() {
        let named = Identity::from_certificate(&certificate(&["spiffe://jeton/admin"])).unwrap();
        assert_eq!(named.name, "spiffe://jeton/admin");
        assert!(named.not_after_s > 1_700_000_000);
        assert_eq!(Identity::from_certificate(&certificate(&[])), Err(IdentityError::Uris(0)));
        assert_eq!(Identity::from_certificate(&certificate(&["a:b", "c:d"])), Err(IdentityError::Uris(2)));
        assert_eq!(Identity::from_certificate(&certificate(&[&"x".repeat(256)])), Err(IdentityError::Uri));
        assert_eq!(Identity::from_certificate(b"no certificate"), Err(IdentityError::Malformed));
    }
}
