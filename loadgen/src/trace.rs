//! What was asked of a server before, to be asked again: kinds and times of an exported log, or of a trace.
//!
//! JSON Lines, as `jeton log show --json` prints events, or one object a line with `at_ms`, `kind` and, for validates and
//! issues, `tokens`. Tokens themselves are not taken over: a replay makes its own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::workload::kind::{KINDS, Kind};
use crate::workload::{BATCH_MAX, ISSUE_BATCH_MAX, Mix};

/// Requests of a trace at most: 24 bytes each.
const REQUESTS_MAX: usize = 20_000_000;

/// A request of a trace: when, from the beginning of the trace on, what, and of how many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traced {
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    pub(crate) tokens: u16,
}

/// Requests in the order of their times.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) requests: Vec<Traced>,
}

/// A line, of either form; an event has more fields than these.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Event { time: String, event: String, actor: serde_json::Value },
    Request(Request),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    at_ms: f64,
    kind: String,
    #[serde(default = "one")]
    tokens: u16,
}

fn one() -> u16 {
    1
}

/// The request that an event came of; events that go with others came of none of their own.
fn kind_of(event: &str) -> Option<Kind> {
    Some(match event {
        "TokenIssued" => Kind::Issue,
        "TokenRenewed" => Kind::Renew,
        "TokenConsumed" => Kind::Consume,
        "TokenRevoked" => Kind::Revoke,
        "SubjectRevoked" => Kind::RevokeSubject,
        _ => return None,
    })
}

impl Trace {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("the trace {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("the trace {}", path.display()))
    }

