//! Centroids, lists and search: bytes that come back, corruption that is refused,
//! merges that copy, and answers that equal brute force where everything is looked
//! at.

use proptest::prelude::*;
use std::collections::HashSet;
use vexlake_distance::{KERNEL_NAMES, Metric, TopK, kernels, kernels_named};
use vexlake_index::{
    Candidate, Centroids, Effort, EncodedRows, IndexError, ListsHead, MergeInput, Query, Search,
    SegmentLists, Space, TrainOptions, build_lists, merge_lists, scan, train, train_in,
};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::InnerProduct];

/// Rows in `groups` clumps, seeded; the dimension is any.
fn clumps(dim: usize, rows: usize, groups: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let centres: Vec<f32> = (0..groups * dim).map(|_| 2.0 * next()).collect();
    (0..rows)
        .flat_map(|row| {
            let centre = &centres[row % groups * dim..][..dim];
            centre.iter().map(|c| c + next()).collect::<Vec<f32>>()
        })
        .collect()
}

fn options(lists: usize) -> TrainOptions {
    TrainOptions {
        version: 9,
        lists,
        rounds: 4,
        seed: 3,
        threads: 1,
    }
}

struct Segment {
    head: ListsHead,
    bytes: Vec<u8>,
}

fn segment_of(centroids: &Centroids, rows: &EncodedRows, in_list_order: bool) -> Segment {
    let lists = centroids.count() as u32;
    let code_dim = centroids.space().code_dim();
    let bytes = build_lists(centroids.version(), lists, code_dim, rows, in_list_order)
        .expect("what tests build is sound");
    Segment {
        head: ListsHead::decode(&bytes).expect("what tests build is sound"),
        bytes,
    }
}

/// Everything a test needs to search `rows` as one segment.
struct Built {
    metric: Metric,
    dim: usize,
    rows: Vec<f32>,
    norms: Vec<f32>,
    centroids: Centroids,
    segment: Segment,
}

impl Built {
    fn new(metric: Metric, dim: usize, rows: Vec<f32>, lists: usize) -> Self {
        let centroids =
            train(metric, dim, &rows, &options(lists)).expect("what tests build is sound");
        let segment = segment_of(
            &centroids,
            &centroids
                .encode(&rows, 1)
                .expect("what tests build is sound"),
            false,
        );
        let norms = rows.chunks_exact(dim).map(kernels().norm).collect();
        Self {
            metric,
            dim,
            rows,
            norms,
            centroids,
            segment,
        }
    }

    /// The nearest by lists: (key, row).
    fn search(
        &self,
        query: &[f32],
        effort: Effort,
        probes: usize,
        hidden: Option<&[u64]>,
    ) -> Vec<(f32, u64)> {
        let mut search = Search::default();
        search
            .begin(self.centroids.space(), query, effort)
            .expect("what tests build is sound");
        search.choose(&self.centroids, probes);
        search.scan(&[SegmentLists {
            segment: 0,
            head: &self.segment.head,
            bytes: &self.segment.bytes,
            hidden,
        }]);
        let row_of = |candidate: Candidate| self.segment.head.ordinal(candidate.slot) as usize;
        rerank(&mut search, |candidate| self.key(query, row_of(candidate)));
        let found = search.finish().into_iter();
        found
            .map(|(key, candidate)| (key, row_of(candidate) as u64))
            .collect()
    }

    fn key(&self, query: &[f32], row: usize) -> f32 {
        let vector = &self.rows[row * self.dim..][..self.dim];
        Query::new(self.metric, query).key(vector, self.norms[row])
    }

    fn exact(&self, query: &[f32], k: usize, hidden: &dyn Fn(u32) -> bool) -> Vec<(f32, u64)> {
        let mut top = TopK::new(k);
        let query = Query::new(self.metric, query);
        scan(&query, &self.rows, &self.norms, Some(hidden), 0, &mut top);
        top.into_sorted()
    }
}

