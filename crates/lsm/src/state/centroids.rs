//! What the state says of centroids: which version new segments use, and which ones
//! segments still need.
//!
//! A version is an object `c/<inc>/centroids/<ulid>`, written once before the commit that
//! names it. A segment names the version that its lists belong to; that one stays live as
//! long as a live segment uses it. One that nothing uses any more leaves with the next mark
//! whose cutoff is younger than its name, so that a flush or a merge which was built on it
//! shortly before can still commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use vexlake_manifest::{State, Violation, u64_str};
use vexlake_segment::SegmentMeta;

use super::IncarnationState;
use super::apply::violation;

/// One version of centroids: the object, and what its training found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CentroidsMeta {
    /// Its name; the object is `centroids/<version>`.
    pub version: Ulid,
    /// Length of the object.
    #[serde(with = "u64_str")]
    pub bytes: u64,
    /// CRC32C of the object.
    pub crc32c: u32,
    /// How many centroids.
    pub lists: u32,
    /// Lists that a query looks at by default, as measured at training.
    pub probes: u32,
    /// Live rows of the collection then: much more of them call for another version.
    #[serde(with = "u64_str")]
    pub rows: u64,
    /// Where this came about by splitting lists: the training that it goes back to. Absent
    /// of a training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained: Option<Trained>,
}

/// A training, as splits of its lists remember it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trained {
    /// Its version.
    pub version: Ulid,
    /// Live rows of the collection at it.
    #[serde(with = "u64_str")]
    pub rows: u64,
}

impl CentroidsMeta {
    /// The training that all its lists go back to: its own, where it is one.
    pub fn trained(&self) -> Trained {
        let own = Trained {
            version: self.version,
            rows: self.rows,
        };
        self.trained.unwrap_or(own)
    }
}

/// The versions of an incarnation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CentroidVersions {
    /// What new segments use; none before the first training.
    pub current: Option<Ulid>,
    /// The current one, and those that segments use.
    #[serde(default)]
    pub live: BTreeMap<Ulid, CentroidsMeta>,
}

impl CentroidVersions {
    /// What new segments use.
    pub fn current(&self) -> Option<&CentroidsMeta> {
        self.live.get(&self.current?)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

impl IncarnationState {
    pub(super) fn replace_centroids(
        &mut self,
        replaces: Option<Ulid>,
        centroids: &CentroidsMeta,
    ) -> Result<(), Violation> {
        let current = self.centroids.current;
        if current != replaces {
            return violation(
                "centroids-next",
                format!("centroids in place of {replaces:?}, but {current:?} are in use"),
            );
        }
        let before = self.centroids.current().map(CentroidsMeta::trained);
        if centroids.trained.is_some() && centroids.trained != before {
            return violation(
                "centroids-next",
                format!(
                    "centroids split from {:?}, but those in use go back to {before:?}",
                    centroids.trained
                ),
            );
        }
        let (version, cutoff) = (centroids.version, self.cutoff_ms());
        if version.timestamp_ms() < cutoff || self.centroids.live.contains_key(&version) {
            return violation(
                "centroids-next",
                format!(
                    "centroids {version} are not new, or older than the mark's cutoff {cutoff}"
                ),
            );
        }
        self.centroids.live.insert(version, centroids.clone());
        self.centroids.current = Some(version);
        Ok(())
    }

    /// Refuses a segment whose centroids are not live.
    pub(super) fn check_centroids(&self, meta: &SegmentMeta) -> Result<(), Violation> {
        match meta.centroids {
            Some(version) if !self.centroids.live.contains_key(&version) => violation(
                "centroids-live",
                format!(
                    "segment {} has lists of centroids {version}, which are gone",
                    meta.id
                ),
            ),
            _ => Ok(()),
        }
    }

    /// Lets the versions go that nothing uses and that are older than the mark's cutoff.
    pub(super) fn forget_centroids(&mut self) {
        let cutoff = self.cutoff_ms();
        let Self {
            segments,
            centroids: CentroidVersions { current, live },
            ..
        } = self;
        let used = |version| segments.values().any(|s| s.meta.centroids == Some(version));
        live.retain(|version, _| {
            Some(*version) == *current || version.timestamp_ms() >= cutoff || used(*version)
        });
    }
}
