//! `jeton issue`, `revoke`, `renew` and `inspect`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use jeton_client::{
    Binding, Claims, Grant, Inspection, IssueTokens, Issued, Name, Rejection, ResourcePattern, RevokeTarget,
    Token, TokenId,
};
use jeton_core::command::ISSUE_TOKENS_MAX;
use serde_json::json;

use super::validate::parse_binding;
use super::{TENANT, read_tokens};
use crate::cli::Ending;
use crate::cli::output::{duration_s, moment, moment_ms, print};
use crate::cli::target::Target;

/// Flags of `issue`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Issue {
    #[command(flatten)]
    target: Target,
    /// Whom a token stands for; each one named gets a token.
    #[arg(long, required = true, value_name = "NAME")]
    subject: Vec<Name>,
    /// How long it lives: 90s, 15m, 1h, 30d.
    #[arg(long, value_parser = duration_s, default_value = "1h")]
    ttl: u32,
    /// What it allows: 'ACTION[,ACTION...] on RESOURCE'. May be given several times.
    #[arg(long, value_name = "GRANT")]
    grant: Vec<Grant>,
    /// A service it is meant for. May be given several times; without any it is for all.
    #[arg(long)]
    audience: Vec<Name>,
    /// An OAuth scope. May be given several times.
    #[arg(long)]
    scope: Vec<String>,
    /// A free attribute, KEY=VALUE. May be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_attribute)]
    attribute: Vec<(Name, String)>,
    /// How often it can be consumed; without this as often as one likes, by plain validates.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// Let it begin to be valid only after this time.
    #[arg(long, value_parser = duration_s, default_value = "0", hide_default_value = true)]
    not_before: u32,
    /// Let it be renewed, up to this age.
    #[arg(long, value_parser = duration_s, default_value = "0", hide_default_value = true)]
    renewable: u32,
    /// The id of the token that this one descends from.
    #[arg(long, value_name = "ID")]
    parent: Option<TokenId>,
    /// What its holder must prove to have, 64 hexadecimal digits.
    #[arg(long, value_parser = parse_binding)]
    binding: Option<Binding>,
    /// The tenant it belongs to.
    #[arg(long, default_value = TENANT)]
    tenant: Name,
}

fn parse_attribute(text: &str) -> Result<(Name, String), String> {
    let (key, value) = text.split_once('=').ok_or("an attribute is written KEY=VALUE")?;
    Ok((key.parse().map_err(|error| format!("{error}"))?, value.to_owned()))
}

impl Issue {
    pub(in crate::cli) fn run(self, json: bool) -> anyhow::Result<Ending> {
        let attributes = BTreeMap::from_iter(self.attribute);
        let issue = IssueTokens {
            tenant: self.tenant,
            subjects: Vec::new(),
            claims: Claims::new(self.audience, self.scope, self.grant, attributes)?,
            ttl_s: self.ttl,
            not_before_s: self.not_before,
            renewable_s: self.renewable,
            uses_max: self.uses.unwrap_or(0),
            parent: self.parent,
            binding: self.binding,
        };
        self.target.with(async |client| {
            for subjects in self.subject.chunks(ISSUE_TOKENS_MAX) {
                let issue = IssueTokens { subjects: subjects.to_vec(), ..issue.clone() };
                show_issued(json, &client.issue(issue, None).await?, subjects)?;
            }
            Ok(Ending::Done)
        })
    }
}

fn show_issued(json: bool, issued: &Issued, subjects: &[Name]) -> anyhow::Result<Ending> {
    let texts: Vec<_> = issued.tokens.iter().map(Token::to_text).collect();
    let tokens = issued.tokens.iter().zip(&texts).zip(subjects).map(|((token, text), subject)| {
        json!({ "token": text.as_str(), "id": token.id.to_string(), "subject": subject.as_str() })
    });
    let value = json!({
        "tokens": tokens.collect::<Vec<_>>(),
        "expires": moment(issued.expires),
        "claims": issued.claims.0,
        "sequence": issued.sequence.0,
    });
    print(json, &value, || texts.iter().map(|text| text.as_str()).collect::<Vec<_>>().join("\n"))
}

/// Flags of `revoke`: one target.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Revoke {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    what: What,
    /// The tenant of subject, client or resource.
    #[arg(long, default_value = TENANT)]
    tenant: Name,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// This token; - reads it from standard input.
    #[arg(value_name = "TOKEN")]
    token: Option<String>,
    /// The token with this id.
    #[arg(long)]
    id: Option<TokenId>,
    /// Every token of a subject.
    #[arg(long)]
    subject: Option<Name>,
    /// Every token that a client asked for.
    #[arg(long)]
    client: Option<Name>,
    /// The token with this id, what it descends from and all that descends from that.
    #[arg(long, value_name = "ID")]
    family: Option<TokenId>,
    /// Every token with a grant within this pattern.
    #[arg(long, value_name = "PATTERN")]
    resource: Option<ResourcePattern>,
    /// Every token of the tenant.
    #[arg(long)]
    whole_tenant: bool,
}

