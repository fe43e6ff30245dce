//! `jeton identity` and `jeton tenant`.

use jeton_client::{Name, Rights};
use serde_json::json;

use super::Ending;
use super::output::print;
use super::target::{Target, running_address};
use crate::credentials::Identities;

/// Subcommands of `identity`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum IdentityCommand {
    /// Make a certificate for a client, signed by the development authority, and give it rights.
    Create(Create),
    /// List clients and their rights.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Give a client rights in a tenant.
    Grant(Change),
    /// Take rights in a tenant from a client.
    Withdraw(Change),
}

/// Flags of `identity create`.
#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    target: Target,
    /// A short name; the identity is jeton:client:NAME.
    name: String,
    /// Rights to give it: issue,validate,revoke,inspect,audit,admin, or all. Needs the server to be running.
    #[arg(long, value_name = "RIGHTS")]
    rights: Option<Rights>,
    /// The tenant of those rights; * for everywhere.
    #[arg(long, default_value = jeton_core::sequencer::FIRST_TENANT)]
    tenant: Name,
    /// Replace the key and certificate of an identity that exists.
    #[arg(long)]
    force: bool,
}

/// Flags of `identity grant` and `identity withdraw`.
#[derive(Debug, clap::Args)]
pub(super) struct Change {
    #[command(flatten)]
    target: Target,
    /// The identity: the URI SAN of its certificate; NAME alone stands for jeton:client:NAME.
    #[arg(value_parser = parse_identity)]
    client: Name,
    /// issue,validate,revoke,inspect,audit,admin, or all.
    #[arg(long, value_name = "RIGHTS")]
    rights: Rights,
    /// The tenant; * for everywhere.
    #[arg(long, default_value = jeton_core::sequencer::FIRST_TENANT)]
    tenant: Name,
}

/// Flags of `tenant`.
#[derive(Debug, clap::Args)]
pub(super) struct Tenant {
    #[command(flatten)]
    target: Target,
    /// Its name.
    name: Name,
}

/// A URI has a scheme; what has none is the short name of an identity of ours.
fn parse_identity(text: &str) -> Result<Name, String> {
    let uri = if text.contains(':') { text.to_owned() } else { format!("jeton:client:{text}") };
    uri.parse().map_err(|error| format!("{error}"))
}

impl IdentityCommand {
    pub(super) fn run(self, json: bool) -> anyhow::Result<Ending> {
        match self {
            Self::Create(create) => create.run(json),
            Self::List { target } => list(&target, json),
            Self::Grant(change) => change.run(json, true),
            Self::Withdraw(change) => change.run(json, false),
        }
    }
}

impl Create {
    fn run(self, json: bool) -> anyhow::Result<Ending> {
        let data = self.target.data();
        anyhow::ensure!(
            !self.target.is_remote(),
            "a certificate is signed by the authority of a data directory on this machine (--data); a remote server's \
             clients are given rights with `jeton identity grant`"
        );
        anyhow::ensure!(
            self.rights.is_none() || running_address(&data).is_some(),
            "no server runs on {} to give it rights: start one, or leave --rights away and use `jeton identity grant` later",
            data.display()
        );
        let identities = Identities::of(&data);
        let (identity, dir) = identities.create_client(&self.name, self.force)?;
        if let Some(rights) = self.rights {
            let client: Name = identity.parse()?;
            self.target
                .with(async |admin| Ok(admin.grant_rights(client, self.tenant.clone(), rights).await?))?;
        }
        let value = json!({ "identity": identity, "dir": dir, "rights": self.rights.map(|rights| rights.to_string()) });
        print(json, &value, || format!("{identity}: {}", dir.display()))
    }
}

fn list(target: &Target, json: bool) -> anyhow::Result<Ending> {
    target.with(async |client| {
        let clients = client.clients().await?;
        let value = json!({ "clients": clients.iter().map(|client| json!({
            "identity": client.name,
            "rights": client.rights.iter().map(|(tenant, rights)| json!({ "tenant": tenant, "rights": rights.to_string() }))
                .collect::<Vec<_>>(),
        })).collect::<Vec<_>>() });
        print(json, &value, || {
            let lines = clients.iter().map(|client| {
                let rights = client.rights.iter().map(|(tenant, rights)| format!("{tenant}: {rights}"));
                format!("{}  {}", client.name, rights.collect::<Vec<_>>().join("; "))
            });
            lines.collect::<Vec<_>>().join("\n")
        })
    })
}

impl Change {
    fn run(self, json: bool, is_grant: bool) -> anyhow::Result<Ending> {
        self.target.with(async |admin| {
            let (client, tenant) = (self.client.clone(), self.tenant.clone());
            let rights = if is_grant {
                admin.grant_rights(client, tenant, self.rights).await?
            } else {
                admin.withdraw_rights(client, tenant, self.rights).await?
            };
            let value =
                json!({ "identity": self.client.as_str(), "tenant": self.tenant.as_str(), "rights": rights.to_string() });
            print(json, &value, || format!("{} in {}: {rights}", self.client, self.tenant))
        })
    }
}

impl Tenant {
    pub(super) fn run(self, json: bool) -> anyhow::Result<Ending> {
        self.target.with(async |admin| {
            admin.create_tenant(self.name.clone()).await?;
            print(json, &json!({ "tenant": self.name.as_str() }), || format!("created tenant {}", self.name))
        })
    }
}
