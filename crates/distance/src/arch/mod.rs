//! One folder per instruction set; the algorithms themselves are in `generic`.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) mod generic;
pub(crate) mod scalar;

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;
