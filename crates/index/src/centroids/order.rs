//! Numbering centroids so that near ones have near numbers.
//!
//! Lists lie in the order of their numbers, and a query looks at lists that are near
//! each other: numbered by chance they are as many jumps in memory as lists, times the
//! segments; numbered by nearness they are a few runs.
//!
//! The centroids are halved along the line through two that lie far apart, and the
//! halves again, down to pairs; of the two ends the one nearer to the centroid before
//! comes first. O(count · log count · dim).

use vexlake_distance::Kernels;

/// Answers the floats (count × dim) in the new order.
pub(super) fn by_nearness(kernels: &Kernels, centroids: &[f32], dim: usize) -> Vec<f32> {
    let of = |place: u32| &centroids[place as usize * dim..][..dim];
    let square = |a: u32, b: u32| (kernels.l2)(of(a), of(b));
    let mut places: Vec<u32> = (0..(centroids.len() / dim) as u32).collect();
    // Parts left to halve, the first on top: what lies before `from` is in order.
    let mut parts: Vec<_> = std::iter::once(0..places.len()).collect();
    let mut along = vec![0.0; places.len()];
    // What comes first of all: an end of the whole.
    let mut start = None;
    while let Some(part) = parts.pop() {
        if part.len() < 2 {
            continue;
        }
        let before = part
            .start
            .checked_sub(1)
            .map_or(start, |at| Some(places[at]));
        let own = &mut places[part.clone()];
        let farthest = |from: u32| {
            let squares = own.iter().map(|place| (square(from, *place), *place));
            squares
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .map_or(from, |(_, place)| place)
        };
        let mut first = farthest(own[0]);
        let mut last = farthest(first);
        if before.is_some_and(|before| square(before, last) < square(before, first)) {
            (first, last) = (last, first);
        }
        start.get_or_insert(first);
        for place in own.iter() {
            along[*place as usize] = square(first, *place) - square(last, *place);
        }
        let middle = own.len() / 2;
        own.select_nth_unstable_by(middle, |a, b| {
            along[*a as usize]
                .total_cmp(&along[*b as usize])
                .then(a.cmp(b))
        });
        parts.push(part.start + middle..part.end);
        parts.push(part.start..part.start + middle);
    }
    places
        .iter()
        .flat_map(|place| of(*place))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::by_nearness;
    use vexlake_distance::kernels;

    #[test]
    fn should_number_near_centroids_one_after_the_other() {
        // Points of a line, in a scattered order.
        let scattered: Vec<f32> = (0..101)
            .flat_map(|i| [(i * 37 % 101) as f32, 1.0])
            .collect();
        let ordered = by_nearness(kernels(), &scattered, 2);
        let line: Vec<f32> = ordered.chunks_exact(2).map(|point| point[0]).collect();
        let ascending: Vec<f32> = (0..101).map(|i| i as f32).collect();
        let descending: Vec<f32> = ascending.iter().rev().copied().collect();
        assert!(line == ascending || line == descending, "{line:?}");
    }

    #[test]
    fn should_keep_every_centroid_even_equal_ones_and_ones_that_are_not_finite() {
        let odd = [1.0, 1.0, f32::NAN, 1.0, f32::INFINITY, -1.0, f32::MAX, 1.0];
        for count in 0..=odd.len() {
            let bits = |floats: &[f32]| {
                let mut bits: Vec<u32> = floats.iter().map(|x| x.to_bits()).collect();
                bits.sort_unstable();
                bits
            };
            let ordered = by_nearness(kernels(), &odd[..count], 1);
            assert_eq!(bits(&ordered), bits(&odd[..count]));
        }
    }
}
