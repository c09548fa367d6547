//! Incarnations fed beside the live one: replay, promote, roll back, end.
//!
//! Offsets mean something within one epoch of one log only: a topic that was recreated
//! shares nothing with its predecessor but the name. So sources of two incarnations are
//! compared by kind, cluster, topic and epoch, and a replay carries the number of the
//! live epoch that it reads again.
//!
//! What becomes live holds what the live incarnation consumed, in every epoch. A replay
//! reads one log, so what only an older epoch delivered is missing in it: that is refused
//! at its start already, unless a person gives up that epoch by its number.

use std::sync::Arc;

use ulid::Ulid;

use super::Lake;
use crate::catalog::{CatalogState, Mapping};
use crate::error::{Error, Result};
use crate::state::{IncarnationState, NewSource, Source};

impl Lake {
    /// Begins a replay: a new incarnation fed beside the live one. `without` are epochs
    /// of the live one whose records it may lack.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID` when the live incarnation never read that log, or holds
    /// records of another epoch.
    pub async fn replay_start(
        &self,
        db: u32,
        name: &str,
        source: NewSource,
        without: &[u32],
    ) -> Result<Ulid> {
        let mapping = self.mapping(db, name).await?;
        let live = self.state_of(mapping.live).await?;
        let source = again(&live, source)?;
        let covers = |of: &Source, _| of.is_same_epoch(&source).then_some(u64::MAX);
        check_covers("a replay of one epoch", covers, &live, without)?;
        let key = CatalogState::key(db, name);
        let id = self
            .new_incarnation(&key, live.schema.clone(), source)
            .await?;
        self.remap(&key, |before| {
            let mut mapping = before.cloned().ok_or_else(|| Error::NotFound {
                what: "collection",
                name: key.clone(),
            })?;
            mapping.fed.push(id);
            Ok(Some(mapping))
        })
        .await?;
        Ok(id)
    }

    /// Makes a fed incarnation the live one; what was live stays fed, first in line
    /// for a rollback. `None` = the first in line. `without` are epochs of the live one
    /// whose records it may lack.
    ///
    /// # Errors
    /// `INVALID` when it is not fed, or a checkpoint of it is behind the live one's.
    pub async fn promote(
        &self,
        db: u32,
        name: &str,
        incarnation: Option<Ulid>,
        without: &[u32],
    ) -> Result<Mapping> {
        let mapping = self.mapping(db, name).await?;
        let key = CatalogState::key(db, name);
        let fed = &mapping.fed;
        let target = incarnation
            .or_else(|| fed.first().copied())
            .filter(|id| fed.contains(id))
            .ok_or_else(|| {
                Error::Invalid(format!("{incarnation:?} is not fed by {key}: {fed:?}"))
            })?;
        let (live, ahead) = (
            self.state_of(mapping.live).await?,
            self.state_of(target).await?,
        );
        let reached = |of: &Source, partition| {
            let same = |id: &u32| ahead.sources[id].is_same_epoch(of);
            let id = ahead.sources.keys().copied().find(same)?;
            Some(ahead.checkpoint(id, partition)?.next)
        };
        check_covers(&target.to_string(), reached, &live, without)?;
        let others = fed.iter().copied().filter(|id| *id != target);
        let after = Mapping {
            live: target,
            fed: std::iter::once(mapping.live).chain(others).collect(),
        };
        self.remap(&key, |before| match before == Some(&mapping) {
            true => Ok(Some(after.clone())),
            false => Err(Error::Conflict(format!(
                "collection {key} became {before:?}"
            ))),
        })
        .await?;
        Ok(after)
    }

    /// Ends a fed incarnation.
    ///
    /// # Errors
    /// `INVALID` when it is not fed.
    pub async fn retire_fed(&self, db: u32, name: &str, incarnation: Ulid) -> Result<()> {
        let key = CatalogState::key(db, name);
        self.remap(&key, |before| {
            let mut mapping = before.cloned().ok_or_else(|| Error::NotFound {
                what: "collection",
                name: key.clone(),
            })?;
            if !mapping.fed.contains(&incarnation) {
                return Err(Error::Invalid(format!(
                    "{incarnation} is not fed by {key}: {:?}",
                    mapping.fed
                )));
            }
            mapping.fed.retain(|id| *id != incarnation);
            Ok(Some(mapping))
        })
        .await
    }

    /// The newest state of an incarnation, by its commits alone.
    async fn state_of(&self, id: Ulid) -> Result<Arc<IncarnationState>> {
        Ok(self.manifest_of(id).await?.head().state.clone())
    }
}

/// `source` as the live incarnation's epoch of the same log, read once more. Nothing that
/// was cleared comes back: a replay begins at that epoch's floor at the earliest.
fn again(live: &IncarnationState, source: NewSource) -> Result<Source> {
    let mut source = source.into_source(0);
    let same = live.sources.values().filter(|s| s.is_same_log(&source));
    let known = same.max_by_key(|s| s.epoch).ok_or_else(|| {
        Error::Invalid(format!("the live incarnation never read {}", source.log()))
    })?;
    source.epoch = known.epoch;
    for (partition, floor) in &known.starts {
        let wanted = source.starts.entry(*partition).or_insert(*floor);
        *wanted = (*wanted).max(*floor);
    }
    Ok(source)
}

/// Refuses what holds less than `live` has consumed. `reached` tells how far it comes in
/// a partition of an epoch, `None` where it knows none of it.
fn check_covers(
    what: &str,
    reached: impl Fn(&Source, u32) -> Option<u64>,
    live: &IncarnationState,
    without: &[u32],
) -> Result<()> {
    let needed = live
        .sources
        .iter()
        .filter(|(_, s)| !without.contains(&s.epoch));
    for (id, source) in needed {
        for (partition, checkpoint) in &live.checkpoints[id] {
            let next = checkpoint.next;
            let reached = reached(source, *partition).unwrap_or(checkpoint.start);
            if reached < next {
                return Err(Error::Invalid(format!(
                    "{what} is at {reached} of {} epoch {} partition {partition}, the live incarnation \
                     at {next}; who gives up that epoch names it (without epoch {1})",
                    source.log(),
                    source.epoch,
                )));
            }
        }
    }
    Ok(())
}
