//! The algorithms, once, over any vector register.
//!
//! - `pair`: four accumulators, so that four multiply-adds are in flight and
//!   their latency hides behind each other; one masked load for the tail.
//! - `rows`: four rows at a time with two accumulators each. One load of the
//!   query serves four rows, eight sums are in flight, and four streams are
//!   what hardware prefetchers follow: a scan is then bound by memory. Rows
//!   shorter than a page end before the prefetcher has understood them, so each
//!   step also asks for what lies `PREFETCH_FLOATS` further on, and the four
//!   sums are reduced together; both matter below 256 dimensions only.
//!
//! Everything here is `inline(always)`: it becomes code only inside a function
//! that an ISA module compiles with the right target features.
//!
//! Invariant: tails are filled with zeros, and each operation gives 0 for the
//! pair (0, 0), so a tail adds exactly its own terms.

/// How far ahead of the loads: 1,024 floats = 4 KiB, some 400 ns at 10 GB/s,
/// several times the latency of memory.
const PREFETCH_FLOATS: usize = 1024;

/// A SIMD register of f32 lanes.
///
/// # Safety
/// Every method may be called only on a CPU with the implementor's features.
/// `load` reads `LANES` floats at any alignment, `load_tail` reads `n < LANES`
/// and fills with zeros; neither touches memory beyond what it reads.
pub(crate) trait Vector: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_tail(from: *const f32, n: usize) -> Self;
    /// Writes `LANES` floats at any alignment.
    unsafe fn store(self, to: *mut f32);
    unsafe fn mul(self, other: Self) -> Self;
    /// The Walsh–Hadamard transform of the lanes, strides 1, 2, … `LANES / 2`.
    unsafe fn hadamard_lanes(self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn abs(self) -> Self;
    /// `self + a·b`, rounded once.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// The sum of all lanes.
    unsafe fn sum(self) -> f32;
    /// The sum of all lanes of each; together cheaper than one by one.
    #[inline(always)]
    unsafe fn sum_each(four: [Self; 4]) -> [f32; 4] {
        // SAFETY: the caller runs on a CPU with the implementor's features.
        unsafe { [four[0].sum(), four[1].sum(), four[2].sum(), four[3].sum()] }
    }
    /// Asks for the cache lines of `2 · LANES` floats; the address need not be
    /// valid. Nothing where stable Rust has no such instruction.
    #[inline(always)]
    unsafe fn prefetch_two(_at: *const f32) {}
}

/// What a kernel adds up per pair of elements.
pub(crate) trait Term {
    /// # Safety
    /// As [`Vector`].
    unsafe fn add<V: Vector>(sum: V, a: V, b: V) -> V;
}

pub(crate) struct Dot;
pub(crate) struct L2;
pub(crate) struct L1;
pub(crate) struct First;

impl Term for Dot {
    #[inline(always)]
    unsafe fn add<V: Vector>(sum: V, a: V, b: V) -> V {
        // SAFETY: the caller runs on a CPU with V's features.
        unsafe { sum.mul_add(a, b) }
    }
}

impl Term for L2 {
    #[inline(always)]
    unsafe fn add<V: Vector>(sum: V, a: V, b: V) -> V {
        // SAFETY: the caller runs on a CPU with V's features.
        unsafe {
            let difference = a.sub(b);
            sum.mul_add(difference, difference)
        }
    }
}

impl Term for L1 {
    #[inline(always)]
    unsafe fn add<V: Vector>(sum: V, a: V, b: V) -> V {
        // SAFETY: the caller runs on a CPU with V's features.
        unsafe { sum.add(a.sub(b).abs()) }
    }
}

/// The sum of the first argument alone; the optimiser drops the second load.
impl Term for First {
    #[inline(always)]
    unsafe fn add<V: Vector>(sum: V, a: V, _b: V) -> V {
        // SAFETY: the caller runs on a CPU with V's features.
        unsafe { sum.add(a) }
    }
}

