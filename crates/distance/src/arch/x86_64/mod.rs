//! Kernels for 64-bit x86, narrowest first.

pub(crate) mod avx2;
pub(crate) mod avx512;
