//! The memtable by itself: one newest entry a key, every offset counted once.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::testing::position;

fn newer(a: &Position, b: &Position) -> bool {
    (a.log_time, a.partition, a.offset) > (b.log_time, b.partition, b.offset)
}

fn accepted<'a>(id: &'a str, vector: Option<&'a [f32]>, position: Position) -> Accepted<'a> {
    Accepted {
        id,
        vector,
        attrs: None,
        event_time: None,
        position,
        base: None,
    }
}

#[test]
fn should_keep_the_newest_position_alive_whatever_the_order_of_arrival() {
    let mut memtable = Memtable::new(1);
    memtable.begin(0, 0, 5, 0);
    memtable.begin(0, 1, 0, 0);
    let (first, _) = memtable.insert(&accepted("a", Some(&[1.0]), position(0, 10, 5)), newer);
    let (late, alive) = memtable.insert(&accepted("a", Some(&[2.0]), position(1, 9, 0)), newer);
    assert!(!alive);
    assert_eq!(memtable.find(key_hash("a"), "a"), Some(first));
    let (delete, alive) = memtable.insert(&accepted("a", None, position(1, 11, 1)), newer);
    assert!(alive);
    assert_eq!(memtable.find(key_hash("a"), "a"), Some(delete));
    assert_eq!(
        [first, late, delete].map(|index| memtable.entry(index).alive),
        [false, false, true]
    );
    assert_eq!(memtable.vector(memtable.entry(delete)), None);
    let ledgers: Vec<_> = memtable
        .stretches()
        .values()
        .map(|s| (s.ledger.kept, s.ledger.superseded))
        .collect();
    assert_eq!(
        ledgers,
        [(0, 1), (1, 1)],
        "the beaten record counts in its own partition"
    );
}

#[test]
fn should_give_back_texts_and_vectors_across_chunks() {
    let dim = 70_000;
    let mut memtable = Memtable::new(dim);
    memtable.begin(0, 0, 0, 0);
    let vectors: Vec<Vec<f32>> = (0..9).map(|n| vec![n as f32; dim as usize]).collect();
    for (n, vector) in vectors.iter().enumerate() {
        let id = format!("schlüssel-{n}");
        let attrs = format!("{{\"n\":{n}}}");
        let record = Accepted {
            attrs: Some(&attrs),
            ..accepted(&id, Some(vector), position(0, 0, n as u64))
        };
        memtable.insert(&record, newer);
    }
    assert!(memtable.rows().chunks().count() > 1);
    let mut rows = 0;
    for chunk in memtable.rows().chunks() {
        let (first, norms) = (chunk.first(), chunk.norms());
        assert_eq!(chunk.vectors().len(), norms.len() * dim as usize);
        for (row, norm) in (0..).zip(norms) {
            let entry = memtable.entry(chunk.entry(row));
            assert_eq!(entry.slot, Some(first + row));
            let n = entry.position.offset as usize;
            assert_eq!(memtable.id(entry), format!("schlüssel-{n}"));
            let attrs = format!("{{\"n\":{n}}}");
            assert_eq!(memtable.attrs(entry), Some(attrs.as_str()));
            assert_eq!(memtable.vector(entry), Some(vectors[n].as_slice()));
            assert!((norm - n as f32 * (dim as f32).sqrt()).abs() <= 1e-2 * norm.max(1.0));
            rows += 1;
        }
    }
    assert_eq!(rows, vectors.len());
    assert!(memtable.bytes() >= 9 * 4 * dim as usize);
}

#[test]
fn should_remember_what_a_chain_of_patches_rests_on() {
    let mut memtable = Memtable::new(1);
    memtable.begin(0, 0, 3, 0);
    let (committed, patch) = (position(0, 10, 2), |offset, base| Accepted {
        base: Some(base),
        ..accepted("a", Some(&[1.0]), position(0, 10 + offset as i64, offset))
    });
    let (first, _) = memtable.insert(&patch(3, committed), newer);
    let (second, _) = memtable.insert(&patch(4, position(0, 13, 3)), newer);
    let (upsert, _) = memtable.insert(&accepted("a", Some(&[2.0]), position(0, 15, 5)), newer);
    let (third, _) = memtable.insert(&patch(6, position(0, 15, 5)), newer);
    assert_eq!(memtable.base(first), Some(&committed));
    assert_eq!(memtable.base(second), Some(&committed));
    assert_eq!(memtable.base(upsert), None);
    assert_eq!(memtable.base(third), Some(&position(0, 15, 5)));
}

proptest! {
    #[test]
    fn should_agree_with_a_map_of_newest_positions(
        records in prop::collection::vec((0u32..6, 0u32..3, -3i64..4, any::<bool>()), 0..200),
    ) {
        let mut memtable = Memtable::new(1);
        let mut model: BTreeMap<u32, (Position, bool)> = BTreeMap::new();
        let mut next = [0u64; 3];
        for partition in 0..3 {
            memtable.begin(0, partition, 0, i64::MIN);
        }
        for (key, partition, log_time, is_row) in records {
            let at = position(partition, log_time, next[partition as usize]);
            next[partition as usize] += 1;
            let vector = is_row.then_some([1.0f32]);
            memtable.insert(&accepted(&key.to_string(), vector.as_ref().map(|v| &v[..]), at), newer);
            if model.get(&key).is_none_or(|(before, _)| newer(&at, before)) {
                model.insert(key, (at, is_row));
            }
        }
        prop_assert_eq!(memtable.entries().iter().filter(|e| e.alive).count(), model.len());
        for (key, (at, is_row)) in &model {
            let id = key.to_string();
            let found = memtable.find(key_hash(&id), &id).map(|index| memtable.entry(index).clone());
            let found = found.expect("found");
            prop_assert_eq!((found.position, found.slot.is_some(), found.alive), (*at, *is_row, true));
        }
        for ((_, partition), stretch) in memtable.stretches() {
            let newest = model.values().filter(|(at, _)| at.partition == *partition).count() as u64;
            let all = next[*partition as usize];
            prop_assert_eq!((stretch.ledger.kept, stretch.ledger.superseded), (newest, all - newest));
        }
    }
}
