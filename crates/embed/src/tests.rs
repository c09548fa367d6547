//! The embedder as a whole, on a generated corpus: passages of 40 topics, whose words overlap only in
//! the general ones. The bar on real documentation is `vexlake-embed evaluate`.

use crate::Model;
use crate::evaluate::{count_found, cut_queries};
use crate::random::Random;

const TOPICS: usize = 40;
const TOPIC_WORDS: usize = 60;
const GENERAL_WORDS: usize = 300;
const PASSAGES: usize = 800;
const DIM: usize = 64;

/// Word `i` of topic `topic`; topic [`TOPICS`] holds the general words.
fn word(topic: usize, i: usize) -> String {
    let mut random = Random::new((topic * 1000 + i) as u64);
    (0..8)
        .map(|_| char::from(b'a' + random.below(26) as u8))
        .collect()
}

/// `words` words, two thirds of the topic's, early ones more often, as in any language.
fn passage(topic: usize, words: usize, random: &mut Random) -> String {
    let mut zipf = |count: usize| (random.unit() * random.unit() * count as f64) as usize;
    let text = (0..words).map(|i| match i % 3 {
        0 => word(TOPICS, zipf(GENERAL_WORDS)),
        _ => word(topic, zipf(TOPIC_WORDS)),
    });
    text.collect::<Vec<_>>().join(" ")
}

fn corpus() -> Vec<String> {
    let mut random = Random::new(11);
    (0..PASSAGES)
        .map(|i| passage(i % TOPICS, 60, &mut random))
        .collect()
}

fn cosine(model: &Model, a: &str, b: &str) -> f32 {
    let vectors = model.embed_all(&[a.to_string(), b.to_string()]);
    let (a, b) = vectors.split_at(model.dim());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn should_find_the_passage_a_sentence_was_cut_from() {
    let texts = corpus();
    let model = Model::train(&texts, DIM, 1);
    let queries = cut_queries(&texts, 200, 5);
    assert_eq!(queries.len(), 200);
    let found = count_found(&model, &model.embed_all(&texts), &queries);
    assert!(found >= 180, "{found} of 200");
    let blind = vec![0.125; texts.len() * DIM];
    assert_eq!(
        count_found(&model, &blind, &queries),
        0,
        "equal vectors find nothing"
    );
}

#[test]
fn should_place_texts_of_one_topic_near_each_other_without_a_word_in_common() {
    let model = Model::train(&corpus(), DIM, 1);
    let text = |topic, from| {
        (from..from + 6)
            .map(|i| word(topic, i))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut nearer = 0;
    for topic in 0..TOPICS {
        let one = text(topic, 0);
        let same = cosine(&model, &one, &text(topic, 6));
        let other = cosine(&model, &one, &text((topic + 1) % TOPICS, 6));
        nearer += usize::from(same > other + 0.3);
    }
    assert!(nearer >= 38, "{nearer} of {TOPICS}");
}

#[test]
fn should_weigh_a_rare_word_more_than_three_common_ones() {
    let model = Model::train(&corpus(), DIM, 1);
    let common = (0..3)
        .map(|i| word(TOPICS, i))
        .collect::<Vec<_>>()
        .join(" ");
    let rare = word(7, 30);
    let both = format!("{common} {rare}");
    assert!(cosine(&model, &both, &rare) > 0.2 + cosine(&model, &both, &common));
}

#[test]
fn should_be_the_same_on_any_number_of_threads_and_another_for_another_seed() {
    let texts = &corpus()[..200];
    let train = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool");
        pool.install(|| Model::train(texts, 16, seed))
    };
    assert!(train(1, 1) == train(3, 1));
    assert!(train(1, 1) != train(1, 2));
}

#[test]
fn should_give_every_text_a_unit_vector() {
    let texts = corpus();
    let model = Model::train(&texts[..100], DIM, 1);
    let strange = [
        "",
        "…",
        "unseenword",
        "unseenword othernewword",
        &texts[0],
        &"z".repeat(10_000),
    ];
    for text in strange {
        let mut vector = vec![f32::NAN; DIM];
        model.embed(text, &mut vector);
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "{text:.20}: {length}");
    }
    assert!(cosine(&model, "unseenword", "unseenword") > 0.99);
    assert!(cosine(&model, "unseenword", "othernewword") < 0.6);
}

#[test]
fn should_train_on_less_text_than_dimensions() {
    for texts in [
        &[][..],
        &["one".to_string()],
        &["same words".to_string(), "same words".to_string()],
    ] {
        let model = Model::train(texts, DIM, 1);
        let vectors = model.embed_all(texts);
        assert_eq!(vectors.len(), texts.len() * DIM);
        assert!(vectors.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn should_read_its_own_file_and_no_other() {
    let model = Model::train(&corpus()[..100], 8, 1);
    let bytes = model.to_bytes();
    assert!(Model::from_bytes(&bytes) == Ok(model));
    for cut in [0, 7, 27, 28, bytes.len() - 1] {
        assert!(Model::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    for at in [0, 8, 12, 16, 100, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Model::from_bytes(&changed).is_err(), "changed at {at}");
    }
}
