//! RESP version 2, as far as these commands need it: commands out, simple strings, errors, integers and bulk strings in.

use anyhow::{Context as _, bail, ensure};

/// The longest line and the longest string that are expected: what is longer is no answer to these commands.
const LINE_BYTES_MAX: usize = 1_024;
const BULK_BYTES_MAX: usize = 64 * 1_024;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Int(i64),
    Bulk(Option<&'a [u8]>),
}

/// Appends a command.
pub(super) fn command(parts: &[&[u8]], into: &mut Vec<u8>) {
    put_length(b'*', parts.len(), into);
    for part in parts {
        put_length(b'$', part.len(), into);
        into.extend_from_slice(part);
        into.extend_from_slice(b"\r\n");
    }
}

/// A length on a line of its own, without memory for its text. Lengths are below a hundred here, or written in full.
fn put_length(kind: u8, length: usize, into: &mut Vec<u8>) {
    into.push(kind);
    let mut digits = [0; 20];
    let (mut left, mut at) = (length, digits.len());
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    into.extend_from_slice(&digits[at..]);
    into.extend_from_slice(b"\r\n");
}

/// The first answer in `bytes` and how many bytes it takes; `None` if it is not all there yet.
pub(super) fn parse(bytes: &[u8]) -> anyhow::Result<Option<(Value<'_>, usize)>> {
    let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
    ensure!(b"+-:$".contains(kind), "an answer begins with {:?}", char::from(*kind));
    let Some(end) = rest.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\r') else {
        ensure!(rest.len() < LINE_BYTES_MAX, "a line of an answer has no end");
        return Ok(None);
    };
    let (line, length) = (&rest[..end], end + 3);
    match rest.get(end + 1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => bail!("a line of an answer ends in the middle"),
    }
    let number = || -> anyhow::Result<i64> {
        std::str::from_utf8(line)
            .ok()
            .and_then(|text| text.parse().ok())
            .context("a number of an answer is none")
    };
    Ok(Some(match kind {
        b'+' => (Value::Simple(line), length),
        b'-' => (Value::Error(line), length),
        b':' => (Value::Int(number()?), length),
        _ => {
            let size = number()?;
            if size == -1 {
                return Ok(Some((Value::Bulk(None), length)));
            }
            let size = usize::try_from(size).context("a string of an answer has a negative length")?;
            ensure!(size <= BULK_BYTES_MAX, "a string of an answer has {size} bytes");
            let Some(string) = bytes.get(length..length + size + 2) else { return Ok(None) };
            ensure!(string.ends_with(b"\r\n"), "a string of an answer is longer than it says");
            (Value::Bulk(Some(&string[..size])), length + size + 2)
        }
    }))
}

/// Errors that say "not now": the key space is full, or Redis is loading or busy.
pub(super) fn is_refusal(words: &str) -> bool {
    ["OOM", "LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN"].iter().any(|word| words.starts_with(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_arrays_of_strings() {
        let mut bytes = Vec::new();
        command(&[b"GET", b"0123456789"], &mut bytes);
        assert_eq!(bytes, b"*2\r\n$3\r\nGET\r\n$10\r\n0123456789\r\n");
    }

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let table: [(&[u8], Value<'_>); 6] = [
            (b"+OK\r\n", Value::Simple(b"OK")),
            (b"-ERR no\r\n", Value::Error(b"ERR no")),
            (b":-12\r\n", Value::Int(-12)),
            (b"$-1\r\n", Value::Bulk(None)),
            (b"$0\r\n\r\n", Value::Bulk(Some(b""))),
            (b"$5\r\na\r\nbc\r\n", Value::Bulk(Some(b"a\r\nbc"))),
        ];
        for (bytes, value) in table {
            let more = [bytes, b"+more"].concat();
            assert_eq!(parse(&more).unwrap(), Some((value, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]).unwrap(), None, "{cut} bytes of {bytes:?}");
            }
        }
        for garbage in
            [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"$x\r\n", b"$3\r\nabcd\r\n", b"$-2\r\n", b":1\rx"]
        {
            assert!(parse(garbage).is_err(), "{garbage:?}");
        }
        assert!(parse(&[b'+'; 2_000]).is_err(), "a line without an end");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
