//! Model against reality: random histories of one incarnation with a writer, a reader
//! that follows at random times, merges, trainings, garbage collection and reopening, compared
//! with the pure function of the log that the engine promises to be. Searches for the truth
//! must be what brute force over that function finds, for every metric, and searches through
//! lists as good as codes promise. What filters a search belongs into `check_scope`, so that
//! every history asks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vexlake_distance::{BLOCK_ROWS, Metric};

use crate::testing::*;
use crate::{GcOptions, Incarnation, Scope};

const PARTITIONS: u32 = 3;
/// Keys of a partition that come and go together: enough for a whole block of codes.
const TOGETHER: u64 = 40;
/// Histories of each metric.
const CASES: u32 = 16;

#[derive(Clone, Debug)]
enum Step {
    Produce {
        key: usize,
        partition: u32,
        lag: i64,
        change: usize,
        number: u64,
    },
    /// A run of a partition's keys is written anew, or deleted.
    Together {
        partition: u32,
        first: u64,
        deleted: bool,
    },
    Deliver {
        to: Who,
        partition: u32,
        count: u64,
        again: u64,
    },
    Flush,
    Seal(Who),
    MergePlanned,
    MergeAll,
    /// With so many rows to a list.
    Train(u64),
    Collect,
    Pin,
    Unpin,
    Reopen(Who),
    Follow,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Writer,
    Reader,
}

fn step() -> impl Strategy<Value = Step> {
    let who = prop_oneof![Just(Who::Writer), Just(Who::Reader)];
    let partition = 0..PARTITIONS;
    prop_oneof![
        20 => (0usize..7, partition.clone(), 0i64..6, 0usize..10, 0u64..5).prop_map(
            |(key, partition, lag, change, number)| Step::Produce { key, partition, lag, change, number }
        ),
        3 => (partition.clone(), 0..TOGETHER, prop::bool::weighted(0.3)).prop_map(
            |(partition, first, deleted)| Step::Together { partition, first, deleted }
        ),
        10 => (who.clone(), partition, prop_oneof![1u64..6, Just(2 * TOGETHER)], 0u64..3)
            .prop_map(|(to, partition, count, again)| Step::Deliver { to, partition, count, again }),
        5 => Just(Step::Flush),
        2 => who.clone().prop_map(Step::Seal),
        2 => Just(Step::MergePlanned),
        1 => Just(Step::MergeAll),
        2 => prop_oneof![Just(2u64), Just(30)].prop_map(Step::Train),
        1 => Just(Step::Collect),
        1 => Just(Step::Pin),
        1 => Just(Step::Unpin),
        1 => who.prop_map(Step::Reopen),
        3 => Just(Step::Follow),
    ]
}

/// Steps at random, often on top of a collection that is trained already.
fn history() -> impl Strategy<Value = Vec<Step>> {
    let together = |partition| Step::Together {
        partition,
        first: 0,
        deleted: false,
    };
    let deliver = |partition| Step::Deliver {
        to: Who::Writer,
        partition,
        count: 2 * TOGETHER,
        again: 0,
    };
    let trained: Vec<Step> = (0..PARTITIONS)
        .flat_map(|partition| [together(partition), deliver(partition)])
        .chain([Step::Flush, Step::Follow, Step::Train(30), Step::MergeAll])
        .collect();
    let begin = prop_oneof![1 => Just(vec![]), 3 => Just(trained)];
    (begin, prop::collection::vec(step(), 10..60))
        .prop_map(|(begin, steps)| [begin, steps].concat())
}

/// Keys 0–3 live in one partition each and know every operation; keys 4–6 roam between
/// partitions and are only upserted and deleted, since a patch across partitions is
/// judged by arrival.
fn produce(log: &mut Log, now: i64, step: &Step) {
    if let Step::Together {
        partition,
        first,
        deleted,
    } = *step
    {
        for n in first..TOGETHER {
            let place = (n * 7 + now as u64 * 13) as f32;
            let vector = [place.sin(), 2.0 * place.cos(), place % 5.0 - 2.0];
            let attrs = (n % 3 > 0).then(|| format!("{{\"n\":{}}}", n % 5));
            let change = match deleted {
                true => Change::Delete,
                false => Change::Upsert(vector, attrs),
            };
            log.put(partition, &format!("t{partition}-{n}"), now, change);
        }
    }
    let Step::Produce {
        key,
        partition,
        lag,
        change,
        number,
    } = *step
    else {
        return;
    };
    let roams = key >= 4;
    let partition = if roams {
        partition
    } else {
        key as u32 % PARTITIONS
    };
    let vector = [number as f32 - 2.0, (number % 2) as f32, 1.0];
    let attrs = format!("{{\"n\":{number}}}");
    let change = match change {
        0..=3 => Change::Upsert(vector, (number % 2 == 0).then_some(attrs)),
        4 => Change::Upsert([0.0; 3], Some(attrs)),
        5 => Change::Delete,
        6 if !roams => Change::SetVector(vector),
        7 if !roams => Change::SetAttrs(attrs),
        8 if !roams => Change::SetAttrs(String::new()),
        9 if number == 0 => Change::Gap,
        9 => Change::Bad,
        _ => Change::Delete,
    };
    log.put(partition, &format!("k{key}"), now - lag, change);
}

