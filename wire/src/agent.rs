//! The agent's line, as `HAProxy`'s agents speak it (`75% up maxconn:100`): read and written.

use std::fmt;

/// Longest line read: every word there is, and a sentence why.
pub const LINE_BYTES_MAX: usize = 512;
/// Most words in a line; there are seven kinds.
pub const WORDS_MAX: usize = 32;
/// Greatest percentage: a weight of 1 raised to the greatest weight `HAProxy` knows.
pub const PERCENT_MAX: u32 = 25_600;
/// Longest reason kept.
const WHY_CHARS_MAX: usize = 120;
/// Longest unknown word told.
const WORD_CHARS_MAX: usize = 40;

/// What the operator of an instance wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admin {
    /// To work; ends the other two.
    Ready,
    /// To finish what it has.
    Drain,
    /// To be left alone.
    Maint,
}

/// What an instance can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// It works; ends the other.
    Up,
    /// It does not.
    Down,
}

/// One line. What it does not say stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentLine {
    /// `75%`: how much of its weight it can bear now.
    pub percent: Option<u32>,
    /// `weight:50%` or `weight:50`: its weight in percent of the configured one.
    pub weight: Option<u32>,
    /// `maxconn:30`: what it takes at once; 0: no bound.
    pub max_in_flight: Option<u32>,
    /// `ready`, `drain` or `maint`.
    pub admin: Option<Admin>,
    /// `up`, or `down`, `fail`, `failed`, `stopped`.
    pub health: Option<Health>,
    /// What stands after `#`.
    pub why: Option<String>,
    /// Words nobody knows, shortened.
    pub unknown: Vec<String>,
}

/// Why a line says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// Longer than any.
    #[error("an agent's line has at most {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// More words than any.
    #[error("an agent's line has at most {WORDS_MAX} words")]
    TooMany,
    /// Not text.
    #[error("an agent's line is text")]
    NotText,
    /// No word at all.
    #[error("the agent's line is empty")]
    Empty,
}

impl AgentLine {
    /// Reads what an agent sent, up to the first line's end: words in any order and case, divided by
    /// blanks, tabs or commas; of words that contradict each other the last counts.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn parse(sent: &[u8]) -> Result<AgentLine, AgentError> {
        let end = sent.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(sent.len());
        let line = &sent[..end];
        if line.len() > LINE_BYTES_MAX {
            return Err(AgentError::TooLong);
        }
        let line = std::str::from_utf8(line).map_err(|_why| AgentError::NotText)?;
        let (words, why) = match line.split_once('#') {
            Some((words, why)) => (words, Some(why.trim())),
            None => (line, None),
        };
        let mut told = AgentLine::default();
        let mut count = 0;
        for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
            count += 1;
            if count > WORDS_MAX {
                return Err(AgentError::TooMany);
            }
            if !told.take(word) {
                told.unknown.push(word.chars().take(WORD_CHARS_MAX).collect());
            }
        }
        if count == 0 {
            return Err(AgentError::Empty);
        }
        told.why = why.filter(|w| !w.is_empty()).map(|w| w.chars().take(WHY_CHARS_MAX).collect());
        Ok(told)
    }

    /// Takes one word; false when nobody knows it.
    fn take(&mut self, word: &str) -> bool {
        let word = word.to_ascii_lowercase();
        match word.as_str() {
            "ready" => self.admin = Some(Admin::Ready),
            "drain" => self.admin = Some(Admin::Drain),
            "maint" => self.admin = Some(Admin::Maint),
            "up" => self.health = Some(Health::Up),
            "down" | "fail" | "failed" | "stopped" => self.health = Some(Health::Down),
            _ => return self.take_number(&word),
        }
        true
    }

    fn take_number(&mut self, word: &str) -> bool {
        let percent = |text: &str| number(text).filter(|n| *n <= PERCENT_MAX);
        let (place, value) = if let Some(text) = word.strip_prefix("maxconn:") {
            (&mut self.max_in_flight, number(text))
        } else if let Some(text) = word.strip_prefix("weight:") {
            (&mut self.weight, percent(text.strip_suffix('%').unwrap_or(text)))
        } else if let Some(text) = word.strip_suffix('%') {
            (&mut self.percent, percent(text))
        } else {
            return false;
        };
        *place = value.or(*place);
        value.is_some()
    }
}

/// Digits alone: no sign, no blank.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

