//! Bytes of centroids and lists: read back, refused where damaged, and golden.

use vexlake_index::IndexError;

use super::*;

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

/// Written once by each format version from `clumps(6, 100, 3, 21)` as received, L2,
/// five lists; added, never regenerated.
const GOLDEN_CENTROIDS: &[u8] = include_bytes!("../golden/centroids-1.vxlc");
pub const GOLDEN_LISTS: [&[u8]; 2] = [
    include_bytes!("../golden/lists-1.vxll"),
    include_bytes!("../golden/lists-2.vxll"),
];

#[test]
fn should_read_and_search_the_golden_files() {
    for lists in GOLDEN_LISTS {
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
}
