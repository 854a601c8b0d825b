//! Names and ids: what they look like, how they are parsed, and who may make new ones.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Characters of Crockford's base 32, lower case: no `i`, `l`, `o`, `u`.
pub const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Random characters in an instance or node id: 50 bits, never reused within a cluster.
pub const ID_RANDOM_CHARS: usize = 10;
/// Longest service, node or type name: one DNS label.
pub const NAME_CHARS_MAX: usize = 63;

/// Why a text is not an id or a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty or longer than the limit.
    #[error("{kind} must have 1 to {max} characters, not {got}")]
    Length {
        /// What was being parsed.
        kind: &'static str,
        /// Most characters allowed.
        max: usize,
        /// Characters found.
        got: usize,
    },
    /// A character that is not allowed.
    #[error("{kind} may hold only {allowed}, not {found:?}")]
    Character {
        /// What was being parsed.
        kind: &'static str,
        /// The allowed characters, in words.
        allowed: &'static str,
        /// The first one that is not.
        found: char,
    },
    /// The parts are not where they belong.
    #[error("{kind} must look like {shape}")]
    Shape {
        /// What was being parsed.
        kind: &'static str,
        /// The expected form.
        shape: &'static str,
    },
}

/// Makes the random part of new ids; handed in, so that plans and tests are repeatable.
pub trait IdSource: Send {
    /// Ten characters of [`CROCKFORD`], unlike any made before.
    fn random_part(&mut self) -> String;

    /// A new instance id of `service`.
    fn instance(&mut self, service: &ServiceName) -> InstanceId {
        InstanceId(format!("{service}-{}", self.random_part()))
    }

    /// A new node id.
    fn node(&mut self) -> NodeId {
        NodeId(format!("n-{}", self.random_part()))
    }
}

fn check_label(kind: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() || text.len() > NAME_CHARS_MAX {
        return Err(IdError::Length { kind, max: NAME_CHARS_MAX, got: text.chars().count() });
    }
    let bad = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'));
    if let Some(found) = bad {
        return Err(IdError::Character { kind, allowed: "a-z, 0-9 and '-'", found });
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(IdError::Shape {
            kind,
            shape: "a label that neither starts nor ends with '-'",
        });
    }
    Ok(())
}

fn check_name(kind: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() || text.len() > NAME_CHARS_MAX {
        return Err(IdError::Length { kind, max: NAME_CHARS_MAX, got: text.chars().count() });
    }
    let bad = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    match bad {
        Some(found) => {
            Err(IdError::Character { kind, allowed: "letters, digits, '-', '_' and '.'", found })
        }
        None => Ok(()),
    }
}

fn check_random_part(kind: &'static str, shape: &'static str, part: &str) -> Result<(), IdError> {
    let right = part.len() == ID_RANDOM_CHARS && part.bytes().all(|b| CROCKFORD.contains(&b));
    if right { Ok(()) } else { Err(IdError::Shape { kind, shape }) }
}

fn check_instance(kind: &'static str, text: &str) -> Result<(), IdError> {
    const SHAPE: &str = "SERVICE-xxxxxxxxxx (ten characters of Crockford base 32)";
    let (service, random) = text.rsplit_once('-').ok_or(IdError::Shape { kind, shape: SHAPE })?;
    check_label(kind, service)?;
    check_random_part(kind, SHAPE, random)
}

fn check_node(kind: &'static str, text: &str) -> Result<(), IdError> {
    const SHAPE: &str = "n-xxxxxxxxxx (ten characters of Crockford base 32)";
    let random = text.strip_prefix("n-").ok_or(IdError::Shape { kind, shape: SHAPE })?;
    check_random_part(kind, SHAPE, random)
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text form.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                $check($kind, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                $check($kind, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// A service's name: `[a-z0-9-]`, 1 to 63 characters, no `-` at either end.
    ServiceName, "a service name", check_label);
text_id!(
    /// `SERVICE-` and ten Crockford characters; never reused.
    InstanceId, "an instance id", check_instance);
text_id!(
    /// `n-` and ten Crockford characters; never reused.
    NodeId, "a node id", check_node);
text_id!(
    /// The name of a node type.
    NodeTypeName, "a node type name", check_name);
text_id!(
    /// Who owns a service, for sub-caps and usage.
    OwnerName, "an owner", check_name);
text_id!(
    /// One balancer process.
    BalancerId, "a balancer id", check_name);

impl InstanceId {
    /// The service part of the id.
    #[must_use]
    pub fn service(&self) -> ServiceName {
        let end = self.0.len() - ID_RANDOM_CHARS - 1;
        ServiceName(self.0[..end].to_owned())
    }
}

/// One version of a service's declaration, counted from 1; instances belong to a revision.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_are_labels() {
        for good in ["a", "shop", "shop-2", &"x".repeat(63)] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
        for bad in ["", "Shop", "-a", "a-", "a_b", "a b", &"x".repeat(64), "ä"] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_instance_id_knows_its_service() {
        let id: InstanceId = "my-shop-0123456789".parse().unwrap();
        assert_eq!(id.service().as_str(), "my-shop");
        for bad in ["shop", "shop-012345678", "shop-012345678i", "-0123456789", "n-"] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn made_ids_parse_again() {
        struct Fixed;
        impl IdSource for Fixed {
            fn random_part(&mut self) -> String {
                "abcdefghjk".into()
            }
        }
        let service: ServiceName = "shop".parse().unwrap();
        let instance = Fixed.instance(&service);
        assert_eq!(instance.as_str().parse::<InstanceId>().unwrap(), instance);
        let node = Fixed.node();
        assert_eq!(node.as_str().parse::<NodeId>().unwrap(), node);
    }
}
