//! An open incarnation: its manifest, its feed, and what follows the chain.
//!
//! Everything that changes what readers see goes through [`Incarnation::follow`]:
//! load the newest commit, open it as a snapshot, warm it, swap it under the feed. Writers
//! commit first and follow afterwards, so a reader's version never decreases, and a
//! commit that stands is answered as made even where it cannot be shown yet.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;
use ulid::Ulid;
use vexlake_manifest::{
    Author, Context as Components, Head, Invariant, Manifest, ManifestError, State,
};
use vexlake_segment::BlockCache;
use vexlake_store::Store;

use crate::compact::{Policy, Spec, plan_compaction};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::Feed;
use crate::pools::Pools;
use crate::search::{FilterCache, Sampler};
use crate::snapshot::Snapshot;
use crate::state::{Delta, IncarnationState, NewSource};
use crate::warm::Warming;

/// What every part of the engine works with.
#[derive(Clone)]
pub struct Context {
    /// Who commits.
    pub author: Author,
    /// Clock, randomness, crash points.
    pub components: Components,
    /// Where segments are built before they are uploaded.
    pub spool: PathBuf,
    /// Blocks of exact vectors and index pages, shared by all segments.
    pub cache: BlockCache,
    /// What passes filters, by segment.
    pub filters: FilterCache,
    /// Threads for searches and for background work.
    pub pools: Pools,
    /// Compares live searches with exact ones.
    pub recall: Arc<Sampler>,
    /// Reads new segments before readers switch to them.
    pub warming: Arc<Warming>,
}

/// An open incarnation; see the file header.
pub struct Incarnation {
    /// Its id.
    pub id: Ulid,
    /// The store, scoped to `c/<incarnation>`.
    pub store: Store,
    /// The chain of commits.
    pub manifest: Manifest<IncarnationState>,
    /// Snapshot and everything newer.
    pub feed: Feed,
    pub(crate) context: Context,
    /// One flush at a time: appends of one process are committed in order.
    pub(crate) flushing: Mutex<()>,
    /// One snapshot is opened at a time; whoever waits finds it opened.
    following: Mutex<()>,
}

impl Incarnation {
    /// The key prefix of an incarnation.
    pub fn prefix(id: Ulid) -> String {
        format!("c/{id}")
    }

    /// Opens an incarnation at its newest version.
    ///
    /// # Errors
    /// `NOT_FOUND` when it does not exist; store and format errors.
    pub async fn open(lake: &Store, id: Ulid, context: Context) -> Result<Arc<Self>> {
        let store = lake.scoped(&Self::prefix(id));
        let manifest = Manifest::open_with(store.clone(), context.components.clone()).await?;
        let snapshot = open_newest(&manifest, &context, None).await?;
        Ok(Arc::new(Self {
            id,
            store,
            manifest,
            feed: Feed::new(Arc::new(snapshot)),
            context,
            flushing: Mutex::new(()),
            following: Mutex::new(()),
        }))
    }

