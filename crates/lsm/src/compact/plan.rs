//! The compaction policy: which segments to merge, and why.
//!
//! Size-tiered: segments of similar size (within a factor of `TIER_FACTOR`) form a
//! tier; a tier of `fan_in` or more is merged, oldest first. A segment whose entries
//! are mostly shadowed is rewritten alone, since the dead space costs every scan.
//! Merges of disjoint inputs may run at once, so specs never share a segment.
//!
//! Every merge drops the deletes older than `delete_retention_ms` that nothing needs any
//! more (`state/deletes.rs`). Where those make up `delete_ratio` of all that is so old,
//! everything so old is merged for their sake: a delete goes only together with the older
//! rows of its key, and those can lie anywhere below its age. With more than one source
//! age does not bound where they lie, and deletes wait for the other reasons.
//!
//! Centroids are trained once a collection has `train_rows_min` rows, and again when it has
//! grown by `train_growth`. Then segments without lists by them are rewritten one by one;
//! those of older centroids stay searchable until their turn comes. In between, whenever it
//! has grown by `split_growth`, the lists that grew are split. For that nothing is rewritten:
//! a segment's own lists have not grown, and merges bring its rows to the newer ones.
//!
//! Pure: takes the state, returns specs. No clock, no I/O. Positions decide which of
//! two records wins, so any set of segments may be merged.
//!
//! Write cost: each record is rewritten once per tier, log_fan_in(total / flush size)
//! times in all: with fan-in 4 and 64 MiB flushes, 4 times for 16 GiB.

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::merge::{MergeOptions, with_lists};
use crate::state::{IncarnationState, SegmentState};
use vexlake_distance::Metric;

/// Width of a size tier.
const TIER_FACTOR: f64 = 4.0;
/// Sizes below this share the lowest tier: opening a file costs more than reading 1 MiB.
const TIER_FLOOR_BYTES: u64 = 1 << 20;
/// Below this an exact scan of everything is as good: 20,000 rows of 768 floats are 60 MB,
/// some 6 ms of one core's memory bandwidth.
pub(super) const TRAIN_ROWS_MIN: u64 = 20_000;
/// Training again costs a rewrite of everything: at a factor of sixteen, all that came before
/// cost a fifteenth of the last one.
const TRAIN_GROWTH: f64 = 16.0;
/// Lists are split where they have twice the rows aimed at: a query scans twice as many then.
const SPLIT_GROWTH: f64 = 2.0;
/// Choosing lists costs as much as scanning them at some 200 rows a list (crates/index).
const ROWS_PER_LIST: u64 = 200;
/// Centroids at most: 65,536 of 768 floats are 200 MB in every process.
const LISTS_MAX: u64 = 1 << 16;
/// Segments that training samples: the largest; a payload of 1,024 names has 27 KiB.
const TRAIN_INPUTS_MAX: usize = 1024;
/// Seven days: a backfill of a week comes in behind its deletes.
const DELETE_RETENTION_MS: u64 = 7 * 24 * 3_600_000;

/// What the policy may decide by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Segments of one tier that make a merge.
    pub fan_in: usize,
    /// Most inputs of one merge.
    pub inputs_max: usize,
    /// Bytes of inputs beyond which a merge takes no further one.
    pub bytes_max: u64,
    /// Entries of inputs beyond which a merge takes no further one: its bookkeeping
    /// of 160 bytes an entry has to fit half the compactor's memory.
    pub entries_max: u64,
    /// Share of shadowed entries at which a segment is rewritten alone.
    pub shadow_ratio: f64,
    /// How long deletes are kept at least: by how much every partition must have passed
    /// one, ms of log time.
    pub delete_retention_ms: u64,
    /// Share of old deletes at which everything old is merged: each is dropped for at
    /// most 1 / ratio entries rewritten.
    pub delete_ratio: f64,
    /// Live rows from which on a collection has centroids.
    pub train_rows_min: u64,
    /// Growth since the last training at which they are trained again.
    pub train_growth: f64,
    /// Growth since the last training or split at which lists are split.
    pub split_growth: f64,
    /// Rows of a list, on average, that training aims at.
    pub rows_per_list: u64,
}