/// How often histories met what they are to meet.
#[derive(Debug, Default)]
struct Seen {
    /// Steps after which a segment had lists.
    lists: AtomicU64,
    /// Of these, with a whole block of codes.
    blocks: AtomicU64,
}

impl Seen {
    fn look(&self, handle: &Incarnation) {
        let snapshot = handle.snapshot();
        let heads = snapshot.segments.values();
        let longest = heads
            .filter_map(|view| view.reader.lists())
            .flat_map(|head| head.entries())
            .map(|entry| entry.rows as usize)
            .max();
        let (lists, blocks) = (longest.is_some(), longest >= Some(BLOCK_ROWS));
        self.lists.fetch_add(u64::from(lists), Ordering::Relaxed);
        self.blocks.fetch_add(u64::from(blocks), Ordering::Relaxed);
    }
}

async fn play(metric: Metric, steps: Vec<Step>, seen: &Seen) {
    let site = Site::new(metric, PARTITIONS).await;
    let mut log = Log::default();
    for partition in 0..PARTITIONS {
        log.put(partition, "first", 0, Change::Gap);
    }
    let mut writer = site.open("ingest").await;
    let mut reader = site.open("query").await;
    let mut pinned = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        site.tick(3);
        produce(&mut log, number as i64, step);
        match step {
            Step::Produce { .. } | Step::Together { .. } => {}
            Step::Deliver {
                to,
                partition,
                count,
                again,
            } => {
                let to = if *to == Who::Writer { &writer } else { &reader };
                let next = applied(to, *partition);
                let end = (next + count).min(log.end(*partition)).max(next);
                deliver(to, &log, *partition, next.saturating_sub(*again)..end)
                    .await
                    .expect("appended");
            }
            Step::Flush => assert!(writer.flush().await.expect("flushed").lost.is_empty()),
            Step::Seal(Who::Writer) => writer.feed.seal(0).await,
            Step::Seal(Who::Reader) => reader.feed.seal(0).await,
            Step::MergePlanned => {
                for spec in writer.plan(&eager()) {
                    run_spec(&writer, &spec).await.expect("done");
                }
            }
            Step::MergeAll => drop(
                merge(&reader, &spec_of(&reader, None))
                    .await
                    .expect("merged"),
            ),
            Step::Train(_) if metric == Metric::Manhattan => {}
            Step::Train(rows) => {
                let lists = (reader.snapshot().live_rows / rows).max(1) as u32;
                let spec = crate::Spec {
                    lists,
                    ..training_of(&reader)
                };
                drop(run_spec(&reader, &spec).await.expect("trained"));
            }
            Step::Collect => {
                writer
                    .collect_garbage(&GcOptions {
                        grace_ms: 0,
                        dry_run: false,
                    })
                    .await
                    .expect("collected");
                // Without a grace period nobody may stay on an older version.
                reader.follow().await.expect("followed");
            }
            Step::Pin => {
                let version = writer.snapshot().version();
                writer
                    .pin(&format!("p{number}"), version)
                    .await
                    .expect("pinned");
                pinned.push((format!("p{number}"), version));
            }
            Step::Unpin => {
                if let Some((name, version)) = pinned.pop() {
                    writer.unpin(&name, version).await.expect("unpinned");
                }
            }
            Step::Reopen(Who::Writer) => writer = site.open("ingest").await,
            Step::Reopen(Who::Reader) => reader = site.open("query").await,
            Step::Follow => drop(reader.follow().await.expect("followed")),
        }
        seen.look(&reader);
        check(&writer, &log, metric).await;
        check(&reader, &log, metric).await;
        if let Some((_, version)) = pinned.first() {
            check_version(&reader, &log, metric, *version).await;
        }
    }
    for partition in 0..PARTITIONS {
        catch_up(&writer, &log, partition).await;
        catch_up(&reader, &log, partition).await;
    }
    writer.flush().await.expect("flushed");
    check(&reader, &log, metric).await;
    reader.follow().await.expect("followed");
    check(&writer, &log, metric).await;
    check(&reader, &log, metric).await;
    verify(&writer, &log).await;
}

async fn check_version(handle: &Arc<Incarnation>, log: &Log, metric: Metric, version: u64) {
    let then = handle.at(version).await.expect("a pinned version");
    let ends = log
        .0
        .keys()
        .map(|partition| (*partition, then.next(0, *partition)))
        .collect();
    check_scope(handle, log, metric, Scope::At(version), &ends).await;
}

#[test]
fn should_show_what_the_log_says_after_any_history() {
    for metric in Metric::ALL {
        let config = ProptestConfig {
            cases: CASES,
            max_shrink_iters: 400,
            source_file: Some(file!()),
            ..ProptestConfig::default()
        };
        let (seen, steps) = (Seen::default(), history());
        let played = TestRunner::new(config).run(&steps, |steps| {
            run(play(metric, steps, &seen));
            Ok(())
        });
        if let Err(failed) = played {
            panic!("{}: {failed}", metric.name());
        }
        // Histories without lists would say nothing about them.
        let met = [&seen.lists, &seen.blocks].map(|count| count.load(Ordering::Relaxed) > 0);
        let expected = [metric != Metric::Manhattan; 2];
        assert_eq!(met, expected, "{}: {seen:?}", metric.name());
    }
}