    /// The snapshot that readers see now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.feed.read(|view| view.snapshot.clone())
    }

    /// Follows the chain to its newest commit and lets readers see it.
    ///
    /// # Errors
    /// Store and format errors; readers keep the snapshot they have.
    pub async fn follow(&self) -> Result<Arc<Snapshot>> {
        self.manifest.refresh().await?;
        self.show(self.manifest.head()).await
    }

    /// Opens `head`, or a newer one, on top of the current snapshot and swaps it in.
    pub(crate) async fn show(&self, head: Arc<Head<IncarnationState>>) -> Result<Arc<Snapshot>> {
        let _turn = self.following.lock().await;
        let current = self.snapshot();
        if head.version <= current.version() {
            return Ok(current);
        }
        let opened = open_newest(&self.manifest, &self.context, Some(&current)).await?;
        let opened = Arc::new(opened);
        self.context.warming.before_switch(&current, &opened).await;
        self.feed.advance(opened.clone()).await?;
        let shown = self.snapshot().version();
        let invariants = &self.context.components.invariants;
        if !invariants.judge(Invariant::ReaderMonotone, shown >= opened.version()) {
            let version = opened.version();
            return Err(Error::Internal(format!(
                "readers see version {shown} after version {version} was opened"
            )));
        }
        Ok(opened)
    }

    /// Shows a version that this process has committed. The commit stands whether or not it
    /// can be opened now, so that is not its author's failure: whoever follows next tries
    /// again and says so.
    pub(crate) async fn show_committed(&self, head: &Arc<Head<IncarnationState>>) {
        let _ = self.show(head.clone()).await;
    }

    /// A read of `version` failed: moves on where its files were swept, so that the read may
    /// be tried again on a newer one. Any other failure is answered as it is: an object that
    /// is missing although `version` is readable was lost.
    ///
    /// # Errors
    /// `error`; store errors.
    pub(crate) async fn leave_swept(&self, error: Error, version: u64) -> Result<()> {
        swept(&self.manifest, &self.context, error, version).await?;
        self.follow().await.map(drop)
    }

    /// Opens an older version for reading, beside the current one.
    ///
    /// # Errors
    /// `NOT_FOUND` when the version is not retained.
    pub async fn at(&self, version: u64) -> Result<Arc<Snapshot>> {
        let current = self.snapshot();
        if version == current.version() {
            return Ok(current);
        }
        let head = Arc::new(self.manifest.at(version).await?);
        let opened = open_version(&self.manifest, &self.context, head, Some(&current)).await?;
        Ok(Arc::new(opened))
    }

    /// Commits a delta that does not depend on anything but its own validity, again
    /// after each lost race.
    ///
    /// # Errors
    /// `INVALID` when the state refuses it; `CONFLICT` after `COMMIT_ATTEMPTS_MAX` lost races.
    pub(crate) async fn commit_simple(
        &self,
        delta: impl Fn(&IncarnationState) -> <IncarnationState as State>::Delta,
    ) -> Result<Arc<Head<IncarnationState>>> {
        let mut head = self.manifest.refresh().await?;
        let mut attempt = 0;
        loop {
            match self
                .manifest
                .commit(&head, delta(&head.state), &self.context.author)
                .await
            {
                Err(ManifestError::Conflict { .. }) if attempt < COMMIT_ATTEMPTS_MAX => {
                    attempt += 1;
                    head = self.manifest.refresh().await?;
                }
                outcome => {
                    let head = outcome?;
                    self.show_committed(&head).await;
                    return Ok(head);
                }
            }
        }
    }

    /// Keeps a version readable until it is unpinned. Returns the commit's version.
    ///
    /// # Errors
    /// `INVALID` when the name is taken or the version is gone.
    pub async fn pin(&self, name: &str, version: u64) -> Result<u64> {
        let delta = |_: &IncarnationState| Delta::Pin {
            name: name.to_owned(),
            version,
        };
        Ok(self.commit_simple(delta).await?.version)
    }

    /// Accepts that the log lost `[from, to)` of a partition before it was read.
    ///
    /// # Errors
    /// `INVALID` when `from` is not the stored next offset.
    pub async fn accept_loss(
        &self,
        source: u32,
        partition: u32,
        from: u64,
        to: u64,
    ) -> Result<u64> {
        let delta = |_: &IncarnationState| Delta::Accept {
            source,
            partition,
            from,
            to,
        };
        Ok(self.commit_simple(delta).await?.version)
    }

    /// Adds a partition that its topic got.
    ///
    /// # Errors
    /// `INVALID` when the partition is known or the source is not.
    pub async fn add_partition(&self, source: u32, partition: u32, start: u64) -> Result<u64> {
        let delta = |_: &IncarnationState| Delta::Partition {
            source,
            partition,
            start,
        };
        Ok(self.commit_simple(delta).await?.version)
    }

    /// Opens a new epoch: from now on records come from `source`, and whatever it
    /// delivers is newer than what the epochs before it delivered.
    ///
    /// # Errors
    /// `CONFLICT` after too many lost races; store errors.
    pub async fn open_source(&self, source: NewSource) -> Result<u64> {
        let delta = |state: &IncarnationState| {
            let previous = state.sources.keys().last().copied();
            let epoch = state.sources.values().map(|s| s.epoch + 1).max();
            Delta::Source {
                previous,
                id: previous.map_or(0, |id| id + 1),
                source: source.clone().into_source(epoch.unwrap_or(0)),
            }
        };
        Ok(self.commit_simple(delta).await?.version)
    }

    /// The version that was newest at a time, ms.
    ///
    /// # Errors
    /// `NOT_FOUND` when that version is no longer retained.
    pub async fn version_at(&self, ms: u64) -> Result<u64> {
        Ok(self.manifest.at_time(ms).await?.version)
    }

    /// Ends a pin. Returns the commit's version.
    ///
    /// # Errors
    /// `INVALID` when there is no such pin on that version.
    pub async fn unpin(&self, name: &str, version: u64) -> Result<u64> {
        let delta = |_: &IncarnationState| Delta::Unpin {
            name: name.to_owned(),
            version,
        };
        Ok(self.commit_simple(delta).await?.version)
    }

    /// The merges due on the snapshot that readers see now.
    pub fn plan(&self, policy: &Policy) -> Vec<Spec> {
        let snapshot = self.snapshot();
        let shadowed = |id: &Ulid| {
            snapshot
                .segments
                .get(id)
                .map_or(0, |view| view.shadow.len())
        };
        plan_compaction(snapshot.state(), snapshot.version(), policy, &shadowed)
    }
}

