//! The nearest known word to a mistyped one, so that an error can say what was probably meant.

/// Edits apart at most for a word to be worth suggesting.
const EDITS_MAX: usize = 3;

/// Serde's names of number types, and what people call them.
const NUMBERS: [(&str, &str); 6] = [
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number, 0 or more"),
    ("u64", "a whole number, 0 or more"),
    ("i32", "a whole number"),
    ("f64", "a number"),
    ("f32", "a number"),
];

/// The known word nearest to `word`, if one is near.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (edits(word, k), k))
        .filter(|(n, k)| *n <= EDITS_MAX && *n < k.chars().count())
        .min()
        .map(|(_, k)| k)
}

/// Levenshtein distance; inputs are cut at 64 characters, since no key is longer.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Adds to serde's sentence what would be right: "did you mean" to an unknown key, quotes to a
/// number where a text belongs (`port: 8080` under `env`).
#[must_use]
pub fn improve(sentence: &str) -> String {
    let scalar = ["invalid type: integer", "invalid type: floating", "invalid type: boolean"];
    if sentence.ends_with("expected a string") && scalar.iter().any(|s| sentence.starts_with(s)) {
        return format!("{sentence}; put it in quotes");
    }
    for (name, words) in NUMBERS {
        if let Some(start) = sentence.strip_suffix(name).filter(|s| s.ends_with("expected ")) {
            return format!("{start}{words}");
        }
    }
    let words: Vec<&str> = sentence.split('`').skip(1).step_by(2).collect();
    let unknown = sentence.starts_with("unknown field") || sentence.starts_with("unknown variant");
    match words.split_first() {
        Some((word, known)) if unknown => match nearest(word, known.iter().copied()) {
            Some(k) => format!("{sentence}; did you mean `{k}`?"),
            None => sentence.to_owned(),
        },
        _ => sentence.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        let known = ["memory", "cpu", "max_instances"];
        assert_eq!(nearest("memry", known), Some("memory"));
        assert_eq!(nearest("max_instance", known), Some("max_instances"));
        assert_eq!(nearest("zzzzzz", known), None);
        let better = improve("unknown field `memry`, expected `memory` or `cpu`");
        assert!(better.ends_with("did you mean `memory`?"), "{better}");
        let better = improve("invalid type: integer `1`, expected a string");
        assert!(better.ends_with("put it in quotes"), "{better}");
        let better = improve("invalid value: integer `-1`, expected u32");
        assert!(better.ends_with("expected a whole number, 0 or more"), "{better}");
    }
}
