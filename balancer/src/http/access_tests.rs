//! Lines of the access log.

use super::*;
use crate::testing::front;

fn record() -> Record {
    let service = Arc::new(Service::new(front("shop"), 1, 0, 1));
    let seen = Seen {
        peer: "10.0.0.9".to_owned(),
        method: b"GET"[..].into(),
        host: b"shop.example"[..].into(),
        target: b"/a\"b\n"[..].into(),
        agent: b"curl"[..].into(),
        referer: b""[..].into(),
        id: b"abc"[..].into(),
        service: Some(service),
        old: false,
        status: 200,
        bytes: 12,
        arrived: Mono::default(),
    };
    Record { seen, took: Duration::from_millis(5), at: Timestamp(1_767_225_600_123) }
}

#[test]
fn a_line_is_one_object_or_the_common_form() {
    let mut line = Vec::new();
    write_one(&mut line, &record(), Format::Json);
    let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(read["at"], "2026-01-01T00:00:00.123Z");
    assert_eq!((read["status"].as_u64(), read["service"].as_str()), (Some(200), Some("shop")));
    line.clear();
    write_one(&mut line, &record(), Format::Common);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "10.0.0.9 - - [01/Jan/2026:00:00:00 +0000] \"GET /a\\\"b? HTTP/1.1\" 200 12 \"-\" \"curl\" \
         shop 0.005000\n"
    );
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut sink = Sink::open(&path).unwrap();
    sink.write(b"one\n").unwrap();
    sink.flush().unwrap();
    std::fs::rename(&path, folder.path().join("old")).unwrap();
    sink.flush().unwrap();
    sink.write(b"two\n").unwrap();
    sink.flush().unwrap();
    assert_eq!(std::fs::read(folder.path().join("old")).unwrap(), b"one\n");
    assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
}
