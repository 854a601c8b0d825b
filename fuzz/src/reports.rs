//! What instances say of themselves, by HTTP and by datagram.

use load_receiver::decode::{self, Body, Candidate, Decoded};

fn check(candidate: &Candidate) {
    // Four is all that is kept of a load.
    assert!(candidate.load.ten_thousandths() <= 40_000);
    assert!(candidate.instance.as_str().starts_with(candidate.service.as_str()));
}

fn check_all(decoded: &Decoded) {
    assert!(decoded.len() <= decode::BATCH_REPORTS_MAX);
    for candidate in decoded.iter().flatten() {
        check(candidate);
    }
    for refusal in decoded.iter().filter_map(|d| d.as_ref().err()) {
        assert!(!refusal.reason().is_empty() && !refusal.label().is_empty());
    }
}

/// The body of `POST /v1/load`.
pub fn body(bytes: &[u8]) {
    match decode::body(bytes) {
        Ok(Body::One(Ok(candidate))) => check(&candidate),
        Ok(Body::List(decoded)) => check_all(&decoded),
        Ok(Body::One(Err(_))) | Err(_) => {}
    }
}

/// A datagram.
pub fn datagram(bytes: &[u8]) {
    check_all(&decode::datagram(bytes));
}
