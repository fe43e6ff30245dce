//! One operation: drawn by chance, carried out, its answer checked against what is known of the tokens.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::{Duration, Instant};

use jeton_client::{Check, Client, Consistency, Error, Rejection, RevokeTarget, Rights, Sequence, Verdict};

use super::{Class, Inner};
use crate::sim::rng::Rng;
use crate::soak::pool::{Held, Kind};
use crate::{issue_for, name};

/// Tokens of one validate, and how many of them are dead.
const BATCH_LIVE: usize = 12;
const BATCH_DEAD: usize = 4;
/// Tokens of one issue.
const ISSUED: usize = 4;
/// Lifetimes, in seconds.
const LIFETIME_S: std::ops::Range<u64> = 5..60;
const USES: u32 = 3;
/// What an auditor reads at a time.
const PAGE_BYTES: u32 = 128 * 1024;

type Checked = Result<(), String>;

/// Draws and carries out one operation.
pub(super) async fn carry_out(load: &Inner, rng: &mut Rng) -> (Class, Checked) {
    match rng.below(1_000) {
        0..680 => (Class::Validate, validate(load, rng).await),
        680..740 => (Class::Write, issue(load, rng).await),
        740..820 => (Class::Write, revoke(load, rng).await),
        820..830 => (Class::Write, revoke_subject(load, rng).await),
        830..890 => (Class::Write, consume(load, rng).await),
        890..930 => (Class::Write, renew(load, rng).await),
        930..940 => (Class::Write, change_rights(load, rng).await),
        940..970 => (Class::Visit, visit(load, rng).await),
        _ => (Class::Audit, audit(load, rng).await),
    }
}

fn client<'a>(load: &'a Inner, rng: &mut Rng) -> &'a Client {
    rng.pick(&load.steady)
}

fn words(what: &str) -> impl Fn(Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}

async fn validate(load: &Inner, rng: &mut Rng) -> Checked {
    let live = load.pool.pick(rng, Kind::Plain, BATCH_LIVE);
    let dead = load.pool.dead(rng, BATCH_DEAD);
    let tokens: Vec<_> = live.iter().map(|held| held.token.clone()).chain(dead).collect();
    if tokens.is_empty() {
        return Ok(());
    }
    let asked = client(load, rng).validate_batch(&tokens, &Check::live(), Consistency::Latest).await;
    let answers = asked.map_err(words("validate"))?;
    let (of_live, of_dead) = answers.split_at(live.len());
    for (held, answer) in live.iter().zip(of_live) {
        if answer.verdict != Verdict::Valid && held.must_be_good() {
            return Err(format!("a good token is {}", answer.verdict.word()));
        }
    }
    if of_dead.iter().any(|answer| answer.verdict == Verdict::Valid) {
        return Err("a token is valid although its revoke was acknowledged".to_owned());
    }
    Ok(())
}

async fn issue(load: &Inner, rng: &mut Rng) -> Checked {
    let kind = *rng.pick(&[Kind::Plain, Kind::Plain, Kind::Renewable, Kind::Limited]);
    let ttl_s = rng.within(LIFETIME_S) as u32;
    let subject = rng.below(load.subjects.len() as u64) as usize;
    let mut issue = issue_for(&[format!("subject-{subject}").as_str(); ISSUED]);
    issue.ttl_s = ttl_s;
    issue.renewable_s = if kind == Kind::Renewable { ttl_s * 2 } else { 0 };
    issue.uses_max = if kind == Kind::Limited { USES } else { 0 };
    let good_until = Instant::now() + Duration::from_secs(u64::from(ttl_s));
    let before = load.subjects[subject].load(Acquire);
    let issued = client(load, rng).issue(issue, None).await.map_err(words("issue"))?;
    load.head.fetch_max(issued.sequence.0, Relaxed);
    // Whatever a revoke of its subject may have met is not held: nobody here could say what it is.
    if before % 2 == 1 || load.subjects[subject].load(Acquire) != before {
        return Ok(());
    }
    load.pool.add(issued.tokens.into_iter().map(|token| Held {
        token,
        kind,
        subject,
        good_until,
        is_doomed: false.into(),
        spent: 0.into(),
    }));
    Ok(())
}

async fn revoke(load: &Inner, rng: &mut Rng) -> Checked {
    let Some(held) = load.pool.take(rng) else { return Ok(()) };
    let target = match rng.below(3) {
        0 => RevokeTarget::Token(held.token.clone()),
        1 => RevokeTarget::Family(held.token.id),
        _ => RevokeTarget::Id(held.token.id),
    };
    client(load, rng).revoke(target).await.map_err(words("revoke"))?;
    load.pool.bury([held.token.clone()]);
    Ok(())
}

