//! The client: what can be asked, and how patiently.

mod asking;
mod validate;

pub use validate::{Consistency, ValidateCounts};

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jeton_core::command::{
    Access, ChangeRights, Command, ConsumeToken, ISSUE_TOKENS_MAX, IssueTokens, RevokeTarget,
};
use jeton_core::inspection::{ClaimsInfo, ClientInfo, Inspection, SubjectInfo};
use jeton_core::numbers::{Binding, ClaimsNo, IdempotencyKey, LogId, Sequence, SubjectNo};
use jeton_core::outcome::{FieldName, Outcome, Rejection, Reply, RevokeReport};
use jeton_core::rights::Rights;
use jeton_core::time::Seconds;
use jeton_core::token::{Token, TokenId};
use jeton_core::verdict::Answer;
use jeton_wire::doors::SnapshotTaken;
use jeton_wire::request::Request;
use jeton_wire::response::{HelloAck, Response};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::config::Config;
use crate::gather::Gather;
use crate::link::encoded;
use crate::pool::Pool;
use crate::{Check, Error, Name};

/// Tokens that were issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The tokens, in the order of the subjects. The server cannot show them again.
    pub tokens: Vec<Token>,
    /// When they expire.
    pub expires: Seconds,
    /// Their claim set.
    pub claims: ClaimsNo,
    /// The consistency token of the write.
    pub sequence: Sequence,
}

/// What a revoke did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// How many tokens or claim sets.
    pub report: RevokeReport,
    /// The consistency token of the write.
    pub sequence: Sequence,
}

/// A stretch of the log.
#[derive(Clone, Debug)]
pub struct LogPage {
    /// The first event still there.
    pub first: Sequence,
    /// The last durable event.
    pub head: Sequence,
    /// Sealed batches; empty past the head.
    pub batches: Vec<Vec<u8>>,
}

/// A client of one server. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    pool: Arc<Pool>,
    in_flight: Semaphore,
    /// Where single validates gather; `None` if each is to go by itself.
    lanes: Option<Lanes>,
    asked: validate::Asked,
    /// What last kept a request from an answer, and when.
    obstacle: std::sync::Mutex<Option<(Instant, Error)>>,
    /// The last event this client was told of, and of which log.
    seen: std::sync::Mutex<(LogId, Sequence)>,
    cache: Cache,
}

/// Calls that ask for no event never wait behind ones that do.
#[derive(Debug)]
struct Lanes {
    /// For answers that may rest on whatever the server has published.
    anything: Arc<Gather>,
    /// For answers that must rest on events that this client knows to be published.
    published: Arc<Gather>,
}

fn new_key() -> Result<IdempotencyKey, Error> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| Error::Failed(format!("no random bytes: {error}")))?;
    Ok(IdempotencyKey(key))
}

fn unexpected() -> Error {
    Error::Protocol("the answer is to another question".to_owned())
}

