//! Kernels for 64-bit x86, narrowest first: floats, codes, selection and bytes.

pub(crate) mod avx2;
mod avx2_codes;
mod avx2_select;
pub(crate) mod avx512;
mod avx512_codes;
mod avx512_select;
