//! Garbage collection of one incarnation: win a mark, then delete.
//!
//! 0. Look whether enough would be deleted to pay for a mark; if not, end without one.
//! 1. Choose `retain_from`, the version that was newest `grace` ago, and the cutoff,
//!    `grace` before now but no younger than the newest commit; commit them as a mark.
//!    From here on no commit can add a name older than the cutoff, so what is older and
//!    unreferenced stays unreferenced.
//! 2. Delete commit slots and bases below `retain_from` that no pin needs.
//! 3. Collect what every retained and pinned version reaches. List segments, shadow
//!    objects and centroids; delete those older than the cutoff that nothing reaches.
//!    A version reaches the centroids of its segments, also those that are replaced.
//!
//! LIST only finds candidates: an object it does not show stays until the next run.
//! Each retained version counts as its own commit has it: a base may reference a shadow
//! pack that the deltas before it do not know. Reading them takes two requests for each
//! base, which is 64 commits, and the second look only what came since the first.
//!
//! A clock that runs ahead shortens the grace of its own run only: later runs choose
//! `retain_from` by their own clock, not by the mark that it left.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use vexlake_manifest::{Author, Manifest, ManifestError, State};

use crate::error::Result;
use crate::incarnation::{COMMIT_ATTEMPTS_MAX, Incarnation};
use crate::state::{Delta, IncarnationState, Mark};

/// Commits that a mark has to give up where it frees nothing else: it is a commit itself,
/// so with one, an idle incarnation would get a mark for the last mark, for ever.
const SLOTS_MIN: u64 = 2;

/// What a run may do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GcOptions {
    /// How long a version stays readable after it was replaced, ms.
    pub grace_ms: u64,
    /// Report without marking or deleting.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            grace_ms: 3_600_000,
            dry_run: false,
        }
    }
}

/// What a run did, or would do.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// Oldest version that stays readable.
    pub retain_from: u64,
    /// Commit slots and bases deleted.
    pub slots: u64,
    /// Segments, shadow objects and centroids deleted.
    pub objects: Vec<String>,
    /// Bytes of those.
    pub bytes: u64,
}

impl Collected {
    fn note(&mut self, doomed: Vec<(String, u64)>) {
        self.bytes += doomed.iter().map(|(_, size)| size).sum::<u64>();
        self.objects.extend(doomed.into_iter().map(|(key, _)| key));
    }
}

impl Incarnation {
    /// Where the objects lie that only versions name: segments, shadows, centroids.
    pub(crate) const SWEPT: [&str; 3] = ["seg/", "shadow/", "centroids/"];

    /// Collects garbage; see the file header.
    ///
    /// # Errors
    /// `FENCED` when retired meanwhile; store errors. A failed run leaves garbage, no damage.
    pub async fn collect_garbage(&self, options: &GcOptions) -> Result<Collected> {
        let head = self.manifest.refresh().await?;
        let now = (self.context.components.clock)();
        let then = now.saturating_sub(options.grace_ms);
        // Nothing younger than the newest commit is due, whatever this machine's clock says;
        // what that commit replaced is not younger.
        let cutoff_ms = then.min(head.when_ms + 1).max(head.state.cutoff_ms());
        let retained = head.state.retain_from();
        let retain_from = match self.manifest.at_time(then).await {
            Ok(then) => then.version.max(retained),
            Err(_) => retained,
        };
        let mut collected = Collected {
            retain_from,
            ..Collected::default()
        };
        let mut reached = Reached::default();
        self.reach(retain_from, &mut reached).await?;
        let doomed = self.doomed(&reached, cutoff_ms).await?;
        let idle = doomed.is_empty() && retain_from - retained < SLOTS_MIN;
        if idle || options.dry_run || head.state.retired {
            collected.note(doomed);
            return Ok(collected);
        }
        let mark = Mark {
            cutoff_ms,
            retain_from,
        };
        // A run beside this one may have won with a later mark: marks never go back.
        let head = self
            .commit_simple(|state| Delta::Mark(mark.over(state.mark)))
            .await?;
        let Mark {
            cutoff_ms,
            retain_from,
        } = head.state.mark.unwrap_or(mark);
        collected.retain_from = retain_from;
        collected.slots = self.manifest.sweep_slots().await?;
        // Looked up again behind the mark: a commit may have come in between, but none
        // that comes now can name anything older than the cutoff.
        self.reach(retain_from, &mut reached).await?;
        let doomed = self.doomed(&reached, cutoff_ms).await?;
        for (key, _) in &doomed {
            self.store.delete(key).await?;
        }
        collected.note(doomed);
        Ok(collected)
    }

    /// Keys and sizes of segments, shadow objects and centroids older than the cutoff that no
    /// readable version references.
    async fn doomed(&self, reached: &Reached, cutoff_ms: u64) -> Result<Vec<(String, u64)>> {
        let mut doomed = Vec::new();
        for prefix in Self::SWEPT {
            for listed in self.store.list(prefix).await? {
                let rest = listed.key.strip_prefix(prefix);
                let name = rest.and_then(|rest| rest.split('/').next());
                let Some(id) = name.and_then(|name| Ulid::from_string(name).ok()) else {
                    continue;
                };
                if !reached.ids.contains(&id) && id.timestamp_ms() < cutoff_ms {
                    doomed.push((listed.key, listed.size));
                }
            }
        }
        Ok(doomed)
    }

    /// Looks at every readable version that was not looked at before.
    async fn reach(&self, retain_from: u64, reached: &mut Reached) -> Result<()> {
        let from = retain_from.max(reached.next);
        let head = self
            .manifest
            .walk(from, |state| reached.note(state))
            .await?;
        reached.next = head.version + 1;
        for &pinned in head.state.pins.values() {
            if pinned < retain_from && reached.pins.insert(pinned) {
                reached.note(&self.manifest.at(pinned).await?.state);
            }
        }
        Ok(())
    }
}

/// What the readable versions reference, as far as they were looked at. Versions never
/// change, so a second look only needs those that came since.
#[derive(Default)]
struct Reached {
    /// Segments, shadow objects and centroids.
    ids: BTreeSet<Ulid>,
    /// Pinned versions below the retained ones.
    pins: BTreeSet<u64>,
    /// The first version not looked at.
    next: u64,
}

impl Reached {
    fn note(&mut self, state: &IncarnationState) {
        self.ids.extend(state.segments.keys().copied());
        self.ids.extend(state.shadow_objects());
        self.ids.extend(state.centroids.live.keys().copied());
    }
}

/// Ends an incarnation: the last commit, then its segments, shadow objects, centroids and the
/// bases that no commit names. HEAD and commits stay, and fence whoever still writes. Safe to
/// run again after a crash, and done by the commits alone: what cannot be opened any more
/// can still leave.
///
/// # Errors
/// Store errors.
pub(crate) async fn retire(manifest: &Manifest<IncarnationState>, author: &Author) -> Result<()> {
    let mut attempts = 0;
    while !manifest.refresh().await?.state.retired {
        let head = manifest.head();
        match manifest.commit(&head, Delta::Retire {}, author).await {
            Err(ManifestError::Conflict { .. }) if attempts < COMMIT_ATTEMPTS_MAX => attempts += 1,
            outcome => drop(outcome?),
        }
    }
    manifest.sweep_slots().await?;
    let store = manifest.store();
    for prefix in Incarnation::SWEPT {
        for listed in store.list(prefix).await? {
            store.delete(&listed.key).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
