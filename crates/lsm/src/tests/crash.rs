//! A death at every crash point, then the lake is opened anew: the log from the stored
//! checkpoints on gives the model, and only what was uploaded in vain is left behind.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Semaphore;
use vexlake_distance::Metric;
use vexlake_manifest::crash;
use vexlake_store::{Fault, Faults, Op, Rule};

use crate::testing::*;
use crate::{GcOptions, Incarnation};

const IP: Metric = Metric::InnerProduct;
const NO_GRACE: GcOptions = GcOptions {
    grace_ms: 0,
    dry_run: false,
};

/// What a death at a point leaves.
struct Left {
    committed: bool,
    orphans: usize,
}

const COMMITTED: Left = Left {
    committed: true,
    orphans: 0,
};
const IN_VAIN: Left = Left {
    committed: false,
    orphans: 1,
};

/// Segments without a place in the head.
async fn orphans(site: &Site, handle: &Incarnation) -> BTreeSet<String> {
    let listed = site.list("seg").await;
    let named = listed
        .iter()
        .filter_map(|key| key.split('/').nth(1))
        .map(str::to_owned);
    let live: BTreeSet<String> = handle
        .snapshot()
        .segments
        .keys()
        .map(ToString::to_string)
        .collect();
    named.filter(|id| !live.contains(id)).collect()
}

/// Two committed segments and a log that goes on.
async fn begun() -> (Site, Log) {
    let (site, mut log) = (Site::new(IP, 2).await, Log::default());
    let writer = site.open("ingest").await;
    for round in 0..3u32 {
        for number in 0..4u32 {
            let partition = number % 2;
            log.upsert(
                partition,
                &format!("k{}", number + round % 2),
                100 * i64::from(round),
                u64::from(number),
            );
        }
        log.put(0, "k0", 100 * i64::from(round), Change::Delete);
        if round < 2 {
            catch_up(&writer, &log, 0).await;
            catch_up(&writer, &log, 1).await;
            writer.flush().await.expect("flushed");
            site.tick(5);
        }
    }
    (site, log)
}

/// Everything that has to hold after the death: nothing lost, nothing doubled, no waste.
async fn recover(site: &Site, log: &Log, left: Left, version: u64) {
    let reopened = site.open("ingest").await;
    assert_eq!(
        reopened.snapshot().version(),
        version + u64::from(left.committed),
        "version"
    );
    check(&reopened, log, IP).await;
    verify(&reopened, log).await;
    for partition in 0..2 {
        catch_up(&reopened, log, partition).await;
    }
    check(&reopened, log, IP).await;
    let before = orphans(site, &reopened).await;
    // A dropped upload may have left nothing yet.
    let reached_by_old_versions = before.len().saturating_sub(left.orphans);
    reopened.flush().await.expect("flushed");
    merge(&reopened, &spec_of(&reopened, None))
        .await
        .expect("merged");
    site.tick(5);
    let collected = reopened
        .collect_garbage(&NO_GRACE)
        .await
        .expect("collected");
    let swept: BTreeSet<&str> = collected
        .objects
        .iter()
        .filter_map(|key| key.split('/').nth(1))
        .collect();
    assert!(
        before.iter().all(|id| swept.contains(id.as_str())),
        "{before:?} of {swept:?}"
    );
    assert_eq!(orphans(site, &reopened).await, BTreeSet::new());
    assert!(reached_by_old_versions == 0 || left.committed, "{before:?}");
    check(&reopened, log, IP).await;
    verify(&*site.open("check").await, log).await;
}

async fn dies_in_flush(point: &'static str, left: Left) {
    let (site, log) = begun().await;
    let writer = site
        .open_with(&site.store, "ingest", crash_at(point, 1))
        .await
        .expect("opened");
    let version = writer.snapshot().version();
    for partition in 0..2 {
        catch_up(&writer, &log, partition).await;
    }
    let died = tokio::spawn({
        let writer = writer.clone();
        async move { writer.flush().await.map(drop) }
    });
    assert!(died.await.expect_err("dies").is_panic(), "at {point}");
    drop(writer);
    let reopened = site.open("look").await;
    assert_eq!(
        orphans(&site, &reopened).await.len(),
        left.orphans,
        "orphans after {point}"
    );
    recover(&site, &log, left, version).await;
}

