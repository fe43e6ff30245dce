//! The commands about tokens: `issue`, `validate`, `revoke`, `renew`, `inspect`.

mod lifecycle;
mod validate;

pub(super) use lifecycle::{Inspect, Issue, Renew, Revoke};
pub(super) use validate::Validate;

use std::io::BufRead as _;

use anyhow::{Context as _, bail};
use jeton_client::Token;

/// The tenant meant unless one is named.
const TENANT: &str = jeton_core::sequencer::FIRST_TENANT;
/// Lines taken from standard input.
const LINES_MAX: usize = 1_000_000;

/// The tokens named: each by its text, `-` for those on standard input, one a line, so that they stay out of the
/// shell's history.
fn read_tokens(texts: &[String]) -> anyhow::Result<Vec<Token>> {
    let mut tokens = Vec::new();
    for text in texts {
        if text != "-" {
            tokens.push(parse(text)?);
            continue;
        }
        for (number, line) in (1..).zip(std::io::stdin().lock().lines()) {
            if number > LINES_MAX {
                bail!("standard input has more than {LINES_MAX} lines: send them in parts");
            }
            let line = line.context("standard input")?;
            let line = line.trim();
            let at = || format!("line {number} of standard input");
            if line.starts_with('{') {
                tokens.extend(tokens_of_json(line).with_context(at)?);
            } else if !line.is_empty() {
                tokens.push(parse(line).with_context(at)?);
            }
        }
    }
    if tokens.is_empty() {
        bail!("no token was given");
    }
    Ok(tokens)
}

fn parse(text: &str) -> anyhow::Result<Token> {
    // The text itself may be a secret with a typing error: it is not repeated.
    Token::parse(text).context("not a token")
}

/// What `jeton issue --json` prints can be piped in as it is.
fn tokens_of_json(line: &str) -> anyhow::Result<Vec<Token>> {
    let value: serde_json::Value = serde_json::from_str(line)?;
    let tokens = value.get("tokens").and_then(serde_json::Value::as_array).context("no tokens in it")?;
    tokens
        .iter()
        .map(|token| {
            token.get("token").and_then(serde_json::Value::as_str).context("an entry without a token")
        })
        .map(|text| parse(text?))
        .collect()
}
