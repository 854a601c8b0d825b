//! What is too long, too many or too large is refused by its own status.

use crate::table::Expect::{self, Cut, Refused};

/// Far beyond any sensible limit of a head or a line.
const FAR_TOO_LONG: usize = 300_000;
/// Far more fields than a head has.
const FAR_TOO_MANY: usize = 3_000;

fn case(name: &str, bytes: Vec<u8>, expect: Expect) -> (String, Vec<u8>, Expect) {
    (name.to_owned(), bytes, expect)
}

/// Cases made by repetition.
pub fn cases() -> Vec<(String, Vec<u8>, Expect)> {
    let long = "a".repeat(FAR_TOO_LONG);
    let head =
        |fields: &str| format!("GET /{{id}} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes();
    let chunked = |body: &str| {
        let head = "POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}{body}").into_bytes()
    };
    let many: String = (0..FAR_TOO_MANY).map(|n| format!("a-{n}: b\r\n")).collect();
    let trailers: String = (0..FAR_TOO_MANY * 10).map(|n| format!("t-{n}: b\r\n")).collect();
    vec![
        case("long-value", head(&format!("A: {long}\r\n")), Refused(&[431])),
        case("long-name", head(&format!("{long}: a\r\n")), Refused(&[431])),
        case("many-fields", head(&many), Refused(&[431])),
        case("many-equal-fields", head(&"a: b\r\n".repeat(FAR_TOO_MANY)), Refused(&[431])),
        case(
            "long-target",
            format!("GET /{{id}}{long} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
            Refused(&[414]),
        ),
        case(
            "long-query",
            format!("GET /{{id}}?{long} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
            Refused(&[414]),
        ),
        case(
            "long-method",
            format!("{long} /{{id}} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
            Refused(&[400, 414, 431, 501]),
        ),
        case("long-host", head(&format!("B: {long}\r\n")), Refused(&[431])),
        case(
            "large-body",
            b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\nabc".to_vec(),
            Refused(&[413]),
        ),
        case(
            "large-body-expected",
            b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\
              Expect: 100-continue\r\n\r\n"
                .to_vec(),
            Refused(&[413, 417]),
        ),
        case(
            "long-extension",
            chunked(&format!("3;{long}\r\nabc\r\n0\r\n\r\n")),
            Cut(&[400, 413, 431]),
        ),
        case(
            "long-trailer",
            chunked(&format!("3\r\nabc\r\n0\r\nT: {long}\r\n\r\n")),
            Cut(&[400, 413, 431]),
        ),
        case(
            "many-trailers",
            chunked(&format!("3\r\nabc\r\n0\r\n{trailers}\r\n")),
            Cut(&[400, 413, 431]),
        ),
        case(
            "long-size",
            chunked(&format!("{}3\r\nabc\r\n0\r\n\r\n", "0".repeat(FAR_TOO_LONG))),
            Cut(&[400, 413]),
        ),
    ]
}
