//! Named workloads: what each stands for, and what it asks.

use anyhow::Context as _;

use super::Workload;

/// A name and the text of a workload file.
const LIBRARY: [(&str, &str); 9] = [
    ("default", ""),
    (
        "gateway",
        r#"
about = "an API gateway: one token a request, on many connections, most for a few popular users"
connections = 64
in_flight = 8
batch = 1
schedule = { fixed = 20000 }
arrivals = "poisson"
mix = { validate = 99.8, issue = 0.1, revoke = 0.1 }
keys = { pick = { zipf = 1.0 } }
"#,
    ),
    (
        "batch-validator",
        r#"
about = "a service that collects its callers' tokens and validates 256 at a time"
connections = 4
in_flight = 4
batch = 256
schedule = { fixed = 2000 }
mix = { validate = 100 }
"#,
    ),
    (
        "login-rush",
        r#"
about = "Monday morning: every second request issues a token"
connections = 32
batch = 8
schedule = { ramp = { from = 500, to = 5000 } }
duration = "20s"
mix = { validate = 50, issue = 50 }
"#,
    ),
    (
        "incident",
        r#"
about = "an account takeover: tokens and whole subjects are revoked while everybody goes on validating"
batch = 16
schedule = { fixed = 5000 }
mix = { validate = 90, revoke = 5, revoke-subject = 5 }
validate = { live = 80, revoked = 20 }
keys = { revocable = 20 }
"#,
    ),
    (
        "one-time-links",
        r#"
about = "links and vouchers that are used up: consumes, and validates of what can be consumed"
batch = 4
schedule = { fixed = 2000 }
mix = { validate = 50, consume = 50 }
"#,
    ),
    (
        "sessions",
        r#"
about = "a web shop's sessions: resource checks on each click, renewals, logouts, guesses of robots"
connections = 32
batch = 4
schedule = { fixed = 5000 }
arrivals = "poisson"
mix = { validate = 94, issue = 2, renew = 3, revoke = 1 }
validate = { granted = 85, forbidden = 5, unknown = 5, expired = 3, wrong-secret = 2 }
keys = { pick = { hot-spot = { tokens = 5, asks = 80 } } }
"#,
    ),
    (
        "introspection",
        r#"
about = "resource servers that ask about one token a request (RFC 7662): what every peer has a counterpart of"
connections = 16
in_flight = 1
batch = 1
schedule = { fixed = 1000 }
mix = { validate = 100 }
validate = { live = 90, unknown = 5, wrong-secret = 5 }
"#,
    ),
    (
        "short-lived-clients",
        r#"
about = "functions that connect, ask a few times and go: each connection lives for 50 requests"
connections = 32
in_flight = 2
batch = 1
churn = 50
schedule = { fixed = 2000 }
mix = { validate = 100 }
"#,
    ),
];

/// The workload of that name.
pub(crate) fn named(name: &str) -> anyhow::Result<Workload> {
    let found = LIBRARY.iter().find(|(known, _)| *known == name);
    let (_, text) = found.with_context(|| {
        let names: Vec<&str> = LIBRARY.iter().map(|(name, _)| *name).collect();
        format!("no workload is named {name}: there are {}, and files that end in .toml", names.join(", "))
    })?;
    Workload::parse(text)
}

/// Each name, what it stands for, and its text.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, Workload, &'static str)> {
    LIBRARY.iter().map(|(name, text)| {
        (*name, Workload::parse(text).expect("the library's workloads are checked by a test"), text.trim())
    })
}
