//! Why a report is refused: the words for the sender and the label of the metric.

use domain::IdError;

/// Why a report does not reach the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not of the right form.
    Unreadable(String),
    /// The load is not finite, negative or above 100.
    Insane,
    /// No such service on the board.
    UnknownService,
    /// No token, and the instance is not in the routes.
    UnknownInstance,
    /// No token, from another host.
    NoToken,
    /// The token is not this instance's.
    WrongToken,
    /// A newer or the same number came before.
    Replay,
    /// More instances wait to be written than are kept.
    Overloaded,
}

impl Refusal {
    pub(crate) fn name(why: IdError) -> Refusal {
        Refusal::Unreadable(why.to_string())
    }

    /// The value of `result` in `tally_load_reports_total`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Refusal::Unreadable(_) => "unreadable",
            Refusal::Insane => "insane",
            Refusal::UnknownService => "unknown_service",
            Refusal::UnknownInstance => "unknown_instance",
            Refusal::NoToken => "no_token",
            Refusal::WrongToken => "wrong_token",
            Refusal::Replay => "replay",
            Refusal::Overloaded => "overloaded",
        }
    }

    /// What the sender is told.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Refusal::Unreadable(detail) => detail.clone(),
            Refusal::Insane => "load must be a number from 0 to 100; 1.0 is fully used".to_owned(),
            Refusal::UnknownService => "there is no such service".to_owned(),
            Refusal::UnknownInstance => {
                "the instance is not known; send its token (TALLY_LOAD_TOKEN)".to_owned()
            }
            Refusal::NoToken => {
                "from another host the instance's token is needed (TALLY_LOAD_TOKEN)".to_owned()
            }
            Refusal::WrongToken => "the token is not this instance's".to_owned(),
            Refusal::Replay => "seq is not above the last one of this instance".to_owned(),
            Refusal::Overloaded => "too many reports wait to be written; try again".to_owned(),
        }
    }
}