impl fmt::Display for AgentLine {
    /// As it is sent, without the line's end. Words that were not understood are not passed on: cut
    /// short, one could be understood.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let admin = self.admin.map(|admin| match admin {
            Admin::Ready => "ready",
            Admin::Drain => "drain",
            Admin::Maint => "maint",
        });
        let health = self.health.map(|health| match health {
            Health::Up => "up",
            Health::Down => "down",
        });
        let words = [
            self.percent.map(|n| format!("{n}%")),
            self.weight.map(|n| format!("weight:{n}%")),
            admin.map(str::to_owned),
            health.map(str::to_owned),
            self.max_in_flight.map(|n| format!("maxconn:{n}")),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        f.write_str(&words.join(" "))?;
        match &self.why {
            // Some readers know a reason only as a word of its own.
            Some(why) => write!(f, " #{why}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> AgentLine {
        AgentLine::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn lines_of_known_agents_are_read() {
        let up = AgentLine { health: Some(Health::Up), ..AgentLine::default() };
        let three = AgentLine { percent: Some(75), max_in_flight: Some(30), ..up.clone() };
        for (line, expected) in [
            ("75%\n", AgentLine { percent: Some(75), ..AgentLine::default() }),
            ("up\r\nrest", up),
            ("75% up maxconn:30\n", three.clone()),
            ("maxconn:30,UP\t75%", three.clone()),
            ("up, maxconn:30 , 10% 75%", three),
            ("weight:50\n", AgentLine { weight: Some(50), ..AgentLine::default() }),
            ("weight:150%\n", AgentLine { weight: Some(150), ..AgentLine::default() }),
            ("drain", AgentLine { admin: Some(Admin::Drain), ..AgentLine::default() }),
            ("drain ready", AgentLine { admin: Some(Admin::Ready), ..AgentLine::default() }),
            (
                "Failed#the disk, it is full\n",
                AgentLine {
                    health: Some(Health::Down),
                    why: Some("the disk, it is full".to_owned()),
                    ..AgentLine::default()
                },
            ),
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn unknown_words_are_told_and_change_nothing() {
        let line = read("75% -5% 5.5% % maxconn: maxconn:-1 weight:x 99999% +3% 1e2% hello up");
        assert_eq!((line.percent, line.health), (Some(75), Some(Health::Up)));
        assert_eq!((line.weight, line.max_in_flight), (None, None));
        assert_eq!(line.unknown.len(), 10);
        assert_eq!(read(&"x".repeat(100)).unknown[0].len(), WORD_CHARS_MAX);
    }

    #[test]
    fn a_line_that_cannot_be_is_refused() {
        for (line, why) in [
            (String::new(), AgentError::Empty),
            ("\n75%".to_owned(), AgentError::Empty),
            (" ,\t#why".to_owned(), AgentError::Empty),
            ("x".repeat(LINE_BYTES_MAX + 1), AgentError::TooLong),
            ("up ".repeat(WORDS_MAX + 1), AgentError::TooMany),
        ] {
            assert_eq!(AgentLine::parse(line.as_bytes()), Err(why), "{line}");
        }
        assert_eq!(AgentLine::parse(b"75%\xff"), Err(AgentError::NotText));
        assert!(AgentLine::parse(&[b"up\n", &[b'x'; 2 * LINE_BYTES_MAX][..]].concat()).is_ok());
    }

    fn lines() -> impl Strategy<Value = AgentLine> {
        let number = || proptest::option::of(0..=PERCENT_MAX);
        let admin = prop_oneof![
            Just(None),
            Just(Some(Admin::Ready)),
            Just(Some(Admin::Drain)),
            Just(Some(Admin::Maint))
        ];
        let health = prop_oneof![Just(None), Just(Some(Health::Up)), Just(Some(Health::Down))];
        let why = proptest::option::of("[a-z][a-z ]{0,20}[a-z]");
        (number(), number(), any::<Option<u32>>(), admin, health, why).prop_map(
            |(percent, weight, max_in_flight, admin, health, why)| AgentLine {
                percent,
                weight,
                max_in_flight,
                admin,
                health,
                why,
                unknown: vec!["hello".to_owned()],
            },
        )
    }

    proptest! {
        #[test]
        fn lines_read_as_written(line in lines()) {
            let written = format!("{line}\n");
            let said = AgentLine { unknown: Vec::new(), ..line };
            let nothing = AgentLine { why: None, ..said.clone() } == AgentLine::default();
            let expected = if nothing { Err(AgentError::Empty) } else { Ok(said) };
            prop_assert_eq!(AgentLine::parse(written.as_bytes()), expected);
        }

        #[test]
        fn no_line_panics(sent in proptest::collection::vec(any::<u8>(), 0..80), text in "[a-z0-9%:#, ]{0,60}") {
            let _unused = (AgentLine::parse(&sent), AgentLine::parse(text.as_bytes()));
        }
    }
}
