//! Rotation, look-up tables, code kernels, selection and int8: every instruction
//! set this CPU has × length × alignment, against plain references.

use proptest::prelude::*;
use vexlake_distance::{
    BLOCK_ROWS, CODE_DIM_STEP, HALF_ROWS, KERNEL_NAMES, Kernels, Line, LookupTable, Rotation,
    block_bytes, code_bytes, half_bytes, kernels_named, pack_block, pack_half,
};

/// Starts that fall on odd offsets of a cache line.
const STARTS: [usize; 4] = [0, 1, 7, 33];

fn tables() -> Vec<&'static Kernels> {
    KERNEL_NAMES.into_iter().filter_map(kernels_named).collect()
}

/// A cheap, seeded stream of random bits.
fn bits(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state >> 16)
    })
}

fn floats(seed: u64, n: usize) -> Vec<f32> {
    let unit = |x: u64| (x % (1 << 24)) as f32 / (1 << 23) as f32 - 1.0;
    bits(seed).take(n).map(unit).collect()
}

fn bytes(seed: u64, n: usize) -> Vec<u8> {
    bits(seed).take(n).map(|x| x as u8).collect()
}

/// Dimensions of codes: every small one, the usual ones, and those whose sums leave
/// u16 (more than 4,096) and u16 chunks (65,536).
fn code_dims() -> impl Iterator<Item = usize> {
    (1..=20)
        .map(|step| step * CODE_DIM_STEP)
        .chain([1536, 4096, 4160, 65_536])
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y));
    products.sum()
}

