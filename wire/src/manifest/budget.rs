//! The budget manifest, as written and as the checked `Budget`.

use super::parse::ManifestError;
use crate::quantity::Percent;
use domain::{Budget, Currency, Generation, Money, MonthlyCap, Share};
use serde::{Deserialize, Serialize};

/// `kind: budget`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of keys")]
pub struct BudgetManifest {
    /// `budget`; may be absent in a PUT body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `120 EUR`, or `none`.
    pub monthly_cap: String,
    /// Default 3%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Percent>,
    /// `off` (default) or `strict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pacing: Option<String>,
}

impl TryFrom<&BudgetManifest> for Budget {
    type Error = ManifestError;

    fn try_from(m: &BudgetManifest) -> Result<Budget, ManifestError> {
        if m.kind.as_deref().is_some_and(|k| k != "budget") {
            return Err(ManifestError::at("/kind", "must be \"budget\" here"));
        }
        let (cap, currency) = if m.monthly_cap.trim() == "none" {
            (MonthlyCap::Unlimited, Currency::EUR)
        } else {
            let (amount, currency) = Money::parse_with_currency(&m.monthly_cap).map_err(|e| {
                ManifestError::at("/monthly_cap", format!("{e}; or \"none\" for no cap"))
            })?;
            (MonthlyCap::Amount(amount), currency)
        };
        let reserve = m.reserve.map_or(Share::percent(3), |q| q.0);
        if reserve > Share::percent(100) {
            return Err(ManifestError::at("/reserve", "must be at most 100%"));
        }
        let strict_pacing = match m.pacing.as_deref() {
            None | Some("off") => false,
            Some("strict") => true,
            Some(_) => return Err(ManifestError::at("/pacing", "must be off or strict")),
        };
        Ok(Budget { currency, cap, reserve, strict_pacing, generation: Generation(0) })
    }
}
