//! Vector blocks in memory, shared by all segments of a process.
//!
//! Bounded by bytes; S3-FIFO-like admission (quick_cache), so that one long scan
//! does not push out what queries keep asking for. Single flight: whoever asks
//! for a block while it is being loaded waits for that load; if the loader is
//! cancelled or fails, the next one in line loads. Errors are not cached.

use crate::error::Result;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use ulid::Ulid;

/// What an entry costs beside its floats: key, Arc, Vec, slot; rounded up.
const ENTRY_OVERHEAD_BYTES: u64 = 128;
/// Blocks of ~1 MiB, smaller for few dimensions; only sizes the first tables.
const BLOCK_BYTES_TYPICAL: usize = 256 << 10;
/// A shard should hold many blocks, or a block larger than the shard is never kept.
const SHARD_BYTES_MIN: usize = 32 << 20;
const SHARDS_MAX: usize = 16;

/// Consecutive vectors of one segment, verified and aligned for SIMD loads.
#[derive(Debug, PartialEq)]
pub struct VectorBlock {
    /// The ordinal of the first vector.
    pub first_row: u32,
    dim: usize,
    values: Vec<f32>,
}

impl VectorBlock {
    pub(crate) fn new(first_row: u32, dim: usize, values: Vec<f32>) -> Self {
        Self {
            first_row,
            dim,
            values,
        }
    }

    /// How many vectors it holds.
    pub fn rows(&self) -> u32 {
        (self.values.len() / self.dim) as u32
    }

    /// rows × dim floats.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The vector of an ordinal; panics where the block does not hold it.
    pub fn vector(&self, ordinal: u32) -> &[f32] {
        let at = (ordinal - self.first_row) as usize * self.dim;
        &self.values[at..at + self.dim]
    }
}

pub(crate) type BlockKey = (Ulid, u32);

#[derive(Clone)]
struct BlockWeighter;

impl Weighter<BlockKey, Arc<VectorBlock>> for BlockWeighter {
    fn weight(&self, _key: &BlockKey, block: &Arc<VectorBlock>) -> u64 {
        size_of_val(block.values()) as u64 + ENTRY_OVERHEAD_BYTES
    }
}

type Blocks = Cache<
    BlockKey,
    Arc<VectorBlock>,
    BlockWeighter,
    DefaultHashBuilder,
    DefaultLifecycle<BlockKey, Arc<VectorBlock>>,
>;

/// A bounded cache of vector blocks. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct VectorCache(Arc<Inner>);

struct Inner {
    blocks: Blocks,
    bytes_max: usize,
    lookups: AtomicU64,
    loads: AtomicU64,
}

/// Counters since the start and what is held now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheStats {
    /// Blocks asked for.
    pub lookups: u64,
    /// Blocks read from the store; lookups − loads were served from memory or
    /// by somebody else's load.
    pub loads: u64,
    /// Blocks held.
    pub blocks: u64,
    /// Bytes held, overhead included.
    pub bytes: u64,
    /// The bound.
    pub bytes_max: u64,
}