async fn dies_in_merge(point: &'static str, left: Left) {
    let (site, log) = begun().await;
    let worker = site
        .open_with(&site.store, "compactor", crash_at(point, 1))
        .await
        .expect("opened");
    let version = worker.snapshot().version();
    let died = tokio::spawn({
        let worker = worker.clone();
        async move { merge(&worker, &spec_of(&worker, None)).await.map(drop) }
    });
    assert!(died.await.expect_err("dies").is_panic(), "at {point}");
    recover(&site, &log, left, version).await;
}

#[test]
fn should_survive_a_death_at_every_point_of_a_flush() {
    run(async {
        dies_in_flush("flush:uploaded", IN_VAIN).await;
        dies_in_flush(crash::COMMIT_BEFORE_CREATE, IN_VAIN).await;
        dies_in_flush(crash::COMMIT_AFTER_CREATE, COMMITTED).await;
        dies_in_flush(crash::HEAD_BEFORE_SWAP, COMMITTED).await;
        dies_in_flush("flush:committed", COMMITTED).await;
    });
}

#[test]
fn should_survive_a_death_at_every_point_of_a_merge() {
    run(async {
        dies_in_merge("compact:uploaded", IN_VAIN).await;
        dies_in_merge(crash::COMMIT_BEFORE_CREATE, IN_VAIN).await;
        dies_in_merge(crash::COMMIT_AFTER_CREATE, COMMITTED).await;
        dies_in_merge(crash::HEAD_BEFORE_SWAP, COMMITTED).await;
        dies_in_merge("compact:committed", COMMITTED).await;
    });
}

#[test]
fn should_survive_a_death_at_every_point_of_a_collection() {
    run(async {
        for point in [
            crash::COMMIT_BEFORE_CREATE,
            crash::COMMIT_AFTER_CREATE,
            crash::HEAD_BEFORE_SWAP,
        ] {
            let (site, log) = begun().await;
            let worker = site
                .open_with(&site.store, "gc", crash_at(point, 1))
                .await
                .expect("opened");
            let version = worker.snapshot().version();
            let died =
                tokio::spawn(async move { worker.collect_garbage(&NO_GRACE).await.map(drop) });
            assert!(died.await.expect_err("dies").is_panic(), "at {point}");
            let committed = point != crash::COMMIT_BEFORE_CREATE;
            recover(
                &site,
                &log,
                Left {
                    committed,
                    orphans: 0,
                },
                version,
            )
            .await;
        }
    });
}

/// A task that is dropped while it waits for the store: the same handle goes on.
#[test]
fn should_go_on_after_a_flush_was_dropped_at_any_write() {
    run(async {
        for (op, key) in [
            (Op::Put, "data.parquet"),
            (Op::Create, "commits/"),
            (Op::Swap, "HEAD"),
        ] {
            let (site, log) = begun().await;
            let faults = Faults::scripted([]);
            let store = site.store.clone().with_faults(faults.clone());
            let writer = site
                .open_with(&store, "ingest", crash::none())
                .await
                .expect("opened");
            for partition in 0..2 {
                catch_up(&writer, &log, partition).await;
            }
            let gate = Arc::new(Semaphore::new(0));
            faults.add(Rule::nth(op, key, 1, Fault::Hold(gate.clone())));
            let flushing = tokio::spawn({
                let writer = writer.clone();
                async move { writer.flush().await.map(drop) }
            });
            while faults.fired() == 0 {
                tokio::task::yield_now().await;
            }
            flushing.abort();
            assert!(flushing.await.expect_err("dropped").is_cancelled());
            check(&writer, &log, IP).await;
            let flushed = writer.flush().await.expect("flushed");
            assert!(flushed.lost.is_empty(), "dropped at {key}: {flushed:?}");
            check(&writer, &log, IP).await;
            let version = writer.snapshot().version();
            // Behind HEAD the first commit stood, and the second upload was in vain.
            recover(&site, &log, IN_VAIN, version).await;
        }
    });
}
