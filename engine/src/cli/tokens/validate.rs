//! `jeton validate`.

use anyhow::bail;
use jeton_client::{Answer, AnswerFlags, Binding, Check, Client, Consistency, Sequence, Token, Verdict};
use serde_json::json;

use super::read_tokens;
use crate::cli::Ending;
use crate::cli::output::print;
use crate::cli::target::Target;

/// Flags of `validate`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Validate {
    #[command(flatten)]
    target: Target,
    /// Tokens; - reads them from standard input, one a line, or as `jeton issue --json` prints them.
    #[arg(required = true, value_name = "TOKEN")]
    tokens: Vec<String>,
    /// The action that a grant must cover.
    #[arg(long, requires = "resource")]
    action: Option<String>,
    /// The resource that the action is on.
    #[arg(long, requires = "action")]
    resource: Option<String>,
    /// The audience that the asking service answers to.
    #[arg(long)]
    audience: Option<String>,
    /// An OAuth scope that the token must have, or several, separated by spaces. May be given several times.
    #[arg(long)]
    scope: Vec<String>,
    /// What the holder proved to have, 64 hexadecimal digits.
    #[arg(long, value_parser = parse_binding)]
    binding: Option<Binding>,
    /// The answer must rest on this event at least.
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "consume")]
    min_seq: Option<u64>,
    /// Spend one use of a limited-use token.
    #[arg(long)]
    consume: bool,
}

pub(in crate::cli) fn parse_binding(text: &str) -> Result<Binding, String> {
    let digits = text.as_bytes();
    let mut binding = [0; 32];
    if digits.len() != 64 {
        return Err("a binding has 64 hexadecimal digits".to_owned());
    }
    for (byte, pair) in binding.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| "a binding has 64 hexadecimal digits".to_owned())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| "a binding has 64 hexadecimal digits".to_owned())?;
    }
    Ok(Binding(binding))
}

impl Validate {
    pub(in crate::cli) fn run(self, json: bool) -> anyhow::Result<Ending> {
        let tokens = read_tokens(&self.tokens)?;
        let mut check = match (&self.action, &self.resource) {
            (Some(action), Some(resource)) => Check::access(action, resource)?,
            _ => Check::live(),
        };
        if let Some(audience) = &self.audience {
            check = check.for_audience(audience);
        }
        if !self.scope.is_empty() {
            check = check.with_scopes(&self.scope.join(" "))?;
        }
        if let Some(binding) = self.binding {
            check = check.with_binding(binding);
        }
        self.target.with(async |client| {
            let answers = if self.consume {
                consume(client, &tokens, &check).await?
            } else {
                let consistency =
                    self.min_seq.map_or(Consistency::Latest, |at| Consistency::AtLeast(Sequence(at)));
                let answers = client.validate_batch(&tokens, &check, consistency).await?;
                answers.into_iter().map(|answer| (answer, None)).collect()
            };
            if answers.len() != tokens.len() {
                bail!("the server answered for {} of {} tokens", answers.len(), tokens.len());
            }
            for (token, (answer, uses_left)) in tokens.iter().zip(&answers) {
                show(json, token, answer, *uses_left)?;
            }
            let all_valid = answers.iter().all(|(answer, _)| answer.verdict == Verdict::Valid);
            Ok(if all_valid { Ending::Done } else { Ending::Denied })
        })
    }
}

async fn consume(
    client: &Client,
    tokens: &[Token],
    check: &Check,
) -> anyhow::Result<Vec<(Answer, Option<u32>)>> {
    let mut answers = Vec::new();
    for token in tokens {
        let (answer, uses_left) = client.consume(token, check, None).await?;
        let is_limited = answer.flags.contains(AnswerFlags::LIMITED);
        answers.push((answer, is_limited.then_some(uses_left)));
    }
    Ok(answers)
}

fn show(json: bool, token: &Token, answer: &Answer, uses_left: Option<u32>) -> anyhow::Result<Ending> {
    let is_valid = answer.verdict == Verdict::Valid;
    let value = json!({
        "id": token.id.to_string(),
        "valid": is_valid,
        "verdict": answer.verdict.word(),
        "seconds_left": answer.seconds_left,
        "claims": answer.claims.0,
        "subject": answer.subject.0,
        "uses_left": uses_left,
    });
    print(json, &value, || {
        let uses =
            uses_left.filter(|_| is_valid).map(|left| format!(", {left} uses left")).unwrap_or_default();
        match answer.verdict {
            Verdict::Valid => format!("valid for {} s{uses}", answer.seconds_left),
            verdict => verdict.word().to_owned(),
        }
    })
}
