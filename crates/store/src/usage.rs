//! Request accounting: what left this process for the store, and how much.
//!
//! Every attempt counts, retries too, because every attempt is paid for. Rounds of
//! dependent requests are the callers' to count: only they know what waited for what.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::Op;

/// A reading of the counters since the store was opened; shared by all scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Whole-object reads.
    pub gets: u64,
    /// Range reads, after merging.
    pub ranges: u64,
    /// Size questions (HEAD requests).
    pub sizes: u64,
    /// Create-only writes.
    pub creates: u64,
    /// Compare-and-swap writes.
    pub swaps: u64,
    /// Plain writes; each part of a multipart upload, its start and its end count as one.
    pub puts: u64,
    /// Deletions.
    pub deletes: u64,
    /// Listings.
    pub lists: u64,
    /// Attempts beyond the first, within the counts above.
    pub retries: u64,
    /// Attempts that failed, "not found" apart.
    pub errors: u64,
    /// Bytes of objects received.
    pub bytes_in: u64,
    /// Bytes of objects sent.
    pub bytes_out: u64,
}

/// The live counters behind [`Usage`].
#[derive(Default)]
pub(crate) struct Counters {
    requests: [AtomicU64; Op::COUNT],
    retries: AtomicU64,
    errors: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

// Relaxed throughout: the counters are statistics and order nothing.
impl Counters {
    pub(crate) fn request(&self, op: Op) {
        self.requests[op as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Usage {
        let of = |op: Op| self.requests[op as usize].load(Ordering::Relaxed);
        Usage {
            gets: of(Op::Get),
            ranges: of(Op::Ranges),
            sizes: of(Op::Size),
            creates: of(Op::Create),
            swaps: of(Op::Swap),
            puts: of(Op::Put),
            deletes: of(Op::Delete),
            lists: of(Op::List),
            retries: self.retries.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }
}
