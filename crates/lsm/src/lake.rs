//! The lake: a store, its catalog, and the incarnations open in this process.
//!
//! Opening checks that the store keeps the promises commits rest on (create-only and
//! compare-and-swap, tried concurrently) and that `lake.json` is of a format this
//! code knows. Incarnations are opened on first use, each by itself: one that opens
//! slowly, or cannot be opened, keeps nobody from the others. What no name means any more
//! is closed once nobody asks for it, since it holds indexes and a feed in memory.
//!
//! A change of names is always two steps: the incarnation first (its version 0), then
//! the catalog. What a crash leaves between the two has no name, is never seen, and is
//! removed as an orphan (`lake/orphans.rs`).

mod open;
mod orphans;
mod replay;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use ulid::Ulid;
use vexlake_manifest::{Author, Context as Components, Invariants, Manifest, ManifestError};
use vexlake_segment::BlockCache;
use vexlake_store::{Store, StoreConfig};

pub use self::orphans::{LakeCollected, LakeGcOptions, Orphan};

use self::open::{check_name, check_schema, open_catalog, open_info, prepare_spool};
use self::orphans::orphaned;
use crate::catalog::{CatalogDelta, CatalogState, Mapping};
use crate::error::{Error, Result};
use crate::gc::retire;
use crate::incarnation::{COMMIT_ATTEMPTS_MAX, Context, Incarnation};
use crate::pools::Pools;
use crate::search::{FilterCache, RecallCounts, Sampler};
use crate::state::{IncarnationState, NewSource, Schema, Source};
use crate::warm::{WarmCounts, Warming};

/// The format of everything below a lake's root.
pub const FORMAT: u32 = 1;

/// `lake.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakeInfo {
    /// Identity of the lake.
    pub lake: Ulid,
    /// Must be [`FORMAT`].
    pub format: u32,
}

/// How to open a lake.
pub struct LakeOptions {
    /// Where it lies.
    pub store: StoreConfig,
    /// Who commits.
    pub author: Author,
    /// Local directory for segments under construction; created, and emptied of what
    /// an earlier run left.
    pub spool: PathBuf,
    /// RAM for exact vectors and index pages.
    pub cache_bytes: usize,
    /// Clock, randomness, crash points.
    pub components: Components,
    /// Threads of the search pool; 0 = one a core.
    pub search_threads: usize,
    /// Share of searches through lists that are compared with exact ones; 0 = none.
    pub recall_sample_ratio: f64,
    /// Bytes of new segments that are read before readers switch to them; 0 = none.
    pub warm_bytes: u64,
}

/// Feeds and jobs of an incarnation that lost its name end within a second or two; what
/// asks for it later finds it in the store again.
const UNNAMED_MS_MAX: u64 = 60_000;

/// An incarnation, open or on its way.
#[derive(Default)]
struct Opening {
    /// A failed try leaves it empty for the next one.
    cell: Arc<OnceCell<Arc<Incarnation>>>,
    asked_ms: u64,
}

/// An open lake; see the file header.
pub struct Lake {
    /// The store, at the lake's root.
    pub store: Store,
    /// Identity and format.
    pub info: LakeInfo,
    /// Names.
    pub catalog: Manifest<CatalogState>,
    /// The store's URL as configured.
    root: String,
    context: Context,
    open: Mutex<HashMap<Ulid, Opening>>,
}

impl Lake {
    /// Opens a lake, creating it where there is none.
    ///
    /// # Errors
    /// `INVALID` when the store does not keep its promises or the format is unknown;
    /// store errors.
    pub async fn open(options: LakeOptions) -> Result<Arc<Self>> {
        let store = Store::open(&options.store).await?;
        store.probe().await?;
        let info = open_info(
            &store,
            Ulid::from_parts((options.components.clock)(), (options.components.rng)()),
        )
        .await?;
        prepare_spool(&options.spool)?;
        let seed = (options.components.rng)() as u64;
        let context = Context {
            author: options.author,
            components: options.components,
            spool: options.spool,
            cache: BlockCache::new(options.cache_bytes),
            filters: FilterCache::default(),
            pools: Pools::new(options.search_threads)?,
            recall: Sampler::new(options.recall_sample_ratio, seed),
            warming: Arc::new(Warming::new(options.warm_bytes)),
        };
        let catalog = open_catalog(&store, &context).await?;
        Ok(Arc::new(Self {
            store,
            info,
            catalog,
            root: options.store.url,
            context,
            open: Mutex::new(HashMap::new()),
        }))
    }

