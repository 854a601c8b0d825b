//! A grammar of requests that are almost right: each seed gives bytes in which a careless reader
//! finds other requests than a strict one.

use fastrand::Rng;

/// What is sent on one connection.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its name; every target in it holds it.
    pub id: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The input of one seed.
#[must_use]
pub fn input(group: &str, seed: u64) -> Input {
    let of_group = group.bytes().fold(0, |sum: u64, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    let mut rng = Rng::with_seed(seed ^ of_group.rotate_left(32));
    let id = format!("{group}.{seed}.");
    let mut bytes = Vec::new();
    for n in 0..rng.usize(1..=3) {
        request(&mut rng, &format!("{id}{n}"), &mut bytes);
    }
    Input { id, bytes }
}

fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(0..of.len())]
}

/// True once in `n` times.
fn rarely(rng: &mut Rng, n: usize) -> bool {
    rng.usize(0..n) == 0
}

fn line_end(rng: &mut Rng) -> &'static str {
    if rarely(rng, 60) { one(rng, &["\n", "\r", "\r\r\n", "\n\r\n", "\r\n "]) } else { "\r\n" }
}

fn request(rng: &mut Rng, name: &str, out: &mut Vec<u8>) {
    let method = one(rng, &["GET", "POST", "PUT", "DELETE", "OPTIONS", "POST", "POST"]);
    let version =
        if rarely(rng, 25) { one(rng, &["HTTP/1.0", "HTTP/1.2", "http/1.1"]) } else { "HTTP/1.1" };
    let prefix = if rarely(rng, 30) { "http://x" } else { "" };
    let blank = if rarely(rng, 60) { one(rng, &["  ", "\t"]) } else { " " };
    let first = format!("{method}{blank}{prefix}/{name} {version}{}", line_end(rng));
    out.extend_from_slice(first.as_bytes());
    let hidden = format!("GET /hidden-{name} HTTP/1.1\r\nHost: x\r\n\r\n");
    let plain = match rng.usize(0..4) {
        0 => String::new(),
        1 => hidden,
        2 => format!("0\r\n\r\n{hidden}"),
        _ => format!("{}{hidden}", "a".repeat(rng.usize(0..40))),
    };
    let chunked = rng.bool();
    let body = if chunked { chunks(rng, &plain) } else { plain };
    let mut fields = vec![host(rng)];
    if chunked && !rarely(rng, 20) {
        fields.push(coding(rng));
    }
    if !chunked && !rarely(rng, 20) || rarely(rng, 8) {
        fields.push(length(rng, body.len()));
    }
    if rarely(rng, 10) {
        let again = if rng.bool() { coding(rng) } else { length(rng, body.len()) };
        fields.push(again);
    }
    if rarely(rng, 6) {
        fields.push(noise(rng));
    }
    rng.shuffle(&mut fields);
    for field in fields {
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(line_end(rng).as_bytes());
    }
    out.extend_from_slice(line_end(rng).as_bytes());
    out.extend_from_slice(body.as_bytes());
}

fn host(rng: &mut Rng) -> String {
    if rarely(rng, 40) {
        return one(rng, &["Host: x\r\nHost: y", "Host : x", "Hos: x", "Host:", "Host: x y"])
            .into();
    }
    one(rng, &["Host: x", "host: x:80", "HOST:\tx "]).to_owned()
}

fn coding(rng: &mut Rng) -> String {
    let name = if rarely(rng, 25) {
        let odd = [
            "Transfer-Encoding ",
            "Transfer_Encoding",
            "transfer-encoding\t",
            "XTransfer-Encoding",
        ];
        one(rng, &odd)
    } else {
        one(rng, &["Transfer-Encoding", "transfer-encoding", "TRANSFER-ENCODING"])
    };
    let value = if rarely(rng, 6) {
        let odd = [
            "identity",
            "chunked, chunked",
            "gzip, chunked",
            "chunked, identity",
            "xchunked",
            "chunked;a=b",
            "\u{b}chunked",
            "chunked\u{c}",
            "\"chunked\"",
            "",
            "chunked,",
            ",chunked",
            "chunk",
            "chunked\r\n\tx",
            "\r\n chunked",
            "cow\r\nTransfer-Encoding: chunked",
        ];
        one(rng, &odd)
    } else {
        one(rng, &["chunked", "Chunked", "\tchunked", "chunked "])
    };
    format!("{name}: {value}")
}

