//! Merging of near byte ranges: a round trip costs more than the bytes between.
//!
//! `plan_reads` sorts the wanted ranges, joins those whose gap is small, and says
//! for each wanted range where it lies in what will be read. Pure: no I/O.

use std::ops::Range;

/// At 100 MB/s and 1 ms a request, 100 KB of unwanted bytes cost one request: join
/// where the gap is below that.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// A merged read never grows beyond this by joining, so that reads stay parallel and
/// a single buffer stays small; one wanted range may be larger by itself.
const MERGED_BYTES_MAX: u64 = 8 << 20;

/// What to read, and where each wanted range lies in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Ascending by start; two may overlap where joining them would have passed the limit.
    pub reads: Vec<Range<u64>>,
    /// Per wanted range: index of the read, and the offset in it.
    pub places: Vec<(usize, usize)>,
}

/// O(n log n). Empty and reversed ranges are the caller's to refuse.
pub(crate) fn plan_reads(wanted: &[Range<u64>]) -> Plan {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_unstable_by_key(|&i| (wanted[i].start, wanted[i].end));
    let mut reads: Vec<Range<u64>> = Vec::new();
    let mut places = vec![(0, 0); wanted.len()];
    for i in order {
        let range = &wanted[i];
        let joined = match reads.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP_BYTES_MAX) => {
                let end = last.end.max(range.end);
                let fits = end == last.end || end - last.start <= MERGED_BYTES_MAX;
                if fits {
                    last.end = end;
                }
                fits
            }
            _ => false,
        };
        if !joined {
            reads.push(range.clone());
        }
        let read = reads.len() - 1;
        places[i] = (read, (range.start - reads[read].start) as usize);
    }
    Plan { reads, places }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_join_near_ranges_and_keep_far_ones_apart() {
        let wanted = [1_000_000..1_000_010, 0..10, 20..30, 5..25];
        let plan = plan_reads(&wanted);
        assert_eq!(plan.reads, [0..30, 1_000_000..1_000_010]);
        assert_eq!(plan.places, [(1, 0), (0, 0), (0, 20), (0, 5)]);
    }

    #[test]
    fn should_not_grow_a_read_beyond_its_limit() {
        let wanted = [
            0..MERGED_BYTES_MAX,
            MERGED_BYTES_MAX..MERGED_BYTES_MAX + 1,
            7..9,
        ];
        let plan = plan_reads(&wanted);
        assert_eq!(plan.reads.len(), 2);
        assert_eq!(plan.places, [(0, 0), (1, 0), (0, 7)]);
    }

    #[test]
    fn should_place_every_range_inside_its_read() {
        let wanted: Vec<_> = (0..500u64)
            .map(|i| (i * 7919 % 300_000) * 37)
            .map(|s| s..s + 1 + s % 9000)
            .collect();
        let plan = plan_reads(&wanted);
        for (range, &(read, offset)) in wanted.iter().zip(&plan.places) {
            let start = plan.reads[read].start + offset as u64;
            assert_eq!(start, range.start);
            assert!(range.end <= plan.reads[read].end);
        }
        assert!(plan.reads.windows(2).all(|w| w[0].start < w[1].start));
    }
}
