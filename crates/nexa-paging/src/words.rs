//! Words of texts, as the index compares them.
//!
//! A word is a run of letters and digits in lower case, without its ending: `danced`, `dancing` and `dances` are one. Endings
//! are taken off as steps 1a to 1c and 5a of M. Porter, *An algorithm for suffix stripping* (1980) do it; the others join
//! words that people tell apart. Words that say nothing are left out. Where a script has no spaces (Chinese, Japanese), each two
//! neighbouring characters are a word.

/// A word, as a number: FNV-1a over its stem. Two words of one number are as good as one; among a million words that is one
/// chance in tens of millions.
pub(crate) type Term = u64;

/// The most letters of a word that count. What is longer is no word that somebody asks for, but a key or data.
const WORD_BYTES_MAX: usize = 64;

/// Words that stand in every text, and pieces that apostrophes leave. In order, for the search.
const STOP: [&str; 137] = [
    "a", "about", "after", "again", "all", "also", "am", "an", "and", "any", "are", "aren", "as", "at", "be",
    "because", "been", "before", "being", "both", "but", "by", "can", "cannot", "could", "couldn", "d", "did", "didn",
    "do", "does", "doesn", "doing", "don", "during", "each", "few", "for", "from", "further", "had", "hadn", "has",
    "hasn", "have", "haven", "having", "he", "her", "here", "hers", "him", "his", "how", "i", "if", "in", "into", "is",
    "isn", "it", "its", "just", "ll", "m", "me", "more", "most", "mustn", "my", "no", "nor", "not", "now", "of", "off",
    "on", "once", "only", "or", "other", "our", "ours", "out", "over", "own", "re", "s", "same", "shan", "she",
    "should", "shouldn", "so", "some", "such", "t", "than", "that", "the", "their", "theirs", "them", "then", "there",
    "these", "they", "this", "those", "through", "to", "too", "until", "up", "ve", "very", "was", "wasn", "we", "were",
    "weren", "what", "when", "where", "which", "while", "who", "whom", "why", "will", "with", "won", "would", "wouldn",
    "you", "your", "yours",
];

/// The terms of a text in their order, with repetitions.
pub(crate) fn terms(text: &str) -> Vec<Term> {
    let mut found = Vec::new();
    let mut word = String::new();
    let mut before: Option<char> = None;
    for letter in text.chars() {
        if is_unspaced(letter) {
            close(&mut word, &mut found);
            if let Some(before) = before {
                found.push(hash([before, letter].iter().collect::<String>().as_bytes()));
            } else {
                found.push(hash(letter.encode_utf8(&mut [0; 4]).as_bytes()));
            }
            before = Some(letter);
            continue;
        }
        before = None;
        if letter.is_alphanumeric() {
            if word.len() < WORD_BYTES_MAX {
                word.extend(letter.to_lowercase());
            }
        } else {
            close(&mut word, &mut found);
        }
    }
    close(&mut word, &mut found);
    found
}

fn close(word: &mut String, found: &mut Vec<Term>) {
    if !word.is_empty() && STOP.binary_search(&word.as_str()).is_err() {
        stem(word);
        found.push(hash(word.as_bytes()));
    }
    word.clear();
}