/// What a caller may say about a plan.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlanOptions {
    /// Memory of the merges to come: a plan must fit it.
    pub memory_bytes_max: u64,
    /// See [`Policy::delete_retention_ms`].
    pub delete_retention_ms: u64,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            memory_bytes_max: MergeOptions::default().memory_bytes_max,
            delete_retention_ms: DELETE_RETENTION_MS,
        }
    }
}

impl Policy {
    /// The default policy for a compactor of these options.
    pub fn within(options: &PlanOptions) -> Self {
        Self {
            entries_max: super::merge::entries_max(options.memory_bytes_max),
            delete_retention_ms: options.delete_retention_ms,
            ..Self::default()
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            fan_in: 4,
            inputs_max: 16,
            bytes_max: 4 << 30,
            entries_max: super::merge::entries_max(MergeOptions::default().memory_bytes_max),
            shadow_ratio: 0.5,
            delete_retention_ms: DELETE_RETENTION_MS,
            delete_ratio: 0.1,
            train_rows_min: TRAIN_ROWS_MIN,
            train_growth: TRAIN_GROWTH,
            split_growth: SPLIT_GROWTH,
            rows_per_list: ROWS_PER_LIST,
        }
    }
}

/// A job to do: pure description. A merge is valid while all inputs are live, a training and a
/// split while nobody else has changed the centroids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Stable name: the same inputs give the same id, others another.
    pub id: String,
    /// The incarnation.
    pub incarnation: Ulid,
    /// `merge`, `train` or `split`.
    pub kind: String,
    /// Segments to merge, or to sample.
    pub inputs: Vec<Ulid>,
    /// Why, for people.
    pub reason: String,
    /// Bytes of the inputs.
    pub bytes_in: u64,
    /// Bytes expected to be written.
    pub predicted_bytes: u64,
    /// Entries of the inputs.
    pub entries_in: u64,
    /// Deletes of a lower log time may be dropped, ms; absent = keep all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_deletes_before: Option<i64>,
    /// The centroids that a training or split replaces; none the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Ulid>,
    /// How many centroids to train, or to come to about; 0 of a merge.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lists: u32,
    /// Version the plan was made on.
    pub version: u64,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Bytes, entries and shadowed entries of a live segment.
struct Weight {
    id: Ulid,
    bytes: u64,
    entries: u64,
    shadowed: u64,
}

impl Weight {
    fn new((id, segment): (&Ulid, &SegmentState), shadowed: &dyn Fn(&Ulid) -> u64) -> Self {
        let bytes = segment.meta.files.iter().map(|file| file.bytes).sum();
        let entries = u64::from(segment.meta.rows) + u64::from(segment.meta.deletes);
        Self {
            id: *id,
            bytes,
            entries,
            shadowed: shadowed(id),
        }
    }

    fn tier(&self) -> i32 {
        let size = self.bytes.max(TIER_FLOOR_BYTES) as f64 / TIER_FLOOR_BYTES as f64;
        (size.ln() / TIER_FACTOR.ln()) as i32
    }
}