/// Opens a version, and counts that all it names is looked at.
async fn open_version(
    manifest: &Manifest<IncarnationState>,
    context: &Context,
    head: Arc<Head<IncarnationState>>,
    previous: Option<&Snapshot>,
) -> Result<Snapshot> {
    let invariants = &context.components.invariants;
    invariants.checked(Invariant::ObjectIntact);
    Snapshot::open(manifest.store(), &context.cache, head, previous).await
}

/// Opens the newest version; one that is swept under the reads gives way to a newer one.
async fn open_newest(
    manifest: &Manifest<IncarnationState>,
    context: &Context,
    previous: Option<&Snapshot>,
) -> Result<Snapshot> {
    for _ in 0..VIEWS_MAX {
        let head = manifest.head();
        match open_version(manifest, context, head.clone(), previous).await {
            Err(error) => swept(manifest, context, error, head.version).await?,
            opened => return opened,
        }
    }
    Err(overtaken())
}

/// Ends well where `version` was swept, which is what a missing object means then. The
/// files of a retired incarnation go at once. What is missing or damaged otherwise was
/// promised to be there and whole, and is counted.
async fn swept(
    manifest: &Manifest<IncarnationState>,
    context: &Context,
    error: Error,
    version: u64,
) -> Result<()> {
    if error.is_missing_object() {
        let head = manifest.refresh().await?;
        if !head.retains(version) || head.state.retired {
            return Ok(());
        }
    }
    // What contradicts itself in the manifest is counted there, by its own rule.
    if error.kind() == ErrorKind::Corrupt && !matches!(error, Error::Manifest(_)) {
        let invariants = &context.components.invariants;
        invariants.violated(Invariant::ObjectIntact);
    }
    Err(error)
}

/// The error of a reader that was overtaken by sweeps again and again.
pub(crate) fn overtaken() -> Error {
    Error::Unavailable(format!(
        "{VIEWS_MAX} versions in a row were swept while they were read"
    ))
}

/// Views that one read tries: to be overtaken by a sweep takes a grace period, a second
/// time a grace period shorter than the read.
pub(crate) const VIEWS_MAX: u32 = 3;

/// Races a committer may lose in a row before it reports a conflict: with a handful
/// of committers per incarnation, sixteen losses in a row mean something is wrong.
pub(crate) const COMMIT_ATTEMPTS_MAX: u32 = 16;
