//! One folder per instruction set; the algorithms over floats are in `generic`
//! and `hadamard`. Codes and selection live on integer registers that differ too
//! much for one text: each instruction set writes them out, beside the reference
//! in `scalar_codes` and `scalar_select`.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) mod generic;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) mod hadamard;
pub(crate) mod scalar;
mod scalar_codes;
mod scalar_select;

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;
