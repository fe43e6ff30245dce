//! Client certificates: any DER names one client or nobody, and only by a URI that every place can hold.

use jeton_net::identity::{IDENTITY_BYTES_MAX, Identity, IdentityError, not_after_s};

use crate::allocation::bounded;

/// Reads the bytes as a certificate.
pub fn run(data: &[u8]) {
    let read = bounded(64 * 1024 + 64 * data.len(), || Identity::from_certificate(data));
    match &read {
        Ok(identity) => {
            assert!((1..=IDENTITY_BYTES_MAX).contains(&identity.name.len()), "an identity is a name");
            assert!(!identity.name.chars().any(char::is_control), "without control characters");
            assert!(identity.name.parse::<jeton_core::claims::Name>().is_ok(), "as the log takes it");
            let name = identity.name.as_bytes();
            assert!(data.windows(name.len()).any(|window| window == name), "and stands in the certificate");
            assert_eq!(not_after_s(data), Ok(identity.not_after_s));
        }
        Err(IdentityError::Uris(count)) => assert_ne!(*count, 1),
        Err(IdentityError::Uri) => assert!(not_after_s(data).is_ok(), "it is a certificate all the same"),
        Err(IdentityError::Malformed) => {}
    }
}
