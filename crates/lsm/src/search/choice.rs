//! Which lists a query looks at, and how many rows exactly.
//!
//! Probe counts come from training; `EF` scales them, and the number of rows looked at
//! exactly, around [`EF_DEFAULT`]: more effort never looks at fewer lists. More results need
//! lists that hold them; a filter needs the more of them the fewer rows pass around the query.

use std::collections::BTreeMap;
use std::sync::Arc;

use ulid::Ulid;
use vexlake_index::{Candidate, Centroids, Chosen, Effort, Search as Walk};

use super::mask::Mask;
use super::{Group, Search};
use crate::snapshot::SegmentView;

/// `EF` of a search that names none, as in Redis.
pub const EF_DEFAULT: u32 = 100;
/// Rows of the chosen lists per result wanted, on average: lists measured for ten results
/// do not hold a thousand.
const LIST_ROWS_PER_RESULT: u64 = 4;
/// Rows looked at exactly beyond k, at most, at the default effort.
const RERANK_EXTRA_MAX: usize = 2000;
/// How lists grow with the rank of the k-th row that passes, as the power of rank ÷ k: at 0.7
/// filters of 50 to 0.1 % found .991 to 1 of the nearest on 200,000 × 768.
const REACH: f64 = 0.7;
/// Lists that they grow from, at least: with two, queries in clusters of which nothing passed
/// found .96 of the nearest, with four .99.
const REACH_PROBES_MIN: usize = 4;
/// Rows that pass a filter, at most, whose exact keys are computed at once: each costs some
/// quarter of a microsecond, and codes would have them looked at anyway.
const FEW_ROWS: u64 = 200;

/// A version of centroids and the segments whose lists belong to it, by number in the view.
pub(super) struct Version<'a> {
    pub(super) centroids: &'a Arc<Centroids>,
    probes: u32,
    pub(super) segments: Vec<(usize, &'a SegmentView)>,
}

/// The versions of centroids of some segments with lists.
pub(super) fn versions_of<'a>(group: &Group<'a>, segments: &[usize]) -> Vec<Version<'a>> {
    let mut by_version: BTreeMap<Ulid, Vec<(usize, &SegmentView)>> = BTreeMap::new();
    for number in segments {
        let view = group.views[*number];
        if let Some(version) = view.reader.meta().centroids {
            by_version.entry(version).or_default().push((*number, view));
        }
    }
    let snapshot = group.snapshot;
    let known = by_version.into_iter().filter_map(|(version, segments)| {
        Some(Version {
            centroids: snapshot.centroids.get(&version)?,
            probes: snapshot.state().centroids.live.get(&version)?.probes,
            segments,
        })
    });
    known.collect()
}

/// How many rows a filter leaves, where they are so few that no code has to be looked at.
pub(super) fn few_left(versions: &[Version<'_>], mask: &Mask) -> Option<u64> {
    let left: Option<u64> = versions.iter().map(|version| version.seen(mask)).sum();
    left.filter(|left| *left <= FEW_ROWS)
}

impl Version<'_> {
    /// Live rows of its segments.
    fn rows(&self) -> u64 {
        self.segments.iter().map(|(_, view)| view.live_rows).sum()
    }

    /// Rows that a mask with a filter leaves.
    pub(super) fn seen(&self, mask: &Mask) -> Option<u64> {
        let segments = self.segments.iter();
        segments.map(|(number, _)| mask.seen(*number)).sum()
    }

    /// Takes all rows that are left as candidates.
    pub(super) fn admit_all(&self, mask: &Mask, walk: &mut Walk) {
        for (number, view) in &self.segments {
            for slot in mask.rows(*number, view.reader.rows()) {
                let segment = *number as u32;
                walk.admit(Candidate { segment, slot });
            }
        }
    }

    /// Rows of a list, and those that a mask leaves.
    fn rows_of_list(&self, mask: &Mask, list: u32) -> (u64, u64) {
        let entries = self.segments.iter().filter_map(|(number, view)| {
            let entry = view.reader.lists()?.entry(list)?;
            Some((*number, entry))
        });
        entries.fold((0, 0), |(rows, seen), (number, entry)| {
            let of_segment = mask.seen_in(number, entry.slots());
            (rows + u64::from(entry.rows), seen + of_segment)
        })
    }
}

/// The lists of a query with a filter, nearest first.
///
/// The nearest k that pass are, of all rows, the nearest r: k ÷ share where the filter has
/// nothing to do with the query, k in the midst of its own topic, any number far from it. The
/// lists that hold the nearest r grow as a power of r ÷ k ([`REACH`]); r is counted as lists are
/// walked, nearest first, until k rows that pass were seen. Lists in which none passes cost
/// nothing and do not count.
pub(super) fn choose_passing(
    walk: &mut Walk,
    version: &Version<'_>,
    mask: &Mask,
    (k, probes): (usize, usize),
    seen: u64,
) -> Vec<Chosen> {
    let lists = version.centroids.count();
    let wanted = seen.min(k as u64) as f64;
    let enough_rows = (wanted * LIST_ROWS_PER_RESULT as f64).min(seen as f64);
    let from = probes.max(REACH_PROBES_MIN) as f64;
    let reach = |rank: f64| from * (rank / wanted).powf(REACH);
    let share = seen as f64 / version.rows().max(seen) as f64;
    let mut looked_at = (reach(wanted / share) as usize).clamp(probes, lists);
    loop {
        let mut chosen = walk.choose(version.centroids, looked_at).to_vec();
        chosen.sort_unstable_by(|a, b| a.key.total_cmp(&b.key));
        let (mut rank, mut found, mut with_rows) = (0.0, 0.0, 0.0);
        let enough = chosen.iter().position(|list| {
            let (rows, seen) = version.rows_of_list(mask, list.list);
            if found < wanted {
                let part = ((wanted - found) / seen as f64).min(1.0);
                rank += part * rows as f64;
            }
            found += seen as f64;
            with_rows += f64::from(u8::from(seen > 0));
            found >= enough_rows && with_rows >= reach(rank)
        });
        match enough {
            Some(last) => chosen.truncate(last + 1),
            None if looked_at < lists => {
                looked_at = (looked_at * 2).min(lists);
                continue;
            }
            None => {}
        }
        return chosen;
    }
}

fn scaled(count: u64, query: &Search) -> u64 {
    let ef = query.effort.unwrap_or(EF_DEFAULT);
    (count * u64::from(ef)).div_ceil(u64::from(EF_DEFAULT))
}

/// What a query may look at exactly.
pub(super) fn effort_of(query: &Search) -> Effort {
    let default = Effort::for_k(query.k);
    let rows = default.rerank_max.min(query.k + RERANK_EXTRA_MAX);
    Effort {
        rerank_max: scaled(rows as u64, query) as usize,
        ..default
    }
}

/// Lists to look at: more for more effort and for more results.
pub(super) fn probes_of(query: &Search, version: &Version<'_>, widened: u64) -> usize {
    let lists = version.centroids.count() as u64;
    let wanted = LIST_ROWS_PER_RESULT * query.k as u64;
    let to_hold = (wanted * lists).div_ceil(version.rows().max(1));
    let probes = scaled(u64::from(version.probes), query).max(to_hold);
    probes.saturating_mul(widened).clamp(1, lists) as usize
}
