//! The rows of smallest bound among those scanned: a buffer that is cut back, not
//! a heap.
//!
//! Rows at most the limit are appended. Once twice the capacity is there, the
//! smallest `capacity` of them stay and their largest bound becomes the limit:
//! a row costs one comparison inside the kernel unless it enters, and entering
//! costs a store. Rows with equal bounds at the limit may all stay; the buffer
//! never holds more than twice the capacity and one block.

use super::Candidate;
use vexlake_distance::{BLOCK_ROWS, Kernels, limit_of_smallest};

/// Rows reserved for at once at most; a pool of a million rows grows as it fills.
const RESERVED_ROWS_MAX: usize = 1 << 14;

#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    capacity: usize,
    limit: f32,
    bounds: Vec<f32>,
    ids: Vec<u64>,
    positions: Vec<u32>,
}

impl Pool {
    /// Empties the pool and sets what it keeps.
    pub(super) fn begin(&mut self, capacity: usize) {
        self.capacity = capacity.max(1);
        // Finite: rows that are not there have no bound to compare, and +∞ is none.
        self.limit = f32::MAX;
        self.bounds.clear();
        self.ids.clear();
        let rows = self.capacity.min(RESERVED_ROWS_MAX) * 2 + BLOCK_ROWS;
        self.bounds.reserve(rows);
        self.ids.reserve(rows);
    }

    /// A row must not exceed this to enter.
    #[inline]
    pub(super) fn limit(&self) -> f32 {
        self.limit
    }

    /// Takes the rows of a block whose bit is set; `first` is the id of its row 0.
    #[inline]
    pub(super) fn offer(
        &mut self,
        kernels: &Kernels,
        mut within: u32,
        bounds: &[f32; BLOCK_ROWS],
        first: u64,
    ) {
        while within != 0 {
            let row = within.trailing_zeros();
            within &= within - 1;
            self.bounds.push(bounds[row as usize]);
            self.ids.push(first + u64::from(row));
        }
        if self.bounds.len() / 2 >= self.capacity {
            self.cut(kernels);
        }
    }

    /// Takes a row whatever its bound.
    pub(super) fn admit(&mut self, id: u64) {
        self.bounds.push(f32::MIN);
        self.ids.push(id);
    }

    #[cold]
    fn cut(&mut self, kernels: &Kernels) {
        let slack = self.capacity / 4;
        let limit = limit_of_smallest(kernels, &self.bounds, self.capacity, slack);
        self.keep(kernels, limit);
        // Where equal bounds crowd at the limit the first of them stay.
        let most = self.capacity + slack;
        self.bounds.truncate(most);
        self.ids.truncate(most);
        self.limit = self.limit.min(limit);
    }

    /// Drops the rows above a limit, in place.
    fn keep(&mut self, kernels: &Kernels, limit: f32) {
        self.positions.resize(self.bounds.len(), 0);
        let kept = (kernels.positions_le)(&self.bounds, limit, &mut self.positions);
        for (to, from) in self.positions[..kept].iter().enumerate() {
            self.bounds[to] = self.bounds[*from as usize];
            self.ids[to] = self.ids[*from as usize];
        }
        self.bounds.truncate(kept);
        self.ids.truncate(kept);
    }

    /// Drops rows above `limit`, then moves up to `most` of the smallest bound out.
    pub(super) fn take(
        &mut self,
        kernels: &Kernels,
        most: usize,
        limit: f32,
        wave: &mut Vec<Candidate>,
    ) {
        if limit < f32::INFINITY {
            self.keep(kernels, limit);
        }
        if self.bounds.len() <= most {
            wave.extend(self.ids.drain(..).map(Candidate::unpack));
            self.bounds.clear();
            return;
        }
        let cut = limit_of_smallest(kernels, &self.bounds, most, 0);
        let mut left = 0;
        for row in 0..self.bounds.len() {
            if self.bounds[row] <= cut && wave.len() < most {
                wave.push(Candidate::unpack(self.ids[row]));
            } else {
                self.bounds[left] = self.bounds[row];
                self.ids[left] = self.ids[row];
                left += 1;
            }
        }
        self.bounds.truncate(left);
        self.ids.truncate(left);
    }
}