    /// Reads lines.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut requests: Vec<Traced> = Vec::new();
        // What one actor issues within a millisecond was one command: the log has an event for each token of it.
        let mut last_issue: Option<(String, String)> = None;
        for (number, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
            let place = || format!("line {}", number + 1);
            let line: Line = serde_json::from_str(text)
                .map_err(|_| anyhow::anyhow!("neither an event of a log nor at_ms, kind and tokens"))
                .with_context(place)?;
            let request = match line {
                Line::Request(request) => Self::request(&request).with_context(place)?,
                Line::Event { time, event, actor } => {
                    let Some(kind) = kind_of(&event) else { continue };
                    let at =
                        OffsetDateTime::parse(&time, &Rfc3339).with_context(place)?.unix_timestamp_nanos();
                    let this = (kind == Kind::Issue).then(|| (time, actor.to_string()));
                    let is_same = this.is_some() && this == last_issue;
                    last_issue = this;
                    if let Some(last) =
                        requests.last_mut().filter(|last| is_same && last.tokens < ISSUE_BATCH_MAX)
                    {
                        last.tokens += 1;
                        continue;
                    }
                    let at = Duration::from_nanos(u64::try_from(at).with_context(place)?);
                    Traced { at, kind, tokens: 1 }
                }
            };
            requests.push(request);
            ensure!(requests.len() <= REQUESTS_MAX, "a trace has {REQUESTS_MAX} requests at most");
        }
        let Some(first) = requests.iter().map(|request| request.at).min() else {
            bail!("there is no request in it");
        };
        requests.iter_mut().for_each(|request| request.at -= first);
        requests.sort_by_key(|request| request.at);
        Ok(Self { requests })
    }

    fn request(request: &Request) -> anyhow::Result<Traced> {
        let Request { at_ms, kind, tokens } = request;
        let found = KINDS.into_iter().find(|known| known.name() == kind);
        let kind = found.with_context(|| {
            let names: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
            format!("'{kind}' is no kind: there are {}", names.join(", "))
        })?;
        let most = if kind == Kind::Issue { ISSUE_BATCH_MAX } else { BATCH_MAX };
        ensure!((1..=most).contains(tokens), "{} is of 1 to {most} tokens, not {tokens}", kind.name());
        ensure!((0.0..=1e12).contains(at_ms), "at_ms is {at_ms}: a time from the beginning on is expected");
        Ok(Traced { at: Duration::from_secs_f64(at_ms / 1_000.0), kind, tokens: *tokens })
    }

    /// So many times as fast.
    pub(crate) fn speed_up(&mut self, factor: f64) {
        self.requests.iter_mut().for_each(|request| request.at = request.at.div_f64(factor));
    }

    /// From the first request to the last.
    pub(crate) fn length(&self) -> Duration {
        self.requests.last().map_or(Duration::ZERO, |request| request.at)
    }

    /// How many requests there are of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.requests.iter().filter(|request| request.kind == kind).count()
    }

    /// The most tokens that a request of a kind is of.
    pub(crate) fn tokens_max(&self, kind: Kind) -> u16 {
        self.requests.iter().filter(|it| it.kind == kind).map(|it| it.tokens).max().unwrap_or(1)
    }

    /// The shares of the kinds.
    pub(crate) fn mix(&self) -> Mix {
        let all = self.requests.len() as f64;
        let [validate, issue, revoke, revoke_subject, consume, renew] =
            KINDS.map(|kind| self.count(kind) as f64 / all * 100.0);
        Mix { validate, issue, revoke, revoke_subject, consume, renew }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_exported_log_becomes_requests() {
        let event = |time: &str, event: &str| {
            format!(
                r#"{{"sequence":7,"time":"{time}","actor":"admin","event":"{event}","fields":{{"id":"00"}}}}"#
            )
        };
        let lines = [
            event("2026-11-26T01:00:00Z", "TenantCreated"),
            event("2026-11-26T01:00:01.5Z", "TokenIssued"),
            event("2026-11-26T01:00:01.5Z", "TokenIssued"),
            event("2026-11-26T01:00:01.75Z", "TokenIssued"),
            event("2026-11-26T01:00:02Z", "TokenRevoked"),
            event("2026-11-26T01:00:02Z", "SubjectRevoked"),
        ];
        let mut trace = Trace::parse(&lines.join("\n")).unwrap();
        let at = |ms, kind, tokens| Traced { at: Duration::from_millis(ms), kind, tokens };
        assert_eq!(
            trace.requests,
            [
                at(0, Kind::Issue, 2),
                at(250, Kind::Issue, 1),
                at(500, Kind::Revoke, 1),
                at(500, Kind::RevokeSubject, 1)
            ]
        );
        assert_eq!((trace.mix().issue, trace.tokens_max(Kind::Issue)), (50.0, 2));
        trace.speed_up(2.0);
        assert_eq!(trace.length(), Duration::from_millis(250));
    }

    #[test]
    fn a_trace_of_ones_own_may_validate_and_is_put_in_order() {
        let text =
            "{\"at_ms\":20,\"kind\":\"renew\"}\n\n{\"at_ms\":10,\"kind\":\"validate\",\"tokens\":64}\n";
        let trace = Trace::parse(text).unwrap();
        assert_eq!(trace.requests[0].tokens, 64);
        assert_eq!(trace.requests[1].at, Duration::from_millis(10));
    }

    #[test]
    fn nonsense_is_told_with_its_line() {
        let table = [
            ("", "there is no request in it"),
            ("nonsense", "line 1: neither an event"),
            ("{\"at_ms\":1,\"kind\":\"renew\"}\n{}", "line 2: neither an event"),
            ("{\"at_ms\":1,\"kind\":\"ask\"}", "line 1: 'ask' is no kind: there are validate, issue"),
            (
                "{\"at_ms\":1,\"kind\":\"issue\",\"tokens\":999}",
                "line 1: issue is of 1 to 256 tokens, not 999",
            ),
            ("{\"at_ms\":-1,\"kind\":\"issue\"}", "line 1: at_ms is -1"),
            ("{\"time\":\"noon\",\"event\":\"TokenRevoked\",\"actor\":\"x\"}", "line 1: "),
        ];
        for (text, expected) in table {
            let said = format!("{:#}", Trace::parse(text).unwrap_err());
            assert!(said.starts_with(expected), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,200}") {
            let _ = Trace::parse(&text);
        }
    }
}
