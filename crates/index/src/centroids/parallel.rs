//! Work split over threads so that the answer does not depend on how many there
//! are: parts are answered in order, and nothing is shared.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Items of a chunk at most: small enough that threads end together.
const CHUNK_ITEMS: usize = 4096;

/// Calls `each` on chunks of whole items of `width` elements, and answers the
/// results in the order of the chunks. One thread runs here, without spawning.
pub(super) fn map_chunks<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    width: usize,
    each: impl Fn(&[T]) -> R + Sync,
) -> Vec<R> {
    let chunks: Vec<&[T]> = items.chunks(CHUNK_ITEMS * width).collect();
    map(threads, chunks.len(), |chunk| each(chunks[chunk]))
}

/// Calls `each` on 0..count and answers the results in that order.
pub(super) fn map<R: Send>(
    threads: usize,
    count: usize,
    each: impl Fn(usize) -> R + Sync,
) -> Vec<R> {
    if threads <= 1 || count <= 1 {
        return (0..count).map(each).collect();
    }
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<R>>> = Mutex::new((0..count).map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(|| {
                loop {
                    let item = next.fetch_add(1, Ordering::Relaxed);
                    if item >= count {
                        return;
                    }
                    let result = each(item);
                    results.lock().unwrap_or_else(PoisonError::into_inner)[item] = Some(result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    // A thread that panicked has made `scope` panic: every place is filled.
    results.into_iter().flatten().collect()
}