    /// Where an object lies, for people and other readers: a path or an s3:// URL.
    pub fn url_of(&self, key: &str) -> String {
        match self.store.local_path(key) {
            Some(path) => path.display().to_string(),
            None => format!("{}/{key}", self.root.trim_end_matches('/')),
        }
    }

    /// The cache of exact vectors and index pages.
    pub fn cache(&self) -> &BlockCache {
        &self.context.cache
    }

    /// What was read ahead of searches.
    pub fn warmed(&self) -> WarmCounts {
        self.context.warming.counts()
    }

    /// What live searches found of what exact ones find.
    pub fn recall(&self) -> RecallCounts {
        self.context.recall.counts()
    }

    /// What was checked in this lake since it was opened, and found broken.
    pub fn invariants(&self) -> &Invariants {
        &self.context.components.invariants
    }

    /// An incarnation, opened on first use.
    ///
    /// # Errors
    /// `NOT_FOUND`; store and format errors.
    pub async fn incarnation(&self, id: Ulid) -> Result<Arc<Incarnation>> {
        let cell = {
            let mut open = self.open.lock();
            let opening = open.entry(id).or_default();
            opening.asked_ms = (self.context.components.clock)();
            opening.cell.clone()
        };
        let open = || Incarnation::open(&self.store, id, self.context.clone());
        cell.get_or_try_init(open).await.cloned()
    }

    /// Closes what no name means any more; requests under way keep what they hold.
    pub(crate) fn close_unnamed(&self) {
        let now = (self.context.components.clock)();
        let catalog = self.catalog.head();
        let mappings = catalog.state.names.values();
        let named: HashSet<Ulid> = mappings.flat_map(Mapping::incarnations).collect();
        let asked = |opening: &Opening| now.saturating_sub(opening.asked_ms) <= UNNAMED_MS_MAX;
        let mut open = self.open.lock();
        open.retain(|id, opening| named.contains(id) || asked(opening));
    }

    /// What a name means at the newest catalog version.
    ///
    /// # Errors
    /// `NOT_FOUND`; store errors.
    pub async fn mapping(&self, db: u32, name: &str) -> Result<Mapping> {
        let head = self.catalog.refresh().await?;
        let key = CatalogState::key(db, name);
        let found = head.state.names.get(&key).cloned();
        found.ok_or(Error::NotFound {
            what: "collection",
            name: key,
        })
    }

    /// Creates a collection.
    ///
    /// # Errors
    /// `INVALID` for a bad name or schema; `CONFLICT` when the name is taken.
    pub async fn create(
        &self,
        db: u32,
        name: &str,
        schema: Schema,
        source: NewSource,
    ) -> Result<Ulid> {
        check_name(name)?;
        check_schema(&schema)?;
        let key = CatalogState::key(db, name);
        if let Some(taken) = self.catalog.refresh().await?.state.names.get(&key) {
            return Err(Error::Conflict(format!(
                "collection {key} exists as {}",
                taken.live
            )));
        }
        let id = self
            .new_incarnation(&key, schema, source.into_source(0))
            .await?;
        self.remap(&key, Some(id), |before| match before {
            None => Ok(Some(Mapping {
                live: id,
                fed: Vec::new(),
            })),
            Some(taken) => Err(Error::Conflict(format!(
                "collection {key} exists as {}",
                taken.live
            ))),
        })
        .await?;
        Ok(id)
    }

