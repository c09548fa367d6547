//! Patches of keys that roam between partitions: two owners compete for all of them, and
//! no commit may hold a patch on a base that something committed by then has overtaken.
//!
//! Which of these patches are refused depends on timing, so the model of `model.rs` has no
//! answer; this one looks at each commit instead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use vexlake_distance::Metric;
use vexlake_segment::key_hash;

use crate::Incarnation;
use crate::state::Range;
use crate::testing::*;

const PARTITIONS: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Produce(u32, usize, i64, usize),
    Deliver(usize, u32, u64),
    Flush(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..PARTITIONS, 0usize..2, 0i64..12, 0usize..6)
            .prop_map(|(partition, key, lag, change)| Step::Produce(partition, key, lag, change)),
        4 => (0usize..2, 0..PARTITIONS, 1u64..4)
            .prop_map(|(owner, partition, count)| Step::Deliver(owner, partition, count)),
        1 => (0usize..2).prop_map(Step::Flush),
    ]
}

/// Offsets refused, by partition.
type Refused = BTreeMap<u32, BTreeSet<u64>>;

/// Every record of a key in a prefix of the log that was not refused, by order.
fn accepted<'a>(
    log: &'a Log,
    key: &str,
    next: impl Fn(u32) -> u64,
    refused: &Refused,
) -> BTreeMap<Order, &'a Change> {
    let mut accepted = BTreeMap::new();
    for (partition, messages) in &log.0 {
        let mut log_time = i64::MIN;
        let refused = refused.get(partition);
        for (message, offset) in messages.iter().zip(0..next(*partition)) {
            log_time = log_time.max(message.timestamp);
            if message.key == key && !refused.is_some_and(|r| r.contains(&offset)) {
                accepted.insert((log_time, *partition, offset), &message.change);
            }
        }
    }
    accepted
}

fn is_patch(change: &Change) -> bool {
    matches!(change, Change::SetVector(_) | Change::SetAttrs(_))
}

/// The live patches that a range committed rest on the newest record before them.
async fn check_patches(handle: &Incarnation, log: &Log, range: &Range, refused: &Refused) {
    let snapshot = handle.snapshot();
    for key in ["k0", "k1"] {
        let located = snapshot.locate_many(&[(key_hash(key), key)]).await;
        let Some(live) = located.expect("located")[0] else {
            continue;
        };
        let at = (live.position.partition, live.position.offset);
        if at.0 != range.partition || !(range.from..range.to).contains(&at.1) {
            continue;
        }
        let records = accepted(log, key, |p| snapshot.next(0, p), refused);
        let mut before = records
            .iter()
            .rev()
            .skip_while(|((_, p, o), _)| (*p, *o) != at);
        let (_, mut change) = before.next().expect("a record of the log");
        while is_patch(change) {
            let (base, below) = before.next().expect("a patch has a base");
            assert_eq!(
                base.1, at.0,
                "patch {at:?} of {key} over {base:?} in {records:?}"
            );
            if base.2 < range.from {
                break;
            }
            change = below;
        }
    }
}

async fn play(steps: Vec<Step>) {
    let (site, mut log) = (Site::new(Metric::L2, PARTITIONS).await, Log::default());
    let owners: [Arc<Incarnation>; 2] = [site.open("a").await, site.open("b").await];
    let mut judged: [Refused; 2] = Default::default();
    let mut committed = Refused::default();
    for (number, step) in steps.into_iter().enumerate() {
        site.tick(3);
        match step {
            Step::Produce(partition, key, lag, change) => {
                let vector = [number as f32, 1.0, 1.0];
                let change = match change {
                    0 | 1 => Change::Upsert(vector, None),
                    2 => Change::Delete,
                    3 => Change::SetVector(vector),
                    _ => Change::SetAttrs(format!("{{\"n\":{number}}}")),
                };
                log.put(partition, &format!("k{key}"), number as i64 - lag, change);
            }
            Step::Deliver(owner, partition, count) => {
                let next = applied(&owners[owner], partition);
                let end = (next + count).min(log.end(partition)).max(next);
                let appended = deliver(&owners[owner], &log, partition, next..end).await;
                let bad = appended.expect("appended").bad;
                let judged = judged[owner].entry(partition).or_default();
                judged.retain(|offset| *offset < next);
                judged.extend(bad.iter().map(|bad| bad.offset));
            }
            Step::Flush(owner) => {
                let flushed = owners[owner].flush().await.expect("flushed");
                for range in &flushed.ranges {
                    let refused = judged[owner].get(&range.partition).into_iter().flatten();
                    let refused = refused.filter(|o| (range.from..range.to).contains(*o));
                    committed
                        .entry(range.partition)
                        .or_default()
                        .extend(refused);
                }
                for range in &flushed.ranges {
                    check_patches(&owners[owner], &log, range, &committed).await;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn should_never_commit_a_patch_on_a_base_that_was_overtaken(
        steps in prop::collection::vec(step(), 20..90),
    ) {
        run(play(steps));
    }
}
