//! Compares what a handle shows with the model, and recounts the log.

use std::collections::{BTreeMap, BTreeSet};

use vexlake_distance::Metric;
use vexlake_index::Query;
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

/// Ties may come in any order: distances must be the k smallest, each hit its own.
fn check_hits(hits: &[crate::Hit], model: &Model, metric: Metric, vector: &[f32], k: usize) {
    let query = Query::new(metric, vector);
    let distance = |live: &Live| {
        metric.distance(query.key(
            &live.vector,
            (vexlake_distance::kernels().norm)(&live.vector),
        ))
    };
    let live: BTreeMap<&str, &Live> = model
        .iter()
        .filter_map(|(k, (_, live))| Some((k.as_str(), live.as_ref()?)))
        .collect();
    let mut expected: Vec<f32> = live.values().map(|live| distance(live)).collect();
    expected.sort_by(f32::total_cmp);
    expected.truncate(k);
    assert_eq!(hits.len(), expected.len(), "hits {hits:?} of {live:?}");
    let mut seen = BTreeSet::new();
    for (hit, expected) in hits.iter().zip(expected) {
        let record = live
            .get(hit.id.as_str())
            .unwrap_or_else(|| panic!("hit {hit:?} is not live in {live:?}"));
        assert!(seen.insert(&hit.id), "{} twice", hit.id);
        assert_eq!(hit.attrs, record.attrs, "attributes of {}", hit.id);
        assert!(
            (hit.distance - expected).abs() <= 1e-5 * expected.abs().max(1.0),
            "{hit:?}, expected {expected}"
        );
        let own = distance(record);
        assert!(
            (hit.distance - own).abs() <= 1e-5 * own.abs().max(1.0),
            "{hit:?} of {record:?}"
        );
    }
}

/// Hits that went through lists: as many as the true ones, each live, once, and with its
/// own distance; none nearer than the truth at its place.
fn check_likely_hits(
    hits: &[crate::Hit],
    truth: &[crate::Hit],
    model: &Model,
    metric: Metric,
    vector: &[f32],
) {
    let query = Query::new(metric, vector);
    assert_eq!(hits.len(), truth.len(), "hits {hits:?}, in truth {truth:?}");
    let mut seen = BTreeSet::new();
    for (hit, truth) in hits.iter().zip(truth) {
        let live = model.get(&hit.id).and_then(|(_, live)| live.as_ref());
        let live = live.unwrap_or_else(|| panic!("hit {hit:?} is not live"));
        assert!(seen.insert(&hit.id), "{} twice", hit.id);
        let norm = (vexlake_distance::kernels().norm)(&live.vector);
        let own = metric.distance(query.key(&live.vector, norm));
        let slack = 1e-5 * own.abs().max(1.0);
        assert!((hit.distance - own).abs() <= slack, "{hit:?} of {live:?}");
        assert!(hit.distance >= truth.distance - slack, "{hit:?}, {truth:?}");
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
