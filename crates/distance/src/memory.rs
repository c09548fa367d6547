//! Memory that scans like to read: aligned to cache lines, on huge pages where the
//! system has them; and prefetches.
//!
//! A random row of a gigabyte misses the TLB as well as the cache; with 2 MiB
//! pages the whole gigabyte needs 512 entries. Linux gives them on request only
//! (`madvise`), on other systems this is plain aligned memory.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The size of a huge page on x86-64 and on most aarch64 systems.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// From here on a buffer takes whole huge pages: at most half of one stays empty,
/// less than what thousands of small pages cost a scan that jumps between lists.
const HUGE_BYTES_MIN: usize = HUGE_PAGE_BYTES / 2;
/// Small buffers start on a cache line.
const LINE_BYTES: usize = 64;

/// A fixed number of bytes, zero at first, aligned to 64 bytes; from 1 MiB on
/// aligned to huge pages and advised to lie on them.
pub struct HugeBytes {
    start: NonNull<u8>,
    layout: Layout,
    len: usize,
}

// SAFETY: the memory belongs to this value alone, and shared references only read.
unsafe impl Send for HugeBytes {}
// SAFETY: as above.
unsafe impl Sync for HugeBytes {}

impl HugeBytes {
    /// Panics where the system has no such memory, as any collection does.
    pub fn zeroed(len: usize) -> Self {
        let huge = len >= HUGE_BYTES_MIN;
        let align = if huge { HUGE_PAGE_BYTES } else { LINE_BYTES };
        let size = len.max(1).next_multiple_of(align);
        let layout = Layout::from_size_align(size, align).expect("no more than isize::MAX");
        // SAFETY: the layout's size is at least 1.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        #[cfg(target_os = "linux")]
        if huge {
            // SAFETY: the pages belong to this buffer; the advice changes how they
            // are backed and never what they hold. A refusal costs speed only.
            let _ = unsafe {
                rustix::mm::madvise(
                    start.as_ptr().cast(),
                    size,
                    rustix::mm::Advice::LinuxHugepage,
                )
            };
        }
        // SAFETY: the layout has at least `len` bytes. Zeroed only now: a page that
        // is touched before the advice stays small.
        unsafe { start.as_ptr().write_bytes(0, len) };
        Self { start, layout, len }
    }

    /// A copy of the bytes.
    pub fn copied(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        copy.copy_from_slice(bytes);
        copy
    }

    /// The bytes as floats in this machine's order; what does not fill a float at
    /// the end is left out.
    pub fn floats(&self) -> &[f32] {
        // SAFETY: 64-byte aligned, `len / 4` floats lie inside, and every pattern
        // of four bytes is a float.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len / 4) }
    }

    /// As [`HugeBytes::floats`], to write.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as `floats`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len / 4) }
    }
}

impl Deref for HugeBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes belong to this value.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for HugeBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `deref`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for HugeBytes {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and never again after.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl std::fmt::Debug for HugeBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HugeBytes").field("len", &self.len).finish()
    }
}

/// Asks for the cache lines of some values. Nothing where stable Rust has no such
/// instruction.
#[inline]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(values)).step_by(LINE_BYTES) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_byte_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

#[cfg(test)]
mod tests {
    use super::{HUGE_BYTES_MIN, HUGE_PAGE_BYTES, HugeBytes};

    #[test]
    fn should_hold_any_length_aligned_and_zeroed() {
        for len in [0, 1, 63, 4096, HUGE_BYTES_MIN, HUGE_PAGE_BYTES * 2 + 5] {
            let mut bytes = HugeBytes::zeroed(len);
            assert_eq!(bytes.len(), len);
            assert_eq!(bytes.as_ptr() as usize % 64, 0);
            assert!(bytes.iter().all(|byte| *byte == 0));
            if let Some(last) = bytes.last_mut() {
                *last = 7;
            }
            assert_eq!(&*HugeBytes::copied(&bytes), &*bytes);
            assert_eq!(bytes.floats_mut().len(), len / 4);
        }
    }
}