/// The sum of a term over two vectors.
///
/// # Safety
/// The CPU has V's features. Panics where the lengths differ.
#[inline(always)]
pub(crate) unsafe fn pair<V: Vector, T: Term>(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "vectors of different dimensions");
    let dim = a.len();
    let (a, b) = (a.as_ptr(), b.as_ptr());
    let stride = 4 * V::LANES;
    // SAFETY: every load reads [at, at + LANES) or [at, dim), and both slices
    // have `dim` elements; the caller vouches for the features.
    unsafe {
        let mut sums = [V::zero(); 4];
        let mut at = 0;
        while at + stride <= dim {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let i = at + lane * V::LANES;
                *sum = T::add(*sum, V::load(a.add(i)), V::load(b.add(i)));
            }
            at += stride;
        }
        while at + V::LANES <= dim {
            sums[0] = T::add(sums[0], V::load(a.add(at)), V::load(b.add(at)));
            at += V::LANES;
        }
        if at < dim {
            let n = dim - at;
            sums[1] = T::add(
                sums[1],
                V::load_tail(a.add(at), n),
                V::load_tail(b.add(at), n),
            );
        }
        sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
    }
}

/// The sum of a term of the query and each row, four rows at a time.
///
/// # Safety
/// The CPU has V's features. Panics unless `rows` is `out.len()` rows of
/// `query.len()` floats.
#[inline(always)]
pub(crate) unsafe fn rows<V: Vector, T: Term>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    let dim = query.len();
    assert_eq!(
        Some(rows.len()),
        dim.checked_mul(out.len()),
        "rows of another shape"
    );
    let mut groups = out.chunks_exact_mut(4);
    let mut row = 0;
    for group in &mut groups {
        // SAFETY: rows row..row+4 lie inside `rows` by the assertion above.
        let sums = unsafe { four_rows::<V, T>(query, rows.as_ptr().add(row * dim)) };
        group.copy_from_slice(&sums);
        row += 4;
    }
    for out in groups.into_remainder() {
        // SAFETY: the caller vouches for the features.
        *out = unsafe { pair::<V, T>(query, &rows[row * dim..(row + 1) * dim]) };
        row += 1;
    }
}

/// The sum of all elements, read as four streams: one stream alone leaves memory
/// idle on most cores.
///
/// # Safety
/// The CPU has V's features.
#[inline(always)]
pub(crate) unsafe fn sum<V: Vector>(a: &[f32]) -> f32 {
    let quarter = a.len() / 4;
    let (streams, rest) = a.split_at(4 * quarter);
    // SAFETY: `streams` is four rows of `quarter` floats; the query is only read
    // where the optimiser keeps loads that nobody uses, and is as long as a row.
    unsafe {
        let sums = four_rows::<V, First>(&streams[..quarter], streams.as_ptr());
        sums.iter().sum::<f32>() + pair::<V, First>(rest, rest)
    }
}

/// # Safety
/// As [`rows`]; `first` points at 4 · `query.len()` readable floats.
#[inline(always)]
unsafe fn four_rows<V: Vector, T: Term>(query: &[f32], first: *const f32) -> [f32; 4] {
    let dim = query.len();
    let query = query.as_ptr();
    // SAFETY: row r spans [r·dim, (r+1)·dim) of `first`; every load stays in
    // [at, dim) of its row; the caller vouches for the features.
    unsafe {
        let row = [
            first,
            first.add(dim),
            first.add(2 * dim),
            first.add(3 * dim),
        ];
        let mut even = [V::zero(); 4];
        let mut odd = [V::zero(); 4];
        let mut at = 0;
        while at + 2 * V::LANES <= dim {
            let q_even = V::load(query.add(at));
            let q_odd = V::load(query.add(at + V::LANES));
            for r in 0..4 {
                V::prefetch_two(row[r].wrapping_add(at + PREFETCH_FLOATS));
                even[r] = T::add(even[r], V::load(row[r].add(at)), q_even);
                odd[r] = T::add(odd[r], V::load(row[r].add(at + V::LANES)), q_odd);
            }
            at += 2 * V::LANES;
        }
        if at + V::LANES <= dim {
            let q = V::load(query.add(at));
            for r in 0..4 {
                even[r] = T::add(even[r], V::load(row[r].add(at)), q);
            }
            at += V::LANES;
        }
        if at < dim {
            let q = V::load_tail(query.add(at), dim - at);
            for r in 0..4 {
                odd[r] = T::add(odd[r], V::load_tail(row[r].add(at), dim - at), q);
            }
        }
        for r in 0..4 {
            even[r] = even[r].add(odd[r]);
        }
        V::sum_each(even)
    }
}

