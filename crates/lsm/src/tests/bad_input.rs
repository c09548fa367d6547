//! Vectors that nobody would call good, in collections with lists: one dimension and 65,536,
//! constant, zero, duplicate and huge rows, all rows deleted, more results than rows. Every
//! answer is compared with sums in f64.
//!
//! Searches for the truth, and those for as many results as there are rows, must find
//! exactly the nearest. Of all others as much is asked as codes promise: as many hits, each
//! live, once, with its own distance.

use std::collections::BTreeMap;
use std::sync::Arc;

use vexlake_distance::Metric;

use super::lists::append;
use crate::testing::*;
use crate::{Ended, ErrorKind, Hit, Incarnation, Policy, Schema, Scope, Search};

/// What is live, by key.
type Rows = BTreeMap<String, Vec<f32>>;

/// A collection with lists, and what is in it.
struct Listed {
    site: Site,
    writer: Arc<Incarnation>,
    metric: Metric,
    rows: Rows,
    next: u64,
}

impl Listed {
    async fn empty(metric: Metric, dim: usize) -> Self {
        let schema = Schema {
            dim: dim as u32,
            ..schema(metric)
        };
        let site = Site::of(schema, sources(1)).await;
        let writer = site.open("ingest").await;
        Self {
            site,
            writer,
            metric,
            rows: Rows::new(),
            next: 0,
        }
    }

    /// Half of the rows in a segment that was rewritten with lists, half in one that was
    /// flushed with them.
    async fn of(metric: Metric, vectors: &[Vec<f32>], lists: u32) -> Self {
        let mut listed = Self::empty(metric, vectors[0].len()).await;
        let (first, second) = vectors.split_at(vectors.len() / 2);
        listed.flush(first).await;
        let trained = listed.train(lists).await;
        assert_eq!(trained.is_some(), metric != Metric::Manhattan);
        let policy = Policy {
            fan_in: usize::MAX,
            ..Policy::default()
        };
        for spec in listed.writer.plan(&policy) {
            let ended = run_spec(&listed.writer, &spec).await.expect("rewritten");
            assert_eq!(ended.status, Ended::Done);
        }
        listed.flush(second).await;
        let snapshot = listed.writer.snapshot();
        let mut segments = snapshot.segments.values();
        assert!(segments.all(|view| view.reader.lists().is_some() == trained.is_some()));
        listed
    }

    /// `None` where the metric has no lists.
    async fn train(&self, lists: u32) -> Option<Ended> {
        let spec = crate::Spec {
            lists,
            ..training_of(&self.writer)
        };
        match run_spec(&self.writer, &spec).await {
            Ok(trained) => Some(trained.status),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
                None
            }
        }
    }

    /// Appends rows under new keys and flushes them.
    async fn flush(&mut self, vectors: &[Vec<f32>]) {
        let first = self.next;
        self.next += vectors.len() as u64;
        append(&self.writer, first..self.next, |n| {
            let vector = &vectors[(n - first) as usize];
            let floats = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            let key = Some(key(n).into_bytes());
            [key, Some(floats), None, None, None, None, None]
        })
        .await;
        self.rows
            .extend((first..).map(key).zip(vectors.iter().cloned()));
        self.writer.flush().await.expect("flushed");
        self.site.tick(5);
    }

    /// Deletes rows by number; fresh, until they are flushed.
    async fn delete(&mut self, numbers: std::ops::Range<u64>) {
        let (first, count) = (self.next, numbers.end - numbers.start);
        self.next += count;
        append(&self.writer, first..self.next, |n| {
            let key = Some(key(numbers.start + n - first).into_bytes());
            [key, None, None, None, None, None, None]
        })
        .await;
        numbers.for_each(|n| drop(self.rows.remove(&key(n))));
    }

    async fn merge(&self) {
        let merged = merge(&self.writer, &spec_of(&self.writer, None)).await;
        assert_eq!(merged.expect("merged").status, Ended::Done);
    }

    /// Compares answers of the writer and of a fresh reader, before and after a merge.
    async fn assert_right(&self, queries: &[Vec<f32>]) {
        for merged in [false, true] {
            if merged {
                self.merge().await;
            }
            for handle in [&self.writer, &self.site.open_cached().await] {
                for query in queries {
                    self.assert_answers(handle, query, Scope::Fresh).await;
                }
            }
        }
    }

    async fn assert_answers(&self, handle: &Incarnation, vector: &[f32], scope: Scope) {
        let all = self.rows.values();
        let mut exact: Vec<f32> = all
            .map(|row| exact_distance(self.metric, vector, row))
            .collect();
        exact.sort_by(f32::total_cmp);
        for k in [1, 7, self.rows.len() + 5] {
            let search = |truth| Search {
                truth,
                ..Search::new(vector.to_vec(), k)
            };
            let answers = handle.search(&[search(true), search(false)], scope).await;
            let answers = answers.expect("searched").hits;
            let count = k.min(exact.len());
            for (hits, is_exact) in answers.iter().zip([true, k > exact.len()]) {
                assert_eq!(hits.len(), count, "{k} of {}", exact.len());
                self.assert_own(hits, vector);
                if is_exact {
                    for (hit, exact) in hits.iter().zip(&exact) {
                        assert!(same_distance(hit.distance, *exact), "{hit:?} for {exact}");
                    }
                }
            }
        }
    }

    /// Each hit is live, answered once, and at its own distance.
    fn assert_own(&self, hits: &[Hit], vector: &[f32]) {
        let mut ids: Vec<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), hits.len(), "a row twice");
        for hit in hits {
            let own = exact_distance(self.metric, vector, &self.rows[&hit.id]);
            assert!(same_distance(hit.distance, own), "{hit:?} is at {own}");
        }
    }
}