/// The same rows up to equal keys, and the same keys up to rounding: the flat scan
/// takes four rows at a time, so its sums differ in the last bits.
#[track_caller]
fn assert_same(found: &[(f32, u64)], exact: &[(f32, u64)], what: &str) {
    assert_eq!(found.len(), exact.len(), "{what}");
    for (found, exact) in found.iter().zip(exact) {
        let near = (found.0 - exact.0).abs() <= 1e-4 * exact.0.abs().max(1.0);
        assert!(
            near || found.0 == exact.0,
            "{what}: {found:?} for {exact:?}"
        );
    }
}

fn rerank(search: &mut Search, key: impl Fn(Candidate) -> f32) {
    loop {
        let wave = search.wave(7).to_vec();
        if wave.is_empty() {
            return;
        }
        for candidate in wave {
            search.report(candidate, key(candidate));
        }
    }
}

fn everything(k: usize) -> Effort {
    Effort {
        k,
        rerank_max: usize::MAX,
        confidence: 1e9,
    }
}

#[test]
fn should_equal_brute_force_where_every_list_and_row_is_looked_at() {
    for metric in METRICS {
        for (dim, rows) in [(1, 40), (3, 200), (64, 333), (100, 500), (768, 120)] {
            let built = Built::new(metric, dim, clumps(dim, rows, 7, dim as u64), 9);
            let queries = clumps(dim, 10, 5, 99);
            for query in queries.chunks_exact(dim) {
                for k in [1, 10, rows, rows + 5] {
                    let found = built.search(query, everything(k), usize::MAX, None);
                    let exact = built.exact(query, k, &|_| false);
                    assert_same(&found, &exact, &format!("{} {dim} {k}", metric.name()));
                }
            }
        }
    }
}

#[test]
fn should_find_most_of_the_nearest_by_looking_at_few_rows() {
    for metric in METRICS {
        let built = Built::new(metric, 128, clumps(128, 6000, 60, 5), 60);
        let queries = clumps(128, 6060, 60, 5).split_off(6000 * 128);
        let (mut found, mut wanted) = (0, 0);
        for query in queries.chunks_exact(128) {
            let effort = Effort {
                confidence: 2.0,
                ..Effort::for_k(10)
            };
            let near = built.search(query, effort, 6, None);
            let exact = built.exact(query, 10, &|_| false);
            let exact: HashSet<u64> = exact.iter().map(|x| x.1).collect();
            wanted += exact.len();
            found += near.iter().filter(|x| exact.contains(&x.1)).count();
        }
        let recall = found as f64 / wanted as f64;
        assert!(recall >= 0.97, "{}: {recall}", metric.name());
    }
}

#[test]
fn should_never_answer_a_hidden_row_and_find_all_others() {
    let built = Built::new(Metric::L2, 70, clumps(70, 900, 4, 1), 5);
    let query = &clumps(70, 1, 1, 77)[..];
    let patterns: [fn(u32) -> bool; 4] = [|_| true, |_| false, |row| row % 3 == 0, |row| row > 10];
    for pattern in patterns {
        let mut by_ordinal = vec![0u64; 900usize.div_ceil(64)];
        for row in (0..900).filter(|row| pattern(*row)) {
            by_ordinal[row as usize / 64] |= 1 << (row % 64);
        }
        let hidden = built.segment.head.by_slot(&by_ordinal);
        let found = built.search(query, everything(1000), usize::MAX, Some(&hidden));
        let exact = built.exact(query, 1000, &pattern);
        assert_same(&found, &exact, "masked");
        assert!(found.iter().all(|(_, row)| !pattern(*row as u32)));
    }
}

#[test]
fn should_keep_the_true_key_above_nearly_every_bound() {
    // At three deviations one row in 700 may lie below its bound; look at them all
    // through a search that trusts bounds, and compare with one that does not.
    for metric in METRICS {
        for dim in [16, 128, 768] {
            let built = Built::new(metric, dim, clumps(dim, 3000, 20, 8), 20);
            let queries = clumps(dim, 3020, 20, 8).split_off(3000 * dim);
            let mut missed = 0;
            for query in queries.chunks_exact(dim) {
                let effort = Effort {
                    k: 10,
                    rerank_max: usize::MAX,
                    confidence: 3.0,
                };
                let found = built.search(query, effort, usize::MAX, None);
                let exact = built.exact(query, 10, &|_| false);
                let rows: HashSet<u64> = found.iter().map(|x| x.1).collect();
                missed += exact.iter().filter(|x| !rows.contains(&x.1)).count();
            }
            assert!(missed <= 1, "{} {dim}: {missed} of 200", metric.name());
        }
    }
}

