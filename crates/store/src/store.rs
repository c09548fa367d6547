//! [`Store`]: the handle everything else holds. Key checks, retries, accounting.
//!
//! Reads and writes of write-once names are repeated inside (their repetition
//! changes nothing); conditional writes go out once. Cloning and scoping are cheap
//! and share one backend, one set of counters and one patience.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::config::{Location, parse_url};
use crate::directory::Directory;
use crate::faults::{Faults, Faulty, Op};
use crate::key;
use crate::patience::{Patience, retry};
use crate::ranges::plan_reads;
use crate::s3::S3;
use crate::usage::{Counters, Usage};
use crate::{StoreConfig, StoreError};

/// Range reads of one call in flight at once. 16 reads of at most 8 MiB (the merge
/// limit) hold 128 MiB at worst, and fill a 10 Gbit/s link at 10 ms a request.
const READS_IN_FLIGHT_MAX: usize = 16;

/// Outcome of a create-only write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// This call made the object.
    Created,
    /// The store says that something is there. It may be this call's own body (a lost
    /// reply) or, after a 409, nothing at all: read the object before concluding.
    Exists,
}

/// Outcome of a compare-and-swap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Swapped {
    /// This call replaced the object; the tag of what is there now.
    Swapped(Tag),
    /// The object is not what was expected. It may be so because this call's own
    /// write was applied and its reply lost: read the object before concluding.
    Lost,
}

/// Identifies one content of one key: the ETag, or a hash of the content.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Tag(pub(crate) String);

/// One line of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Key relative to the store that listed it.
    pub key: String,
    /// Bytes.
    pub size: u64,
}

/// What a backend does, one request a call, without retries. Keys are whole.
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// Where it is, for messages.
    fn describe(&self) -> String;
    /// How many ranges one `ranges` call takes: the directory opens a file once for
    /// all, S3 sends one request each.
    fn ranges_per_call(&self) -> usize;
    fn local_path(&self, key: &str) -> Option<PathBuf>;
    async fn get(&self, key: &str) -> Result<(Bytes, Tag), StoreError>;
    async fn ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError>;
    async fn size(&self, key: &str) -> Result<u64, StoreError>;
    async fn create(&self, key: &str, body: Bytes) -> Result<Created, StoreError>;
    async fn swap(
        &self,
        key: &str,
        expected: Option<&Tag>,
        body: Bytes,
    ) -> Result<Swapped, StoreError>;
    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError>;
    async fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError>;
    async fn delete(&self, key: &str) -> Result<(), StoreError>;
    /// Everything below `prefix` (whole components; empty for all), keys whole.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError>;
}

struct Shared {
    backend: Arc<dyn Backend>,
    counters: Arc<Counters>,
    patience: Patience,
}

/// An object store, or the part of one below a prefix.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    prefix: Arc<str>,
}

impl Store {
    /// Opens the store that `config` names. No request is sent; see [`Store::probe`].
    pub async fn open(config: &StoreConfig) -> Result<Store, StoreError> {
        match parse_url(&config.url)? {
            Location::Directory(path) => {
                let opened = tokio::task::spawn_blocking(move || Store::directory(path)).await;
                opened.map_err(|e| {
                    StoreError::refused(&config.url, format!("open task ended: {e}"))
                })?
            }
            Location::S3 { bucket, prefix } => {
                let counters = Arc::new(Counters::default());
                let backend =
                    S3::open(config, &bucket, Arc::clone(&counters), Patience::default())?;
                let store = Store::over(Arc::new(backend), counters);
                Ok(store.scoped(&prefix))
            }
        }
    }

    /// Opens a directory store, creating the directory where it is missing. Blocks.
    pub fn directory(path: impl AsRef<Path>) -> Result<Store, StoreError> {
        let backend = Directory::open(path.as_ref())?;
        Ok(Store::over(
            Arc::new(backend),
            Arc::new(Counters::default()),
        ))
    }

    pub(crate) fn over(backend: Arc<dyn Backend>, counters: Arc<Counters>) -> Store {
        let shared = Shared {
            backend,
            counters,
            patience: Patience::default(),
        };
        Store {
            shared: Arc::new(shared),
            prefix: "".into(),
        }
    }

    /// The same store with scripted faults between the retries and the backend, and
    /// with waits of microseconds instead of the real ones.
    pub fn with_faults(self, faults: Arc<Faults>) -> Store {
        let backend = Faulty::new(Arc::clone(&self.shared.backend), faults);
        let shared = Shared {
            backend: Arc::new(backend),
            counters: Arc::clone(&self.shared.counters),
            patience: Patience::quick(),
        };
        Store {
            shared: Arc::new(shared),
            prefix: self.prefix,
        }
    }

