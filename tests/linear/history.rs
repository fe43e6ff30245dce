//! What clients asked, when, and what they were told: a history, as JSON Lines in the order in which answers came.
//!
//! Tokens, subjects, resources and identities are numbers here: the history is kept in a file, and a token's secret has no
//! business there. Times are nanoseconds of one monotonic clock since the recording began.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use jeton_client::Verdict;
use serde::{Deserialize, Serialize};

/// A moment, in nanoseconds since the recording began.
pub type Nanos = u64;
/// Later than any moment: when an operation without an answer returns.
pub const NEVER: Nanos = Nanos::MAX;

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Whose.
    pub client: u32,
    /// When it was about to be sent.
    pub invoked: Nanos,
    /// When its answer had come; [`NEVER`] if none did: then it may have been carried out at any later time, or never.
    pub returned: Nanos,
    /// What, and what was answered.
    pub act: Act,
}

/// What was asked and answered. What only the answer tells is 0, or empty, where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Tokens were issued. One that was not answered left tokens that nobody knows: it is not recorded.
    Issue(Issue),
    /// Readers were asked about tokens.
    Validate {
        /// Which.
        tokens: Vec<u32>,
        /// The verdicts by number, in their order.
        verdicts: Vec<u8>,
        /// The event that the answers had to rest on.
        min_sequence: u64,
    },
    /// A use was to be spent. Repetitions with the same key are one operation.
    Consume {
        /// Of which token.
        token: u32,
        /// The verdict by number.
        verdict: u8,
        /// Uses left, if one was granted.
        uses_left: u32,
    },
    /// A longer life was asked for.
    Renew {
        /// For which token.
        token: u32,
        /// `Valid` if it was granted, and what was wrong with the token otherwise; by number.
        verdict: u8,
    },
    /// Everything the target names was to be revoked.
    Revoke {
        /// What.
        target: Target,
        /// The consistency token of the answer.
        sequence: u64,
    },
    /// The server said how far its log is published.
    Head {
        /// How far.
        published: u64,
    },
}

/// The terms of an issue and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// The first of the tokens; the others follow.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Whose.
    pub subject: u32,
    /// What for.
    pub resource: u32,
    /// Who asked.
    pub identity: u32,
    /// The root of the family they join.
    pub family: Option<u32>,
    /// Uses each; 0 for no limit.
    pub uses: u32,
    /// Seconds they live, unless renewed.
    pub ttl_s: u32,
    /// The consistency token of the answer.
    pub sequence: u64,
}

/// What a revoke names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One token.
    Token(u32),
    /// The family with this root; a token without a parent is a root.
    Family(u32),
    /// Every token of a subject.
    Subject(u32),
    /// Every token that an identity asked for.
    Identity(u32),
    /// Every token for a resource.
    Resource(u32),
}

impl Issue {
    /// The targets that name the token `token`, of this issue.
    #[must_use]
    pub fn targets(&self, token: u32) -> [Target; 5] {
        [
            Target::Token(token),
            Target::Family(self.family.unwrap_or(token)),
            Target::Subject(self.subject),
            Target::Identity(self.identity),
            Target::Resource(self.resource),
        ]
    }

    /// Its tokens.
    #[must_use]
    pub fn tokens(&self) -> std::ops::Range<u32> {
        self.first..self.first + self.count
    }
}

/// The verdict with this number; a number that is none counts as a denial without a reason.
#[must_use]
pub fn verdict(code: u8) -> Verdict {
    Verdict::from_code(code).unwrap_or_default()
}

/// Whether the verdict says that the token is alive: only from these can a checker learn anything.
#[must_use]
pub fn is_alive(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Valid | Verdict::ConsumeRequired | Verdict::Forbidden)
}

impl Operation {
    /// Whether its answer came.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.returned != NEVER
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |at: Nanos| at as f64 / 1e6;
        write!(f, "{:>14.6} ms .. ", ms(self.invoked))?;
        if self.is_answered() {
            write!(f, "{:>14.6} ms", ms(self.returned))?;
        } else {
            write!(f, "{:>17}", "no answer")?;
        }
        write!(f, "  client {:<2} ", self.client)?;
        match &self.act {
            Act::Consume { token, verdict: code, uses_left } => {
                write!(f, "consume {token}: {}, {uses_left} left", verdict(*code).word())
            }
            Act::Renew { token, verdict: code } => write!(f, "renew {token}: {}", verdict(*code).word()),
            Act::Validate { tokens, verdicts, min_sequence } => {
                write!(f, "validate (min_seq {min_sequence})")?;
                let answers = tokens.iter().zip(verdicts);
                answers
                    .into_iter()
                    .try_for_each(|(token, code)| write!(f, " {token}: {}", verdict(*code).word()))
            }
            act => write!(f, "{act:?}"),
        }
    }
}

/// Writes a history as it happens, from any number of threads.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
}

impl Recorder {
    /// Begins a history in a new file.
    ///
    /// # Errors
    /// A file that cannot be made.
    pub fn new(path: &Path) -> std::io::Result<Self> {
        let file = Mutex::new(BufWriter::with_capacity(1 << 20, File::create(path)?));
        Ok(Self { began: Instant::now(), path: path.to_owned(), file })
    }

    /// This moment.
    pub fn now(&self) -> Nanos {
        u64::try_from(self.began.elapsed().as_nanos()).expect("a recording is shorter than 584 years")
    }

    /// Keeps an operation.
    ///
    /// # Panics
    /// If it cannot be written: a history with gaps proves nothing.
    pub fn keep(&self, operation: &Operation) {
        let mut line = serde_json::to_vec(operation).expect("an operation is plain");
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).expect("the history is written");
    }

    /// Everything so far is in the file.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn flush(&self) -> &Path {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().expect("the history is written");
        &self.path
    }
}

/// Reads a history, one operation at a time.
///
/// # Panics
/// At a line that is no operation: a history with gaps proves nothing.
pub fn read(path: &Path) -> impl Iterator<Item = Operation> + use<> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    BufReader::with_capacity(1 << 20, file).lines().map(|line| {
        let line = line.expect("the history is read");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("no operation: {error}: {line}"))
    })
}
