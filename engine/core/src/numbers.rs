//! The numbers that stand for names inside one log: sequence numbers, interned
//! names and the small fixed-size identifiers that travel with a command.
//!
//! A number is never reused within a log, so a cache keyed by one stays right
//! for as long as the log id stays the same.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// The position of an event in its partition's log. Dense, from 1; 0 means "before the first event".
    Sequence(u64)
}
number! {
    /// One log of possibly several; 0 in a log that lies on one machine.
    Partition(u16)
}
number! {
    /// A tenant. 0 is the tenant `*`, in which rights hold everywhere.
    TenantNo(u32)
}
number! {
    /// A client: the identity (URI SAN of a certificate) that asks Jeton for something.
    /// 0 is the engine itself, which acts at the creation of a log.
    ClientNo(u32)
}
number! {
    /// A subject: the person or machine that a token stands for, within one tenant. Below 2^31.
    SubjectNo(u32)
}
number! {
    /// A claim set, interned per (tenant, client, claims). 0 is "none".
    ClaimsNo(u32)
}

impl Sequence {
    /// The sequence number that follows this one.
    ///
    /// # Panics
    /// After 2^64 - 1 events.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a log never holds 2^64 events"))
    }
}

impl TenantNo {
    /// The tenant `*`: rights granted here hold in every tenant.
    pub const EVERY: Self = Self(0);
}

impl ClientNo {
    /// The engine itself, actor of a log's first events.
    pub const ENGINE: Self = Self(0);
}

/// The identity of a log: 16 random bytes fixed at its creation, so that a restored or recreated directory is
/// never taken for the old history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A key chosen by a client so that a repeated command has its effect once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(pub [u8; 16]);

/// What a bound token is bound to: the SHA-256 thumbprint of a certificate (RFC 8705, section 3.1), or any other
/// 32 bytes the verifying service can present again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding(pub [u8; 32]);