impl VectorCache {
    /// A cache that holds at most `bytes_max` bytes; 0 keeps nothing, and every
    /// block is then read when asked for.
    pub fn new(bytes_max: usize) -> Self {
        let shards = (bytes_max / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        let mut options = OptionsBuilder::new();
        options
            .shards(shards)
            .estimated_items_capacity((bytes_max / BLOCK_BYTES_TYPICAL).max(1))
            .weight_capacity(bytes_max as u64);
        let blocks = match options.build() {
            Ok(options) => Cache::with_options(
                options,
                BlockWeighter,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            // Both capacities are set above, the only thing that build() checks;
            // this constructor gives the same cache with default shards.
            Err(_) => Cache::with(
                1,
                bytes_max as u64,
                BlockWeighter,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
        };
        Self(Arc::new(Inner {
            blocks,
            bytes_max,
            lookups: AtomicU64::new(0),
            loads: AtomicU64::new(0),
        }))
    }

    /// Counters and occupancy.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            lookups: self.0.lookups.load(Ordering::Relaxed),
            loads: self.0.loads.load(Ordering::Relaxed),
            blocks: self.0.blocks.len() as u64,
            bytes: self.0.blocks.weight(),
            bytes_max: self.0.bytes_max as u64,
        }
    }

    /// The block, from memory or by `load`, which runs at most once at a time
    /// per key.
    pub(crate) async fn get_or_load(
        &self,
        key: BlockKey,
        load: impl Future<Output = Result<VectorBlock>>,
    ) -> Result<Arc<VectorBlock>> {
        self.0.lookups.fetch_add(1, Ordering::Relaxed);
        let counted = async {
            self.0.loads.fetch_add(1, Ordering::Relaxed);
            load.await.map(Arc::new)
        };
        self.0.blocks.get_or_insert_async(&key, counted).await
    }

    /// The block if it is in memory, which then counts as a lookup served.
    pub(crate) fn held(&self, key: BlockKey) -> Option<Arc<VectorBlock>> {
        let found = self.peek(key)?;
        self.0.lookups.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    /// The block if it is in memory; does not count as a lookup.
    pub(crate) fn peek(&self, key: BlockKey) -> Option<Arc<VectorBlock>> {
        self.0.blocks.get(&key)
    }
}

impl std::fmt::Debug for VectorCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("VectorCache").field(&self.stats()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{VectorBlock, VectorCache};
    use crate::error::SegmentError;
    use futures::future::join_all;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Semaphore;
    use ulid::Ulid;

    const DIM: usize = 256;

    fn key(block: u32) -> super::BlockKey {
        (Ulid::from(1u128), block)
    }

    fn block(first_row: u32, rows: usize) -> VectorBlock {
        VectorBlock::new(first_row, DIM, vec![1.0; rows * DIM])
    }

    #[tokio::test]
    async fn should_load_a_block_once_however_many_ask_for_it_together() {
        let cache = VectorCache::new(1 << 20);
        let gate = Semaphore::new(0);
        let loads = AtomicU32::new(0);
        let load = || async {
            loads.fetch_add(1, Ordering::Relaxed);
            let _ = gate.acquire().await;
            Ok(block(7, 4))
        };
        let asking = join_all((0..16).map(|_| cache.get_or_load(key(0), load())));
        let (blocks, ()) = tokio::join!(asking, async { gate.add_permits(1) });
        for found in blocks {
            assert_eq!(found.expect("a block").first_row, 7);
        }
        assert_eq!(loads.into_inner(), 1);
        assert_eq!((cache.stats().lookups, cache.stats().loads), (16, 1));
    }

    #[tokio::test]
    async fn should_let_the_next_in_line_load_when_the_loader_is_cancelled_or_fails() {
        let cache = VectorCache::new(1 << 20);
        let mut cancelled = Box::pin(cache.get_or_load(key(0), std::future::pending()));
        assert!(futures::poll!(&mut cancelled).is_pending());
        let mut failing = Box::pin(
            cache.get_or_load(key(0), async { Err(SegmentError::invalid("a", "b", "c")) }),
        );
        assert!(futures::poll!(&mut failing).is_pending());
        let waiting = cache.get_or_load(key(0), async { Ok(block(3, 1)) });
        drop(cancelled);
        assert!(failing.await.is_err());
        assert_eq!(waiting.await.expect("a block").first_row, 3);
    }

    #[tokio::test]
    async fn should_never_hold_more_than_its_bytes() {
        for bytes_max in [0, 10_000, 100_000, 1 << 20] {
            let cache = VectorCache::new(bytes_max);
            for number in 0..500 {
                let rows = 1 + number as usize % 20;
                let found = cache
                    .get_or_load(key(number), async { Ok(block(number, rows)) })
                    .await;
                assert_eq!(found.expect("a block").rows(), rows as u32);
                assert!(
                    cache.stats().bytes <= bytes_max as u64,
                    "{:?}",
                    cache.stats()
                );
            }
            assert_eq!(cache.stats().blocks == 0, bytes_max == 0);
        }
    }

    #[tokio::test]
    async fn should_answer_from_memory_what_it_holds() {
        let cache = VectorCache::new(1 << 20);
        for _ in 0..3 {
            cache
                .get_or_load(key(5), async { Ok(block(5, 2)) })
                .await
                .expect("a block");
        }
        assert_eq!(cache.stats().loads, 1);
        assert!(cache.peek(key(5)).is_some() && cache.peek(key(6)).is_none());
    }
}
