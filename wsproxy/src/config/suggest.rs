//! The known word that a mistyped one was meant to be.

/// Words longer than this are nobody's slip of the finger.
const LONGEST: usize = 64;

/// The candidate nearest to `word`, when it is near enough: one edit, or one
/// for every three characters. `-` and upper case count as `_` and lower case.
pub(super) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    if word.len() > LONGEST {
        return None;
    }
    let word = normal(word);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &normal(candidate)), candidate))
        .filter(|(distance, _)| *distance <= (word.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn normal(word: &str) -> Vec<char> {
    word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours from one word
/// to the other (optimal string alignment).
fn distance(one: &[char], other: &[char]) -> usize {
    let mut before = vec![0; other.len() + 1];
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = Vec::with_capacity(other.len() + 1);
        row.push(i + 1);
        for (j, b) in other.iter().enumerate() {
            let mut edits = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                edits = edits.min(before[j - 1] + 1);
            }
            row.push(edits);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (one, other, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("adress", "address", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(&normal(one), &normal(other)), edits, "{one} {other}");
        }
    }

    #[test]
    fn finds_the_word_that_was_meant() {
        let known = ["address", "backlog", "idle", "request_head"];
        for (word, meant) in [
            ("adress", Some("address")),
            ("Idle", Some("idle")),
            ("ilde", Some("idle")),
            ("request-head", Some("request_head")),
            ("requesthead", Some("request_head")),
            ("port", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
        assert_eq!(nearest(&"a".repeat(10_000), known), None);
    }
}