#[test]
fn should_look_at_few_rows_exactly_when_bounds_settle_the_answer() {
    let built = Built::new(Metric::L2, 768, clumps(768, 2000, 10, 2), 10);
    let mut search = Search::default();
    let query = &built.rows[..768];
    search
        .begin(built.centroids.space(), query, Effort::for_k(10))
        .unwrap();
    search.choose(&built.centroids, 10);
    search.scan(&[SegmentLists {
        segment: 0,
        head: &built.segment.head,
        bytes: &built.segment.bytes,
        hidden: None,
    }]);
    rerank(&mut search, |candidate| {
        built.key(query, built.segment.head.ordinal(candidate.slot) as usize)
    });
    let counts = search.counts();
    assert_eq!(counts.scanned, 2000);
    assert_eq!(counts.lists, built.segment.head.entries().len() as u64);
    assert!(counts.reranked >= 10 && counts.reranked < 250, "{counts:?}");
}

#[test]
fn should_never_look_at_more_rows_than_allowed() {
    // Equal rows have equal bounds: nothing can tell them apart.
    let built = Built::new(Metric::L2, 64, vec![1.0; 64 * 5000], 4);
    let query = [0.5; 64];
    let mut search = Search::default();
    for (rerank_max, allowed) in [(1, 10), (10, 10), (333, 333), (9999, 5000)] {
        let effort = Effort {
            k: 10,
            rerank_max,
            confidence: 3.0,
        };
        search
            .begin(built.centroids.space(), &query, effort)
            .unwrap();
        search.choose(&built.centroids, 4);
        search.scan(&[SegmentLists {
            segment: 0,
            head: &built.segment.head,
            bytes: &built.segment.bytes,
            hidden: None,
        }]);
        rerank(&mut search, |candidate| {
            built.key(&query, built.segment.head.ordinal(candidate.slot) as usize)
        });
        assert_eq!(search.counts().reranked, allowed);
        assert_eq!(search.finish().len(), 10);
    }
}

#[test]
fn should_serve_zero_huge_tiny_and_single_vectors() {
    let dim = 5;
    let odd: [[f32; 5]; 6] = [
        [0.0; 5],
        [1e15; 5],
        [1e-30; 5],
        [3e38, 0.0, 0.0, 0.0, 0.0],
        [1.0, -1.0, 1.0, -1.0, 1.0],
        [0.0; 5],
    ];
    for metric in METRICS {
        for count in 1..=odd.len() {
            let rows: Vec<f32> = odd[..count].concat();
            let built = Built::new(metric, dim, rows, 3);
            for query in [[0.0; 5], [1.0; 5], [1e-30; 5]] {
                let found = built.search(&query, everything(10), usize::MAX, None);
                let exact = built.exact(&query, 10, &|_| false);
                assert_same(&found, &exact, &format!("{} {count}", metric.name()));
            }
        }
    }
}

#[test]
fn should_refuse_what_codes_cannot_serve_with_a_reason() {
    let train_l1 = train(Metric::Manhattan, 2, &[1.0; 8], &options(2));
    assert!(matches!(train_l1, Err(IndexError::BeyondCodes(_))));
    assert!(matches!(
        train(Metric::L2, 0, &[], &options(2)),
        Err(IndexError::BeyondCodes(_))
    ));
    assert!(matches!(
        train(Metric::L2, 2, &[], &options(2)),
        Err(IndexError::BeyondCodes(_))
    ));
    let nans = train(Metric::L2, 2, &[f32::NAN; 8], &options(2));
    assert!(matches!(nans, Err(IndexError::BeyondCodes(_))));
    assert!(matches!(
        train(Metric::L2, 3, &[1.0; 8], &options(2)),
        Err(IndexError::Mismatch { .. })
    ));
    let built = Built::new(Metric::L2, 3, clumps(3, 30, 2, 1), 2);
    let space = built.centroids.space();
    let mut search = Search::default();
    for query in [[f32::NAN; 3], [f32::INFINITY; 3], [1e30; 3]] {
        let refused = search.begin(space, &query, Effort::for_k(1));
        assert!(matches!(refused, Err(IndexError::BeyondCodes(_))));
    }
    let refused = search.begin(space, &[1.0; 4], Effort::for_k(1));
    assert!(matches!(refused, Err(IndexError::Mismatch { .. })));
}

