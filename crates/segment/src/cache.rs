//! Vector blocks and index pages in memory, shared by all segments of a process.
//!
//! Bounded by bytes, all kinds together; S3-FIFO-like admission (quick_cache), so that
//! one long scan does not push out what queries keep asking for. Single flight: whoever
//! asks for an item while it is being loaded waits for that load; if the loader is
//! cancelled or fails, the next one in line loads. Errors are not cached.
//!
//! Pages are asked for many at a time and read in one wave. Who loads some and waits for
//! others loads first: nobody waits while others wait for him.

use crate::error::{Result, SegmentError};
use crate::index::Section;
use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use ulid::Ulid;
use vexlake_distance::kernels;

/// What an item costs beside its bytes: key, Arc, Vec, slot; rounded up.
const ITEM_OVERHEAD_BYTES: u64 = 128;
/// Blocks of ~1 MiB, smaller for few dimensions, and pages of some KiB; only sizes the
/// first tables.
const ITEM_BYTES_TYPICAL: usize = 64 << 10;
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
    norms: Vec<f32>,
}

impl VectorBlock {
    /// Norms are computed here and not stored: one dot a row, beside the checksum that
    /// the row has just been read for, costs less than reading 4 bytes more.
    pub(crate) fn new(first_row: u32, dim: usize, values: Vec<f32>) -> Self {
        let norms = values.chunks_exact(dim).map(kernels().norm).collect();
        Self {
            first_row,
            dim,
            values,
            norms,
        }
    }

    /// How many vectors it holds.
    pub fn rows(&self) -> u32 {
        self.norms.len() as u32
    }

    /// rows × dim floats.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// |vector| of every row.
    pub fn norms(&self) -> &[f32] {
        &self.norms
    }

    /// The vector of an ordinal; panics where the block does not hold it.
    pub fn vector(&self, ordinal: u32) -> &[f32] {
        let at = (ordinal - self.first_row) as usize * self.dim;
        &self.values[at..at + self.dim]
    }
}

/// What an item is; pages of different sections have numbers of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Part {
    Vectors,
    /// One record's vector, for who needs few of a block.
    Row,
    Index(Section),
}

type Key = (Ulid, Part, u32);

#[derive(Clone)]
enum Item {
    Block(Arc<VectorBlock>),
    Page(Bytes),
}

impl Item {
    fn block(self) -> Arc<VectorBlock> {
        match self {
            Item::Block(block) => block,
            Item::Page(_) => unreachable!("pages are kept under keys of their own"),
        }
    }

    fn page(self) -> Bytes {
        match self {
            Item::Page(page) => page,
            Item::Block(_) => unreachable!("blocks are kept under keys of their own"),
        }
    }
}

#[derive(Clone)]
struct ItemWeighter;

impl Weighter<Key, Item> for ItemWeighter {
    fn weight(&self, _key: &Key, item: &Item) -> u64 {
        let bytes = match item {
            Item::Block(block) => size_of_val(block.values()) + size_of_val(block.norms()),
            Item::Page(page) => page.len(),
        };
        bytes as u64 + ITEM_OVERHEAD_BYTES
    }
}

type Items = Cache<Key, Item, ItemWeighter, DefaultHashBuilder, DefaultLifecycle<Key, Item>>;

/// A bounded cache of vector blocks and index pages. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct BlockCache(Arc<Inner>);

struct Inner {
    items: Items,
    bytes_max: usize,
    lookups: AtomicU64,
    loads: AtomicU64,
}

/// What one caller's reads cost, added up from all segments that he asks.
#[derive(Debug, Default)]
pub struct ReadCounts {
    held: AtomicU64,
    loaded: AtomicU64,
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// A reading of [`ReadCounts`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reads {
    /// Pages and rows that were in memory.
    pub held: u64,
    /// Pages and rows that were not.
    pub loaded: u64,
    /// Requests to the store for those, near ranges joined.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl ReadCounts {
    /// What was counted so far.
    pub fn read(&self) -> Reads {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Reads {
            held: of(&self.held),
            loaded: of(&self.loaded),
            requests: of(&self.requests),
            bytes: of(&self.bytes),
        }
    }

    /// Counts items that were in memory.
    pub fn add_held(&self, items: u64) {
        self.held.fetch_add(items, Ordering::Relaxed);
    }

