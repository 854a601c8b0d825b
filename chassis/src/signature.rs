//! The container-manager's signature on every call to an executor, and its check.
//!
//! Signed are: node, epoch, expiry, nonce, method, path with query, SHA-256 of the body. A call is
//! good once, for one node, for 30 s.

use crate::ids;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::{Clock, Epoch, NodeId, Timestamp};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The header that carries it: `v1 epoch=E,expires=MS,nonce=HEX,sig=BASE64`.
pub const HEADER: &str = "tally-signature";
/// How long a signed call is good.
pub const SIGNATURE_LIFE: Duration = Duration::from_secs(30);
/// Nonces remembered at most; a manager makes a few calls a second to one node.
const NONCES_MAX: usize = 100_000;

/// Signs calls to one node.
pub struct Signer {
    key: SigningKey,
    node: NodeId,
    epoch: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs for `node` under the epoch that `epoch` holds at the time of each call.
    pub fn new(
        key: SigningKey,
        node: NodeId,
        epoch: Arc<AtomicU64>,
        clock: Arc<dyn Clock>,
    ) -> Signer {
        Signer { key, node, epoch, clock }
    }

    /// The header's value.
    #[must_use]
    pub fn sign(&self, method: &str, path: &str, body: &[u8]) -> String {
        let epoch = self.epoch.load(Ordering::Acquire);
        let expires = self.clock.now().plus(SIGNATURE_LIFE).0;
        let nonce = ids::secret()[..32].to_owned();
        let text = signed_text(&self.node, epoch, expires, &nonce, method, path, body);
        let sig = STANDARD.encode(self.key.sign(text.as_bytes()).to_bytes());
        format!("v1 epoch={epoch},expires={expires},nonce={nonce},sig={sig}")
    }
}

fn signed_text(
    node: &NodeId,
    epoch: u64,
    expires: i64,
    nonce: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> String {
    let digest = ids::hex(&Sha256::digest(body));
    format!("tally-v1\n{node}\n{epoch}\n{expires}\n{nonce}\n{method}\n{path}\n{digest}")
}

/// Why a call is not obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No header.
    #[error("the call carries no signature; only the container-manager may call an executor")]
    Missing,
    /// Not of the expected form.
    #[error("the signature is not readable")]
    Form,
    /// Too old, or too far in the future.
    #[error("the signature has expired, or the two hosts' clocks are more than 30 s apart")]
    Expired,
    /// Seen before.
    #[error("the call was made before; a signature is good once")]
    Replayed,
    /// Made by another key or for another call.
    #[error("the signature does not belong to this call, this node and this cluster's key")]
    Wrong,
}

/// Checks calls to one node.
pub struct Verifier {
    key: VerifyingKey,
    node: NodeId,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    nonces: BTreeSet<String>,
    by_expiry: BTreeMap<(i64, u64), String>,
    count: u64,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Checks for `node` with the manager's public key, base64.
    ///
    /// # Errors
    /// When the text is no Ed25519 key.
    pub fn new(
        public_key: &str,
        node: NodeId,
        clock: Arc<dyn Clock>,
    ) -> Result<Verifier, SignatureError> {
        let bytes = STANDARD.decode(public_key).map_err(|_not_base64| SignatureError::Form)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_wrong_size| SignatureError::Form)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_no_point| SignatureError::Form)?;
        Ok(Verifier { key, node, clock, seen: Mutex::default() })
    }

    /// Checks one call; answers the caller's epoch.
    ///
    /// # Errors
    /// Why it must not be obeyed.
    pub fn check(
        &self,
        header: Option<&str>,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Epoch, SignatureError> {
        let header = header.ok_or(SignatureError::Missing)?;
        let (epoch, expires, nonce, sig) = parts(header).ok_or(SignatureError::Form)?;
        let now = self.clock.now();
        let life = i64::try_from(SIGNATURE_LIFE.as_millis()).unwrap_or(i64::MAX);
        // A clock ahead by less than a life is forgiven, one further ahead is not.
        if expires < now.0 || expires > now.0.saturating_add(2 * life) {
            return Err(SignatureError::Expired);
        }
        let text = signed_text(&self.node, epoch, expires, nonce, method, path, body);
        let bytes = STANDARD.decode(sig).map_err(|_not_base64| SignatureError::Form)?;
        let signature = Signature::from_slice(&bytes).map_err(|_size| SignatureError::Form)?;
        self.key
            .verify_strict(text.as_bytes(), &signature)
            .map_err(|_mismatch| SignatureError::Wrong)?;
        self.once(nonce, expires, now)?;
        Ok(Epoch(epoch))
    }

    /// Remembers a nonce until it expires; only good signatures come here, so strangers cannot
    /// fill the memory.
    fn once(&self, nonce: &str, expires: i64, now: Timestamp) -> Result<(), SignatureError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(entry) = seen.by_expiry.first_entry() {
            if entry.key().0 >= now.0 {
                break;
            }
            let old = entry.remove();
            seen.nonces.remove(&old);
        }
        if seen.nonces.len() >= NONCES_MAX || !seen.nonces.insert(nonce.to_owned()) {
            return Err(SignatureError::Replayed);
        }
        seen.count += 1;
        let key = (expires, seen.count);
        seen.by_expiry.insert(key, nonce.to_owned());
        Ok(())
    }
}