#[test]
fn should_train_and_encode_to_the_same_bytes_with_any_number_of_threads() {
    let rows = clumps(65, 9000, 30, 4);
    let bytes = |threads| {
        let options = TrainOptions {
            threads,
            ..options(40)
        };
        let centroids = train(Metric::Cosine, 65, &rows, &options).unwrap();
        let encoded = centroids.encode(&rows, threads).unwrap();
        (
            centroids.to_bytes(),
            segment_of(&centroids, &encoded, false).bytes,
        )
    };
    let one = bytes(1);
    assert!(one == bytes(2) && one == bytes(5));
}

#[test]
fn should_train_the_same_centroids_on_every_instruction_set_that_assigns_alike() {
    // Sums of floats differ in their last bits between instruction sets, so only
    // what follows from the rotation and from comparisons must agree: the lists.
    let rows = clumps(64, 600, 6, 4);
    let centroids = train(Metric::L2, 64, &rows, &options(6)).unwrap();
    let lists = |name: &str| {
        let table = kernels_named(name)?;
        let own = centroids.space();
        let space = Space::with_kernels(own.metric(), own.seed(), own.origin().to_vec(), table);
        let trained = train_in(space.unwrap(), &rows, &options(6)).unwrap();
        Some(trained.encode(&rows, 1).unwrap().lists().to_vec())
    };
    let all: Vec<Vec<u32>> = KERNEL_NAMES.into_iter().filter_map(lists).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn should_keep_lists_near_one_size() {
    // Many clumps of one size and few centroids to start with: some start with two
    // and some share one, and no mean ever crosses from clump to clump.
    let rows = clumps(32, 8000, 40, 2)
        .iter()
        .map(|x| x * x * x)
        .collect::<Vec<f32>>();
    let options = TrainOptions {
        rounds: 12,
        ..options(40)
    };
    let centroids = train(Metric::L2, 32, &rows, &options).unwrap();
    let encoded = centroids.encode(&rows, 1).unwrap();
    let mut sizes = vec![0; centroids.count()];
    encoded
        .lists()
        .iter()
        .for_each(|list| sizes[*list as usize] += 1);
    let largest = sizes.iter().max().unwrap();
    assert!(
        *largest <= 300,
        "a list of {largest} rows where 200 is the mean"
    );
}

#[test]
fn should_measure_how_many_lists_a_promise_needs() {
    let rows = clumps(48, 6000, 50, 3);
    let centroids = train(Metric::L2, 48, &rows, &options(50)).unwrap();
    let curve = centroids.recall_curve();
    assert!(
        curve
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1)
    );
    assert!(centroids.probes_for(0.5) <= centroids.probes_for(0.98));
    assert!(
        centroids.probes_for(0.98) <= 3,
        "clumps need their own list and hardly another"
    );
    assert_eq!(centroids.probes_for(1.1), 50);
}

#[test]
fn should_read_back_what_it_wrote() {
    for metric in METRICS {
        let built = Built::new(metric, 10, clumps(10, 500, 5, 6), 8);
        let bytes = built.centroids.to_bytes();
        let read = Centroids::from_bytes(&bytes).unwrap();
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(read.probes_for(0.9), built.centroids.probes_for(0.9));
        let again = segment_of(&read, &read.encode(&built.rows, 1).unwrap(), false);
        assert_eq!(again.bytes, built.segment.bytes);
    }
}