async fn revoke_subject(load: &Inner, rng: &mut Rng) -> Checked {
    let subject = rng.below(load.subjects.len() as u64) as usize;
    let state = &load.subjects[subject];
    let before = state.load(Acquire);
    if before % 2 == 1 || state.compare_exchange(before, before + 1, AcqRel, Relaxed).is_err() {
        return Ok(()); // one is under way
    }
    let doomed = load.pool.take_subject(subject);
    let target =
        RevokeTarget::Subject { tenant: name("default"), subject: name(&format!("subject-{subject}")) };
    let revoked = client(load, rng).revoke(target).await;
    state.store(before + 2, std::sync::atomic::Ordering::Release);
    match revoked {
        Ok(_) => load.pool.bury(doomed.iter().map(|held| held.token.clone())),
        // Nobody was issued anything yet.
        Err(Error::Rejected(Rejection::NotFound)) if doomed.is_empty() => {}
        Err(error) => return Err(words("revoke of a subject")(error)),
    }
    Ok(())
}

async fn consume(load: &Inner, rng: &mut Rng) -> Checked {
    let Some(held) = one(load, rng, Kind::Limited) else { return Ok(()) };
    let consumed = client(load, rng).consume(&held.token, &Check::live(), None).await;
    let (answer, _) = consumed.map_err(words("consume"))?;
    match answer.verdict {
        Verdict::Valid if held.spent.fetch_add(1, Relaxed) >= USES => {
            Err("a token was used more often than it may be".to_owned())
        }
        Verdict::Valid | Verdict::Spent => Ok(()),
        verdict if held.must_be_good() => Err(format!("a use of a good token is {}", verdict.word())),
        _ => Ok(()),
    }
}

async fn renew(load: &Inner, rng: &mut Rng) -> Checked {
    let Some(held) = one(load, rng, Kind::Renewable) else { return Ok(()) };
    match client(load, rng).renew(&held.token, LIFETIME_S.end as u32, None).await {
        Ok(_) => Ok(()),
        Err(Error::Rejected(Rejection::Token(_))) if !held.must_be_good() => Ok(()),
        Err(error) => Err(words("renew")(error)),
    }
}

fn one(load: &Inner, rng: &mut Rng, kind: Kind) -> Option<Arc<Held>> {
    load.pool.pick(rng, kind, 1).pop()
}

/// Withdraws a guest's right to validate, or gives it back.
async fn change_rights(load: &Inner, rng: &mut Rng) -> Checked {
    let guest = name(&format!("jeton:client:guest-{}", rng.below(load.guests.len() as u64)));
    let (client, is_given) = (client(load, rng), rng.one_in(2));
    let changed = if is_given {
        client.grant_rights(guest, name("default"), Rights::VALIDATE).await
    } else {
        client.withdraw_rights(guest, name("default"), Rights::VALIDATE).await
    };
    changed.map(drop).map_err(words("change of rights"))
}

/// A guest connects, asks once and leaves; its rights may have been withdrawn, so only the dead tell anything.
async fn visit(load: &Inner, rng: &mut Rng) -> Checked {
    let config = rng.pick(&load.guests).clone();
    let mut tokens = load.pool.dead(rng, BATCH_DEAD);
    let dead = tokens.len();
    tokens.extend(load.pool.pick(rng, Kind::Plain, BATCH_LIVE).iter().map(|held| held.token.clone()));
    let guest = Client::connect(config).await.map_err(words("connect"))?;
    let asked = guest.validate_batch(&tokens, &Check::live(), Consistency::Latest).await;
    // Its leaving is waited for by nobody.
    tokio::spawn(async move { guest.close().await });
    if asked == Err(Error::NotAllowed) {
        return Ok(());
    }
    let answers = asked.map_err(words("a guest's validate"))?;
    if answers[..dead].iter().any(|answer| answer.verdict == Verdict::Valid) {
        return Err("a token is valid to a guest although its revoke was acknowledged".to_owned());
    }
    Ok(())
}

async fn audit(load: &Inner, rng: &mut Rng) -> Checked {
    let client = client(load, rng);
    match rng.below(3) {
        0 => {
            let Some(held) = one(load, rng, Kind::Plain) else { return Ok(()) };
            let found = client.inspect(held.token.id).await.map_err(words("inspect"))?;
            found.map(drop).ok_or_else(|| "a token that was issued is not known".to_owned())
        }
        1 => client.stats().await.map(drop).map_err(words("stats")),
        _ => {
            let from = Sequence(rng.within(1..load.head.load(Relaxed) + 1));
            let page = client.log_page(from, PAGE_BYTES).await.map_err(words("a page of the log"))?;
            if page.batches.is_empty() { Err("a page of the log is empty".to_owned()) } else { Ok(()) }
        }
    }
}
