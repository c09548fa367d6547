//! Text → features: stemmed words and parts of identifiers, hashed.
//!
//! 1. Maximal runs of letters, digits and `_` are tokens; `BufReader` and `buf_reader` also yield their
//!    parts, because prose says "buffered reader" where code says `BufReader`.
//! 2. A light stemmer makes plural, past and present one word (after Harman, "How effective is
//!    suffixing?", 1991: weak stemming gains as much as strong).
//! 3. The stem's hash is the feature: no dictionary to keep, and the same text yields the same features
//!    on every machine.

use xxhash_rust::xxh3::xxh3_64;

/// Longer runs are hashes, keys, base64: never twice the same.
const TOKEN_BYTES_MAX: usize = 64;
/// A stem keeps at least this many letters, so that "used" and "sing" stay.
const STEM_CHARS_MIN: usize = 4;

/// A hashed feature.
pub type Feature = u64;

/// Features of a text with how often each occurs, in ascending order of the hash.
pub fn count_features(text: &str) -> Vec<(Feature, u32)> {
    let mut features = Vec::new();
    for token in text.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
        if !token.is_empty() && token.len() <= TOKEN_BYTES_MAX {
            push_token(token, &mut features);
        }
    }
    features.sort_unstable();
    let mut counts: Vec<(Feature, u32)> = Vec::with_capacity(features.len());
    for feature in features {
        match counts.last_mut() {
            Some((last, count)) if *last == feature => *count += 1,
            _ => counts.push((feature, 1)),
        }
    }
    counts
}

fn push_token(token: &str, features: &mut Vec<Feature>) {
    let mut parts = 0;
    for word in token.split('_').filter(|word| !word.is_empty()) {
        let mut start = 0;
        let mut before_is_lower = false;
        for (at, c) in word.char_indices() {
            if before_is_lower && c.is_uppercase() {
                push_word(&word[start..at], features);
                parts += 1;
                start = at;
            }
            before_is_lower = c.is_lowercase() || c.is_ascii_digit();
        }
        push_word(&word[start..], features);
        parts += 1;
    }
    if parts > 1 {
        push_word(&token.replace('_', ""), features);
    }
}

fn push_word(word: &str, features: &mut Vec<Feature>) {
    let word = word.to_lowercase();
    let stem = stem(&word);
    // Single letters are list markers, type parameters, variables.
    if stem.chars().nth(1).is_some() {
        features.push(xxh3_64(stem.as_bytes()));
    }
}

fn stem(word: &str) -> &str {
    let longer = |stem: &str| stem.len() >= STEM_CHARS_MIN;
    let plural = word
        .strip_suffix('s')
        .filter(|stem| longer(stem) && !stem.ends_with(['s', 'u', 'i']));
    let word = plural.unwrap_or(word);
    let tense = word
        .strip_suffix("ing")
        .or_else(|| word.strip_suffix("ed"))
        .filter(|stem| longer(stem));
    let word = tense.unwrap_or(word);
    word.strip_suffix('e')
        .filter(|stem| longer(stem))
        .unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features_of(words: &[&str]) -> Vec<(Feature, u32)> {
        let mut features: Vec<_> = words
            .iter()
            .map(|word| (xxh3_64(word.as_bytes()), 1))
            .collect();
        features.sort_unstable();
        features
    }

    #[test]
    fn should_make_one_feature_of_a_word_in_its_forms() {
        for words in [
            "cache caches cached caching",
            "Return returns RETURNED returning",
        ] {
            let features = count_features(words);
            assert_eq!(features.len(), 1, "{words}");
            assert_eq!(features[0].1, 4);
        }
        assert_eq!(
            count_features("used uses sing class").len(),
            4,
            "too short to cut, or no plural"
        );
    }

    #[test]
    fn should_take_identifiers_apart_and_keep_them_whole() {
        assert_eq!(
            count_features("BufReader"),
            features_of(&["buf", "reader", "bufreader"])
        );
        assert_eq!(
            count_features("read_to_end"),
            features_of(&["read", "to", "end", "readtoend"])
        );
    }

    #[test]
    fn should_find_nothing_in_text_without_words() {
        assert_eq!(count_features(""), []);
        assert_eq!(count_features("a — b: {} 1 🦀"), []);
        assert_eq!(count_features(&"x".repeat(65)), []);
    }
}