#[test]
fn should_refuse_every_flipped_byte_and_every_truncation() {
    let built = Built::new(Metric::L2, 3, clumps(3, 60, 2, 6), 3);
    let bytes = built.centroids.to_bytes();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let refused = Centroids::from_bytes(&flipped);
        assert!(
            matches!(refused, Err(IndexError::Corrupt { .. })),
            "centroid byte {at}"
        );
        assert!(Centroids::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
    }
    let (head, bytes) = (&built.segment.head, &built.segment.bytes);
    let head_bytes = head.head_bytes() as usize;
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        if at < head_bytes {
            let refused = ListsHead::decode(&flipped);
            assert!(
                matches!(refused, Err(IndexError::Corrupt { .. })),
                "head byte {at}"
            );
            assert!(ListsHead::decode(&bytes[..at]).is_err(), "cut at {at}");
        } else {
            let refused = head.entries().iter().filter(|entry| {
                let range = head.range(entry);
                let list = &flipped[range.start as usize..range.end as usize];
                head.verify(entry, list).is_err()
            });
            assert_eq!(refused.count(), 1, "list byte {at}");
        }
    }
    let entry = &head.entries()[0];
    assert!(head.open(entry, &bytes[..8]).is_err());
}

#[test]
fn should_name_section_and_offset_of_corruption_and_the_version_of_a_later_program() {
    let built = Built::new(Metric::L2, 3, clumps(3, 60, 2, 6), 3);
    let mut bytes = built.centroids.to_bytes();
    bytes[70] ^= 4;
    let error = Centroids::from_bytes(&bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "corrupt centroids origin at byte 80: checksum differs"
    );
    // A later format with a right checksum of its header.
    let mut bytes = built.segment.bytes.clone();
    bytes[4] = 3;
    let checksum = crc32c::crc32c(&bytes[..44]);
    bytes[44..48].copy_from_slice(&checksum.to_le_bytes());
    let error = ListsHead::decode(&bytes).unwrap_err();
    assert!(matches!(
        error,
        IndexError::Version {
            found: 3,
            known: 2,
            ..
        }
    ));
}

#[test]
fn should_tell_the_length_of_a_head_from_its_first_bytes() {
    for in_list_order in [false, true] {
        let built = Built::new(Metric::L2, 3, clumps(3, 60, 2, 6), 3);
        let encoded = built.centroids.encode(&built.rows, 1).unwrap();
        let segment = segment_of(&built.centroids, &encoded, in_list_order);
        let prefix = &segment.bytes[..ListsHead::PREFIX_BYTES];
        let head_bytes = ListsHead::bytes_of_head(prefix).unwrap();
        assert_eq!(head_bytes, segment.head.head_bytes());
        let head = ListsHead::decode(&segment.bytes[..head_bytes as usize]).unwrap();
        assert_eq!(head.bytes(), segment.bytes.len() as u64);
    }
}

#[test]
fn should_pad_half_blocks_and_blocks_from_eight_rows_on() {
    let rows = clumps(64, 56, 1, 1);
    let centroids = train(Metric::L2, 64, &rows, &options(1)).unwrap();
    let bytes_of = |count: usize| {
        let encoded = centroids.encode(&rows[..count * 64], 1).unwrap();
        let segment = segment_of(&centroids, &encoded, true);
        segment.head.bytes() - segment.head.head_bytes()
    };
    // A block is 32 · 8 bytes of codes and 256 of factors, half a block half of both; a
    // row alone 16.
    let (block, half) = (512, 256);
    let rest = |rows: u64| (rows * 16).next_multiple_of(64);
    assert_eq!(bytes_of(7), rest(7));
    assert_eq!((bytes_of(8), bytes_of(16)), (half, half));
    assert_eq!(bytes_of(17), half + rest(1));
    assert_eq!(bytes_of(23), half + rest(7));
    assert_eq!((bytes_of(24), bytes_of(32)), (block, block));
    assert_eq!(bytes_of(39), block + rest(7));
    assert_eq!(bytes_of(40), block + half);
    assert_eq!(bytes_of(55), block + half + rest(7));
    assert_eq!(bytes_of(56), 2 * block);
}

#[test]
fn should_find_every_row_of_lists_of_every_length() {
    for count in 1..=80 {
        let built = Built::new(Metric::L2, 64, clumps(64, count, 1, count as u64), 1);
        let found = built.search(&[0.5; 64], everything(count), 1, None);
        let exact = built.exact(&[0.5; 64], count, &|_| false);
        assert_same(&found, &exact, &format!("{count} rows"));
        let hidden = built.segment.head.by_slot(&[0xaaaa_aaaa_aaaa_aaaa; 2]);
        let found = built.search(&[0.5; 64], everything(count), 1, Some(&hidden));
        let exact = built.exact(&[0.5; 64], count, &|row| row % 2 == 1);
        assert_same(&found, &exact, &format!("half of {count} rows"));
    }
}

