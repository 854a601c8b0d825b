//! The nearest known word to a mistyped one, so that an error can say what was probably meant.

/// Edits apart at most for a word to be worth suggesting.
const EDITS_MAX: usize = 3;

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

/// Adds "did you mean" to serde's `unknown field` sentence.
#[must_use]
pub fn improve(sentence: &str) -> String {
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
    }
}