/// Han, Hiragana and Katakana.
fn is_unspaced(letter: char) -> bool {
    matches!(letter, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{2fa1f}')
}

fn hash(bytes: &[u8]) -> Term {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Takes a word's ending off. Words with other letters than `a` to `z` stay as they are.
fn stem(word: &mut String) {
    if word.len() < 3 || !word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return;
    }
    plural(word);
    past_and_present(word);
    if word.ends_with('y') && has_vowel(&word[..word.len() - 1]) {
        word.pop();
        word.push('i');
    }
    final_e(word);
}

/// Step 1a.
fn plural(word: &mut String) {
    if word.ends_with("sses") || word.ends_with("ies") {
        word.truncate(word.len() - 2);
    } else if word.ends_with('s') && !word.ends_with("ss") {
        word.pop();
    }
}

/// Step 1b.
fn past_and_present(word: &mut String) {
    if let Some(rest) = word.strip_suffix("eed") {
        if measure(rest) > 0 {
            word.pop();
        }
        return;
    }
    let stem = word.strip_suffix("ed").or_else(|| word.strip_suffix("ing"));
    let Some(len) = stem.filter(|stem| has_vowel(stem)).map(str::len) else { return };
    word.truncate(len);
    if ["at", "bl", "iz"].iter().any(|end| word.ends_with(end)) {
        word.push('e');
    } else if ends_doubled(word) && !word.ends_with(['l', 's', 'z']) {
        word.pop();
    } else if measure(word) == 1 && ends_short(word) {
        word.push('e');
    }
}

/// Step 5a.
fn final_e(word: &mut String) {
    let Some(rest) = word.strip_suffix('e') else { return };
    let measure = measure(rest);
    if measure > 1 || (measure == 1 && !ends_short(rest)) {
        word.pop();
    }
}

fn is_vowel(bytes: &[u8], place: usize) -> bool {
    match bytes[place] {
        b'a' | b'e' | b'i' | b'o' | b'u' => true,
        b'y' => place > 0 && !is_vowel(bytes, place - 1),
        _ => false,
    }
}

fn has_vowel(word: &str) -> bool {
    (0..word.len()).any(|place| is_vowel(word.as_bytes(), place))
}

/// How often a vowel is followed by a consonant.
fn measure(word: &str) -> usize {
    let bytes = word.as_bytes();
    (1..bytes.len()).filter(|place| is_vowel(bytes, place - 1) && !is_vowel(bytes, *place)).count()
}

fn ends_doubled(word: &str) -> bool {
    match word.as_bytes() {
        [.., before, last] => before == last && !is_vowel(word.as_bytes(), word.len() - 1),
        _ => false,
    }
}

/// Consonant, vowel, consonant, the last not being one of `w`, `x`, `y`.
fn ends_short(word: &str) -> bool {
    let (bytes, len) = (word.as_bytes(), word.len());
    len >= 3
        && !is_vowel(bytes, len - 3)
        && is_vowel(bytes, len - 2)
        && !is_vowel(bytes, len - 1)
        && !word.ends_with(['w', 'x', 'y'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stemmed(word: &str) -> String {
        let mut word = word.to_owned();
        stem(&mut word);
        word
    }

    #[test]
    fn forms_of_a_word_are_one() {
        for forms in [
            &["dance", "dances", "danced", "dancing"][..],
            &["hop", "hops", "hopped", "hopping"],
            &["pony", "ponies"],
            &["agree", "agreed", "agrees"],
            &["create", "created", "creating"],
            &["happy", "happies"],
        ] {
            let stems: Vec<String> = forms.iter().map(|form| stemmed(form)).collect();
            assert!(stems.windows(2).all(|two| two[0] == two[1]), "{stems:?}");
        }
        assert_eq!(
            ["caresses", "cats", "ss", "feed", "sing", "falling", "sky"].map(stemmed).join(" "),
            "caress cat ss feed sing fall sky"
        );
    }

    #[test]
    fn stop_words_and_what_apostrophes_leave_are_no_terms() {
        assert_eq!(terms("Where did they do it? It's what I don't have."), Vec::<Term>::new());
        assert_eq!(terms("Jon's studio"), terms("jon STUDIOS"));
        assert!(STOP.windows(2).all(|two| two[0] < two[1]), "in order, each once");
    }

    #[test]
    fn texts_without_spaces_are_found_by_parts_of_them() {
        let text = terms("我昨天去了巴黎");
        assert!(terms("巴黎").iter().skip(1).all(|term| text.contains(term)) && text.len() == 7);
        assert_eq!(terms("Köln, straße 5").len(), 3);
    }

    #[test]
    fn a_word_without_end_is_cut() {
        assert_eq!(terms(&"x".repeat(100_000)), terms(&"x".repeat(64)));
    }
}
