//! "Did you mean …": the known word nearest to the one that was written.

/// The known word that `written` most likely stands for, if any is near enough: the same but for case, or at
/// an edit distance (insert, delete, replace, swap of neighbours) of at most a third of its length.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    let allowed = (written.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter(|word| *word != written)
        .map(|word| (distance(&lower, &word.to_lowercase()), word))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Optimal string alignment distance of two short words.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(64).collect();
    let right: Vec<char> = right.chars().take(64).collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn distances() {
        for (left, right, expected) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("principal", "principals", 1),
            ("form", "from", 1),
            ("a", "", 1),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn nearest_word() {
        let known = ["principals", "notPrincipals", "namespaces", "ipBlocks"];
        for (written, expected) in [
            ("principal", Some("principals")),
            ("Principals", Some("principals")),
            ("namepsaces", Some("namespaces")),
            ("ipblocks", Some("ipBlocks")),
            ("colour", None),
        ] {
            assert_eq!(nearest(written, known), expected, "{written}");
        }
    }
}
