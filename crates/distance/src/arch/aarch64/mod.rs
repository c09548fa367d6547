//! Kernels for 64-bit ARM: floats, codes, selection and bytes.

pub(crate) mod neon;
mod neon_codes;
mod neon_select;
