//! Compares what a handle shows with the model, and recounts the log.

use std::collections::{BTreeMap, BTreeSet};

use vexlake_distance::Metric;
use vexlake_manifest::{Invariant, Invariants};
use vexlake_segment::key_hash;

use super::applied;
use super::log::{Live, Log, Model, Order, model};
use crate::incarnation::Incarnation;
use crate::{Filter, Scope, Search, Verification, Want};

fn ends(next: impl Fn(u32) -> u64, log: &Log) -> BTreeMap<u32, u64> {
    log.0
        .keys()
        .map(|partition| (*partition, next(*partition)))
        .collect()
}

/// Compares what a handle shows, fresh and committed, with the model.
pub async fn check(handle: &Incarnation, log: &Log, metric: Metric) {
    let fresh = ends(|partition| applied(handle, partition), log);
    check_scope(handle, log, metric, Scope::Fresh, &fresh).await;
    let expected = model(log, &fresh)
        .values()
        .filter(|(_, live)| live.is_some())
        .count() as u64;
    assert_eq!(
        handle.feed.read(|view| view.card()),
        expected,
        "card of the view at {fresh:?}"
    );
    let snapshot = handle.snapshot();
    let committed = ends(|partition| snapshot.next(0, partition), log);
    check_scope(handle, log, metric, Scope::Snapshot, &committed).await;
    let expected = model(log, &committed)
        .values()
        .filter(|(_, live)| live.is_some())
        .count() as u64;
    assert_eq!(
        snapshot.live_rows,
        expected,
        "live rows of version {}",
        snapshot.version()
    );
    check_one_entry_a_key(&snapshot, log).await;
    assert_eq!(violations(&handle.context.components.invariants), []);
}

