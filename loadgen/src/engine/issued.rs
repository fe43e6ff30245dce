//! The tokens that a run issued itself, the newest of them: some validates ask about these.

use crate::peer::TokenBytes;

/// How many are kept.
pub(super) const KEPT_MAX: usize = 4_096;

/// A ring of tokens: new ones take the place of the oldest.
#[derive(Debug)]
pub(super) struct Issued {
    tokens: Vec<TokenBytes>,
    next: usize,
}

impl Issued {
    pub(super) fn new() -> Self {
        Self { tokens: Vec::with_capacity(KEPT_MAX), next: 0 }
    }

    /// How many there are to ask about.
    pub(super) fn len(&self) -> u32 {
        self.tokens.len() as u32
    }

    /// The token at this place now. Whichever it is, it is good: nobody revokes what a run issues, and it outlives the run.
    pub(super) fn at(&self, place: u32) -> TokenBytes {
        self.tokens[place as usize]
    }

    pub(super) fn put(&mut self, token: TokenBytes) {
        match self.tokens.get_mut(self.next) {
            Some(oldest) => *oldest = token,
            None => self.tokens.push(token),
        }
        self.next = (self.next + 1) % KEPT_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_tokens_are_kept_and_no_more_room_is_taken() {
        let mut issued = Issued::new();
        let room = issued.tokens.capacity();
        for number in 0..KEPT_MAX as u32 + 2 {
            let mut token = [0; 32];
            token[..4].copy_from_slice(&number.to_le_bytes());
            issued.put(token);
        }
        let number = |place| u32::from_le_bytes(*issued.at(place).first_chunk().unwrap());
        assert_eq!((issued.len() as usize, issued.tokens.capacity()), (KEPT_MAX, room));
        assert_eq!([number(0), number(1), number(2)], [KEPT_MAX as u32, KEPT_MAX as u32 + 1, 2]);
    }
}