/// What is due in `state`, training first. `shadowed` tells how many entries of a segment are
/// hidden (the state only references large shadow sets).
pub fn plan_compaction(
    state: &IncarnationState,
    version: u64,
    policy: &Policy,
    shadowed: &dyn Fn(&Ulid) -> u64,
) -> Vec<Spec> {
    let plan = Plan::new(state, version, policy);
    let mut tiers: std::collections::BTreeMap<i32, Vec<Weight>> = std::collections::BTreeMap::new();
    let mut specs: Vec<Spec> = plan.training(shadowed).into_iter().collect();
    let mut unlisted = Vec::new();
    let aged = plan.aged(shadowed);
    for segment in &state.segments {
        let weight = Weight::new(segment, shadowed);
        if aged.iter().any(|aged| aged.id == weight.id) {
            continue;
        }
        // Without a shadowed entry a rewrite gains nothing, whatever the ratio says; what a
        // compactor with more memory wrote may be beyond this one.
        if weight.shadowed > 0
            && weight.entries <= policy.entries_max
            && weight.shadowed as f64 >= policy.shadow_ratio * weight.entries as f64
        {
            let share = 100 * weight.shadowed / weight.entries;
            let reason = format!("{share} % of the entries are shadowed");
            specs.push(plan.spec(&[weight], reason));
        } else {
            tiers.entry(weight.tier()).or_default().push(weight);
        }
    }
    if !aged.is_empty() {
        let reason = format!(
            "delete age: {} deletes are old enough to go",
            plan.old_deletes()
        );
        specs.push(plan.spec(&aged, reason));
    }
    for (tier, weights) in tiers {
        let mut rest = weights.as_slice();
        // One segment is no merge, whatever the policy says.
        while rest.len() >= policy.fan_in.max(2) {
            let (mut bytes, mut entries) = (0, 0);
            let within = |weight: &&Weight| {
                bytes += weight.bytes;
                entries += weight.entries;
                bytes <= policy.bytes_max && entries <= plan.entries_max
            };
            let taken = rest
                .iter()
                .take(policy.inputs_max)
                .take_while(within)
                .count();
            if taken < 2 {
                // The oldest alone fills a merge: it stays as it is.
                unlisted.extend(plan.unlisted(&rest[..1]));
                rest = &rest[1..];
                continue;
            }
            let reason = format!(
                "{taken} segments in size tier {tier}, merged from {}",
                policy.fan_in
            );
            specs.push(plan.spec(&rest[..taken], reason));
            rest = &rest[taken..];
        }
        unlisted.extend(plan.unlisted(rest));
    }
    specs.extend(unlisted);
    specs
}

/// What all specs of a plan have in common.
struct Plan<'a> {
    state: &'a IncarnationState,
    version: u64,
    policy: &'a Policy,
    drop_deletes_before: Option<i64>,
    entries_max: u64,
}

impl<'a> Plan<'a> {
    fn new(state: &'a IncarnationState, version: u64, policy: &'a Policy) -> Self {
        let retention = i64::try_from(policy.delete_retention_ms).unwrap_or(i64::MAX);
        let bound = |horizon: i64| horizon.saturating_sub(retention);
        Self {
            state,
            version,
            policy,
            drop_deletes_before: state.horizon().map(bound),
            entries_max: with_lists(policy.entries_max, state),
        }
    }

    /// Deletes of segments that are older than the bound as a whole.
    fn old_deletes(&self) -> u64 {
        let old = |s: &&SegmentState| {
            self.drop_deletes_before
                .is_some_and(|bound| s.meta.log_time_max < bound)
        };
        let segments = self.state.segments.values().filter(old);
        segments.map(|s| u64::from(s.meta.deletes)).sum()
    }

    /// All segments that hold anything older than the bound, where merging them is worth
    /// the deletes and fits a merge; else none.
    fn aged(&self, shadowed: &dyn Fn(&Ulid) -> u64) -> Vec<Weight> {
        let Policy {
            inputs_max,
            bytes_max,
            delete_ratio,
            ..
        } = *self.policy;
        let old = |s: &SegmentState| {
            self.drop_deletes_before
                .is_some_and(|bound| s.meta.log_time_min < bound)
        };
        let segments = self.state.segments.iter().filter(|(_, s)| old(s));
        let aged: Vec<Weight> = segments.map(|s| Weight::new(s, shadowed)).collect();
        let (bytes, entries) = aged.iter().fold((0, 0), |(bytes, entries), weight| {
            (bytes + weight.bytes, entries + weight.entries)
        });
        let deletes = self.old_deletes();
        let is_due = self.state.sources.len() == 1
            && deletes > 0
            && deletes as f64 >= delete_ratio * entries as f64
            && (aged.len() <= inputs_max && bytes <= bytes_max && entries <= self.entries_max);
        if is_due { aged } else { Vec::new() }
    }