#[test]
fn should_rotate_to_the_same_bits_on_every_instruction_set() {
    for dim in (1..=130).chain([256, 300, 768, 1000, 1536, 65_535]) {
        let rotation = Rotation::new(dim, 42);
        let mut input = floats(dim as u64, dim);
        input.resize(rotation.code_dim(), 0.0);
        let rotated = |kernels: &Kernels| {
            let mut x = input.clone();
            rotation.apply(kernels, &mut x);
            x.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let expected = rotated(kernels_named("scalar").expect("always there"));
        for table in tables() {
            assert_eq!(rotated(table), expected, "{} dim {dim}", table.name);
        }
    }
}

#[test]
fn should_keep_lengths_and_angles_when_it_rotates() {
    for dim in [
        1, 2, 63, 64, 65, 100, 128, 384, 768, 960, 1536, 3000, 65_536,
    ] {
        let rotation = Rotation::new(dim, 7);
        let rotated = |seed| {
            let before = floats(seed, dim);
            let mut x = before.clone();
            x.resize(rotation.code_dim(), 0.0);
            rotation.apply(vexlake_distance::kernels(), &mut x);
            (before, x)
        };
        let ((a, ra), (b, rb)) = (rotated(1), rotated(2));
        let size = (dot(&a, &a) * dot(&b, &b)).sqrt().max(1e-9);
        assert!(
            (dot(&a, &b) - dot(&ra, &rb)).abs() < 1e-5 * size,
            "dim {dim}"
        );
        assert!(
            (dot(&a, &a) - dot(&ra, &ra)).abs() < 1e-5 * dot(&a, &a),
            "dim {dim}"
        );
    }
}

#[test]
fn should_spread_a_vector_of_one_coordinate_over_all_of_the_code() {
    for dim in [64, 128, 192, 320, 768, 960, 1536, 4032, 65_472] {
        let rotation = Rotation::new(dim, 3);
        for at in [0, dim / 2, dim - 1] {
            let mut x = vec![0.0; rotation.code_dim()];
            x[at] = 1.0;
            rotation.apply(vexlake_distance::kernels(), &mut x);
            // ⟨x, sign x⟩ / √d is what a 1-bit code keeps of a unit vector: 0.80 for
            // a random direction, 1/√d ≤ 0.13 for a coordinate axis.
            let kept = x.iter().map(|x| x.abs()).sum::<f32>() / (x.len() as f32).sqrt();
            assert!(kept > 0.75, "dim {dim}, coordinate {at}: {kept}");
        }
    }
}

#[test]
fn should_rotate_by_the_seed() {
    let rotated = |seed| {
        let mut x = floats(1, 768);
        Rotation::new(768, seed).apply(vexlake_distance::kernels(), &mut x);
        x.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(rotated(5), rotated(5));
    assert_ne!(rotated(5), rotated(6));
    // The rotation is part of the format: these are the bits of format version 1.
    assert_eq!(rotated(5)[..4], GOLDEN_ROTATION);
}

const GOLDEN_ROTATION: [u32; 4] = [1059774034, 3191307853, 1053081750, 1059331024];

/// ⟨s, q⟩ from the table's own integers, bit by bit.
fn exact_sum(table: &LookupTable, code: &[u8]) -> u32 {
    let words = table.negative().len();
    let bit = |word: u64, i: usize| (word >> (i % 64)) & 1;
    let magnitude = |i: usize| {
        let planes = table.planes().chunks_exact(words).enumerate();
        planes
            .map(|(place, plane)| (bit(plane[i / 64], i) << place) as u32)
            .sum::<u32>()
    };
    (0..64 * words)
        .filter(|i| u64::from((code[i / 8] >> (i % 8)) & 1) != bit(table.negative()[i / 64], *i))
        .map(magnitude)
        .sum()
}

#[test]
fn should_estimate_the_product_with_signs_within_the_residue() {
    for dim in code_dims() {
        let query = floats(dim as u64 + 5, dim);
        let mut table = LookupTable::default();
        table.build(vexlake_distance::kernels(), &query);
        table.build_planes();
        for seed in 0..4 {
            let code = bytes(seed + 100, code_bytes(dim));
            let signs: Vec<f32> = (0..dim)
                .map(|i| {
                    if (code[i / 8] >> (i % 8)) & 1 == 1 {
                        1.0
                    } else {
                        -1.0
                    }
                })
                .collect();
            let sum = exact_sum(&table, &code) as f32;
            let estimate = f64::from(sum * table.scale() + table.offset());
            // The rest is a sum of random signs times what rounding left: one
            // standard deviation is the residue, six is not seen by chance.
            let error = (estimate - dot(&signs, &query)).abs();
            let bound = 6.0 * f64::from(table.residue()) + 1e-4 * dim as f64;
            assert!(error < bound, "dim {dim}: {error} beyond {bound}");
        }
    }
}

#[test]
fn should_build_the_same_table_on_every_instruction_set() {
    let scalar = kernels_named("scalar").expect("always there");
    for dim in code_dims() {
        let mut query = floats(dim as u64 + 17, dim);
        query[dim / 2] = -0.0;
        query[dim / 3] = 0.0;
        let (mut expected, mut table) = (LookupTable::default(), LookupTable::default());
        expected.build(scalar, &query);
        expected.build_planes();
        for kernels in tables() {
            table.build(kernels, &query);
            table.build_planes();
            let what = format!("{} dim {dim}", kernels.name);
            assert_eq!(table.table(), expected.table(), "{what}");
            assert_eq!(table.planes(), expected.planes(), "{what}");
            assert_eq!(table.negative(), expected.negative(), "{what}");
            assert_eq!(table.scale(), expected.scale(), "{what}");
            assert_eq!(table.offset(), expected.offset(), "{what}");
        }
    }
}

#[test]
fn should_give_codes_and_their_sums_on_every_instruction_set() {
    for dim in code_dims() {
        let (x, c) = (floats(dim as u64, dim), floats(dim as u64 + 1, dim));
        let residuals = || x.iter().zip(&c).map(|(x, c)| x - c);
        let square: f64 = residuals().map(|r| f64::from(r) * f64::from(r)).sum();
        let sum: f64 = residuals().map(|r| f64::from(r.abs())).sum();
        let signs = residuals().map(|r| if r > 0.0 { 1.0 } else { -1.0 });
        let signed: f64 = signs.zip(&c).map(|(s, c)| s * f64::from(*c)).sum();
        for kernels in tables() {
            let mut code = vec![0xff; code_bytes(dim)];
            let sums = (kernels.code_of)(&x, &c, &mut code);
            for (i, residual) in residuals().enumerate() {
                assert_eq!((code[i / 8] >> (i % 8)) & 1 == 1, residual > 0.0);
            }
            let near = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-4 * dim as f64;
            assert!(
                near(sums.square, square) && near(sums.sum, sum),
                "{}",
                kernels.name
            );
            assert!(near(sums.signed_centroid, signed), "{}", kernels.name);
        }
    }
}

#[test]
fn should_sum_blocks_and_rows_to_the_same_integers_at_every_alignment() {
    for dim in code_dims() {
        let row_bytes = code_bytes(dim);
        let mut table = LookupTable::default();
        table.build(vexlake_distance::kernels(), &floats(dim as u64, dim));
        table.build_planes();
        let rows = bytes(dim as u64 + 1, BLOCK_ROWS * row_bytes);
        let expected: Vec<u32> = rows
            .chunks_exact(row_bytes)
            .map(|code| exact_sum(&table, code))
            .collect();
        let start = STARTS[dim / CODE_DIM_STEP % STARTS.len()];
        let mut all = vec![0xff; start + block_bytes(dim)];
        let block = &mut all[start..];
        pack_block(&rows, row_bytes, &mut block[..BLOCK_ROWS * row_bytes]);
        for (i, factor) in block[BLOCK_ROWS * row_bytes..]
            .chunks_exact_mut(4)
            .enumerate()
        {
            let value = if i < BLOCK_ROWS { 0.0f32 } else { -1.0 };
            factor.copy_from_slice(&value.to_le_bytes());
        }
        let line = Line {
            add: 0.0,
            shift: 0.0,
            scale: 1.0,
        };
        let mut halves = vec![vec![0xff; start]; 2];
        for (half, rows) in halves.iter_mut().zip(rows.chunks(HALF_ROWS * row_bytes)) {
            half.resize(start + HALF_ROWS * row_bytes, 0);
            pack_half(rows, row_bytes, &mut half[start..]);
            let factors = [0.0f32; HALF_ROWS].into_iter().chain([-1.0; HALF_ROWS]);
            half.extend(factors.flat_map(f32::to_le_bytes));
            assert_eq!(half.len(), start + half_bytes(dim));
        }
        for kernels in tables() {
            let what = format!("{} dim {dim}", kernels.name);
            let mut bounds = [0.0; BLOCK_ROWS];
            for (half, expected) in halves.iter().zip(expected.chunks(HALF_ROWS)) {
                let half = &half[start..];
                let within = (kernels.half_bounds)(
                    table.table(),
                    half,
                    &line,
                    f32::INFINITY,
                    half,
                    &mut bounds,
                );
                assert_eq!(within, u32::from(u16::MAX), "{what}");
                let sums = bounds[..HALF_ROWS].iter().map(|bound| *bound as u32);
                assert_eq!(sums.collect::<Vec<_>>(), expected, "{what}");
            }
            let all_within = (kernels.block_bounds)(
                table.table(),
                &all[start..],
                &line,
                f32::INFINITY,
                &[],
                &mut bounds,
            );
            assert_eq!(all_within, u32::MAX, "{what}");
            assert_eq!(bounds.map(|bound| bound as u32)[..], expected, "{what}");
            for count in [0, 1, 5, BLOCK_ROWS] {
                let mut unaligned = vec![0; start];
                unaligned.extend_from_slice(&rows[..count * row_bytes]);
                let mut sums = vec![7; count];
                (kernels.row_sums)(&table, &unaligned[start..], &mut sums);
                assert_eq!(sums, expected[..count], "{what}, {count} rows");
            }
        }
    }
}

#[test]
fn should_compute_bounds_and_compare_them_with_the_limit() {
    let dim = 192;
    let mut table = LookupTable::default();
    table.build(vexlake_distance::kernels(), &floats(9, dim));
    table.build_planes();
    let rows = bytes(4, BLOCK_ROWS * code_bytes(dim));
    let mut block = vec![0; block_bytes(dim)];
    pack_block(
        &rows,
        code_bytes(dim),
        &mut block[..BLOCK_ROWS * code_bytes(dim)],
    );
    let mut factors = floats(8, 2 * BLOCK_ROWS);
    factors[3] = f32::NAN;
    factors[4] = f32::NEG_INFINITY;
    factors[5] = f32::INFINITY;
    for (to, factor) in block[BLOCK_ROWS * code_bytes(dim)..]
        .chunks_exact_mut(4)
        .zip(&factors)
    {
        to.copy_from_slice(&factor.to_le_bytes());
    }
    let line = Line {
        add: 0.25,
        shift: -3.0,
        scale: 0.01,
    };
    let expected: Vec<f64> = (0..BLOCK_ROWS)
        .map(|row| {
            let code = &rows[row * code_bytes(dim)..(row + 1) * code_bytes(dim)];
            let product = f64::from(exact_sum(&table, code)) * 0.01f32 as f64 - 3.0;
            f64::from(factors[row]) + 0.25 - f64::from(factors[BLOCK_ROWS + row]) * product
        })
        .collect();
    let (first, second) = factors.split_at(BLOCK_ROWS);
    let mut half = vec![0; half_bytes(dim)];
    let (codes, places) = half.split_at_mut(HALF_ROWS * code_bytes(dim));
    pack_half(&rows[..codes.len()], code_bytes(dim), codes);
    let few = first[..HALF_ROWS].iter().chain(&second[..HALF_ROWS]);
    for (to, factor) in places.chunks_exact_mut(4).zip(few) {
        to.copy_from_slice(&factor.to_le_bytes());
    }
    for kernels in tables() {
        let both = [
            (kernels.block_bounds, &block, BLOCK_ROWS),
            (kernels.half_bounds, &half, HALF_ROWS),
        ];
        let limits = [f32::NEG_INFINITY, -1.0, 0.5, 2.0, f32::INFINITY];
        for ((kernel, block, rows), limit) in both.iter().flat_map(|both| limits.map(|l| (both, l)))
        {
            let mut bounds = [0.0; BLOCK_ROWS];
            let within = kernel(table.table(), block, &line, limit, block, &mut bounds);
            assert_eq!(u64::from(within) >> rows, 0);
            for row in 0..*rows {
                let (bound, exact) = (f64::from(bounds[row]), expected[row]);
                let equal = bound == exact || (bound.is_nan() && exact.is_nan());
                assert!(
                    equal || (bound - exact).abs() < 1e-4,
                    "{} row {row}",
                    kernels.name
                );
                assert_eq!((within >> row) & 1 == 1, bounds[row] <= limit);
            }
        }
    }
}

#[test]
fn should_panic_on_codes_that_do_not_fit_rather_than_read_beyond() {
    std::panic::set_hook(Box::new(|_| {}));
    for kernels in tables() {
        let line = Line::default();
        let mut table = LookupTable::default();
        table.build(kernels, &[1.0; 64]);
        table.build_planes();
        let refused = std::panic::catch_unwind(|| {
            (kernels.block_bounds)(
                &[0; 256],
                &[0; 511],
                &line,
                0.0,
                &[],
                &mut [0.0; BLOCK_ROWS],
            )
        });
        assert!(refused.is_err());
        let refused = std::panic::catch_unwind(|| {
            (kernels.block_bounds)(
                &[0; 128],
                &[0; 384],
                &line,
                0.0,
                &[],
                &mut [0.0; BLOCK_ROWS],
            )
        });
        assert!(refused.is_err());
        for (table, half) in [(256, 255), (256, 384), (128, 192)] {
            let (table, half) = (vec![0; table], vec![0; half]);
            let refused = std::panic::catch_unwind(|| {
                let mut bounds = [0.0; BLOCK_ROWS];
                (kernels.half_bounds)(&table, &half, &line, 0.0, &[], &mut bounds)
            });
            assert!(refused.is_err());
        }
        let refused =
            std::panic::catch_unwind(|| (kernels.row_sums)(&table, &[0; 15], &mut [0; 2]));
        assert!(refused.is_err());
        let refused =
            std::panic::catch_unwind(|| (kernels.positions_le)(&[0.0; 9], 0.0, &mut [0; 8]));
        assert!(refused.is_err());
        for (signs, x) in [(64, 63), (32, 32), (192, 192)] {
            let refused = std::panic::catch_unwind(|| {
                (kernels.hadamard)(&vec![1.0; signs], &mut vec![1.0; x])
            });
            assert!(refused.is_err());
        }
    }
    let _ = std::panic::take_hook();
}

#[test]
fn should_find_the_values_within_a_limit_at_every_length_and_start() {
    for kernels in tables() {
        for start in STARTS {
            for len in (0..=70).chain([1000]) {
                let mut all = floats(len as u64 + 3, start + len);
                if len > 9 {
                    all[start + 9] = f32::NAN;
                }
                let values = &all[start..];
                for limit in [f32::NEG_INFINITY, -0.5, 0.1, f32::INFINITY, f32::NAN] {
                    let expected: Vec<u32> = (0..len as u32)
                        .filter(|i| values[*i as usize] <= limit)
                        .collect();
                    let mut positions = vec![u32::MAX; len];
                    let found = (kernels.positions_le)(values, limit, &mut positions);
                    assert_eq!(positions[..found], expected, "{} {len}", kernels.name);
                    assert_eq!((kernels.count_le)(values, limit), expected.len());
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn should_compute_int8_products_exactly(
        (a, b) in (0usize..300).prop_flat_map(|dim| {
            let side = || prop::collection::vec(any::<i8>(), dim);
            (side(), side())
        }),
        start in 0usize..40,
    ) {
        let start = start.min(a.len());
        let (a, b) = (&a[start..], &b[start..]);
        let pairs = a.iter().zip(b);
        let dot: i64 = pairs.map(|(x, y)| i64::from(*x) * i64::from(*y)).sum();
        for kernels in tables() {
            prop_assert_eq!(i64::from((kernels.dot_i8)(a, b)), dot);
        }
    }
}

#[test]
fn should_not_overflow_int8_products_of_the_largest_dimension() {
    let (low, high) = (vec![i8::MIN; 65_536], vec![i8::MAX; 65_536]);
    for kernels in tables() {
        assert_eq!((kernels.dot_i8)(&low, &low), 65_536 * 128 * 128);
        assert_eq!((kernels.dot_i8)(&low, &high), -65_536 * 128 * 127);
    }
}