impl Revoke {
    fn targets(&self) -> anyhow::Result<Vec<RevokeTarget>> {
        let tenant = || self.tenant.clone();
        let what = &self.what;
        if let Some(text) = &what.token {
            return Ok(read_tokens(std::slice::from_ref(text))?
                .into_iter()
                .map(RevokeTarget::Token)
                .collect());
        }
        let one = None
            .or(what.id.map(RevokeTarget::Id))
            .or(what.family.map(RevokeTarget::Family))
            .or(what.subject.clone().map(|subject| RevokeTarget::Subject { tenant: tenant(), subject }))
            .or(what.client.clone().map(|client| RevokeTarget::Client { tenant: tenant(), client }))
            .or(what.resource.clone().map(|pattern| RevokeTarget::Resource { tenant: tenant(), pattern }))
            .or(what.whole_tenant.then(|| RevokeTarget::Tenant { tenant: tenant() }));
        Ok(vec![one.context("nothing to revoke was named")?])
    }

    pub(in crate::cli) fn run(self, json: bool) -> anyhow::Result<Ending> {
        let targets = self.targets()?;
        // Of client, tenant and resource the claim sets are counted: each may stand for many tokens.
        let is_wide = self.what.client.is_some() || self.what.resource.is_some() || self.what.whole_tenant;
        self.target.with(async |client| {
            for target in targets {
                let revoked = client.revoke(target).await?;
                let value = json!({
                    "revoked": revoked.report.revoked,
                    "counts": if is_wide { "claim_sets" } else { "tokens" },
                    "broader": revoked.report.broader,
                    "sequence": revoked.sequence.0,
                });
                print(json, &value, || {
                    let what = match (is_wide, revoked.report.revoked) {
                        (true, 1) => "claim set, with every token of it",
                        (true, _) => "claim sets, with every token of theirs",
                        (false, 1) => "token",
                        (false, _) => "tokens",
                    };
                    let broader = match revoked.report.broader {
                        0 => String::new(),
                        count => format!("; {count} broader claim sets still reach into it"),
                    };
                    format!("revoked {} {what}{broader}", revoked.report.revoked)
                })?;
            }
            Ok(Ending::Done)
        })
    }
}

/// Flags of `renew`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Renew {
    #[command(flatten)]
    target: Target,
    /// The token; - reads it from standard input.
    #[arg(value_name = "TOKEN")]
    token: String,
    /// How long it is to live from now on.
    #[arg(long, value_parser = duration_s, default_value = "1h")]
    ttl: u32,
    /// What the holder proved to have, in 64 hexadecimal digits.
    #[arg(long, value_parser = parse_binding)]
    binding: Option<Binding>,
}

impl Renew {
    pub(in crate::cli) fn run(self, json: bool) -> anyhow::Result<Ending> {
        let tokens = read_tokens(std::slice::from_ref(&self.token))?;
        self.target.with(async |client| {
            for token in tokens {
                match client.renew(&token, self.ttl, self.binding).await {
                    Ok(expires) => {
                        let value = json!({ "id": token.id.to_string(), "expires": moment(expires) });
                        print(json, &value, || format!("expires {}", moment(expires)))?;
                    }
                    Err(jeton_client::Error::Rejected(
                        rejection @ (Rejection::Token(_) | Rejection::NotRenewable),
                    )) => {
                        let value = json!({ "id": token.id.to_string(), "denied": rejection.to_string() });
                        print(json, &value, || rejection.to_string())?;
                        return Ok(Ending::Denied);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(Ending::Done)
        })
    }
}

/// Flags of `inspect`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Inspect {
    #[command(flatten)]
    target: Target,
    /// The token, its id, or - for a token on standard input.
    #[arg(value_name = "TOKEN|ID")]
    token: String,
}

impl Inspect {
    pub(in crate::cli) fn run(self, json: bool) -> anyhow::Result<Ending> {
        let ids = match self.token.parse::<TokenId>() {
            Ok(id) => vec![id],
            Err(_) => {
                read_tokens(std::slice::from_ref(&self.token))?.into_iter().map(|token| token.id).collect()
            }
        };
        self.target.with(async |client| {
            let mut ending = Ending::Done;
            for id in ids {
                let Some(known) = client.inspect(id).await? else {
                    print(json, &json!({ "id": id.to_string(), "known": false }), || {
                        format!("{id}: unknown")
                    })?;
                    ending = Ending::Denied;
                    continue;
                };
                let claims = client.claims(known.claims).await?;
                let claims = claims.and_then(|info| Claims::decode(&info.bytes).ok()).unwrap_or_default();
                let value = inspection_json(&known, &claims);
                print(json, &value, || serde_json::to_string_pretty(&value).unwrap_or_default())?;
            }
            Ok(ending)
        })
    }
}

fn inspection_json(known: &Inspection, claims: &Claims) -> serde_json::Value {
    json!({
        "id": known.id.to_string(),
        "verdict": known.verdict.word(),
        "tenant": known.tenant,
        "subject": known.subject,
        "client": known.client,
        "issued": moment(known.issued),
        "not_before": (known.not_before.0 > 0).then(|| moment_ms(known.not_before.0)),
        "expires": moment(known.expires),
        "renewable_until": known.renewable_until.map(moment),
        "uses": known.uses.map(|(max, left)| json!({ "max": max, "left": left })),
        "family": known.family.map(|root| root.to_string()),
        "bound": known.bound,
        "claims": known.claims.0,
        "audience": claims.audience().iter().map(Name::as_str).collect::<Vec<_>>(),
        "scopes": claims.scopes(),
        "grants": claims.grants().iter().map(Grant::to_string).collect::<Vec<_>>(),
        "attributes": claims.attributes().iter().map(|(key, value)| (key.as_str(), value)).collect::<BTreeMap<_, _>>(),
    })
}
