use proptest::prelude::*;

use super::*;

fn batch_of(tokens: &[[u8; 32]]) -> Vec<[u8; 32]> {
    let mut digests = vec![[0; 32]; tokens.len()];
    digest_batch(tokens, &mut digests);
    digests
}

fn one_by_one(tokens: &[[u8; 32]]) -> Vec<[u8; 32]> {
    tokens
        .iter()
        .map(|bytes| Token::from_bytes(*bytes))
        .map(|token| digest(&token.id, &token.secret).0)
        .collect()
}

#[test]
fn a_batch_of_any_size_has_the_digests_of_its_tokens_one_by_one() {
    for count in 0..70_u8 {
        let tokens: Vec<[u8; 32]> =
            (0..count).map(|at| std::array::from_fn(|i| at ^ (i as u8).wrapping_mul(7))).collect();
        assert_eq!(batch_of(&tokens), one_by_one(&tokens), "{count} tokens");
    }
}

#[test]
fn the_debug_form_of_a_token_keeps_its_secret() {
    let token = Token::from_bytes([0xab; 32]);
    assert_eq!(format!("{token:?}"), format!("Token({}, ..)", "ab".repeat(16)));
}

#[test]
fn a_token_id_is_read_back_from_its_digits_and_from_nothing_else() {
    let id = TokenId(std::array::from_fn(|at| at as u8 * 17));
    assert_eq!(id.to_string().parse(), Ok(id));
    for text in ["", "00", "g0112233445566778899aabbccddeeff", "é0112233445566778899aabbccddeef"] {
        assert_eq!(text.parse::<TokenId>(), Err(TokenIdError), "{text}");
    }
}

#[test]
fn the_vectors_hold() {
    let vectors = include_str!("../../tests/vectors/tokens.txt");
    let mut seen = 0;
    for line in vectors.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (text, expected) = line.split_once(' ').unwrap();
        let parsed = Token::parse(text);
        match expected.strip_prefix("ok ") {
            Some(hex) => {
                let token = parsed.unwrap();
                let bytes: String = token.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(bytes, hex, "{text}");
                assert_eq!(token.to_text().as_str(), text);
            }
            None => assert_eq!(format!("{:?}", parsed.unwrap_err()), expected, "{text}"),
        }
        seen += 1;
    }
    assert!(seen >= 15, "the file was read");
}

proptest! {
    #[test]
    fn every_token_is_read_back_from_its_text(bytes in any::<[u8; 32]>()) {
        let token = Token::from_bytes(bytes);
        let text = token.to_text();
        prop_assert_eq!(text.len(), TOKEN_TEXT_BYTES);
        prop_assert_eq!(Token::parse(&text), Ok(token));
    }

    #[test]
    fn a_token_with_one_character_changed_is_refused(bytes in any::<[u8; 32]>(), at in 0..TOKEN_TEXT_BYTES, to in 0x20_u8..0x7f) {
        let mut text = Token::from_bytes(bytes).to_text().as_bytes().to_vec();
        prop_assume!(text[at] != to);
        text[at] = to;
        prop_assert!(Token::parse(std::str::from_utf8(&text).unwrap()).is_err());
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,80}", prefixed in any::<bool>()) {
        let text = if prefixed { format!("jtn_{text}") } else { text };
        let _ = Token::parse(&text);
    }
}

#[test]
fn a_digest_has_its_own_words_and_none_that_differ_in_any_bit() {
    let digest: [u8; 32] = std::array::from_fn(|at| (at * 37 + 11) as u8);
    let words = std::array::from_fn(|at| u64::from_le_bytes(digest.as_chunks::<8>().0[at]));
    assert!(has_digest_words(&digest, words));
    for bit in 0..256 {
        let mut other = words;
        other[bit / 64] ^= 1 << (bit % 64);
        assert!(!has_digest_words(&digest, other), "bit {bit}");
    }
}