impl Client {
    /// Connects. Further connections are made once there is use for them.
    ///
    /// # Errors
    /// [`Error::Identity`], [`Error::Connect`], [`Error::Deadline`], [`Error::Protocol`].
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let inner = Inner {
            pool: Pool::new(config.clone())?,
            in_flight: Semaphore::new(config.in_flight_max),
            lanes: config.coalesce.as_ref().map(|limits| Lanes {
                anything: Gather::new(limits.clone()),
                published: Gather::new(limits.clone()),
            }),
            asked: Default::default(),
            obstacle: Default::default(),
            seen: Default::default(),
            cache: Cache::default(),
            config,
        };
        let client = Self(Arc::new(inner));
        client.linked().await?;
        Ok(client)
    }

    /// Ends the connections in order, so that the server need not wait for silence to notice. Dropping the last clone
    /// does so too, as long as the runtime goes on for a moment.
    pub async fn close(&self) {
        // Long enough to send it. The rest of the closing period (RFC 9000, section 10.2.1: three probe timeouts, some 80 ms)
        // would only serve to say it again to a server that did not hear it, and a command would take that long to end.
        const FAREWELL: Duration = Duration::from_millis(10);
        self.0.pool.close(FAREWELL).await;
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, (LogId, Sequence)> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers how far the log has come; another log begins anew.
    fn saw(&self, log: LogId, sequence: Sequence) {
        let mut seen = self.seen();
        *seen = if seen.0 == log { (log, seen.1.max(sequence)) } else { (log, sequence) };
    }

    // ---- writes ----

    /// Sends a command until it is answered. Only with a key is a repetition the same command to the server: issuing and
    /// consuming need one. Revokes and the like do no harm when they are repeated, and the server's memory of keys is
    /// bounded.
    async fn write(
        &self,
        key: Option<IdempotencyKey>,
        command: Command,
    ) -> Result<(Sequence, Outcome), Error> {
        if let Command::IssueTokens(issue) = &command
            && !(1..=ISSUE_TOKENS_MAX).contains(&issue.subjects.len())
        {
            return Err(Error::Rejected(Rejection::OutOfRange(FieldName::Subjects)));
        }
        let needs_key = matches!(
            command,
            Command::IssueTokens(_) | Command::ConsumeToken(_) | Command::CreateTenant { .. }
        );
        let key = if needs_key && key.is_none() { Some(new_key()?) } else { key };
        let request = Request::Write { key, command };
        match self.ask(&encoded(&request)).await?.0 {
            Response::Written { log, reply: Reply { sequence, result }, .. } => {
                self.saw(log, sequence);
                match result {
                    Ok(outcome) => Ok((sequence, outcome)),
                    Err(Rejection::Indeterminate) => Err(Error::Indeterminate),
                    Err(Rejection::Busy { .. }) => Err(Error::Busy),
                    Err(rejection) => Err(Error::Rejected(rejection)),
                }
            }
            _ => Err(unexpected()),
        }
    }

    /// Issues tokens, one for each subject.
    ///
    /// With a `key` of the caller's, repeating the call after a lost answer leaves at most one live token for each
    /// subject: what the key issued before is revoked first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn issue(&self, issue: IssueTokens, key: Option<IdempotencyKey>) -> Result<Issued, Error> {
        match self.write(key, Command::IssueTokens(issue)).await? {
            (sequence, Outcome::Issued { tokens, expires, claims }) => {
                Ok(Issued { tokens, expires, claims, sequence })
            }
            _ => Err(unexpected()),
        }
    }

    /// Extends the life of a renewable token to `ttl_s` seconds from now, within its maximum; returns when it expires
    /// now. `binding` is what the holder proved to have, for a token that is bound to something.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn renew(&self, token: &Token, ttl_s: u32, binding: Option<Binding>) -> Result<Seconds, Error> {
        match self.write(None, Command::RenewToken { token: token.clone(), ttl_s, binding }).await? {
            (_, Outcome::Renewed { expires }) => Ok(expires),
            _ => Err(unexpected()),
        }
    }

    /// Spends one use of a limited-use token if it is good for `check`; returns the answer and the uses left.
    ///
    /// The key makes a repetition after a lost answer spend nothing more; without one of the caller's, this call makes
    /// one for its own repetitions.
    ///
    /// # Errors
    /// [`Error`]; a denial is an answer, not an error.
    pub async fn consume(
        &self,
        token: &Token,
        check: &Check,
        key: Option<IdempotencyKey>,
    ) -> Result<(Answer, u32), Error> {
        check.check_bounds()?;
        let owned = |text: &Arc<str>| text.as_ref().to_owned();
        let access = check.access.as_ref();
        let access =
            access.map(|(action, resource)| Access { action: owned(action), resource: owned(resource) });
        let (audience, scopes) = (check.audience.as_ref().map(owned), check.scopes.as_ref().map(owned));
        let consume = ConsumeToken { token: token.clone(), access, audience, scopes, binding: check.binding };
        match self.write(key, Command::ConsumeToken(consume)).await? {
            (_, Outcome::Consumed { answer, uses_left }) => Ok((answer, uses_left)),
            _ => Err(unexpected()),
        }
    }

    /// Revokes everything that the target names. When this returns, no server of this log says `valid` to any of it.
    ///
    /// Repeated by itself after a lost answer, it may report that there was nothing left to revoke;
    /// [`Self::revoke_with_key`] gets the first report.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke(&self, target: RevokeTarget) -> Result<Revoked, Error> {
        self.revoke_as(None, target).await
    }

    /// As [`Self::revoke`]; repeated with the same key it answers with the first report and revokes nothing more.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke_with_key(&self, target: RevokeTarget, key: IdempotencyKey) -> Result<Revoked, Error> {
        self.revoke_as(Some(key), target).await
    }

    async fn revoke_as(&self, key: Option<IdempotencyKey>, target: RevokeTarget) -> Result<Revoked, Error> {
        match self.write(key, Command::Revoke(target)).await? {
            (sequence, Outcome::Revoked(report)) => Ok(Revoked { report, sequence }),
            _ => Err(unexpected()),
        }
    }

    /// Gives a client rights in a tenant; returns all it has there now.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn grant_rights(&self, client: Name, tenant: Name, rights: Rights) -> Result<Rights, Error> {
        self.change_rights(Command::GrantRights(ChangeRights { client, tenant, rights })).await
    }

    /// Takes rights in a tenant from a client; returns what it keeps there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn withdraw_rights(&self, client: Name, tenant: Name, rights: Rights) -> Result<Rights, Error> {
        self.change_rights(Command::WithdrawRights(ChangeRights { client, tenant, rights })).await
    }

    async fn change_rights(&self, command: Command) -> Result<Rights, Error> {
        match self.write(None, command).await? {
            (_, Outcome::RightsChanged { rights }) => Ok(rights),
            _ => Err(unexpected()),
        }
    }

    /// Creates a tenant.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create_tenant(&self, name: Name) -> Result<(), Error> {
        match self.write(None, Command::CreateTenant { name }).await? {
            (_, Outcome::TenantCreated { .. }) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    // ---- reads ----

    async fn read(&self, request: Request<'_>) -> Result<(Response, LogId), Error> {
        self.ask(&encoded(&request)).await
    }

    /// What is in a claim set, from the cache if it is there; `None` if there is none that this identity may see.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn claims(&self, claims: ClaimsNo) -> Result<Option<Arc<ClaimsInfo>>, Error> {
        let log = self.linked().await?.ack.log;
        if let Some(known) = self.0.cache.claims(log, claims) {
            return Ok(Some(known));
        }
        let (Response::Claims(info), log) = self.read(Request::Claims(claims)).await? else {
            return Err(unexpected());
        };
        let info = info.map(Arc::new);
        info.iter().for_each(|info| self.0.cache.keep_claims(log, self.0.config.cache_max, info));
        Ok(info)
    }

    /// Who a subject is, from the cache if it is there; `None` if there is none that this identity may see.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn subject(&self, subject: SubjectNo) -> Result<Option<Arc<SubjectInfo>>, Error> {
        let log = self.linked().await?.ack.log;
        if let Some(known) = self.0.cache.subject(log, subject) {
            return Ok(Some(known));
        }
        let (Response::Subject(info), log) = self.read(Request::Subject(subject)).await? else {
            return Err(unexpected());
        };
        let info = info.map(Arc::new);
        info.iter().for_each(|info| self.0.cache.keep_subject(log, self.0.config.cache_max, info));
        Ok(info)
    }

    /// Everything that is known of a token; `None` if there is none that this identity may inspect.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn inspect(&self, id: TokenId) -> Result<Option<Inspection>, Error> {
        match self.read(Request::Inspect(id)).await?.0 {
            Response::Inspection(info) => Ok(info),
            _ => Err(unexpected()),
        }
    }

    /// Every client and its rights.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn clients(&self) -> Result<Vec<ClientInfo>, Error> {
        match self.read(Request::Clients).await?.0 {
            Response::Clients(clients) => Ok(clients),
            _ => Err(unexpected()),
        }
    }

    /// The server's counters and histograms, as JSON.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn stats(&self) -> Result<String, Error> {
        match self.read(Request::Stats).await?.0 {
            Response::Stats(json) => Ok(json),
            _ => Err(unexpected()),
        }
    }

    /// Sealed batches of the log, from the one that holds event `from`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn log_page(&self, from: Sequence, bytes_max: u32) -> Result<LogPage, Error> {
        match self.read(Request::ReadLog { from, bytes_max }).await?.0 {
            Response::LogPage { first, head, batches } => Ok(LogPage { first, head, batches }),
            _ => Err(unexpected()),
        }
    }

    /// The server's side of the last hello: which log it serves, and how far that was.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn server_info(&self) -> Result<HelloAck, Error> {
        Ok(self.linked().await?.ack)
    }

    /// Has the server write a snapshot, and waits until it is there, for as long as the connection lives: seconds, or minutes
    /// beside heavy traffic.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Failed`] if none could be written.
    pub async fn take_snapshot(&self) -> Result<SnapshotTaken, Error> {
        let link = self.linked().await?;
        match link.call(encoded(&Request::TakeSnapshot)).await? {
            Response::Snapshot(taken) => Ok(taken),
            Response::Busy { .. } => Err(Error::Busy),
            Response::NotAllowed => Err(Error::NotAllowed),
            Response::Failed(message) => Err(Error::Failed(message)),
            _ => Err(unexpected()),
        }
    }

    /// Whether the server is there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn ping(&self) -> Result<(), Error> {
        match self.read(Request::Ping).await?.0 {
            Response::Pong => Ok(()),
            _ => Err(unexpected()),
        }
    }
}
