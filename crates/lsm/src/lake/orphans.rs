//! Orphans: incarnations that lie in the store and that the catalog does not name.
//!
//! A new incarnation gets its version 0 first and its name second, so a crash, or a lost
//! race for the name, leaves one without. To remove it is a race with a creator that is
//! not dead but slow, and neither a listing nor an age says which it is. One chain of
//! commits settles it, the catalog's:
//! 1. List `c/`; of what is older than the grace, what the catalog, read afterwards, does
//!    not know is a candidate. Grace and listing only choose whom to bother.
//! 2. Commit a *leave*: the catalog refuses it where the name came first, and from then on
//!    refuses to name what is leaving.
//! 3. What is leaving ends as ever ([`Lake::finish_leaving`]): retired, swept, forgotten.
//!    Where the creator has not filled version 0 yet, that slot is filled here with a state
//!    that is retired, and the creator loses it.
//!
//! A creator that comes with its name after all that reads the catalog, then its own
//! incarnation ([`Lake::check_nameable`]). If the leave is forgotten in the catalog that it
//! read, the retire was committed before and is seen; if it is not forgotten, it is seen
//! itself; if it came later, the creator's commit loses and it looks again.
//!
//! HEAD and the commits stay as the fence against sleepers. An orphan that was retired
//! before is taken again only if something was uploaded into it since.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use vexlake_manifest::{Manifest, ManifestError};

use super::Lake;
use crate::catalog::{CatalogDelta, CatalogState};
use crate::error::{Error, Result};
use crate::incarnation::Incarnation;
use crate::state::{IncarnationState, Schema};

/// Incarnations looked at in parallel; each costs three small reads.
const LOOKS_MAX: usize = 8;

/// What a run over the lake may do.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LakeGcOptions {
    /// Make incarnations without a name leave.
    pub orphans: bool,
    /// Those that were created less than this ago are left alone, ms.
    pub grace_ms: u64,
    /// Say which they are, and do nothing.
    pub dry_run: bool,
}

/// An incarnation without a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// Its id.
    pub incarnation: Ulid,
    /// Objects that go: all but HEAD, commits and bases.
    pub objects: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// What a run over the lake did, or would do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LakeCollected {
    /// Incarnations that were leaving and are gone.
    pub left: Vec<Ulid>,
    /// Those without a name that were found.
    pub orphans: Vec<Orphan>,
}

impl Lake {
    /// Finishes what is leaving, after making orphans leave if asked to. A dry run only
    /// lists the orphans.
    ///
    /// # Errors
    /// Store errors; what is not finished is taken up by the next run.
    pub async fn collect_garbage(&self, options: &LakeGcOptions) -> Result<LakeCollected> {
        let mut collected = LakeCollected::default();
        if options.orphans {
            collected.orphans = self.find_orphans(options.grace_ms).await?;
        }
        if options.dry_run {
            return Ok(collected);
        }
        for Orphan { incarnation, .. } in &collected.orphans {
            self.commit_catalog(None, |state| {
                let delta = CatalogDelta::Leave {
                    incarnation: *incarnation,
                };
                Ok((!state.knows(*incarnation)).then_some(delta))
            })
            .await?;
        }
        collected.left = self.finish_leaving().await?;
        Ok(collected)
    }

    async fn find_orphans(&self, grace_ms: u64) -> Result<Vec<Orphan>> {
        let now_ms = (self.context.components.clock)();
        let mut found: BTreeMap<Ulid, Orphan> = BTreeMap::new();
        for listed in self.store.list("c/").await? {
            let mut parts = listed.key.splitn(3, '/').skip(1);
            let id = parts.next().and_then(|id| Ulid::from_string(id).ok());
            let Some((incarnation, rest)) = id.zip(parts.next()) else {
                continue;
            };
            if incarnation.timestamp_ms().saturating_add(grace_ms) > now_ms {
                continue;
            }
            let orphan = found.entry(incarnation).or_insert(Orphan {
                incarnation,
                objects: 0,
                bytes: 0,
            });
            if Incarnation::SWEPT
                .iter()
                .any(|prefix| rest.starts_with(prefix))
            {
                orphan.objects += 1;
                orphan.bytes += listed.size;
            }
        }
        let catalog = self.catalog.refresh().await?.state.clone();
        found.retain(|id, _| !catalog.knows(*id));
        let looks = found.into_values().map(|orphan| async move {
            let ended = self.has_retired(orphan.incarnation).await?;
            Ok::<_, Error>((orphan.objects > 0 || !ended).then_some(orphan))
        });
        let looked: Vec<Option<Orphan>> = futures::stream::iter(looks.collect::<Vec<_>>())
            .buffered(LOOKS_MAX)
            .try_collect()
            .await?;
        Ok(looked.into_iter().flatten().collect())
    }

    async fn has_retired(&self, id: Ulid) -> Result<bool> {
        let store = self.store.scoped(&Incarnation::prefix(id));
        let components = self.context.components.clone();
        match Manifest::<IncarnationState>::open_with(store, components).await {
            Ok(manifest) => Ok(manifest.head().state.retired),
            Err(ManifestError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a new incarnation may still get its name. `catalog` is the head that the name
    /// is to be committed on, read before; the order matters, see the file header.
    ///
    /// # Errors
    /// `FENCED` when it was taken for an orphan.
    pub(super) async fn check_nameable(&self, catalog: &CatalogState, id: Ulid) -> Result<()> {
        match catalog.leaving.contains(&id) || self.has_retired(id).await? {
            true => Err(orphaned(id)),
            false => Ok(()),
        }
    }

    /// Fills version 0 with a retired state, where nobody has filled it.
    pub(super) async fn bury(&self, id: Ulid) -> Result<()> {
        // Nothing can ever be read or written by it.
        let schema = Schema {
            dim: 1,
            metric: "cosine".to_owned(),
            format: "f32".to_owned(),
        };
        let state = IncarnationState {
            retired: true,
            ..IncarnationState::new(id, String::new(), schema, BTreeMap::new())
        };
        let store = self.store.scoped(&Incarnation::prefix(id));
        let components = self.context.components.clone();
        match Manifest::create_with(store, state, &self.context.author, components).await {
            Ok(_) | Err(ManifestError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a creator hears that took longer than the grace.
pub(super) fn orphaned(id: Ulid) -> Error {
    Error::Fenced(format!(
        "incarnation {id} had no name for so long that gc took it for an orphan; create it again"
    ))
}

#[cfg(test)]
mod tests;
