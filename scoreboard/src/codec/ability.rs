//! What a balancer can do, as JSON.

use super::bounded;
use domain::{Ability, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest text read: a reason for each of a few thousand services.
pub const ABILITY_BYTES_MAX: usize = 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct AbilityText {
    #[serde(default)]
    nat_lacks: Option<String>,
    #[serde(default)]
    troubles: BTreeMap<String, String>,
}

/// An ability as JSON.
///
/// # Errors
/// None in practice: the text has no form JSON could not say.
pub fn ability(ability: &Ability) -> Result<String, String> {
    let text = AbilityText {
        nat_lacks: ability.nat_lacks.clone(),
        troubles: ability.troubles.iter().map(|(s, why)| (s.to_string(), why.clone())).collect(),
    };
    serde_json::to_string(&text).map_err(|why| why.to_string())
}

/// Reads one. Fields of a newer version are passed over.
///
/// # Errors
/// What is wrong with it.
pub fn read_ability(text: &str) -> Result<Ability, String> {
    bounded(text, ABILITY_BYTES_MAX)?;
    let text: AbilityText = serde_json::from_str(text).map_err(|why| why.to_string())?;
    let troubles = text.troubles.into_iter().map(|(service, why)| {
        service.parse::<ServiceName>().map(|s| (s, why)).map_err(|bad| bad.to_string())
    });
    Ok(Ability { nat_lacks: text.nat_lacks, troubles: troubles.collect::<Result<_, String>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ability_reads_as_written() {
        let mut wanted = Ability::default();
        assert_eq!(read_ability(&ability(&wanted).unwrap()), Ok(wanted.clone()));
        wanted.nat_lacks = Some("nftables is missing; install it".to_owned());
        wanted.troubles.insert("shop".parse().unwrap(), "port 5432 is taken".to_owned());
        assert_eq!(read_ability(&ability(&wanted).unwrap()), Ok(wanted));
        assert_eq!(read_ability("{}"), Ok(Ability::default()));
        assert!(read_ability("7").is_err());
        assert!(read_ability(r#"{"troubles": {"No Name": ""}}"#).is_err());
    }
}