/// Written once by each format version from `clumps(6, 100, 3, 21)` as received, L2,
/// five lists; added, never regenerated.
const GOLDEN_CENTROIDS: &[u8] = include_bytes!("golden/centroids-1.vxlc");
const GOLDEN_LISTS: [&[u8]; 2] = [
    include_bytes!("golden/lists-1.vxll"),
    include_bytes!("golden/lists-2.vxll"),
];

#[test]
fn should_merge_lists_of_format_1_into_those_of_this_format() {
    let [first, second] = GOLDEN_LISTS.map(|bytes| Segment {
        head: ListsHead::decode(bytes).unwrap(),
        bytes: bytes.to_vec(),
    });
    let merged = merge_lists(&[MergeInput {
        head: &first.head,
        bytes: &first.bytes,
        dropped: None,
    }]);
    let bytes = merged.unwrap().bytes;
    let head = ListsHead::decode(&bytes).unwrap();
    let rows = contents(&Segment { head, bytes });
    assert_eq!(rows, contents(&first));
    assert_eq!(rows, contents(&second));
}

#[test]
fn should_read_and_search_the_golden_files() {
    GOLDEN_LISTS.into_iter().for_each(read_and_search_golden);
}

fn read_and_search_golden(lists: &[u8]) {
    let rows = clumps(6, 100, 3, 21);
    let built = Built {
        metric: Metric::L2,
        dim: 6,
        norms: rows.chunks_exact(6).map(kernels().norm).collect(),
        rows,
        centroids: Centroids::from_bytes(GOLDEN_CENTROIDS).unwrap(),
        segment: Segment {
            head: ListsHead::decode(lists).unwrap(),
            bytes: lists.to_vec(),
        },
    };
    assert_eq!(built.centroids.to_bytes(), GOLDEN_CENTROIDS);
    assert_eq!(
        (built.centroids.count(), built.segment.head.rows()),
        (5, 100)
    );
    for query in built.rows.chunks_exact(6) {
        let effort = Effort {
            confidence: 3.0,
            ..Effort::for_k(1)
        };
        let found = built.search(query, effort, 5, None);
        assert_eq!(found[0].0, 0.0, "a row finds itself");
    }
}

/// Each row's (list, code, a, b), wherever it lies.
fn contents(segment: &Segment) -> Vec<(u32, Vec<u8>, u32, u32)> {
    let head = &segment.head;
    let mut rows = Vec::new();
    for entry in head.entries() {
        let range = head.range(entry);
        let bytes = &segment.bytes[range.start as usize..range.end as usize];
        let list = head
            .verify(entry, bytes)
            .expect("what tests build is sound");
        for row in 0..list.rows() {
            let mut code = vec![0; head.code_dim() / 8];
            let (a, b) = list.row(row, &mut code);
            rows.push((entry.list, code, a.to_bits(), b.to_bits()));
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn should_merge_by_copying_every_row_that_is_kept(
        sizes in prop::collection::vec(0usize..300, 1..5),
        dropped_share in 0u32..4,
    ) {
        let dim = 20;
        let total: usize = sizes.iter().sum();
        let rows = clumps(dim, total.max(8), 3, total as u64);
        let centroids = train(Metric::L2, dim, &rows, &options(5)).unwrap();
        let mut at = 0;
        let segments: Vec<Segment> = sizes.iter().map(|size| {
            let part = &rows[at * dim..(at + size) * dim];
            at += size;
            segment_of(&centroids, &centroids.encode(part, 1).unwrap(), false)
        }).collect();
        let masks: Vec<Vec<u64>> = segments.iter().map(|segment| {
            let slots = segment.head.rows();
            let mut mask = vec![0u64; (slots as usize).div_ceil(64)];
            let is_dropped = |slot: u32| dropped_share > 0 && (slot / 40).is_multiple_of(2) && slot.is_multiple_of(dropped_share);
            (0..slots).filter(|slot| is_dropped(*slot)).for_each(|slot| mask[slot as usize / 64] |= 1 << (slot % 64));
            mask
        }).collect();
        let inputs: Vec<MergeInput<'_>> = segments.iter().zip(&masks).map(|(segment, mask)| MergeInput {
            head: &segment.head, bytes: &segment.bytes, dropped: Some(mask),
        }).collect();
        let merged = merge_lists(&inputs).unwrap();
        let result = Segment { head: ListsHead::decode(&merged.bytes).unwrap(), bytes: merged.bytes };
        prop_assert_eq!(result.head.bytes() as usize, result.bytes.len());
        let before: Vec<_> = segments.iter().map(contents).collect();
        let after = contents(&result);
        prop_assert_eq!(after.len(), merged.origins.len());
        for (row, (input, slot)) in after.iter().zip(&merged.origins) {
            prop_assert_eq!(row, &before[*input as usize][*slot as usize]);
        }
        let kept: HashSet<(u32, u32)> = merged.origins.iter().copied().collect();
        let expected: HashSet<(u32, u32)> = (0..segments.len()).flat_map(|input| {
            let mask = &masks[input];
            (0..segments[input].head.rows())
                .filter(|slot| (mask[*slot as usize / 64] >> (slot % 64)) & 1 == 0)
                .map(move |slot| (input as u32, slot))
        }).collect();
        prop_assert_eq!(kept, expected);
        prop_assert_eq!(merged.origins.len(), after.len());
    }
}