fn parts(header: &str) -> Option<(u64, i64, &str, &str)> {
    let mut words = header.strip_prefix("v1 ")?.splitn(4, ',');
    let epoch = words.next()?.strip_prefix("epoch=")?.parse().ok()?;
    let expires = words.next()?.strip_prefix("expires=")?.parse().ok()?;
    let nonce = words.next()?.strip_prefix("nonce=")?;
    let sig = words.next()?.strip_prefix("sig=")?;
    (nonce.len() <= 64).then_some((epoch, expires, nonce, sig))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use domain::Mono;
    use std::sync::atomic::AtomicI64;

    struct HandClock(AtomicI64);
    impl Clock for HandClock {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }
        fn monotonic(&self) -> Mono {
            Mono::default()
        }
    }

    fn pair() -> (Signer, Verifier, Arc<HandClock>) {
        let clock = Arc::new(HandClock(AtomicI64::new(1_000_000)));
        let node: NodeId = "n-0123456789".parse().unwrap();
        let identity = Identity::generate();
        let epoch = Arc::new(AtomicU64::new(7));
        let signer = identity.signer(node.clone(), epoch, clock.clone());
        let verifier = Verifier::new(&identity.public_key(), node, clock.clone()).unwrap();
        (signer, verifier, clock)
    }

    #[test]
    fn a_signed_call_is_good_once() {
        let (signer, verifier, _) = pair();
        let header = signer.sign("POST", "/v1/assignment", b"{}");
        let check = || verifier.check(Some(&header), "POST", "/v1/assignment", b"{}");
        assert_eq!(check(), Ok(Epoch(7)));
        assert_eq!(check(), Err(SignatureError::Replayed));
    }

    #[test]
    fn anything_else_is_refused() {
        let (signer, verifier, clock) = pair();
        let header = signer.sign("POST", "/v1/assignment", b"{}");
        let check = |h: Option<&str>, m: &str, p: &str, b: &[u8]| verifier.check(h, m, p, b);
        assert_eq!(check(None, "POST", "/", b""), Err(SignatureError::Missing));
        assert_eq!(check(Some("v1 nonsense"), "POST", "/", b""), Err(SignatureError::Form));
        let h = Some(header.as_str());
        assert_eq!(check(h, "GET", "/v1/assignment", b"{}"), Err(SignatureError::Wrong));
        assert_eq!(check(h, "POST", "/v1/other", b"{}"), Err(SignatureError::Wrong));
        assert_eq!(check(h, "POST", "/v1/assignment", b"[]"), Err(SignatureError::Wrong));
        clock.0.fetch_add(31_000, Ordering::Relaxed);
        assert_eq!(check(h, "POST", "/v1/assignment", b"{}"), Err(SignatureError::Expired));
        let (_, other, _) = pair();
        let fresh = signer.sign("POST", "/v1/assignment", b"{}");
        let wrong = other.check(Some(&fresh), "POST", "/v1/assignment", b"{}");
        assert!(matches!(wrong, Err(SignatureError::Wrong | SignatureError::Expired)));
    }
}