/// The invariants found broken, and how often.
pub fn violations(invariants: &Invariants) -> Vec<(&'static str, u64)> {
    let counted = Invariant::ALL.map(|one| (one.id(), invariants.count(one).1));
    counted
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// Compares gets and searches of one scope with the model at `ends`.
pub async fn check_scope(
    handle: &Incarnation,
    log: &Log,
    metric: Metric,
    scope: Scope,
    ends: &BTreeMap<u32, u64>,
) {
    let model = model(log, ends);
    let snapshot = match scope {
        Scope::At(version) => handle.at(version).await.expect("a version"),
        _ => handle.snapshot(),
    };
    let dropped = snapshot.state().dropped_deletes;
    let keys: Vec<&str> = log
        .0
        .values()
        .flatten()
        .map(|m| m.key.as_str())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let got = handle
        .get(
            &keys,
            scope,
            Want {
                vector: true,
                attrs: true,
            },
        )
        .await
        .expect("got");
    for (key, got) in keys.iter().zip(got) {
        // A delete is found too, with its place and nothing else.
        let got = got.map(|got| {
            assert_eq!(got.deleted, got.vector.is_none(), "key {key}");
            let (partition, offset, attrs) = (got.partition, got.offset, got.attrs);
            let live = |vector: Vec<f32>| Live {
                vector: vector.try_into().expect("three floats"),
                attrs,
                partition,
                offset,
            };
            ((partition, offset), got.vector.map(live))
        });
        let newest = model.get(*key);
        let forgotten = |(order, live): &(Order, Option<Live>)| {
            live.is_none() && dropped.is_some_and(|deletes| order.0 <= deletes.log_time)
        };
        if got.is_none() && newest.is_some_and(forgotten) {
            continue;
        }
        let expected =
            newest.map(|((_, partition, offset), live)| ((*partition, *offset), live.clone()));
        assert_eq!(got, expected, "key {key} in {scope:?} at {ends:?}");
    }
    for (vector, k) in [([1.0, 2.0, 1.0], 2), ([-3.0, 0.5, 2.0], 100)] {
        let query = Search {
            with_attrs: true,
            truth: true,
            ..Search::new(vector.to_vec(), k)
        };
        let filters = FILTERS.map(|(text, passes)| (Filter::parse(text).ok(), passes));
        let unfiltered: Passes = |_| true;
        for (filter, passes) in filters.into_iter().chain([(None, unfiltered)]) {
            let truth = Search {
                filter,
                ..query.clone()
            };
            let default = Search {
                truth: false,
                ..truth.clone()
            };
            let searched = handle.search(&[truth, default], scope).await;
            let hits = searched.expect("searched").hits;
            let mut passing = model.clone();
            passing.retain(|_, (_, live)| live.as_ref().is_some_and(passes));
            check_hits(&hits[0], &passing, metric, &vector, k);
            check_likely_hits(&hits[1], &hits[0], &passing, metric, &vector);
        }
    }
}

/// Whether a live record passes a filter.
type Passes = fn(&Live) -> bool;

/// Filters over the attributes that the model's messages have, each with what it means.
const FILTERS: [(&str, Passes); 2] = [
    (".n >= 1 and .n != 3", |live| {
        n(live).is_some_and(|n| n >= 1 && n != 3)
    }),
    ("not (.n in [0, 2])", |live| {
        n(live).is_some_and(|n| n != 0 && n != 2)
    }),
];

/// The attribute `n`: `{"n":3}`, or no attributes.
fn n(live: &Live) -> Option<u64> {
    let text = live.attrs.as_ref()?.strip_prefix("{\"n\":")?;
    text.strip_suffix('}')?.parse().ok()
}

/// The distance of two vectors by sums in f64; infinite where f32 cannot hold the metric's key.
pub fn exact_distance(metric: Metric, query: &[f32], row: &[f32]) -> f32 {
    let pairs = || {
        query
            .iter()
            .zip(row)
            .map(|(q, v)| (f64::from(*q), f64::from(*v)))
    };
    let sum = |term: fn(f64, f64) -> f64| pairs().map(|(q, v)| term(q, v)).sum::<f64>();
    let dot = sum(|q, v| q * v);
    let key = match metric {
        Metric::L2 => sum(|q, v| (q - v) * (q - v)),
        Metric::Manhattan => sum(|q, v| (q - v).abs()),
        Metric::InnerProduct => -dot,
        Metric::Cosine => match sum(|q, _| q * q).sqrt() * sum(|_, v| v * v).sqrt() {
            0.0 => 1.0,
            norms => 1.0 - dot / norms,
        },
    };
    metric.distance(key as f32)
}

/// Equal but for what f32 rounds on the way.
pub fn same_distance(found: f32, exact: f32) -> bool {
    found == exact || (found - exact).abs() <= 2e-5 * exact.abs().max(1.0)
}

/// Brute force over the model. Ties may come in any order: distances must be the k smallest,
/// each hit its own.
fn check_hits(hits: &[crate::Hit], model: &Model, metric: Metric, vector: &[f32], k: usize) {
    let live = model.values().filter_map(|(_, live)| live.as_ref());
    let distances = live.map(|live| exact_distance(metric, vector, &live.vector));
    let mut expected: Vec<f32> = distances.collect();
    expected.sort_by(f32::total_cmp);
    expected.truncate(k);
    assert_eq!(hits.len(), expected.len(), "hits {hits:?} of {model:?}");
    check_own(hits, model, metric, vector);
    for (hit, expected) in hits.iter().zip(expected) {
        let same = same_distance(hit.distance, expected);
        assert!(same, "{hit:?}, expected {expected}");
    }
}

/// Hits that went through lists: as many as the true ones, none nearer than the truth at
/// its place.
fn check_likely_hits(
    hits: &[crate::Hit],
    truth: &[crate::Hit],
    model: &Model,
    metric: Metric,
    vector: &[f32],
) {
    assert_eq!(hits.len(), truth.len(), "hits {hits:?}, in truth {truth:?}");
    check_own(hits, model, metric, vector);
    for (hit, truth) in hits.iter().zip(truth) {
        let no_nearer =
            hit.distance >= truth.distance || same_distance(hit.distance, truth.distance);
        assert!(no_nearer, "{hit:?}, {truth:?}");
    }
}

/// Each hit is live, answered once, and comes with its own distance and attributes.
fn check_own(hits: &[crate::Hit], model: &Model, metric: Metric, vector: &[f32]) {
    let mut seen = BTreeSet::new();
    for hit in hits {
        let live = model.get(&hit.id).and_then(|(_, live)| live.as_ref());
        let live = live.unwrap_or_else(|| panic!("hit {hit:?} is not live in {model:?}"));
        assert!(seen.insert(&hit.id), "{} twice", hit.id);
        assert_eq!(hit.attrs, live.attrs, "attributes of {}", hit.id);
        let own = exact_distance(metric, vector, &live.vector);
        assert!(same_distance(hit.distance, own), "{hit:?} of {live:?}");
    }
}

/// The invariant that merges and shadows rest on.
async fn check_one_entry_a_key(snapshot: &crate::Snapshot, log: &Log) {
    let messages = log.0.values().flatten();
    let keys: Vec<_> = messages
        .map(|message| (key_hash(&message.key), message.key.as_str()))
        .collect();
    let mut live = vec![0; keys.len()];
    for view in snapshot.segments.values() {
        let found = view.reader.find(&keys).await.expect("found");
        for (live, found) in live.iter_mut().zip(found) {
            *live += u32::from(found.is_some_and(|found| !view.shadow.contains(found.entry)));
        }
    }
    for ((_, key), live) in keys.iter().zip(live) {
        assert!(
            live <= 1,
            "key {key} has {live} live entries in version {}",
            snapshot.version()
        );
    }
}

/// Recounts the whole log and expects no complaint.
pub async fn verify(handle: &Incarnation, log: &Log) {
    let mut verification = Verification::begin(handle).await.expect("begun");
    for (source, partition, checkpoint) in verification.stretches() {
        let (table, buffer) = log.fetch(partition, 0, checkpoint.next);
        verification
            .add(source, partition, 0, checkpoint.next, &table, &[&buffer])
            .expect("recounted");
    }
    let report = verification.finish().await.expect("compared");
    assert!(report.ok && report.recounted, "{report:#?}");
    assert_eq!((report.missing, report.duplicated), (0, 0));
}
