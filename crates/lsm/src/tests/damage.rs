//! Damaged files of a small segment with lists, behind the whole engine: the right answer or
//! a typed error, whichever byte is flipped and wherever a file ends too early.

use std::path::PathBuf;
use std::sync::Arc;

use vexlake_distance::Metric;

use super::lists::append;
use crate::testing::*;
use crate::{ErrorKind, Got, Hit, Incarnation, Result, Scope, Search, Want};

const ROWS: u64 = 24;
const QUERY: [f32; 3] = [0.3, -0.2, 0.9];

/// One segment of three lists, merged from two, with rows, attributes and deletes.
async fn segment() -> (Site, PathBuf) {
    let site = Site::new(Metric::Cosine, 1).await;
    let writer = site.open("ingest").await;
    for half in 0..2 {
        let rows = half * ROWS / 2..(half + 1) * ROWS / 2;
        append(&writer, rows, |n| {
            let angle = n as f32 * 0.7;
            let floats = [angle.sin(), angle.cos(), (n % 3) as f32];
            let floats = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
            let attrs = (n % 3 > 0).then(|| format!("{{\"n\":{n},\"s\":\"{n}\"}}").into_bytes());
            let key = Some(format!("k{n}").into_bytes());
            match n % 8 {
                7 => [key, None, None, None, None, None, None],
                _ => [key, Some(floats), None, attrs, None, None, None],
            }
        })
        .await;
        writer.flush().await.expect("flushed");
        site.tick(5);
        let spec = crate::Spec {
            lists: 3,
            ..training_of(&writer)
        };
        run_spec(&writer, &spec).await.expect("trained");
    }
    let spec = crate::Spec {
        drop_deletes_before: None,
        ..spec_of(&writer, None)
    };
    let id = merge(&writer, &spec).await.expect("merged").segments[0];
    let snapshot = writer.snapshot();
    let lists = snapshot.segments[&id].reader.lists().expect("lists");
    assert_eq!(lists.entries().len(), 3);
    let folder = site.path().join(format!("lake/c/{}/seg/{id}", site.id));
    (site, folder)
}

/// Everything that can be asked: the truth, through lists, a few, and every key.
type Said = (Vec<Vec<Hit>>, Vec<Option<Got>>);

async fn ask(reader: &Arc<Incarnation>) -> Result<Said> {
    let search = |k, truth| Search {
        with_attrs: true,
        truth,
        ..Search::new(QUERY.to_vec(), k)
    };
    let all = ROWS as usize;
    let searches = [search(all, true), search(all, false), search(2, false)];
    let answers = reader.search(&searches, Scope::Fresh).await?;
    let keys: Vec<String> = (0..=ROWS).map(|n| format!("k{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let want = Want {
        vector: true,
        attrs: true,
    };
    Ok((answers.hits, reader.get(&keys, Scope::Fresh, want).await?))
}

/// What a process that opens the collection now is told, and whether the index was derived.
async fn answer(site: &Site) -> Result<(Said, bool)> {
    let reader = site
        .open_with(&site.store, "query", vexlake_manifest::crash::none())
        .await?;
    let said = ask(&reader).await?;
    let snapshot = reader.snapshot();
    let rebuilt = snapshot.segments.values().any(|v| v.reader.is_rebuilt());
    Ok((said, rebuilt))
}

/// Harms a file in every way of `harms`; answers how often that was told, and how often the
/// index was derived anew. Everything else must be right.
async fn harm(file: &str, harms: impl Fn(&[u8]) -> Vec<Vec<u8>>) -> (usize, usize) {
    let (site, folder) = segment().await;
    let path = folder.join(file);
    let good = std::fs::read(&path).expect("reads");
    let (expected, rebuilt) = answer(&site).await.expect("undamaged");
    assert!(!rebuilt && expected.0[0].len() == ROWS as usize * 7 / 8);
    let (mut refused, mut derived) = (0, 0);
    for (number, bad) in harms(&good).iter().enumerate() {
        std::fs::write(&path, bad).expect("writes");
        match answer(&site).await {
            Ok((said, rebuilt)) => {
                assert_eq!(said, expected, "{file}, harm {number}");
                derived += usize::from(rebuilt);
            }
            Err(error) => {
                let kind = error.kind();
                assert_eq!(kind, ErrorKind::Corrupt, "{file}, harm {number}: {error}");
                refused += 1;
            }
        }
    }
    std::fs::write(&path, &good).expect("writes");
    assert_eq!(answer(&site).await.expect("mended").0, expected);
    (refused, derived)
}

fn flips(good: &[u8]) -> Vec<Vec<u8>> {
    let flip = |at: usize| {
        let mut bad = good.to_vec();
        bad[at] ^= if at.is_multiple_of(2) {
            1 << (at % 8)
        } else {
            0xFF
        };
        bad
    };
    (0..good.len()).map(flip).collect()
}

fn cuts(good: &[u8]) -> Vec<Vec<u8>> {
    let lengths = (0..good.len()).step_by(29).chain([good.len() - 1]);
    lengths.map(|length| good[..length].to_vec()).collect()
}

#[test]
fn should_answer_rightly_whatever_byte_of_an_index_is_flipped() {
    run(async {
        let (refused, derived) = harm("index.vxi", flips).await;
        assert!(refused == 0 && derived > 2000, "{refused}, {derived}");
    });
}

#[test]
fn should_answer_rightly_or_say_corrupt_whatever_byte_of_the_vectors_is_flipped() {
    run(async {
        let (refused, derived) = harm("data.parquet", flips).await;
        // Every byte of 21 vectors, and attributes.
        assert!(refused > 252 && derived == 0, "{refused}, {derived}");
    });
}

#[test]
fn should_answer_rightly_or_say_corrupt_wherever_a_file_ends_too_early() {
    run(async {
        let (refused, derived) = harm("index.vxi", cuts).await;
        assert!(refused == 0 && derived > 100, "{refused}, {derived}");
        let (refused, derived) = harm("data.parquet", cuts).await;
        assert!(refused > 10 && derived == 0, "{refused}, {derived}");
    });
}