/// Wraps the algorithms into one ISA's table. The wrappers are safe functions
/// because the table is reachable only through `kernels_named`, which asks the
/// CPU for exactly these features first.
macro_rules! kernel_table {
    ($name:literal, $vector:ty, $features:literal, $codes:ident, $bytes:ident) => {
        pub(crate) static KERNELS: $crate::kernels::Kernels = $crate::kernels::Kernels {
            name: $name,
            // SAFETY: `kernels_named` hands this table out only after it has
            // detected the features that these functions are compiled for.
            dot: |a, b| unsafe { pair_dot(a, b) },
            // SAFETY: as above.
            l2: |a, b| unsafe { pair_l2(a, b) },
            // SAFETY: as above.
            l1: |a, b| unsafe { pair_l1(a, b) },
            // SAFETY: as above.
            norm: |a| $crate::kernels::norm_of(unsafe { pair_dot(a, a) }, a),
            // SAFETY: as above.
            sum: |a| unsafe { sum(a) },
            // SAFETY: as above.
            dot_rows: |q, rows, out| unsafe { rows_dot(q, rows, out) },
            // SAFETY: as above.
            l2_rows: |q, rows, out| unsafe { rows_l2(q, rows, out) },
            // SAFETY: as above.
            l1_rows: |q, rows, out| unsafe { rows_l1(q, rows, out) },
            // SAFETY: as above.
            hadamard: |signs, x| unsafe { hadamard(signs, x) },
            // SAFETY: as above.
            quantise: |table, rotated| unsafe { quantise(table, rotated) },
            fill_table: $codes::fill_table,
            // SAFETY: as above.
            code_of: |x, c, code| unsafe { code_of(x, c, code) },
            block_bounds: $codes::block_bounds,
            half_bounds: $codes::half_bounds,
            row_sums: $codes::row_sums,
            count_le: $bytes::count_le,
            positions_le: $bytes::positions_le,
            dot_i8: $bytes::dot_i8,
        };
        #[target_feature(enable = $features)]
        fn quantise(table: &mut $crate::table::LookupTable, rotated: &[f32]) {
            table.quantise(rotated);
        }
        #[target_feature(enable = $features)]
        fn code_of(x: &[f32], centroid: &[f32], code: &mut [u8]) -> $crate::codes::CodeSums {
            $crate::codes::code_of(x, centroid, code)
        }
        #[target_feature(enable = $features)]
        fn hadamard(signs: &[f32], x: &mut [f32]) {
            // SAFETY: this function runs only where the features are.
            unsafe { $crate::arch::hadamard::transform::<$vector>(signs, x) }
        }
        $crate::arch::generic::kernel_table!(@pair pair_dot, Dot, $vector, $features);
        $crate::arch::generic::kernel_table!(@pair pair_l2, L2, $vector, $features);
        $crate::arch::generic::kernel_table!(@pair pair_l1, L1, $vector, $features);
        #[target_feature(enable = $features)]
        fn sum(a: &[f32]) -> f32 {
            // SAFETY: this function runs only where the features are.
            unsafe { $crate::arch::generic::sum::<$vector>(a) }
        }
        $crate::arch::generic::kernel_table!(@rows rows_dot, Dot, $vector, $features);
        $crate::arch::generic::kernel_table!(@rows rows_l2, L2, $vector, $features);
        $crate::arch::generic::kernel_table!(@rows rows_l1, L1, $vector, $features);
    };
    (@pair $function:ident, $term:ident, $vector:ty, $features:literal) => {
        #[target_feature(enable = $features)]
        fn $function(a: &[f32], b: &[f32]) -> f32 {
            // SAFETY: this function runs only where the features are.
            unsafe { $crate::arch::generic::pair::<$vector, $crate::arch::generic::$term>(a, b) }
        }
    };
    (@rows $function:ident, $term:ident, $vector:ty, $features:literal) => {
        #[target_feature(enable = $features)]
        fn $function(query: &[f32], rows: &[f32], out: &mut [f32]) {
            // SAFETY: this function runs only where the features are.
            unsafe {
                $crate::arch::generic::rows::<$vector, $crate::arch::generic::$term>(
                    query, rows, out,
                )
            }
        }
    };
}
pub(crate) use kernel_table;