    /// The training or split that is due.
    fn training(&self, shadowed: &dyn Fn(&Ulid) -> u64) -> Option<Spec> {
        let Policy {
            train_rows_min,
            train_growth,
            split_growth,
            ..
        } = *self.policy;
        // Deletes may be among the shadowed entries: then rows are undercounted a little.
        let live = |(id, segment): (&Ulid, &SegmentState)| {
            u64::from(segment.meta.rows).saturating_sub(shadowed(id))
        };
        let rows: u64 = self.state.segments.iter().map(live).sum();
        if rows < train_rows_min.max(1) || self.state.schema.metric() == Metric::Manhattan {
            return None;
        }
        let last = self.state.centroids.current();
        let times = |before: u64| rows as f64 / before.max(1) as f64;
        let grown = last.map(|last| (times(last.trained().rows), times(last.rows)));
        let (kind, reason) = match grown {
            None => ("train", format!("lists: {rows} rows without centroids")),
            Some((grown, _)) if grown >= train_growth => {
                let reason = format!("lists: {grown:.1} times the rows of the last training");
                ("train", reason)
            }
            Some((_, grown)) if grown >= split_growth => (
                "split",
                format!("lists: they have {grown:.1} times the rows"),
            ),
            Some(_) => return None,
        };
        let segments = self.state.segments.iter();
        let mut inputs: Vec<Weight> = segments
            .filter(|(_, segment)| segment.meta.rows > 0)
            .map(|segment| Weight::new(segment, shadowed))
            .collect();
        inputs.sort_by_key(|weight| std::cmp::Reverse(weight.entries));
        inputs.truncate(TRAIN_INPUTS_MAX);
        Some(Spec {
            kind: kind.to_owned(),
            predicted_bytes: 0,
            replaces: last.map(|last| last.version),
            lists: (rows / self.policy.rows_per_list.max(1)).clamp(1, LISTS_MAX) as u32,
            drop_deletes_before: None,
            ..self.spec(&inputs, reason)
        })
    }

    /// A rewrite of each of these segments whose lists do not go back to the last training,
    /// as far as it fits a merge.
    fn unlisted(&self, weights: &[Weight]) -> Vec<Spec> {
        let Some(current) = self.state.centroids.current() else {
            return Vec::new();
        };
        let live = &self.state.centroids.live;
        let is_due = |weight: &&Weight| {
            let meta = &self.state.segments[&weight.id].meta;
            let own = meta.centroids.and_then(|version| live.get(&version));
            let is_of_last = own.is_some_and(|own| own.trained() == current.trained());
            meta.rows > 0 && !is_of_last && weight.entries <= self.entries_max
        };
        let due = weights.iter().filter(is_due);
        due.map(|weight| {
            let has = match self.state.segments[&weight.id].meta.centroids {
                None => "none",
                Some(_) => "those of older centroids",
            };
            self.spec(std::slice::from_ref(weight), format!("lists: it has {has}"))
        })
        .collect()
    }

    fn spec(&self, inputs: &[Weight], reason: String) -> Spec {
        let bytes_in: u64 = inputs.iter().map(|w| w.bytes).sum();
        let predicted = |w: &Weight| w.bytes - w.bytes * w.shadowed / w.entries.max(1);
        let first = inputs
            .first()
            .map_or_else(String::new, |w| w.id.to_string());
        let all = |sum, w: &Weight| crc32c::crc32c_append(sum, &w.id.to_bytes());
        let sum = inputs.iter().fold(0, all);
        Spec {
            id: format!("{first}-{}-{sum:08x}", inputs.len()),
            incarnation: self.state.id,
            kind: "merge".to_owned(),
            inputs: inputs.iter().map(|w| w.id).collect(),
            reason,
            bytes_in,
            predicted_bytes: inputs.iter().map(predicted).sum(),
            entries_in: inputs.iter().map(|w| w.entries).sum(),
            drop_deletes_before: self.drop_deletes_before,
            replaces: None,
            lists: 0,
            version: self.version,
        }
    }
}

#[cfg(test)]
mod tests;
