//! The nearest k of a stream of (key, id): a bounded max-heap.
//!
//! The heap's root is the worst entry kept, so one comparison rejects most
//! candidates. Order: smaller key first, equal keys by smaller id, so that the
//! same candidates give the same answer in whatever order they come. NaN never
//! enters: it has no place in that order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Entries reserved up front. K may be 10,000 in a request that finds three
/// rows: 1,024 entries × 16 bytes = 16 KiB at most before anything is found.
const RESERVED_ENTRIES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: f32,
    id: u64,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // Keys are never NaN here, and +0.0 must equal −0.0 so that ids decide:
        // hence partial_cmp and not total_cmp.
        self.key
            .partial_cmp(&other.key)
            .unwrap_or(Ordering::Equal)
            .then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

/// Keeps the `k` entries with the smallest keys. O(log k) for an entry that
/// enters, O(1) for one that does not.
#[derive(Clone, Debug)]
pub struct TopK {
    k: usize,
    heap: BinaryHeap<Entry>,
}

impl TopK {
    /// An empty heap that will hold at most `k` entries; `k` = 0 holds none.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            heap: BinaryHeap::with_capacity(k.min(RESERVED_ENTRIES_MAX)),
        }
    }

    /// The most entries it can hold.
    pub fn k(&self) -> usize {
        self.k
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The key that a candidate must not exceed to enter: +∞ until full, then
    /// the worst key kept. A candidate with exactly this key may still enter by
    /// its smaller id. −∞ for `k` = 0.
    pub fn worst(&self) -> f32 {
        if self.heap.len() < self.k {
            return f32::INFINITY;
        }
        self.heap
            .peek()
            .map_or(f32::NEG_INFINITY, |worst| worst.key)
    }

    /// Offers one candidate. A NaN key is dropped.
    pub fn push(&mut self, key: f32, id: u64) {
        if key.is_nan() {
            return;
        }
        let entry = Entry { key, id };
        if self.heap.len() < self.k {
            self.heap.push(entry);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && entry < *worst
        {
            *worst = entry;
        }
    }

    /// Offers every entry of another heap.
    pub fn merge(&mut self, other: &TopK) {
        for entry in &other.heap {
            self.push(entry.key, entry.id);
        }
    }

    /// The entries, nearest first; equal keys by smaller id.
    pub fn into_sorted(self) -> Vec<(f32, u64)> {
        self.heap
            .into_sorted_vec()
            .into_iter()
            .map(|entry| (entry.key, entry.id))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::TopK;
    use proptest::prelude::*;

    fn sorted_reference(mut all: Vec<(f32, u64)>, k: usize) -> Vec<(f32, u64)> {
        all.retain(|(key, _)| !key.is_nan());
        all.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
        all.truncate(k);
        all
    }

    proptest! {
        #[test]
        fn should_keep_the_k_smallest_in_any_order_of_arrival(
            keys in prop::collection::vec(prop_oneof![Just(f32::NAN), Just(f32::INFINITY), (-8i8..8).prop_map(f32::from)], 0..200),
            k in 0usize..40,
            cut in 0usize..200,
        ) {
            let all: Vec<(f32, u64)> = keys.iter().enumerate().map(|(i, key)| (*key, i as u64)).collect();
            let cut = cut.min(all.len());

            let mut forward = TopK::new(k);
            all.iter().for_each(|(key, id)| forward.push(*key, *id));
            let (mut left, mut right) = (TopK::new(k), TopK::new(k));
            all[..cut].iter().rev().for_each(|(key, id)| left.push(*key, *id));
            all[cut..].iter().rev().for_each(|(key, id)| right.push(*key, *id));
            left.merge(&right);

            let expected = sorted_reference(all, k);
            prop_assert_eq!(&forward.into_sorted(), &expected);
            prop_assert_eq!(&left.into_sorted(), &expected);
        }
    }

    #[test]
    fn should_admit_everything_until_full_and_nothing_when_k_is_zero() {
        let mut top = TopK::new(2);
        assert_eq!(top.worst(), f32::INFINITY);
        top.push(f32::INFINITY, 9);
        top.push(1.0, 8);
        assert_eq!(top.worst(), f32::INFINITY);
        top.push(1.0, 7);
        assert_eq!(top.worst(), 1.0);
        assert_eq!(top.into_sorted(), vec![(1.0, 7), (1.0, 8)]);

        let mut none = TopK::new(0);
        assert_eq!(none.worst(), f32::NEG_INFINITY);
        none.push(-1.0, 1);
        assert!(none.is_empty());
    }

    #[test]
    fn should_not_reserve_memory_for_a_k_that_nobody_fills() {
        let top = TopK::new(usize::MAX);
        assert_eq!(top.k(), usize::MAX);
        assert_eq!(top.len(), 0);
    }
}