#[test]
fn should_refuse_to_merge_across_versions_and_shapes() {
    let rows = clumps(4, 100, 2, 1);
    let one = train(Metric::L2, 4, &rows, &options(3)).unwrap();
    let other = train(
        Metric::L2,
        4,
        &rows,
        &TrainOptions {
            version: 10,
            ..options(3)
        },
    )
    .unwrap();
    let fewer = train(Metric::L2, 4, &rows, &options(2)).unwrap();
    let parts = [&one, &other, &fewer]
        .map(|centroids| segment_of(centroids, &centroids.encode(&rows, 1).unwrap(), false));
    let input = |segment: usize| MergeInput {
        head: &parts[segment].head,
        bytes: &parts[segment].bytes,
        dropped: None,
    };
    assert!(merge_lists(&[]).is_err());
    assert!(merge_lists(&[input(0), input(0)]).is_ok());
    assert!(merge_lists(&[input(0), input(1)]).is_err());
    assert!(merge_lists(&[input(0), input(2)]).is_err());
    let cut = MergeInput {
        bytes: &parts[0].bytes[..100],
        ..input(0)
    };
    assert!(merge_lists(&[cut]).is_err());
}

#[test]
fn should_answer_alike_from_many_segments_and_from_their_merge() {
    let dim = 96;
    let rows = clumps(dim, 3000, 12, 9);
    let built = Built::new(Metric::Cosine, dim, rows, 16);
    let parts: Vec<Segment> = built
        .rows
        .chunks(500 * dim)
        .map(|part| {
            segment_of(
                &built.centroids,
                &built.centroids.encode(part, 1).unwrap(),
                false,
            )
        })
        .collect();
    let lists: Vec<SegmentLists<'_>> = (0..parts.len())
        .map(|segment| SegmentLists {
            segment: segment as u32,
            head: &parts[segment].head,
            bytes: &parts[segment].bytes,
            hidden: None,
        })
        .collect();
    let mut search = Search::default();
    for query in clumps(dim, 20, 12, 9).chunks_exact(dim) {
        search
            .begin(built.centroids.space(), query, everything(10))
            .unwrap();
        search.choose(&built.centroids, 4);
        search.scan(&lists);
        let row_of = |candidate: Candidate| {
            let head = &parts[candidate.segment as usize].head;
            candidate.segment as usize * 500 + head.ordinal(candidate.slot) as usize
        };
        rerank(&mut search, |candidate| built.key(query, row_of(candidate)));
        let many: Vec<(f32, u64)> = search
            .finish()
            .into_iter()
            .map(|(key, candidate)| (key, row_of(candidate) as u64))
            .collect();
        assert_same(
            &many,
            &built.search(query, everything(10), 4, None),
            "merged",
        );
    }
}
