//! [`Manifest`]: one register of states, its newest known version in memory.
//!
//! Cloning shares the known head. It only moves forward: whoever loads a newer version
//! publishes it, an older one is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use ulid::Ulid;
use vexlake_store::{Created, Store, StoreError};

use crate::commit::Slot;
use crate::context::{Clock, Context};
use crate::load::HeadMove;
use crate::state::{Author, Head, State};
use crate::wire::{BasePointer, Chain, FORMAT, HeadBody};
use crate::{Invariant, ManifestError, frame, keys};

pub(crate) struct Inner<S: State> {
    pub store: Store,
    pub context: Context,
    pub head: RwLock<Arc<Head<S>>>,
    pub head_moves_failed: std::sync::atomic::AtomicU64,
    pub seen: HighWater,
    /// Digests of the pinned versions that were read, by version.
    pub pinned: Mutex<BTreeMap<u64, u32>>,
}

/// The highest `version`, `retain_from` and `cutoff_ms` that HEAD was seen with.
#[derive(Default)]
pub(crate) struct HighWater(Mutex<Option<[u64; 3]>>);

impl HighWater {
    pub(crate) fn get(&self) -> Option<[u64; 3]> {
        *self.0.lock()
    }

    /// HEAD was seen, or made, with these.
    pub(crate) fn raise(&self, head: &HeadBody) {
        let mut seen = self.0.lock();
        let highest = seen.get_or_insert_default();
        for (highest, now) in highest.iter_mut().zip(head.fields()) {
            *highest = now.max(*highest);
        }
    }
}

/// One opened manifest.
#[derive(Clone)]
pub struct Manifest<S: State> {
    pub(crate) inner: Arc<Inner<S>>,
}

/// A store and a context: what can be done before any head is known.
pub(crate) struct Access<'a> {
    pub store: &'a Store,
    pub context: &'a Context,
    pub seen: &'a HighWater,
}

impl<S: State> Manifest<S> {
    /// Makes version 0 with `initial` as its state. `store` is scoped to the manifest.
    /// `Conflict` where a version 0 exists: open that.
    pub async fn create(
        store: Store,
        initial: S,
        author: &Author,
        clock: Clock,
    ) -> Result<Self, ManifestError> {
        Self::create_with(store, initial, author, Context::new(clock)).await
    }

    /// [`Manifest::create`] with every component given.
    pub async fn create_with(
        store: Store,
        initial: S,
        author: &Author,
        context: Context,
    ) -> Result<Self, ManifestError> {
        let seen = HighWater::default();
        let access = Access {
            store: &store,
            context: &context,
            seen: &seen,
        };
        let head = context.note(access.create(initial, author).await)?;
        Ok(Self::over(store, context, seen, head))
    }

    /// Opens the newest version. `NotFound` where there is no manifest.
    pub async fn open(store: Store, clock: Clock) -> Result<Self, ManifestError> {
        Self::open_with(store, Context::new(clock)).await
    }

    /// [`Manifest::open`] with every component given.
    pub async fn open_with(store: Store, context: Context) -> Result<Self, ManifestError> {
        let seen = HighWater::default();
        let access = Access {
            store: &store,
            context: &context,
            seen: &seen,
        };
        let head = context.note(access.load().await)?;
        Ok(Self::over(store, context, seen, head))
    }

