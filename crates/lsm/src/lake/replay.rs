//! Incarnations fed beside the live one: replay, promote, roll back, end.

use std::collections::BTreeMap;

use ulid::Ulid;

use super::Lake;
use crate::catalog::{CatalogState, Mapping};
use crate::error::{Error, Result};
use crate::state::{IncarnationState, NewSource};

impl Lake {
    /// Begins a replay: a new incarnation fed beside the live one.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID` when a start lies below the live incarnation's floor.
    pub async fn replay_start(&self, db: u32, name: &str, mut source: NewSource) -> Result<Ulid> {
        let mapping = self.mapping(db, name).await?;
        let live = self
            .incarnation(mapping.live)
            .await?
            .manifest
            .refresh()
            .await?
            .state
            .clone();
        let floor = live
            .sources
            .values()
            .find(|s| s.topic == source.topic)
            .map(|s| s.starts.clone());
        for (partition, start) in floor.iter().flatten() {
            let wanted = source.starts.entry(*partition).or_insert(*start);
            // Nothing that was cleared comes back: earliest means the floor.
            *wanted = (*wanted).max(*start);
        }
        let key = CatalogState::key(db, name);
        let id = self
            .new_incarnation(&key, live.schema.clone(), source.into_source(0))
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
    /// for a rollback. `None` = the first in line.
    ///
    /// # Errors
    /// `INVALID` when it is not fed, or a checkpoint of it is behind the live one's.
    pub async fn promote(&self, db: u32, name: &str, incarnation: Option<Ulid>) -> Result<Mapping> {
        let mapping = self.mapping(db, name).await?;
        let key = CatalogState::key(db, name);
        let fed = &mapping.fed;
        let target = incarnation
            .or_else(|| fed.first().copied())
            .filter(|id| fed.contains(id))
            .ok_or_else(|| {
                Error::Invalid(format!("{incarnation:?} is not fed by {key}: {fed:?}"))
            })?;
        self.check_caught_up(mapping.live, target).await?;
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

    async fn check_caught_up(&self, live: Ulid, target: Ulid) -> Result<()> {
        let live = self.incarnation(live).await?.manifest.refresh().await?;
        let ahead = self.incarnation(target).await?.manifest.refresh().await?;
        let next_by_topic = |state: &IncarnationState| -> BTreeMap<(String, u32), u64> {
            let flat = state.checkpoints.iter().flat_map(|(source, partitions)| {
                let topic = state.sources[source].topic.clone();
                partitions
                    .iter()
                    .map(move |(partition, c)| ((topic.clone(), *partition), c.next))
            });
            flat.collect()
        };
        let ahead = next_by_topic(&ahead.state);
        for ((topic, partition), next) in next_by_topic(&live.state) {
            let reached = ahead.get(&(topic.clone(), partition)).copied().unwrap_or(0);
            if reached < next {
                return Err(Error::Invalid(format!(
                    "{target} is at {reached} of {topic} partition {partition}, the live incarnation at {next}"
                )));
            }
        }
        Ok(())
    }
}
