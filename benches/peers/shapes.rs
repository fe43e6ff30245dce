//! Who is measured, and how many tokens are under way in which way.

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Redis,
    RedisTls,
    Jeton,
    /// As over a network without jumbo frames, where it finds that datagrams of more than 1,452 bytes do not pass.
    JetonSmall,
}

/// In the order of their turns.
pub(crate) const PEERS: [Peer; 4] = [Peer::Redis, Peer::RedisTls, Peer::Jeton, Peer::JetonSmall];

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis plaintext",
            Self::RedisTls => "Redis TLS",
            Self::Jeton => "Jeton",
            Self::JetonSmall => "Jeton, datagrams of 1,452",
        }
    }
}

/// How tokens are asked about. Their product is what is in flight.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) connections: u16,
    pub(crate) in_flight: u16,
    pub(crate) batch: u16,
}

/// From what suits batching most to what suits it least.
pub(crate) const SHAPES: [Shape; 5] = [
    Shape { name: "deep: 16 x 4 x 64", connections: 16, in_flight: 4, batch: 64 },
    Shape { name: "batches: 16 x 1 x 16", connections: 16, in_flight: 1, batch: 16 },
    Shape { name: "single tokens: 4 x 256 x 1", connections: 4, in_flight: 256, batch: 1 },
    Shape { name: "one at a time: 16 x 1 x 1", connections: 16, in_flight: 1, batch: 1 },
    Shape { name: "alone: 1 x 1 x 1", connections: 1, in_flight: 1, batch: 1 },
];