fn length(rng: &mut Rng, right: usize) -> String {
    let name = if rarely(rng, 25) {
        one(rng, &["Content-Length ", "Content_Length", "Content-Length\t", "Content Length"])
    } else {
        one(rng, &["Content-Length", "content-length"])
    };
    let value = match rng.usize(0..16) {
        0 => right.saturating_sub(rng.usize(1..6)).to_string(),
        1 => (right + rng.usize(1..6)).to_string(),
        2 => match rng.usize(0..10) {
            0 => format!("+{right}"),
            1 => format!("-{right}"),
            2 => format!("0x{right:x}"),
            3 => format!("{right}, {right}"),
            4 => format!("{right} 0"),
            5 => format!("{right}\u{b}"),
            6 => format!("{right}\r\nContent-Length: {}", right / 2),
            7 => format!("1844674407370955161{}", 6 + right % 4),
            8 => String::new(),
            _ => format!("{right}.0"),
        },
        3 => format!("000{right}"),
        _ => right.to_string(),
    };
    format!("{name}: {value}")
}

fn noise(rng: &mut Rng) -> String {
    let noise = [
        "Connection: close",
        "Connection: keep-alive, transfer-encoding",
        "Connection: content-length",
        "Expect: 100-continue",
        "Expect: 100-continue",
        "Upgrade: h2c",
        "TE: trailers, chunked",
        "Trailer: content-length",
        "A: b\u{0}c",
        "A: b\rTransfer-Encoding: chunked",
        "A\u{0}: b",
        ": b",
        "A B: c",
        "X-Forwarded-For: 1",
        "Cookie: a=b",
        "A: b\nContent-Length: 0",
    ];
    one(rng, &noise).to_owned()
}

fn chunks(rng: &mut Rng, plain: &str) -> String {
    let mut out = String::new();
    let mut rest = plain;
    while !rest.is_empty() {
        let here = rng.usize(1..=rest.len());
        let size = match rng.usize(0..30) {
            0 => format!("{:x}", here + rng.usize(1..5)),
            1 => format!("{:x}", here.saturating_sub(1)),
            2 => {
                one(rng, &["0x5", "+5", "-1", " 5", "5 ", "", "zz", "10000000000000005"]).to_owned()
            }
            3 | 4 => format!("{here:X};a=\"b\""),
            5 => format!("{here:x};{}", one(rng, &["\n", "\r", "\"\r\n\"", "\u{0}", ";", "a=\t"])),
            6 => format!("000{here:x}"),
            _ => format!("{here:x}"),
        };
        out += &format!("{size}{}{}{}", chunk_end(rng), &rest[..here], chunk_end(rng));
        rest = &rest[here..];
    }
    let trailer = if rarely(rng, 8) {
        let odd =
            ["T: 1\r\n", "Content-Length: 9\r\n", "T : 1\r\n", " \r\n", "T\r\n", "T: \u{0}\r\n"];
        one(rng, &odd)
    } else {
        ""
    };
    let last = if rarely(rng, 12) { one(rng, &["00", "0;a", "0 ", "", "0\r\n0"]) } else { "0" };
    out + &format!("{last}{}{trailer}{}", chunk_end(rng), chunk_end(rng))
}

fn chunk_end(rng: &mut Rng) -> &'static str {
    if rarely(rng, 60) { one(rng, &["\n", "\r", "", "\r\r\n", "\r\nX"]) } else { "\r\n" }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_seed_is_an_input_and_another_seed_another() {
        let first = super::input("a", 1);
        assert_eq!(first.bytes, super::input("a", 1).bytes);
        assert_ne!(first.bytes, super::input("a", 2).bytes);
    }
}