    /// Drops a collection; its incarnations begin to leave.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn drop_collection(&self, db: u32, name: &str) -> Result<()> {
        let key = CatalogState::key(db, name);
        self.remap(&key, None, |before| {
            before.ok_or_else(|| Error::NotFound {
                what: "collection",
                name: key.clone(),
            })?;
            Ok(None)
        })
        .await
    }

    /// Empties a collection: a new incarnation that starts at `source`'s offsets.
    ///
    /// # Errors
    /// `NOT_FOUND`; `CONFLICT` when somebody else re-mapped the name meanwhile.
    pub async fn clear(&self, db: u32, name: &str, source: NewSource) -> Result<Ulid> {
        let mapping = self.mapping(db, name).await?;
        let live = self.manifest_of(mapping.live).await?.head();
        let schema = live.state.schema.clone();
        let key = CatalogState::key(db, name);
        let id = self
            .new_incarnation(&key, schema, source.into_source(0))
            .await?;
        self.remap(&key, Some(id), |before| match before {
            Some(now) if now.live == mapping.live => Ok(Some(Mapping {
                live: id,
                fed: Vec::new(),
            })),
            now => Err(Error::Conflict(format!("collection {key} became {now:?}"))),
        })
        .await?;
        Ok(id)
    }

    /// Finishes what is leaving: retire, sweep, forget. Run by every GC tick. One that
    /// cannot be finished keeps none of the others.
    ///
    /// # Errors
    /// The first of what could not be finished; the next run takes it up again.
    pub async fn finish_leaving(&self) -> Result<Vec<Ulid>> {
        let leaving = self.catalog.refresh().await?.state.leaving.clone();
        let (mut left, mut failed) = (Vec::new(), None);
        for id in leaving {
            match self.finish(id).await {
                Ok(()) => left.push(id),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(left), Err)
    }

    async fn finish(&self, id: Ulid) -> Result<()> {
        let manifest = match self.manifest_of(id).await {
            Err(Error::Manifest(ManifestError::NotFound { .. })) => {
                self.bury(id).await?;
                self.manifest_of(id).await?
            }
            opened => opened?,
        };
        retire(&manifest, &self.context.author).await?;
        self.commit_catalog(None, |state| {
            let delta = CatalogDelta::Forget { incarnation: id };
            Ok(state.leaving.contains(&id).then_some(delta))
        })
        .await
    }

    /// The commits of an incarnation, which tell all but its records: what a name needs of
    /// it must not depend on whether its segments can be opened.
    async fn manifest_of(&self, id: Ulid) -> Result<Manifest<IncarnationState>> {
        let store = self.store.scoped(&Incarnation::prefix(id));
        Ok(Manifest::open_with(store, self.context.components.clone()).await?)
    }

    async fn new_incarnation(&self, name: &str, schema: Schema, source: Source) -> Result<Ulid> {
        let id = self.catalog.mint();
        let state =
            IncarnationState::new(id, name.to_owned(), schema, BTreeMap::from([(0, source)]));
        let store = self.store.scoped(&Incarnation::prefix(id));
        let Context {
            author, components, ..
        } = &self.context;
        match Manifest::create_with(store, state, author, components.clone()).await {
            Ok(_) => Ok(id),
            // The id is ours alone: only who buried an orphan can have been faster.
            Err(ManifestError::Conflict { .. }) => Err(orphaned(id)),
            Err(error) => Err(error.into()),
        }
    }

    /// `naming` is the new incarnation of the change, if it brings one.
    async fn remap(
        &self,
        key: &str,
        naming: Option<Ulid>,
        change: impl Fn(Option<&Mapping>) -> Result<Option<Mapping>>,
    ) -> Result<()> {
        self.commit_catalog(naming, |state| {
            let before = state.names.get(key);
            let after = change(before)?;
            Ok(Some(CatalogDelta::Map {
                name: key.to_owned(),
                before: before.cloned(),
                after,
            }))
        })
        .await
    }

    /// Commits what `change` wants of the newest catalog, again after each lost race.
    async fn commit_catalog(
        &self,
        naming: Option<Ulid>,
        change: impl Fn(&CatalogState) -> Result<Option<CatalogDelta>>,
    ) -> Result<()> {
        for _ in 0..=COMMIT_ATTEMPTS_MAX {
            let head = self.catalog.refresh().await?;
            let Some(delta) = change(&head.state)? else {
                return Ok(());
            };
            if let Some(id) = naming {
                self.check_nameable(&head.state, id).await?;
            }
            match self
                .catalog
                .commit(&head, delta, &self.context.author)
                .await
            {
                Err(ManifestError::Conflict { .. }) => {}
                outcome => return Ok(outcome.map(drop)?),
            }
        }
        Err(Error::Conflict(format!(
            "catalog: {COMMIT_ATTEMPTS_MAX} commits lost in a row"
        )))
    }
}

#[cfg(test)]
mod tests;
