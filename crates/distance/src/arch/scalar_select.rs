//! Selection and int8 kernels in plain Rust: what the others must equal.

/// See [`crate::Kernels::count_le`].
pub(super) fn count_le(values: &[f32], limit: f32) -> usize {
    values.iter().filter(|value| **value <= limit).count()
}

/// See [`crate::Kernels::positions_le`].
pub(super) fn positions_le(values: &[f32], limit: f32, positions: &mut [u32]) -> usize {
    assert!(positions.len() >= values.len(), "room for every position");
    let mut found = 0;
    for (position, value) in values.iter().enumerate() {
        positions[found] = position as u32;
        found += usize::from(*value <= limit);
    }
    found
}

/// See [`crate::Kernels::dot_i8`].
pub(super) fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    assert_eq!(a.len(), b.len(), "vectors of different dimensions");
    let products = a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b));
    products.sum()
}
