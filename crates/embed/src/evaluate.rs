//! Known-item search: does a sentence find the passage that it was cut from?
//!
//! Seeded queries of 8 to 30 consecutive words are cut out of passages; a query counts as found when its
//! passage is among the nearest ten by cosine, over all passages, exactly. It is the oldest test of
//! retrieval that needs no judges, and it fails at once when training or embedding is broken.

use rayon::prelude::*;

use crate::model::Model;
use crate::random::Random;

/// Nearest passages among which the known one must be.
pub const NEAREST: usize = 10;
const WORDS_MIN: usize = 8;
const WORDS_MAX: usize = 30;

/// `count` queries as (passage, sentence). Passages shorter than a query are passed over.
pub fn cut_queries(texts: &[String], count: usize, seed: u64) -> Vec<(usize, String)> {
    let mut random = Random::new(seed);
    let mut queries = Vec::with_capacity(count);
    // A corpus of tiny passages must not loop for ever.
    for _ in 0..count * 100 {
        if queries.len() == count || texts.is_empty() {
            break;
        }
        let passage = random.below(texts.len());
        let words: Vec<&str> = texts[passage].split_whitespace().collect();
        let wanted = WORDS_MIN + random.below(WORDS_MAX - WORDS_MIN + 1);
        if words.len() >= wanted {
            let start = random.below(words.len() - wanted + 1);
            queries.push((passage, words[start..start + wanted].join(" ")));
        }
    }
    queries
}

/// How many of the queries find their passage among the [`NEAREST`] of `vectors`.
pub fn count_found(model: &Model, vectors: &[f32], queries: &[(usize, String)]) -> usize {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let found = queries.par_iter().filter(|(passage, sentence)| {
        let mut query = vec![0.0; model.dim()];
        model.embed(sentence, &mut query);
        let own = dot(&query, &vectors[passage * model.dim()..][..model.dim()]);
        // Equal scores count against it: a broken embedder gives all passages the same vector.
        let nearer = vectors
            .chunks_exact(model.dim())
            .filter(|vector| dot(&query, vector) >= own);
        nearer.count() <= NEAREST
    });
    found.count()
}
