//! What a manifest is generic over, and what it hands out.

use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ulid::Ulid;
use vexlake_store::{Store, StoreError};

use crate::wire::Chain;

/// A state that moves by deltas. `apply` must be a pure function of its arguments:
/// every reader replays it.
#[async_trait]
pub trait State: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// One change.
    type Delta: Clone + Serialize + DeserializeOwned + Send + Sync + Debug + 'static;

    /// Validates `delta` against self (the parent) and applies it as `version`,
    /// committed at `when_ms`. On `Err` self is unchanged.
    fn apply(&mut self, version: u64, when_ms: u64, delta: &Self::Delta) -> Result<(), Violation>;

    /// Oldest version that the last mark retains; 0 before any mark.
    fn retain_from(&self) -> u64;

    /// The last mark's cutoff: names minted later are newer than the mark.
    fn cutoff_ms(&self) -> u64;

    /// Versions that stay readable below `retain_from`.
    fn pinned(&self) -> Vec<u64> {
        Vec::new()
    }

    /// A retired state fences every further commit.
    fn retired(&self) -> bool {
        false
    }

    /// Wants a base roll before deltas or bytes demand one.
    fn fold_due(&self) -> bool {
        false
    }

    /// What a base stores: an equivalent state, perhaps more compact. May write objects
    /// through `store` (scoped to the manifest) under names minted by the manifest's
    /// rules; they become reachable only if the commit that follows wins. On `Err` the
    /// commit goes on without it.
    async fn fold(&self, _store: &Store) -> Result<Self, StoreError> {
        Ok(self.clone())
    }
}

/// A rule that a delta breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Id of the rule in the invariant catalogue.
    pub rule: &'static str,
    /// Both values: what the delta says and what the parent has.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.message)
    }
}

/// Who commits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Author {
    /// ingest, query, compactor, cli.
    pub role: String,
    /// Which one.
    pub instance: String,
}

/// One version with its whole state.
#[derive(Clone)]
pub struct Head<S: State> {
    /// Contiguous from 0.
    pub version: u64,
    /// The commit's id; its time part is the commit's own.
    pub id: Ulid,
    /// The id of the version before; `None` at version 0.
    pub parent: Option<Ulid>,
    /// Commit time in ms, never less than the parent's.
    pub when_ms: u64,
    /// Who committed it.
    pub author: Author,
    /// The state after it.
    pub state: Arc<S>,
    /// What it changed; `None` at version 0.
    pub delta: Option<S::Delta>,
    /// What the next commit carries on: the base and the deltas since.
    pub(crate) chain: Arc<Chain>,
}

impl<S: State> Head<S> {
    /// Whether what `version` names is kept: it is recent enough, or pinned.
    pub fn retains(&self, version: u64) -> bool {
        version >= self.state.retain_from() || self.state.pinned().contains(&version)
    }
}

impl<S: State> Debug for Head<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            id,
            when_ms,
            author,
            delta,
            ..
        } = self;
        write!(
            f,
            "Head {{ version: {version}, id: {id}, when_ms: {when_ms}, author: {author:?}, delta: {delta:?} }}"
        )
    }
}

/// One line of history.
#[derive(Clone, Debug)]
pub struct CommitSummary<S: State> {
    /// The version.
    pub version: u64,
    /// The commit's id.
    pub id: Ulid,
    /// Commit time in ms.
    pub when_ms: u64,
    /// Who committed it.
    pub author: Author,
    /// What it changed; `None` at version 0.
    pub delta: Option<S::Delta>,
}