    /// The part of this store below `prefix`. An invalid prefix makes every key
    /// below it invalid, so it is refused at the first request.
    pub fn scoped(&self, prefix: &str) -> Store {
        let prefix = key::join(&self.prefix, prefix.trim_end_matches('/'));
        Store {
            shared: Arc::clone(&self.shared),
            prefix: prefix.into(),
        }
    }

    /// Where this store lies, for messages: a path or a URL.
    pub fn describe(&self) -> String {
        let root = self.shared.backend.describe();
        if self.prefix.is_empty() {
            root
        } else {
            format!("{root}/{}", self.prefix)
        }
    }

    /// The limits of the retries inside, for callers who settle doubt in a loop.
    pub fn patience(&self) -> Patience {
        self.shared.patience
    }

    /// Reads a whole object. For objects that fit in memory; large ones by
    /// [`Store::get_ranges`]. `NotFound` where there is none.
    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        Ok(self.read(key).await?.0)
    }

    /// Reads a whole object with the tag that a later [`Store::swap`] expects.
    pub async fn get_tagged(&self, key: &str) -> Result<Option<(Bytes, Tag)>, StoreError> {
        match self.read(key).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read(&self, key: &str) -> Result<(Bytes, Tag), StoreError> {
        let key = self.key(key)?;
        let Shared {
            backend,
            counters,
            patience,
        } = &*self.shared;
        let found = retry(patience, counters, || {
            counters.request(Op::Get);
            backend.get(&key)
        });
        let (body, tag) = found.await?;
        counters.received(body.len() as u64);
        Ok((body, tag))
    }

    /// Reads byte ranges of one object, each answered in full or the whole call
    /// fails. Near ranges become one read; reads run in parallel. Results share
    /// memory where their ranges were joined.
    pub async fn get_ranges(
        &self,
        key: &str,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, StoreError> {
        let key = self.key(key)?;
        if let Some(bad) = ranges.iter().find(|r| r.start >= r.end) {
            return Err(StoreError::refused(
                key,
                format!("empty range {}..{}", bad.start, bad.end),
            ));
        }
        let plan = plan_reads(ranges);
        let per_call = self.shared.backend.ranges_per_call();
        // Collected first: a stream that holds a borrowing closure is not Send for every lifetime.
        let reads: Vec<_> = plan
            .reads
            .chunks(per_call)
            .map(|reads| self.read_ranges(&key, reads))
            .collect();
        let bodies: Vec<Vec<Bytes>> = stream::iter(reads)
            .buffered(READS_IN_FLIGHT_MAX)
            .try_collect()
            .await?;
        let bodies: Vec<Bytes> = bodies.into_iter().flatten().collect();
        let slice = |(range, &(read, offset)): (&Range<u64>, &(usize, usize))| {
            let length = (range.end - range.start) as usize;
            bodies[read].slice(offset..offset + length)
        };
        Ok(ranges.iter().zip(&plan.places).map(slice).collect())
    }

    /// Requests that [`Store::get_ranges`] sends for these ranges, retries apart.
    pub fn requests_for(&self, ranges: &[Range<u64>]) -> u64 {
        let reads = plan_reads(ranges).reads.len();
        reads.div_ceil(self.shared.backend.ranges_per_call()) as u64
    }

    async fn read_ranges(&self, key: &str, reads: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let Shared {
            backend,
            counters,
            patience,
        } = &*self.shared;
        let attempt = || async {
            counters.request(Op::Ranges);
            let bodies = backend.ranges(key, reads).await?;
            check_lengths(key, reads, &bodies)?;
            Ok(bodies)
        };
        let bodies = retry(patience, counters, attempt).await?;
        counters.received(bodies.iter().map(|b| b.len() as u64).sum());
        Ok(bodies)
    }

    /// Bytes of an object, or `None` where there is none.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let key = self.key(key)?;
        let Shared {
            backend,
            counters,
            patience,
        } = &*self.shared;
        let size = retry(patience, counters, || {
            counters.request(Op::Size);
            backend.size(&key)
        });
        match size.await {
            Ok(size) => Ok(Some(size)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates an object if there is none, durable on return; sent once. An error
    /// with `doubt` and [`Created::Exists`] are both settled by reading.
    pub async fn create(&self, key: &str, body: Bytes) -> Result<Created, StoreError> {
        let key = self.key(key)?;
        let Shared {
            backend, counters, ..
        } = &*self.shared;
        counters.request(Op::Create);
        counters.sent(body.len() as u64);
        let outcome = backend.create(&key, body).await;
        outcome.inspect_err(|_| counters.error())
    }

    /// Replaces an object if it still is what `expected` names (`None`: if there is
    /// none), durable on return; sent once. An error with `doubt` and
    /// [`Swapped::Lost`] are both settled by reading.
    pub async fn swap(
        &self,
        key: &str,
        expected: Option<&Tag>,
        body: Bytes,
    ) -> Result<Swapped, StoreError> {
        let key = self.key(key)?;
        let Shared {
            backend, counters, ..
        } = &*self.shared;
        counters.request(Op::Swap);
        counters.sent(body.len() as u64);
        let outcome = backend.swap(&key, expected, body).await;
        outcome.inspect_err(|_| counters.error())
    }

    /// Writes an object under a name that is only ever written with one content;
    /// durable on return, repeated inside.
    pub async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let key = self.key(key)?;
        let Shared {
            backend,
            counters,
            patience,
        } = &*self.shared;
        let put = retry(patience, counters, || {
            counters.request(Op::Put);
            counters.sent(body.len() as u64);
            backend.put(&key, body.clone())
        });
        put.await
    }

    /// Like [`Store::put`] from a finished local file, without holding it in memory.
    /// The directory backend links the file where it can: do not write to it after.
    pub async fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError> {
        let key = self.key(key)?;
        let Shared {
            backend,
            counters,
            patience,
        } = &*self.shared;
        let found = tokio::fs::metadata(path).await;
        let bytes = found
            .map_err(|e| StoreError::refused(&key, format!("stat the finished file: {e}")))?
            .len();
        counters.sent(bytes);
        // A multipart upload counts its parts and its end by itself.
        let put = retry(patience, counters, || {
            counters.request(Op::Put);
            backend.put_file(&key, path)
        });
        put.await
    }

    /// Deletes an object; absent is fine.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let key = self.key(key)?;
        let Shared {
            backend,
            counters,
            patience,
        } = &*self.shared;
        let deleted = retry(patience, counters, || {
            counters.request(Op::Delete);
            backend.delete(&key)
        });
        match deleted.await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    /// What lies below `prefix` (whole components; empty for all), in key order.
    /// Advisory: it finds candidates, and no decision about safety may rest on it.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let below = key::join(&self.prefix, prefix.trim_end_matches('/'));
        if !below.is_empty() {
            key::check(&below)?;
        }
        let Shared {
            backend,
            counters,
            patience,
        } = &*self.shared;
        let listed = retry(patience, counters, || {
            counters.request(Op::List);
            backend.list(&below)
        });
        let mut listed = listed.await?;
        if !self.prefix.is_empty() {
            let cut = self.prefix.len() + 1;
            listed
                .iter_mut()
                .for_each(|entry| drop(entry.key.drain(..cut)));
        }
        listed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    /// Where a directory store keeps an object; `None` on S3. For display only.
    pub fn local_path(&self, key: &str) -> Option<PathBuf> {
        let key = self.key(key).ok()?;
        self.shared.backend.local_path(&key)
    }

    /// The counters, shared by all scopes of one opened store.
    pub fn usage(&self) -> Usage {
        self.shared.counters.read()
    }

    fn key(&self, key: &str) -> Result<String, StoreError> {
        // Checked apart as well, so that an empty key does not name the prefix.
        key::check(key)?;
        let whole = key::join(&self.prefix, key);
        key::check(&whole)?;
        Ok(whole)
    }
}

/// A short or wrong-sized body is a lying or breaking connection: asked again a few
/// times, and damage if it stays.
fn check_lengths(key: &str, reads: &[Range<u64>], bodies: &[Bytes]) -> Result<(), StoreError> {
    if bodies.len() != reads.len() {
        return Err(StoreError::corrupt(
            key,
            format!("{} bodies for {} ranges", bodies.len(), reads.len()),
        ));
    }
    for (read, body) in reads.iter().zip(bodies) {
        let (wanted, got) = (read.end - read.start, body.len() as u64);
        if wanted != got {
            let message = format!(
                "asked for bytes {}..{} ({wanted}), got {got}",
                read.start, read.end
            );
            return Err(StoreError::corrupt(key, message).with_retriable(true));
        }
    }
    Ok(())
}