    fn over(store: Store, context: Context, seen: HighWater, head: Head<S>) -> Self {
        let head = RwLock::new(Arc::new(head));
        let inner = Inner {
            store,
            context,
            head,
            head_moves_failed: 0.into(),
            seen,
            pinned: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn access(&self) -> Access<'_> {
        Access {
            store: &self.inner.store,
            context: &self.inner.context,
            seen: &self.inner.seen,
        }
    }

    /// The newest version known here, without I/O.
    pub fn head(&self) -> Arc<Head<S>> {
        Arc::clone(&self.inner.head.read())
    }

    /// The store this manifest lies in, scoped to it.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// How often HEAD could not be moved after a commit of this process. Such commits
    /// stand; readers find them beyond HEAD, one request each.
    pub fn head_moves_failed(&self) -> u64 {
        self.inner
            .head_moves_failed
            .load(std::sync::atomic::Ordering::Relaxed)
    }

    /// A name for a new object: later than the last mark's cutoff, so that no sweep of
    /// that mark takes it for an old orphan, whatever this machine's clock says.
    pub fn mint(&self) -> Ulid {
        self.access().mint(self.head().state.cutoff_ms())
    }

    /// Makes `head` the known one unless a newer is; answers the newest.
    pub(crate) fn publish(&self, head: Arc<Head<S>>) -> Result<Arc<Head<S>>, ManifestError> {
        let mut known = self.inner.head.write();
        let same = head.version != known.version || head.id == known.id;
        let (key, ids) = (keys::slot(head.version), (head.id, known.id));
        self.inner
            .context
            .expect(Invariant::VersionContiguous, same, &key, || {
                format!("commit id {} where {} was read before", ids.0, ids.1)
            })?;
        if head.version > known.version {
            *known = head;
        }
        Ok(Arc::clone(&known))
    }

    /// Follows commits from the known head: usually one read of an absent slot and one
    /// of HEAD. Where the known head fell out of the retained versions, or many commits
    /// happened, it loads anew. Never goes back.
    pub async fn refresh(&self) -> Result<Arc<Head<S>>, ManifestError> {
        self.inner.context.note(self.follow_known().await)
    }

    async fn follow_known(&self) -> Result<Arc<Head<S>>, ManifestError> {
        let known = self.head();
        let Some(head) = self.access().follow_from(&known).await? else {
            return Ok(self.head());
        };
        self.publish(Arc::new(head))
    }

    /// Loads through HEAD, whatever is known.
    pub(crate) async fn reload(&self) -> Result<Arc<Head<S>>, ManifestError> {
        let head = self.access().load().await?;
        self.publish(Arc::new(head))
    }
}

impl Access<'_> {
    /// Fills slot 0 and makes HEAD.
    async fn create<S: State>(
        &self,
        initial: S,
        author: &Author,
    ) -> Result<Head<S>, ManifestError> {
        if self.find_first::<S>().await?.is_some() {
            return Err(ManifestError::Conflict { version: 0 });
        }
        let when_ms = (self.context.clock)();
        let id = Ulid::from_parts(when_ms, (self.context.rng)());
        let base = self.write_base(0, id, when_ms, &initial).await?;
        let chain = Chain {
            base,
            deltas: Vec::new(),
        };
        let head = Head {
            version: 0,
            id,
            parent: None,
            when_ms,
            author: author.clone(),
            state: Arc::new(initial),
            delta: None,
            chain: Arc::new(chain),
        };
        let body = self.encode(&head)?;
        (self.context.crash)(crate::crash::COMMIT_BEFORE_CREATE);
        if let Slot::Lost = self.fill_slot(0, id, body).await? {
            return Err(ManifestError::Conflict { version: 0 });
        }
        (self.context.crash)(crate::crash::COMMIT_AFTER_CREATE);
        let found = self
            .read_head()
            .await
            .map_err(|error| self.in_doubt(error))?;
        if found.as_ref().is_some_and(|(head, _)| head.retain_from > 0) {
            // A ghost: a whole history was made and swept since the look above.
            let _ = self.store.delete(&keys::slot(0)).await;
            return Err(ManifestError::Conflict { version: 0 });
        }
        // Unlike later, HEAD must exist before anyone is told: an open without it has to guess.
        self.advance_head(&HeadMove::to(&head), found)
            .await
            .map_err(|error| self.in_doubt(error))?;
        Ok(head)
    }

    pub(crate) fn mint(&self, cutoff_ms: u64) -> Ulid {
        let at = (self.context.clock)().max(cutoff_ms.saturating_add(1));
        Ulid::from_parts(at, (self.context.rng)())
    }

    /// Writes a base under a fresh name, durable on return.
    pub(crate) async fn write_base<S: State>(
        &self,
        version: u64,
        id: Ulid,
        minted_after_ms: u64,
        state: &S,
    ) -> Result<BasePointer, ManifestError> {
        let key = keys::base(self.mint(minted_after_ms));
        // Borrowed: a base may be megabytes.
        #[derive(serde::Serialize)]
        struct Out<'a, S> {
            format: u32,
            #[serde(with = "crate::u64_str")]
            version: u64,
            id: Ulid,
            state: &'a S,
        }
        let json = to_json(
            &key,
            &Out {
                format: FORMAT,
                version,
                id,
                state,
            },
        )?;
        let (crc32c, bytes) = (crc32c::crc32c(&json), json.len() as u64);
        self.store.put(&key, frame(&json)).await?;
        Ok(BasePointer {
            version,
            key,
            crc32c,
            bytes,
        })
    }

    /// Writes HEAD anew where none is; somebody else's is as good.
    pub(crate) async fn heal_head(&self, head: &HeadBody) -> Result<(), ManifestError> {
        let json = to_json(keys::HEAD, head)?;
        match self.store.swap(keys::HEAD, None, frame(&json)).await {
            Ok(_) => Ok(()),
            Err(error) if error.doubt || error.retriable => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// One try at a slot.
    pub(crate) async fn try_slot(
        &self,
        version: u64,
        body: bytes::Bytes,
    ) -> Result<Created, StoreError> {
        self.store.create(&keys::slot(version), body).await
    }
}

/// Serialising our own types cannot fail but for a state with, say, non-string keys:
/// a defect of the state, told as what it would make unreadable.
pub(crate) fn to_json<T: serde::Serialize>(key: &str, value: &T) -> Result<Vec<u8>, ManifestError> {
    serde_json::to_vec(value)
        .map_err(|e| ManifestError::corrupt(key, format!("cannot be written as JSON: {e}")))
}
