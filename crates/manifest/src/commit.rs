//! Writing: validate, roll the base if due, fill the slot, check the boundary, move HEAD.
//!
//! 1. A parent older than the known head has lost already; a retired one fences.
//! 2. The delta is applied to the parent's state: a broken rule ends it without I/O.
//! 3. Look at the slot before writing: a contended create can cost seconds on servers
//!    where a plain read costs one.
//! 4. At 64 deltas, 256 KiB, or the state's wish, the parent's state is folded into a
//!    base of its own and the commit starts a new chain on it. A fold that fails stops
//!    nobody: the chain goes on, or starts on the state as it is, which says the same.
//! 5. Fill the slot, doubt settled by reading it. 6. Boundary check. 7. HEAD forward;
//!    where that fails the commit stands all the same.
//!
//! What holds of marks is checked here for every state: `retain_from` and `cutoff_ms`
//! never decrease, and no mark retains from beyond its own version.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::sleep;
use ulid::Ulid;
use vexlake_store::{Created, StoreError, StoreErrorKind, Swapped, Tag};

use crate::load::HeadMove;
use crate::manifest::{Access, Manifest, to_json};
use crate::state::{Author, Head, State, Violation};
use crate::wire::{Chain, CommitOut, DELTAS_MAX, Entry, FORMAT, HeadBody};
use crate::{Invariant, Invariants, ManifestError, crash, frame, keys};

/// A commit beyond this rolls the base: 64 deltas of 4 KiB.
const COMMIT_BYTES_SOFT_MAX: usize = 256 << 10;
/// A commit beyond this is refused: 40,000 segments at 400 bytes in one delta are a
/// defect of the caller, and every reader would have to hold it.
const COMMIT_BYTES_MAX: usize = 16 << 20;
/// Tries at one slot. Each failed one settles by reading; with the store's waits they
/// span ~6 s beyond what the requests themselves take.
const SLOT_TRIES_MAX: u32 = 8;
/// Tries at HEAD. Losing means that somebody else moved it, forward.
const HEAD_TRIES_MAX: u32 = 8;

/// Whose a slot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    Won,
    Lost,
}

impl<S: State> Manifest<S> {
    /// Commits `delta` on `parent` as the next version and answers it, acknowledged.
    ///
    /// `Conflict`: another came first; [`Manifest::head`] holds it. `Fenced`, `Invalid`:
    /// see there. `Store` with `doubt`: the commit may stand or may yet appear; refresh
    /// and look before doing it again.
    pub async fn commit(
        &self,
        parent: &Head<S>,
        delta: S::Delta,
        author: &Author,
    ) -> Result<Arc<Head<S>>, ManifestError> {
        let outcome = self.try_commit(parent, delta, author).await;
        self.inner.context.note(outcome)
    }

    async fn try_commit(
        &self,
        parent: &Head<S>,
        delta: S::Delta,
        author: &Author,
    ) -> Result<Arc<Head<S>>, ManifestError> {
        if parent.state.retired() {
            return Err(ManifestError::Fenced {
                version: parent.version,
            });
        }
        if self.head().version > parent.version {
            return Err(self.lost());
        }
        let access = self.access();
        let (head, body) = match access.prepare(parent, delta, author).await? {
            Some(prepared) => prepared,
            None => return Err(self.reload_lost().await),
        };
        (self.inner.context.crash)(crash::COMMIT_BEFORE_CREATE);
        if access.fill_slot(head.version, head.id, body).await? == Slot::Lost {
            return Err(self.reload_lost().await);
        }
        (self.inner.context.crash)(crash::COMMIT_AFTER_CREATE);
        let found = access
            .read_head()
            .await
            .map_err(|error| access.in_doubt(error))?;
        let Some((now, _)) = &found else {
            // Without HEAD nothing proves that the slot is no ghost.
            return Err(access.in_doubt(ManifestError::corrupt(
                keys::HEAD,
                "absent, although it was there before",
            )));
        };
        if now.retain_from > head.version {
            // A ghost in a swept place. Nobody may believe it, so removing it is only
            // tidiness, and a pinned slot cannot be here: it would still have been filled.
            let _ = self.inner.store.delete(&keys::slot(head.version)).await;
            return Err(self.reload_lost().await);
        }
        if access
            .advance_head(&HeadMove::to(&head), found)
            .await
            .is_err()
        {
            self.inner.head_moves_failed.fetch_add(1, Ordering::Relaxed);
        }
        let head = Arc::new(head);
        self.publish(Arc::clone(&head))
            .map_err(|error| access.in_doubt(error))?;
        Ok(head)
    }

    /// The error of a lost race whose winner is already known.
    fn lost(&self) -> ManifestError {
        let head = self.head();
        match head.state.retired() {
            true => ManifestError::Fenced {
                version: head.version,
            },
            false => ManifestError::Conflict {
                version: head.version,
            },
        }
    }