fn key(n: u64) -> String {
    format!("k{n}")
}

/// `count` rows of any values between −1 and 1, by the seed.
fn scattered(count: usize, dim: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let mut row = || (0..dim).map(|_| next()).collect();
    (0..count).map(|_| row()).collect()
}

#[test]
fn should_search_one_dimension_and_the_most_there_may_be() {
    run(async {
        for metric in Metric::ALL {
            for (dim, rows, lists) in [(1, 90, 5), (65_536, 8, 2)] {
                let listed = Listed::of(metric, &scattered(rows, dim, 3), lists).await;
                let queries = [scattered(1, dim, 9), vec![vec![0.0; dim]]].concat();
                listed.assert_right(&queries).await;
            }
        }
    });
}

#[test]
fn should_search_rows_that_are_all_alike() {
    run(async {
        for metric in Metric::ALL {
            for row in [vec![1.5; 9], vec![0.0; 9], vec![-1e-30; 9]] {
                let listed = Listed::of(metric, &vec![row.clone(); 90], 4).await;
                let queries = [vec![row], vec![vec![0.0; 9]], scattered(1, 9, 5)].concat();
                listed.assert_right(&queries).await;
            }
        }
    });
}

#[test]
fn should_search_rows_of_which_many_are_zero_or_the_same() {
    run(async {
        for metric in Metric::ALL {
            let few = scattered(6, 20, 1);
            let mut rows: Vec<Vec<f32>> = (0..120).map(|n| few[n % 6].clone()).collect();
            (0..120).step_by(4).for_each(|n| rows[n].fill(0.0));
            let listed = Listed::of(metric, &rows, 8).await;
            let queries = [few[..2].to_vec(), vec![vec![0.0; 20]]].concat();
            listed.assert_right(&queries).await;
        }
    });
}

#[test]
fn should_search_rows_of_which_some_are_huge() {
    run(async {
        for metric in Metric::ALL {
            let mut rows = scattered(150, 12, 2);
            for (n, row) in rows.iter_mut().enumerate().filter(|(n, _)| n % 5 == 0) {
                let scale = [1e30, -1e30, 1e16, 1e19][n / 5 % 4];
                row.iter_mut().for_each(|x| *x *= scale);
            }
            let listed = Listed::of(metric, &rows, 6).await;
            let ordinary = scattered(2, 12, 8);
            let huge = ordinary[0].iter().map(|x| x * 1e30).collect();
            listed.assert_right(&[ordinary, vec![huge]].concat()).await;
        }
    });
}

#[test]
fn should_refuse_to_train_on_huge_rows_alone_and_search_them_all_the_same() {
    run(async {
        for metric in Metric::ALL {
            let mut rows = scattered(60, 6, 4);
            rows.iter_mut().flatten().for_each(|x| *x *= 1e30);
            let mut listed = Listed::empty(metric, 6).await;
            listed.flush(&rows).await;
            // Only directions count by cosine, however long a row is.
            let trained = listed.train(4).await.is_some();
            assert_eq!(trained, metric == Metric::Cosine);
            let queries = [scattered(2, 6, 6), rows[..1].to_vec()].concat();
            listed.assert_right(&queries).await;
        }
    });
}

#[test]
fn should_answer_nothing_once_all_rows_are_deleted_and_what_comes_after() {
    run(async {
        for metric in Metric::ALL {
            let rows = scattered(80, 10, 7);
            let mut listed = Listed::of(metric, &rows, 5).await;
            let query = &scattered(1, 10, 8)[0];
            listed.delete(0..80).await;
            assert!(listed.rows.is_empty());
            listed
                .assert_answers(&listed.writer, query, Scope::Fresh)
                .await;
            listed.writer.flush().await.expect("flushed");
            for scope in [Scope::Fresh, Scope::Snapshot] {
                listed.assert_answers(&listed.writer, query, scope).await;
            }
            listed.merge().await;
            assert_eq!(listed.writer.snapshot().live_rows, 0);
            listed
                .assert_answers(&listed.writer, query, Scope::Snapshot)
                .await;
            let trained = listed.train(5).await;
            assert!(trained.is_none_or(|ended| ended == Ended::Superseded));
            listed.flush(&rows[..40]).await;
            listed.assert_right(std::slice::from_ref(query)).await;
        }
    });
}
