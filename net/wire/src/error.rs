//! What goes wrong on the wire, and how a connection ends for it.

/// Application error codes of CONNECTION_CLOSE (RFC 9000, section 19.19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// All is done.
    NoError = 0,
    /// The server is stopping.
    Stopping = 1,
    /// The first frame is not a hello, or its magic is another.
    NotJeton = 2,
    /// No version in common.
    Version = 3,
    /// A frame that does not decode.
    Malformed = 4,
    /// A frame larger than allowed.
    TooLarge = 5,
    /// An opcode that this version does not know.
    UnknownOpcode = 6,
    /// A request took longer than 2 seconds to arrive.
    TooSlow = 7,
    /// Answers were not read.
    NotReading = 8,
    /// The client certificate is not acceptable: not exactly one URI SAN, or past its time.
    Identity = 9,
    /// The server holds as many connections as it may.
    TooManyConnections = 10,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> u32 {
        self as u32
    }
}

/// Why bytes are no frame. A connection on which one appears is closed: whoever wrote it does not speak `jeton/1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame longer than [`crate::frame::REQUEST_BYTES_MAX`] or [`crate::frame::RESPONSE_BYTES_MAX`].
    #[error("a frame of {0} bytes is too large")]
    TooLarge(u32),
    /// The payload ends early.
    #[error("a frame is cut short")]
    Truncated,
    /// The payload goes on after its end.
    #[error("a frame has bytes after its end")]
    Trailing,
    /// An opcode that is not in this version.
    #[error("opcode {0:#04x} is unknown")]
    UnknownOpcode(u8),
    /// A value that the field cannot have.
    #[error("a field is invalid: {0}")]
    Invalid(&'static str),
    /// The first frame is something else.
    #[error("the peer does not speak jeton")]
    NotJeton,
    /// No version in common.
    #[error("the peer speaks version {0} only")]
    Version(u16),
}

impl WireError {
    /// How the connection is closed for it.
    #[must_use]
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::TooLarge(_) => CloseCode::TooLarge,
            Self::Truncated | Self::Trailing | Self::Invalid(_) => CloseCode::Malformed,
            Self::UnknownOpcode(_) => CloseCode::UnknownOpcode,
            Self::NotJeton => CloseCode::NotJeton,
            Self::Version(_) => CloseCode::Version,
        }
    }
}