    async fn reload_lost(&self) -> ManifestError {
        match self.refresh().await {
            Ok(_) => self.lost(),
            Err(error) => error,
        }
    }
}

impl Access<'_> {
    /// The version to be and its bytes; `None` where the slot is taken already.
    async fn prepare<S: State>(
        &self,
        parent: &Head<S>,
        delta: S::Delta,
        author: &Author,
    ) -> Result<Option<(Head<S>, Bytes)>, ManifestError> {
        let version = parent.version + 1;
        let when_ms = (self.context.clock)().max(parent.when_ms);
        let id = Ulid::from_parts(when_ms, (self.context.rng)());
        let state = self.apply::<S>(&parent.state, version, when_ms, &delta)?;
        if self.read_slot(version).await?.is_some() {
            return Ok(None);
        }
        let Author { role, instance } = author.clone();
        let entry = Entry {
            version,
            id,
            when_ms,
            role,
            instance,
            delta,
        };
        let json = to_json(&keys::slot(version), &entry)?;
        let raw = String::from_utf8(json)
            .ok()
            .and_then(|json| RawValue::from_string(json).ok());
        let raw =
            raw.ok_or_else(|| ManifestError::corrupt(keys::slot(version), "delta is not JSON"))?;
        let mut deltas = parent.chain.deltas.clone();
        deltas.push(raw.into());
        let chain = Chain {
            base: parent.chain.base.clone(),
            deltas,
        };
        let mut head = Head {
            version,
            id,
            parent: Some(parent.id),
            when_ms,
            author: author.clone(),
            state: Arc::new(state),
            delta: Some(entry.delta),
            chain: Arc::new(chain),
        };
        let mut body = self.encode(&head)?;
        let long = head.chain.deltas.len() > DELTAS_MAX || body.len() > COMMIT_BYTES_SOFT_MAX;
        // A chain of one starts on the parent already: rolling again would gain nothing,
        // unless the state itself asks.
        let full = long && head.chain.deltas.len() > 1;
        if full || parent.state.fold_due() {
            let base = match parent.state.fold(self.store).await {
                Ok(folded) => Some(folded),
                Err(_) => full.then(|| S::clone(&parent.state)),
            };
            if let Some(base) = base {
                self.roll(parent, &base, &mut head).await?;
                body = self.encode(&head)?;
            }
        }
        if body.len() > COMMIT_BYTES_MAX {
            let message = format!("commit of {} bytes, at most {COMMIT_BYTES_MAX}", body.len());
            return Err(ManifestError::Invalid(Violation {
                rule: "commit-size",
                message,
            }));
        }
        Ok(Some((head, body)))
    }

    /// Puts the parent's state, mostly folded, under the commit as its base.
    async fn roll<S: State>(
        &self,
        parent: &Head<S>,
        state: &S,
        head: &mut Head<S>,
    ) -> Result<(), ManifestError> {
        let base = self
            .write_base(parent.version, parent.id, parent.state.cutoff_ms(), state)
            .await?;
        if let Some(delta) = &head.delta {
            head.state = Arc::new(self.apply::<S>(state, head.version, head.when_ms, delta)?);
        }
        let own = head.chain.deltas.last().cloned();
        head.chain = Arc::new(Chain {
            base,
            deltas: own.into_iter().collect(),
        });
        Ok(())
    }

    /// The state that a commit makes, checked; a broken invariant is counted.
    fn apply<S: State>(
        &self,
        parent: &S,
        version: u64,
        when_ms: u64,
        delta: &S::Delta,
    ) -> Result<S, ManifestError> {
        let invariants = &self.context.invariants;
        let mut state = parent.clone();
        let made = apply(&mut state, version, when_ms, delta, invariants)
            .and_then(|()| state.check(invariants));
        made.map_err(|violation| {
            if let Some(invariant) = Invariant::of(violation.rule) {
                invariants.violated(invariant);
            }
            ManifestError::Invalid(violation)
        })?;
        Ok(state)
    }

    pub(crate) fn encode<S: State>(&self, head: &Head<S>) -> Result<Bytes, ManifestError> {
        let out = CommitOut {
            format: FORMAT,
            version: head.version,
            id: head.id,
            parent: head.parent,
            role: &head.author.role,
            instance: &head.author.instance,
            when_ms: head.when_ms,
            base: &head.chain.base,
            deltas: head.chain.deltas.iter().map(|delta| &**delta).collect(),
        };
        Ok(frame(&to_json(&keys::slot(head.version), &out)?))
    }

    /// Fills a slot or learns that it is another's. Whatever the store answers short of
    /// "created", the slot itself decides; an absent one is sent the same body again,
    /// because the first may still be under way.
    pub(crate) async fn fill_slot(
        &self,
        version: u64,
        id: Ulid,
        body: Bytes,
    ) -> Result<Slot, ManifestError> {
        let mut sent_in_doubt = false;
        let mut last: Option<StoreError> = None;
        for attempt in 0..SLOT_TRIES_MAX {
            if attempt > 0 {
                sleep(self.store.patience().wait(attempt)).await;
            }
            match self.try_slot(version, body.clone()).await {
                Ok(Created::Created) => return Ok(Slot::Won),
                // Ours after a lost reply, another's, or nobody's: all three happen.
                Ok(Created::Exists) => sent_in_doubt = true,
                Err(error) => {
                    sent_in_doubt |= error.doubt;
                    // A refusal is final even in doubt: a disk that cannot sync shows a
                    // slot that a power cut may undo, so reading would settle nothing.
                    let refused = error.kind == StoreErrorKind::Refused;
                    if refused || !(error.doubt || error.retriable) {
                        return Err(error.with_doubt(sent_in_doubt).into());
                    }
                    last = Some(error);
                }
            }
            match self.read_slot(version).await {
                Ok(Some(slot)) => return Ok(if slot.id == id { Slot::Won } else { Slot::Lost }),
                Ok(None) => {}
                Err(ManifestError::Store(error)) if error.kind == StoreErrorKind::Unavailable => {
                    last = Some(error)
                }
                Err(error) if sent_in_doubt => return Err(self.in_doubt(error)),
                Err(error) => return Err(error),
            }
        }
        let key = keys::slot(version);
        let unsettled = || {
            StoreError::unavailable(
                key,
                format!("neither filled nor seen filled in {SLOT_TRIES_MAX} tries"),
            )
        };
        Err(last.unwrap_or_else(unsettled).with_doubt(true).into())
    }

    /// The slot is filled, or may be, and what was to settle it failed: the commit may well
    /// stand. Damage that was met then is counted and told as the store's, which can carry
    /// the doubt.
    pub(crate) fn in_doubt(&self, error: ManifestError) -> ManifestError {
        match error {
            ManifestError::Store(error) => ManifestError::Store(error.with_doubt(true)),
            ManifestError::Corrupt {
                key,
                message,
                broken,
            } => {
                if let Some(invariant) = broken {
                    self.context.invariants.violated(invariant);
                }
                ManifestError::Store(StoreError::corrupt(key, message).with_doubt(true))
            }
            other => other,
        }
    }

    /// Moves HEAD, last read as `found`, to at least `to`, by compare-and-swap; done
    /// also where it is there already.
    pub(crate) async fn advance_head(
        &self,
        to: &HeadMove,
        mut found: Option<(HeadBody, Tag)>,
    ) -> Result<(), ManifestError> {
        let mut last = None;
        for attempt in 0..HEAD_TRIES_MAX {
            if attempt > 0 {
                sleep(self.store.patience().wait(attempt)).await;
                found = self.read_head().await?;
            }
            let next = match &found {
                Some((now, _)) => to.over(now),
                None if to.version == 0 => Some(to.first()),
                None => {
                    return Err(ManifestError::corrupt(
                        keys::HEAD,
                        "absent, although it was there before",
                    ));
                }
            };
            let Some(next) = next else { return Ok(()) };
            let body = frame(&to_json(keys::HEAD, &next)?);
            (self.context.crash)(crash::HEAD_BEFORE_SWAP);
            match self
                .store
                .swap(keys::HEAD, found.as_ref().map(|(_, tag)| tag), body)
                .await
            {
                Ok(Swapped::Swapped(_)) => {
                    self.seen.raise(&next);
                    return Ok(());
                }
                Ok(Swapped::Lost) => {}
                Err(error) if error.doubt || error.retriable => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        let lost =
            || StoreError::unavailable(keys::HEAD, format!("not moved in {HEAD_TRIES_MAX} tries"));
        Err(last.unwrap_or_else(lost).into())
    }
}

/// [`State::apply`] with the rules that hold for marks of any state; what is checked is
/// counted. A state that broke a rule must not be used.
pub(crate) fn apply<S: State>(
    state: &mut S,
    version: u64,
    when_ms: u64,
    delta: &S::Delta,
    invariants: &Invariants,
) -> Result<(), Violation> {
    for invariant in S::checked(delta).iter().chain([&Invariant::MarkMonotone]) {
        invariants.checked(*invariant);
    }
    let (retained, before) = (state.retain_from(), state.cutoff_ms());
    state.apply(version, when_ms, delta)?;
    let (retain, cutoff) = (state.retain_from(), state.cutoff_ms());
    if retain < retained || retain > version || cutoff < before {
        return Err(Violation {
            rule: Invariant::MarkMonotone.id(),
            message: format!(
                "retain_from {retain}, allowed {retained} to {version}; cutoff_ms {cutoff} after {before}"
            ),
        });
    }
    Ok(())
}
