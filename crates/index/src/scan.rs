//! The exact flat scan.
//!
//! 1. Visible rows form runs; without a mask there is one run, all rows.
//! 2. A run goes through the row kernels in batches that fit a stack buffer, so
//!    the mask is asked once per row and never inside arithmetic.
//! 3. Keys no greater than the heap's worst are pushed.
//!
//! Left out on purpose: threads. The caller hands blocks to its own pool and
//! merges the heaps.

use crate::Query;
use std::ops::Range;
use vexlake_distance::{Metric, TopK};

/// Keys per batch: 64 × 4 bytes of stack, sixteen turns of the four-row kernel;
/// enough that the call and the heap's threshold cost nothing beside the floats.
const BATCH_ROWS: usize = 64;

/// Pushes the key of every visible row into `top` under the id `base + row`.
///
/// - `rows`: contiguous rows × dim floats.
/// - `norms`: |row| for each row; looked at by cosine only and may be empty for
///   the other metrics.
/// - `hidden`: asked once per row, with the row's number inside `rows`; true
///   leaves the row out. None scans all.
///
/// O(rows · dim). Panics where `rows` is not whole rows or where cosine lacks a
/// norm: both are the caller's own shapes, never input from outside.
pub fn scan(
    query: &Query<'_>,
    rows: &[f32],
    norms: &[f32],
    hidden: Option<&dyn Fn(u32) -> bool>,
    base: u64,
    top: &mut TopK,
) {
    let dim = query.dim();
    assert!(dim > 0, "a query without dimensions");
    assert_eq!(rows.len() % dim, 0, "rows that are not whole");
    let count = rows.len() / dim;
    if query.metric == Metric::Cosine {
        assert_eq!(norms.len(), count, "as many norms as rows");
    }
    match hidden {
        None => scan_run(query, rows, norms, 0..count, base, top),
        Some(hidden) => {
            let mut row = 0;
            while row < count {
                let visible = |row: &usize| !hidden(*row as u32);
                let Some(start) = (row..count).find(visible) else {
                    return;
                };
                // The row that ends a run is hidden, so the next search starts
                // beyond it: nobody is asked twice.
                let end = (start + 1..count)
                    .find(|row| !visible(row))
                    .unwrap_or(count);
                scan_run(query, rows, norms, start..end, base, top);
                row = end + 1;
            }
        }
    }
}

fn scan_run(
    query: &Query<'_>,
    rows: &[f32],
    norms: &[f32],
    run: Range<usize>,
    base: u64,
    top: &mut TopK,
) {
    let dim = query.dim();
    let mut keys = [0.0f32; BATCH_ROWS];
    let mut first = run.start;
    while first < run.end {
        let end = run.end.min(first + BATCH_ROWS);
        let keys = &mut keys[..end - first];
        let norms = norms.get(first..end).unwrap_or_default();
        query.keys(&rows[first * dim..end * dim], norms, keys);
        let mut worst = top.worst();
        for (row, key) in (first..end).zip(keys.iter()) {
            // An equal key may still win by its id; NaN fails the comparison.
            if *key <= worst {
                top.push(*key, base + row as u64);
                worst = top.worst();
            }
        }
        first = end;
    }
}
