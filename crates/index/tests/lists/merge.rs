//! Merges of lists: every kept row copied, nothing across versions, the same answers.

use std::collections::HashSet;

use proptest::prelude::*;
use vexlake_index::{MergeInput, merge_lists};

use super::*;

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

#[test]
fn should_merge_lists_of_format_1_into_those_of_this_format() {
    let [first, second] = super::codec::GOLDEN_LISTS.map(|bytes| Segment {
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
