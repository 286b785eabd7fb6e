//! "Did you mean": the known name that is the fewest edits away from an unknown one.

/// Longer names are not compared: a name of this length was hardly mistyped, and the comparison is quadratic.
const NAME_CHARS_MAX: usize = 64;

/// The candidate nearest to `name`, if one is near enough: at most a third of its letters away, or one.
/// Of equally near candidates the first wins.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let wanted: Vec<char> = name.chars().collect();
    if wanted.len() > NAME_CHARS_MAX {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let letters: Vec<char> = candidate.chars().collect();
        if letters.len() > NAME_CHARS_MAX || candidate == name {
            continue;
        }
        let far_at = best.map_or((wanted.len().max(letters.len()) / 3).max(1) + 1, |(distance, _)| distance);
        let distance = if name.eq_ignore_ascii_case(candidate) { 0 } else { edits(&wanted, &letters) };
        if distance < far_at && distance < wanted.len().max(1) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// The number of letters to insert, delete, replace or swap with a neighbour to turn one name into the other.
fn edits(from: &[char], to: &[char]) -> usize {
    let mut two_ago: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, left) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, right) in to.iter().enumerate() {
            let replace = above[column] + usize::from(left != right);
            let mut least = replace.min(above[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *left == to[column - 1] && from[row - 1] == *right {
                least = least.min(two_ago[column - 1] + 1);
            }
            current.push(least);
        }
        two_ago = std::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_mistyped_name_finds_the_one_that_was_meant() {
        assert_eq!(nearest("promt", ["role", "prompt", "planner"]), Some("prompt"));
        assert_eq!(nearest("mdoel", ["model", "memory"]), Some("model"));
        assert_eq!(nearest("clarity", ["Chief", "Clarity"]), Some("Clarity"));
    }

    #[test]
    fn a_name_that_resembles_nothing_gets_no_suggestion() {
        assert_eq!(nearest("temperature", ["role", "prompt"]), None);
        assert_eq!(nearest("x", ["y", "z"]), None);
        assert_eq!(nearest("", ["a"]), None);
    }
}
