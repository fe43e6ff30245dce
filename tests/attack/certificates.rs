//! Clients with papers that are not in order.

use std::time::Duration;

use quinn::Connection;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;

use super::rig::{PATIENCE, Papers, Target, Wish, close_code, hello};

/// What is wrong with papers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None at all.
    Missing,
    /// Signed by another authority.
    OtherAuthority,
    /// Signed by itself.
    SelfSigned,
    /// Past its time.
    Expired,
    /// Before its time.
    NotYetValid,
    /// Names two clients.
    TwoUris,
    /// Names nobody.
    NoUri,
    /// Is a server's.
    ForServers,
    /// Names nobody that could be named: longer than any name.
    LongUri,
}

/// All of them.
pub const FAULTS: [Fault; 9] = [
    Fault::Missing,
    Fault::OtherAuthority,
    Fault::SelfSigned,
    Fault::Expired,
    Fault::NotYetValid,
    Fault::TwoUris,
    Fault::NoUri,
    Fault::ForServers,
    Fault::LongUri,
];

/// How the server took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reception {
    /// It answered the hello.
    Welcome,
    /// TLS ended the connection, with this alert.
    Alert(u8),
    /// The server closed it with this code.
    Closed(u64),
    /// Something else.
    Other(String),
}

/// Papers with this fault, and no other.
///
/// # Errors
/// If they cannot be made.
pub fn forge(target: &Target, fault: Fault) -> anyhow::Result<Papers> {
    let good = Wish::good("jeton:client:admin");
    let wish = match fault {
        Fault::Expired => Wish { from_s: -7_200, until_s: -3_600, ..good },
        Fault::NotYetValid => Wish { from_s: 3_600, until_s: 7_200, ..good },
        Fault::TwoUris => Wish { uris: vec!["jeton:client:admin".into(), "jeton:client:b".into()], ..good },
        Fault::NoUri => Wish { uris: Vec::new(), ..good },
        Fault::ForServers => Wish { for_clients: false, ..good },
        Fault::LongUri => Wish { uris: vec![format!("jeton:{}", "x".repeat(300))], ..good },
        Fault::Missing | Fault::OtherAuthority | Fault::SelfSigned => good,
    };
    let mut papers = target.sign(&wish)?;
    let key = KeyPair::generate()?;
    match fault {
        Fault::Missing => papers.chain.clear(),
        Fault::SelfSigned => {
            papers.chain = vec![wish.params()?.self_signed(&key)?.der().clone()];
            papers.key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        }
        Fault::OtherAuthority => {
            let mut authority = CertificateParams::default();
            authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let issuer = Issuer::new(authority, KeyPair::generate()?);
            papers.chain = vec![wish.params()?.signed_by(&key, &issuer)?.der().clone()];
            papers.key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        }
        _ => {}
    }
    Ok(papers)
}

/// Tries to get in and to have the hello answered.
pub async fn knock(target: &Target, papers: &Papers) -> Reception {
    let connection = match target.connect(papers).await {
        Ok(connection) => connection,
        Err(error) => match error.downcast::<quinn::ConnectionError>() {
            Ok(error) => return reception(&error),
            Err(error) => return Reception::Other(error.to_string()),
        },
    };
    let reception = tokio::time::timeout(PATIENCE, ask(&connection)).await;
    reception.unwrap_or_else(|_| Reception::Other("no answer, and no refusal".to_owned()))
}

async fn ask(connection: &Connection) -> Reception {
    let talk = async {
        let (mut send, mut receive) = connection.open_bi().await.ok()?;
        send.write_all(&hello()).await.ok()?;
        let mut header = [0; 16];
        receive.read_exact(&mut header).await.ok()
    };
    match talk.await {
        Some(()) => Reception::Welcome,
        None => reception(&connection.closed().await),
    }
}

fn reception(error: &quinn::ConnectionError) -> Reception {
    if let Some(code) = close_code(error) {
        return Reception::Closed(code);
    }
    let alert = match error {
        // A TLS alert is a code of 0x100 and the alert's number (RFC 9001, section 4.8).
        quinn::ConnectionError::ConnectionClosed(close) => {
            u64::from(close.error_code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
        }
        _ => None,
    };
    alert.map_or_else(|| Reception::Other(error.to_string()), Reception::Alert)
}

/// Knocks again and again with faulty papers; how often, and how often the door was opened.
///
/// # Errors
/// If papers cannot be forged.
pub async fn knock_on(target: &Target, faults: &[Papers], pause: Duration) -> (u64, u64) {
    let (mut knocks, mut welcomes) = (0, 0);
    for papers in faults {
        knocks += 1;
        welcomes += u64::from(knock(target, papers).await == Reception::Welcome);
        tokio::time::sleep(pause).await;
    }
    (knocks, welcomes)
}
