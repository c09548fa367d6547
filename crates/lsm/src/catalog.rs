//! The catalog: which incarnation a name means.
//!
//! It maps `db/name` to the live incarnation and those fed beside it (replays and
//! what was live before a promotion), and lists the incarnations that are leaving.
//! Nothing else lives here: dimension, metric, sources and segments belong to the
//! incarnation. Every change of a name is a compare-and-set, so two people who create,
//! drop or promote at once cannot both win. What is leaving never gets a name again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use vexlake_manifest::{State, Violation};

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The incarnation that answers.
    pub live: Ulid,
    /// Incarnations kept fed: replays under way, and predecessors that a rollback may return to.
    #[serde(default)]
    pub fed: Vec<Ulid>,
}

impl Mapping {
    /// Live and fed, live first.
    pub fn incarnations(&self) -> impl Iterator<Item = Ulid> + '_ {
        std::iter::once(self.live).chain(self.fed.iter().copied())
    }
}

/// A change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CatalogDelta {
    /// Sets what a name means; incarnations that it no longer names begin to leave.
    Map {
        /// `db/name`.
        name: String,
        /// What the committer saw.
        before: Option<Mapping>,
        /// What it shall be; `None` forgets the name.
        after: Option<Mapping>,
    },
    /// An incarnation that has no name shall not get one, and begins to leave.
    Leave {
        /// The incarnation.
        incarnation: Ulid,
    },
    /// A retired incarnation is gone from the catalog.
    Forget {
        /// The incarnation.
        incarnation: Ulid,
    },
}

/// The catalog at one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogState {
    /// Names, as `db/name`.
    pub names: BTreeMap<String, Mapping>,
    /// Incarnations without a name that still have to be retired.
    pub leaving: BTreeSet<Ulid>,
}

impl CatalogState {
    /// Everything live or fed.
    pub fn named(&self) -> BTreeSet<Ulid> {
        let mappings = self.names.values();
        mappings.flat_map(Mapping::incarnations).collect()
    }

    /// Whether an incarnation is live, fed or leaving.
    pub fn knows(&self, incarnation: Ulid) -> bool {
        self.leaving.contains(&incarnation) || self.named().contains(&incarnation)
    }

    /// The key of a collection.
    pub fn key(db: u32, name: &str) -> String {
        format!("{db}/{name}")
    }

    /// `(db, name)` of a key.
    pub fn parse_key(key: &str) -> (u32, &str) {
        let (db, name) = key.split_once('/').unwrap_or(("0", key));
        (db.parse().unwrap_or(0), name)
    }
}

impl State for CatalogState {
    type Delta = CatalogDelta;

    fn apply(
        &mut self,
        _version: u64,
        _when_ms: u64,
        delta: &CatalogDelta,
    ) -> Result<(), Violation> {
        match delta {
            CatalogDelta::Map {
                name,
                before,
                after,
            } => {
                let stored = self.names.get(name);
                if stored != before.as_ref() {
                    let message = format!("collection {name} is {stored:?}, not {before:?}");
                    return Err(Violation {
                        rule: "catalog-compare",
                        message,
                    });
                }
                let kept: BTreeSet<Ulid> = after.iter().flat_map(Mapping::incarnations).collect();
                if let Some(gone) = kept.intersection(&self.leaving).next() {
                    let message = format!("collection {name} cannot mean {gone}, which is leaving");
                    return Err(Violation {
                        rule: "catalog-gone",
                        message,
                    });
                }
                self.leaving.extend(
                    before
                        .iter()
                        .flat_map(Mapping::incarnations)
                        .filter(|id| !kept.contains(id)),
                );
                match after {
                    Some(mapping) => self.names.insert(name.clone(), mapping.clone()),
                    None => self.names.remove(name),
                };
            }
            CatalogDelta::Leave { incarnation } => {
                if self.named().contains(incarnation) || !self.leaving.insert(*incarnation) {
                    let message = format!("incarnation {incarnation} has a name, or is leaving");
                    return Err(Violation {
                        rule: "catalog-nameless",
                        message,
                    });
                }
            }
            CatalogDelta::Forget { incarnation } => {
                if !self.leaving.remove(incarnation) {
                    let message = format!("incarnation {incarnation} is not leaving");
                    return Err(Violation {
                        rule: "catalog-leaving",
                        message,
                    });
                }
            }
        }
        Ok(())
    }

    fn retain_from(&self) -> u64 {
        0
    }

    fn cutoff_ms(&self) -> u64 {
        0
    }
}