    /// Counts items that were read.
    pub fn add_loaded(&self, items: u64, requests: u64, bytes: u64) {
        self.loaded.fetch_add(items, Ordering::Relaxed);
        self.requests.fetch_add(requests, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Counters since the start and what is held now; a block is a vector block or an index
/// page.
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

impl BlockCache {
    /// A cache that holds at most `bytes_max` bytes; 0 keeps nothing, and every
    /// block is then read when asked for.
    pub fn new(bytes_max: usize) -> Self {
        let shards = (bytes_max / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        let mut options = OptionsBuilder::new();
        options
            .shards(shards)
            .estimated_items_capacity((bytes_max / ITEM_BYTES_TYPICAL).max(1))
            .weight_capacity(bytes_max as u64);
        let items = match options.build() {
            Ok(options) => Cache::with_options(
                options,
                ItemWeighter,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            // Both capacities are set above, the only thing that build() checks;
            // this constructor gives the same cache with default shards.
            Err(_) => Cache::with(
                1,
                bytes_max as u64,
                ItemWeighter,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
        };
        Self(Arc::new(Inner {
            items,
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
            blocks: self.0.items.len() as u64,
            bytes: self.0.items.weight(),
            bytes_max: self.0.bytes_max as u64,
        }
    }

    /// The block, from memory or by `load`, which runs at most once at a time
    /// per key.
    pub(crate) async fn block(
        &self,
        (segment, number): (Ulid, u32),
        load: impl Future<Output = Result<VectorBlock>>,
    ) -> Result<Arc<VectorBlock>> {
        self.0.lookups.fetch_add(1, Ordering::Relaxed);
        let counted = async {
            self.0.loads.fetch_add(1, Ordering::Relaxed);
            load.await.map(|block| Item::Block(Arc::new(block)))
        };
        let key = (segment, Part::Vectors, number);
        let found = self.0.items.get_or_insert_async(&key, counted).await;
        found.map(Item::block)
    }

    /// The block if it is in memory, which then counts as a lookup served.
    pub(crate) fn held_block(&self, segment: Ulid, number: u32) -> Option<Arc<VectorBlock>> {
        let found = self.peek_block(segment, number)?;
        self.0.lookups.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    /// The block if it is in memory; does not count as a lookup.
    pub(crate) fn peek_block(&self, segment: Ulid, number: u32) -> Option<Arc<VectorBlock>> {
        let found = self.0.items.get(&(segment, Part::Vectors, number));
        found.map(Item::block)
    }

    /// The page if it is in memory, which then counts as a lookup served.
    pub(crate) fn held_page(&self, segment: Ulid, part: Part, number: u32) -> Option<Bytes> {
        let found = self.0.items.get(&(segment, part, number))?;
        self.0.lookups.fetch_add(1, Ordering::Relaxed);
        Some(found.page())
    }

    /// Pages in the order of their numbers, which are distinct: those not in memory by
    /// one call of `load`, but for pages that somebody else is loading.
    pub(crate) async fn pages<F: Future<Output = Result<Vec<Bytes>>>>(
        &self,
        segment: Ulid,
        part: Part,
        numbers: &[u32],
        load: impl Fn(Vec<u32>) -> F,
    ) -> Result<Vec<Bytes>> {
        let items = &self.0.items;
        let counted = |wanted: Vec<u32>| {
            let loads = wanted.len() as u64;
            self.0.loads.fetch_add(loads, Ordering::Relaxed);
            load(wanted)
        };
        self.0
            .lookups
            .fetch_add(numbers.len() as u64, Ordering::Relaxed);
        let key = |place: usize| (segment, part, numbers[place]);
        let mut found: Vec<Bytes> = vec![Bytes::new(); numbers.len()];
        let (mut ours, mut theirs) = (vec![], vec![]);
        for (place, found) in found.iter_mut().enumerate() {
            match items.get_value_or_guard(&key(place), Some(Duration::ZERO)) {
                GuardResult::Value(item) => *found = item.page(),
                GuardResult::Guard(guard) => ours.push((place, guard)),
                GuardResult::Timeout => theirs.push(place),
            }
        }
        if !ours.is_empty() {
            let wanted = ours.iter().map(|(place, _)| numbers[*place]).collect();
            let loaded = counted(wanted).await?;
            for ((place, guard), page) in ours.into_iter().zip(loaded) {
                // Refused only when the item was removed meanwhile; nobody removes.
                let _ = guard.insert(Item::Page(page.clone()));
                found[place] = page;
            }
        }
        for place in theirs {
            let alone = async {
                let mut page = counted(vec![numbers[place]]).await?;
                Ok::<_, SegmentError>(Item::Page(page.pop().unwrap_or_default()))
            };
            let item = items.get_or_insert_async(&key(place), alone).await;
            found[place] = item?.page();
        }
        Ok(found)
    }
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BlockCache").field(&self.stats()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{BlockCache, Part, VectorBlock};
    use crate::error::SegmentError;
    use crate::index::Section;
    use bytes::Bytes;
    use futures::future::join_all;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Semaphore;
    use ulid::Ulid;

    const DIM: usize = 256;

    fn key(block: u32) -> (Ulid, u32) {
        (Ulid::from(1u128), block)
    }

    fn block(first_row: u32, rows: usize) -> VectorBlock {
        VectorBlock::new(first_row, DIM, vec![1.0; rows * DIM])
    }

    #[tokio::test]
    async fn should_load_a_block_once_however_many_ask_for_it_together() {
        let cache = BlockCache::new(1 << 20);
        let gate = Semaphore::new(0);
        let loads = AtomicU32::new(0);
        let load = || async {
            loads.fetch_add(1, Ordering::Relaxed);
            let _ = gate.acquire().await;
            Ok(block(7, 4))
        };
        let asking = join_all((0..16).map(|_| cache.block(key(0), load())));
        let (blocks, ()) = tokio::join!(asking, async { gate.add_permits(1) });
        for found in blocks {
            assert_eq!(found.expect("a block").first_row, 7);
        }
        assert_eq!(loads.into_inner(), 1);
        assert_eq!((cache.stats().lookups, cache.stats().loads), (16, 1));
    }

    #[tokio::test]
    async fn should_let_the_next_in_line_load_when_the_loader_is_cancelled_or_fails() {
        let cache = BlockCache::new(1 << 20);
        let mut cancelled = Box::pin(cache.block(key(0), std::future::pending()));
        assert!(futures::poll!(&mut cancelled).is_pending());
        let mut failing =
            Box::pin(cache.block(key(0), async { Err(SegmentError::invalid("a", "b", "c")) }));
        assert!(futures::poll!(&mut failing).is_pending());
        let waiting = cache.block(key(0), async { Ok(block(3, 1)) });
        drop(cancelled);
        assert!(failing.await.is_err());
        assert_eq!(waiting.await.expect("a block").first_row, 3);
    }

    #[tokio::test]
    async fn should_never_hold_more_than_its_bytes() {
        for bytes_max in [0, 10_000, 100_000, 1 << 20] {
            let cache = BlockCache::new(bytes_max);
            for number in 0..500 {
                let rows = 1 + number as usize % 20;
                let found = cache
                    .block(key(number), async { Ok(block(number, rows)) })
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
        let cache = BlockCache::new(1 << 20);
        for _ in 0..3 {
            cache
                .block(key(5), async { Ok(block(5, 2)) })
                .await
                .expect("a block");
        }
        assert_eq!(cache.stats().loads, 1);
        let peek = |number| cache.peek_block(Ulid::from(1u128), number);
        assert!(peek(5).is_some() && peek(6).is_none());
    }

    fn page(number: u32) -> Bytes {
        Bytes::from(vec![number as u8; 100])
    }

    #[tokio::test]
    async fn should_load_each_page_once_for_overlapping_waves_that_wait_for_each_other() {
        let cache = BlockCache::new(1 << 20);
        let (gate, waves) = (Semaphore::new(0), AtomicU32::new(0));
        let load = |wanted: Vec<u32>| {
            let (gate, waves) = (&gate, &waves);
            async move {
                waves.fetch_add(1, Ordering::Relaxed);
                let _ = gate.acquire().await;
                Ok(wanted.into_iter().map(page).collect())
            }
        };
        let ask = |numbers: &'static [u32]| {
            let segment = Ulid::from(1u128);
            cache.pages(segment, Part::Index(Section::Entries), numbers, load)
        };
        // Each holds a page that the other wants.
        let asking = async { tokio::join!(ask(&[1, 2, 3]), ask(&[2, 3, 4]), ask(&[1, 4, 5])) };
        let ((a, b, c), ()) = tokio::join!(asking, async { gate.add_permits(1) });
        assert_eq!(a.expect("pages"), [1, 2, 3].map(page));
        assert_eq!(b.expect("pages"), [2, 3, 4].map(page));
        assert_eq!(c.expect("pages"), [1, 4, 5].map(page));
        assert_eq!(waves.into_inner(), 3);
        assert_eq!((cache.stats().lookups, cache.stats().loads), (9, 5));
    }

    #[tokio::test]
    async fn should_load_pages_itself_when_who_was_loading_them_fails() {
        let cache = BlockCache::new(1 << 20);
        let segment = Ulid::from(1u128);
        let gate = Semaphore::new(0);
        let fail = |_| async {
            let _ = gate.acquire().await;
            Err(SegmentError::invalid("a", "b", "c"))
        };
        let load = |wanted: Vec<u32>| async { Ok(wanted.into_iter().map(page).collect()) };
        let mut failing = Box::pin(cache.pages(segment, Part::Index(Section::Keys), &[1, 2], fail));
        assert!(futures::poll!(&mut failing).is_pending());
        let waiting = cache.pages(segment, Part::Index(Section::Keys), &[0, 1, 2], load);
        gate.add_permits(1);
        let (failed, waited) = tokio::join!(failing, waiting);
        assert!(failed.is_err());
        assert_eq!(waited.expect("pages"), [0, 1, 2].map(page));
    }
}
