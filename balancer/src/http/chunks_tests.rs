//! Chunked bodies, whole and in pieces.

use super::*;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

/// The body, whether it is complete, and how many bytes were not used.
fn read_parts(parts: &[&[u8]]) -> Result<(Vec<u8>, bool, usize), Nonsense> {
    let (mut chunks, mut body, mut rest) = (Chunks::default(), Vec::new(), Vec::new());
    for part in parts {
        rest.extend_from_slice(part);
        loop {
            let (used, more) = match chunks.step(&rest)? {
                Step::Data(data, used) => {
                    body.extend_from_slice(data);
                    (used, false)
                }
                Step::Trailer(_, used) => (used, false),
                Step::More => (rest.len(), true),
                Step::End(used) => (used, true),
            };
            rest.drain(..used);
            if more {
                break;
            }
        }
    }
    Ok((body, chunks.is_done(), rest.len()))
}

fn read(text: &[u8]) -> Result<(Vec<u8>, bool, usize), Nonsense> {
    read_parts(&[text])
}

#[test]
fn chunks_are_joined_and_what_follows_is_left() {
    let text = b"5\r\nhello\r\n6 ;a=b\r\n world\r\n0\r\nX-T: 1\r\n\r\nNEXT";
    assert_eq!(read(text), Ok((b"hello world".to_vec(), true, 4)));
    assert_eq!(read(b"5\r\nhel"), Ok((b"hel".to_vec(), false, 0)));
    let mut chunks = Chunks::default();
    assert_eq!(chunks.step(b"0\r\nA: b\r\n\r\n"), Ok(Step::Trailer(b"A: b".to_vec(), 9)));
}

#[test]
fn broken_framing_is_refused() {
    for text in [
        "5\nhello",
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "5\r\nhelloX\r\n",
        "0x5\r\nhello",
        "fffffffffffffffff\r\n",
        "5\rhello\n",
        " 5\r\nhello",
        "5 \r\nhello",
        "0\r\nX: 1\n\n",
        "5;a=\x01\r\nhello",
        "0\r\nno trailer\r\n\r\n",
        "0\r\n: x\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\r\nhello",
    ] {
        assert!(read(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(read(&[b'1'; LINE_BYTES_MAX + 3]).is_err());
    let long = format!("0\r\n{}", "a: b\r\n".repeat(TRAILER_BYTES_MAX / 4 + 1));
    assert!(read(long.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
    ) {
        let mut out = Vec::new();
        for part in &parts {
            write(&mut out, part);
        }
        out.extend_from_slice(LAST);
        out.extend_from_slice(b"\r\n");
        prop_assert_eq!(read(&out), Ok((parts.concat(), true, 0)));
    }

    #[test]
    fn pieces_give_the_same_as_the_whole(bytes in "[0-9a-f;:\r\n x]{0,60}", cut in 0usize..60) {
        let whole = read(bytes.as_bytes());
        let cut = cut.min(bytes.len());
        let parts = read_parts(&[&bytes.as_bytes()[..cut], &bytes.as_bytes()[cut..]]);
        match (whole, parts) {
            (Ok(a), Ok(b)) => prop_assert_eq!(a, b),
            (Err(_), Err(_)) => {}
            (a, b) => prop_assert!(false, "{:?} {:?}", a, b),
        }
    }
}
