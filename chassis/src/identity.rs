//! A cluster's own secrets, made at the first start: `DATA/identity`, readable by its user alone.

use crate::ids;
use crate::signature::Signer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::{Clock, InstanceId, NodeId, ServiceName};
use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Name of the file in the data directory.
pub const FILE: &str = "identity";

/// Why the secrets cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("the cluster's identity at {} cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what we wrote.
    #[error(
        "the cluster's identity at {} is damaged; restore it from a backup, or remove it to make \
         a new one (nodes must then join again)", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    cluster: String,
    signing_key: String,
    load_key: String,
    admin_token: String,
}

/// A cluster's secrets.
#[derive(Clone)]
pub struct Identity {
    cluster: String,
    key: SigningKey,
    load_key: [u8; 32],
    admin_token: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Identity {
    /// New secrets, kept nowhere.
    #[must_use]
    pub fn generate() -> Identity {
        let (mut key, mut load_key) = ([0u8; 32], [0u8; 32]);
        ids::fill(&mut key);
        ids::fill(&mut load_key);
        Identity {
            cluster: format!("c-{}", domain::IdSource::random_part(&mut ids::RandomIds)),
            key: SigningKey::from_bytes(&key),
            load_key,
            admin_token: ids::secret(),
        }
    }

    /// Reads `data/identity`, or makes it. Several processes may start at once: the first wins.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load_or_create(data: &Path) -> Result<Identity, IdentityError> {
        let path = data.join(FILE);
        let io = |source| IdentityError::Io { path: path.clone(), source };
        match fs::read(&path) {
            Ok(bytes) => return Identity::decode(&bytes).ok_or(IdentityError::Damaged { path }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io(e)),
        }
        fs::create_dir_all(data).map_err(io)?;
        let made = Identity::generate();
        let draft = data.join(format!(".{FILE}-{}", &ids::secret()[..12]));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .map_err(io)?;
        file.write_all(&made.encode()).and_then(|()| file.sync_all()).map_err(io)?;
        // A hard link fails where the name exists: of several starters exactly one wins.
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft).map_err(io)?;
        match linked {
            Ok(()) => {
                fs::File::open(data).and_then(|dir| dir.sync_all()).map_err(io)?;
                Ok(made)
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let bytes = fs::read(&path).map_err(io)?;
                Identity::decode(&bytes)
                    .ok_or_else(|| IdentityError::Damaged { path: path.clone() })
            }
            Err(e) => Err(io(e)),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let stored = Stored {
            cluster: self.cluster.clone(),
            signing_key: STANDARD.encode(self.key.to_bytes()),
            load_key: STANDARD.encode(self.load_key),
            admin_token: self.admin_token.clone(),
        };
        serde_json::to_vec_pretty(&stored).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Option<Identity> {
        let stored: Stored = serde_json::from_slice(bytes).ok()?;
        let key: [u8; 32] = STANDARD.decode(stored.signing_key).ok()?.try_into().ok()?;
        let load_key: [u8; 32] = STANDARD.decode(stored.load_key).ok()?.try_into().ok()?;
        Some(Identity {
            cluster: stored.cluster,
            key: SigningKey::from_bytes(&key),
            load_key,
            admin_token: stored.admin_token,
        })
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The container-manager's public key, base64.
    #[must_use]
    pub fn public_key(&self) -> String {
        STANDARD.encode(self.key.verifying_key().to_bytes())
    }

    /// A signer of calls to `node`, under the epoch that `epoch` holds.
    pub fn signer(&self, node: NodeId, epoch: Arc<AtomicU64>, clock: Arc<dyn Clock>) -> Signer {
        Signer::new(self.key.clone(), node, epoch, clock)
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        // HMAC takes a key of any size, so this cannot fail; an empty key would verify nothing.
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.load_key)
            .unwrap_or_else(|_any_size_fits| <Hmac<Sha256> as KeyInit>::new(&Default::default()));
        mac.update(text.as_bytes());
        mac
    }

    /// The token by which an instance's reports are known: HMAC-SHA256(load key, service/instance).
    #[must_use]
    pub fn load_token(&self, service: &ServiceName, instance: &InstanceId) -> String {
        ids::hex(&self.mac(&format!("{service}/{instance}")).finalize().into_bytes())
    }

    /// Whether `token` is the instance's, in constant time.
    #[must_use]
    pub fn knows_load_token(
        &self,
        service: &ServiceName,
        instance: &InstanceId,
        token: &str,
    ) -> bool {
        from_hex(token).is_some_and(|bytes| {
            self.mac(&format!("{service}/{instance}")).verify_slice(&bytes).is_ok()
        })
    }

    /// The operator's token, for APIs beyond loopback.
    #[must_use]
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// Whether `token` is the operator's, in constant time.
    #[must_use]
    pub fn knows_admin_token(&self, token: &str) -> bool {
        same(token, &self.admin_token)
    }

    /// The balancers' token: it may wake services and nothing else.
    #[must_use]
    pub fn balancer_token(&self) -> String {
        ids::hex(&self.mac("role/balancer").finalize().into_bytes())
    }

    /// Whether `token` is the balancers', in constant time.
    #[must_use]
    pub fn knows_balancer_token(&self, token: &str) -> bool {
        from_hex(token).is_some_and(|bytes| self.mac("role/balancer").verify_slice(&bytes).is_ok())
    }
}

/// Compares in constant time by comparing digests.
#[must_use]
pub fn same(a: &str, b: &str) -> bool {
    use sha2::Digest;
    let (a, b) = (Sha256::digest(a.as_bytes()), Sha256::digest(b.as_bytes()));
    a.iter().zip(b.iter()).fold(0u8, |difference, (x, y)| difference | (x ^ y)) == 0
}

/// SHA-256 in hex: how secrets of others are stored.
#[must_use]
pub fn digest(secret: &str) -> String {
    use sha2::Digest;
    ids::hex(&Sha256::digest(secret.as_bytes()))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() > 128 || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let second = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(first.public_key(), second.public_key());
        assert_eq!(first.admin_token(), second.admin_token());
        let mode =
            std::os::unix::fs::MetadataExt::mode(&fs::metadata(dir.path().join(FILE)).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        fs::write(dir.path().join(FILE), b"{}").unwrap();
        let damaged = Identity::load_or_create(dir.path());
        assert!(matches!(damaged, Err(IdentityError::Damaged { .. })));
    }

    #[test]
    fn a_load_token_belongs_to_one_instance() {
        let identity = Identity::generate();
        let shop: ServiceName = "shop".parse().unwrap();
        let a: InstanceId = "shop-0123456789".parse().unwrap();
        let b: InstanceId = "shop-0123456780".parse().unwrap();
        let token = identity.load_token(&shop, &a);
        assert!(identity.knows_load_token(&shop, &a, &token));
        assert!(!identity.knows_load_token(&shop, &b, &token));
        assert!(!identity.knows_load_token(&shop, &a, ""));
        assert!(!identity.knows_load_token(&shop, &a, "zz"));
        assert!(!Identity::generate().knows_load_token(&shop, &a, &token));
    }
}
