//! New segments are in memory before a search meets them, within bytes and time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use vexlake_distance::Metric;
use vexlake_manifest::crash;
use vexlake_segment::{BlockCache, SegmentReader};
use vexlake_store::{Fault, Faults, Op, Rule, Store};

use super::lists::{append_rows, site, train};
use crate::testing::*;
use crate::warm::{WarmCounts, Warming};
use crate::{Context, Ended, Incarnation};

const ALL: u64 = 64 << 20;

/// A reader through this store that reads so many bytes ahead of a switch.
async fn reader(site: &Site, store: &Store, bytes: u64) -> Arc<Incarnation> {
    let context = Context {
        cache: BlockCache::new(ALL as usize),
        warming: Arc::new(Warming::new(bytes)),
        ..site.context("query", crash::none())
    };
    let opened = Incarnation::open(store, site.id, context).await;
    opened.expect("opened")
}

/// A collection with a segment, which a reader has open, and one that it does not know yet.
async fn grown(
    trained: bool,
    store: impl Fn(&Store) -> Store,
    bytes: u64,
) -> (Site, Arc<Incarnation>) {
    let site = site(Metric::L2).await;
    let writer = site.open("ingest").await;
    append_rows(&writer, 0..1000).await;
    writer.flush().await.expect("flushed");
    if trained {
        assert_eq!(train(&writer).await, Ended::Done);
    }
    let reader = reader(&site, &store(&site.store), bytes).await;
    append_rows(&writer, 1000..13_000).await;
    writer.flush().await.expect("flushed");
    (site, reader)
}

/// How much of a segment's lists or vectors is in memory: (pages or blocks, of all).
fn held(reader: &SegmentReader) -> (usize, usize) {
    let Some(lists) = reader.lists() else {
        let blocks = reader.blocks();
        let held = (0..blocks).filter(|block| reader.cached_block(*block).is_some());
        return (held.count(), blocks);
    };
    let pages = lists.entries().iter().map(|entry| reader.list_page(entry));
    let mut pages: Vec<u32> = pages.collect();
    pages.dedup();
    let held = pages
        .iter()
        .filter(|page| reader.held_list_page(**page).is_some());
    (held.count(), pages.len())
}

/// The first segment and the one after it, as `held` has them.
fn held_of_both(handle: &Incarnation) -> [(usize, usize); 2] {
    let snapshot = handle.snapshot();
    let mut both = snapshot.segments.values().map(|view| held(&view.reader));
    [
        both.next().expect("a segment"),
        both.next().expect("a second"),
    ]
}

#[test]
fn should_read_lists_or_vectors_of_a_new_segment_before_the_switch() {
    run(async {
        for trained in [true, false] {
            let (site, handle) = grown(trained, Store::clone, ALL).await;
            let before = site.store.usage().bytes_in;
            handle.follow().await.expect("followed");
            let [old, new] = held_of_both(&handle);
            assert_eq!(old.0, 0, "a segment that is no news is left alone");
            assert!(new.0 == new.1 && new.1 >= 2, "{new:?}");
            let counts = handle.context.warming.counts();
            assert_eq!((counts.segments, counts.cut), (1, 0));
            let read = site.store.usage().bytes_in - before;
            assert!(0 < counts.bytes && counts.bytes <= read, "{counts:?}");
        }
    });
}

#[test]
fn should_read_no_more_than_its_bytes_ahead_of_a_switch() {
    run(async {
        for (trained, bytes) in [(true, 0), (false, 0), (true, 40_000), (false, 1_200_000)] {
            let (_site, handle) = grown(trained, Store::clone, bytes).await;
            handle.follow().await.expect("followed");
            let [_, new] = held_of_both(&handle);
            let counts = handle.context.warming.counts();
            assert_eq!(new.0 > 0, bytes > 0, "{new:?} of {bytes}");
            assert!(new.0 < new.1, "{new:?} of {bytes}");
            // Row checksums come beside vectors: 4 bytes a row, by pages.
            assert!(counts.bytes <= bytes + bytes / 10, "{counts:?} of {bytes}");
        }
    });
}

#[test]
fn should_switch_all_the_same_where_a_store_hangs_or_fails() {
    run(async {
        let gate = Arc::new(Semaphore::new(0));
        // The head of the index is read once; what comes after are the lists.
        for (fault, cut) in [(Fault::Hold(gate.clone()), 1), (Fault::Refuse, 0)] {
            let faults = Faults::scripted([]);
            let faulty = |store: &Store| store.clone().with_faults(faults.clone());
            let (_site, handle) = grown(true, faulty, ALL).await;
            faults.add(Rule {
                nth: 2,
                ..Rule::every(Op::Ranges, "index.vxi", fault)
            });
            let followed = tokio::time::timeout(Duration::from_secs(30), handle.follow()).await;
            followed.expect("not held up").expect("followed");
            assert_eq!(handle.snapshot().live_rows, 13_000);
            let expected = WarmCounts {
                segments: 1,
                bytes: 0,
                cut,
            };
            assert_eq!(handle.context.warming.counts(), expected);
        }
    });
}
