//! Deterministic faults for tests, injected between the retries and the backend.
//!
//! A [`Rule`] names an operation, a substring of the key, which matching calls it
//! strikes, and what happens then. Rules are tried in order; the first that strikes
//! wins, and every rule counts every call that it matches. Beside rules, a seeded
//! generator may strike a share of all calls.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::StoreError;
use crate::store::{Backend, Created, Listed, Swapped, Tag};

/// The kinds of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Op {
    /// Whole-object read.
    Get,
    /// Range reads.
    Ranges,
    /// Size question.
    Size,
    /// Create-only write.
    Create,
    /// Compare-and-swap write.
    Swap,
    /// Plain write, from memory or a file.
    Put,
    /// Deletion.
    Delete,
    /// Listing.
    List,
}

impl Op {
    pub(crate) const COUNT: usize = 8;

    fn is_conditional(self) -> bool {
        matches!(self, Op::Create | Op::Swap)
    }
}

/// What happens to a struck call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Fails, and was never applied; the caller cannot know (`doubt` on conditional writes).
    FailBefore,
    /// Is applied, and fails: a lost reply.
    FailAfter,
    /// A conditional write answers `Exists` or `Lost` without being applied (a 409).
    TakenBefore,
    /// A conditional write is applied and answers `Exists` or `Lost` (a lost reply,
    /// repeated inside a client).
    TakenAfter,
    /// The store says no, for good.
    Refuse,
    /// A conditional write is applied and refused in doubt: a disk that failed to sync.
    Unsynced,
    /// Bodies lose this many bytes at their end.
    Truncate(usize),
    /// Ranges are answered from one byte before: right length, wrong bytes.
    WrongRange,
    /// The byte at this offset, modulo the length, is inverted in every body.
    Flip(usize),
    /// The call waits for a permit before it goes on unharmed: for interleavings.
    Hold(Arc<Semaphore>),
}

/// Which calls are struck, and how.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Only this operation; `None` for any.
    pub op: Option<Op>,
    /// Only keys that contain this; empty for any.
    pub key: String,
    /// The first matching call to strike, from 1.
    pub nth: u64,
    /// How many matching calls in a row are struck.
    pub times: u64,
    /// What happens to them.
    pub fault: Fault,
}

impl Rule {
    /// Strikes the `nth` (from 1) `op` on a key that contains `key`, once.
    pub fn nth(op: Op, key: &str, nth: u64, fault: Fault) -> Self {
        Self {
            op: Some(op),
            key: key.to_owned(),
            nth,
            times: 1,
            fault,
        }
    }

    /// Strikes every `op` on a key that contains `key`.
    pub fn every(op: Op, key: &str, fault: Fault) -> Self {
        Self {
            op: Some(op),
            key: key.to_owned(),
            nth: 1,
            times: u64::MAX,
            fault,
        }
    }
}

/// A script of faults; hand it to `Store::with_faults`, and add to it at any time.
#[derive(Default)]
pub struct Faults {
    rules: Mutex<Vec<(Rule, u64)>>,
    /// State of the generator, and how many of 1,000 calls it strikes.
    random: Option<(AtomicU64, u64)>,
    fired: AtomicU64,
}

impl Faults {
    /// A script of `rules`.
    pub fn scripted(rules: impl IntoIterator<Item = Rule>) -> Arc<Self> {
        let rules = Mutex::new(rules.into_iter().map(|rule| (rule, 0)).collect());
        Arc::new(Self {
            rules,
            ..Self::default()
        })
    }

    /// Strikes about `per_mille` of 1,000 calls with failures before or after, and
    /// conditional writes also with false "already there" answers, by `seed`.
    pub fn random(seed: u64, per_mille: u64) -> Arc<Self> {
        Arc::new(Self {
            random: Some((AtomicU64::new(seed), per_mille)),
            ..Self::default()
        })
    }

    /// Adds a rule; it counts calls from now on.
    pub fn add(&self, rule: Rule) {
        self.rules.lock().push((rule, 0));
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.rules.lock().clear();
    }

    /// How many calls were struck so far.
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::SeqCst)
    }

    fn strike(&self, op: Op, key: &str) -> Option<Fault> {
        let struck = self.by_rule(op, key).or_else(|| self.by_chance(op));
        if struck.is_some() {
            self.fired.fetch_add(1, Ordering::SeqCst);
        }
        struck
    }

    fn by_rule(&self, op: Op, key: &str) -> Option<Fault> {
        let mut struck = None;
        for (rule, seen) in self.rules.lock().iter_mut() {
            if rule.op.is_some_and(|only| only != op) || !key.contains(&rule.key) {
                continue;
            }
            *seen += 1;
            if struck.is_none() && *seen >= rule.nth && *seen - rule.nth < rule.times {
                struck = Some(rule.fault.clone());
            }
        }
        struck
    }

    fn by_chance(&self, op: Op) -> Option<Fault> {
        let (state, per_mille) = self.random.as_ref()?;
        // SplitMix64 (Steele, Lea, Flood 2014): one addition a draw, so threads need no lock.
        let mut bits = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        if bits % 1000 >= *per_mille {
            return None;
        }
        Some(
            match (bits >> 32) % if op.is_conditional() { 4 } else { 2 } {
                0 => Fault::FailBefore,
                1 => Fault::FailAfter,
                2 => Fault::TakenBefore,
                _ => Fault::TakenAfter,
            },
        )
    }
}

/// The wrapper that strikes.
pub(crate) struct Faulty {
    inner: Arc<dyn Backend>,
    faults: Arc<Faults>,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn Backend>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }

    /// Runs a call under its fault. `taken` is the false "already there" answer.
    async fn call<T: Send>(
        &self,
        op: Op,
        key: &str,
        taken: Option<T>,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> (Result<T, StoreError>, Option<Fault>) {
        let fault = self.faults.strike(op, key);
        let failed = |when: &str| {
            let message = format!("injected failure {when} the request");
            Err(StoreError::unavailable(key, message).with_doubt(op.is_conditional()))
        };
        let outcome = match &fault {
            Some(Fault::FailBefore) => failed("before"),
            Some(Fault::Refuse) => Err(StoreError::refused(key, "injected refusal")),
            Some(Fault::Unsynced) => call.await.and_then(|_| {
                Err(StoreError::refused(key, "injected failure to sync").with_doubt(true))
            }),
            Some(Fault::TakenBefore) => taken.map_or_else(|| failed("before"), Ok),
            Some(Fault::FailAfter) => call.await.and_then(|_| failed("after")),
            Some(Fault::TakenAfter) => {
                let outcome = call.await;
                outcome.and_then(|_| taken.map_or_else(|| failed("after"), Ok))
            }
            Some(Fault::Hold(gate)) => {
                // A closed gate lets everything through.
                let _permit = gate.acquire().await;
                call.await
            }
            Some(Fault::Truncate(_) | Fault::WrongRange | Fault::Flip(_)) | None => call.await,
        };
        (outcome, fault)
    }
}

fn damage(body: Bytes, fault: Option<&Fault>) -> Bytes {
    match fault {
        Some(Fault::Truncate(bytes)) => body.slice(..body.len().saturating_sub(*bytes)),
        Some(Fault::Flip(offset)) if !body.is_empty() => {
            let mut body = BytesMut::from(&body[..]);
            let offset = offset % body.len();
            body[offset] ^= 0xff;
            body.freeze()
        }
        _ => body,
    }
}

#[async_trait]
impl Backend for Faulty {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn ranges_per_call(&self) -> usize {
        self.inner.ranges_per_call()
    }

    fn local_path(&self, key: &str) -> Option<PathBuf> {
        self.inner.local_path(key)
    }

    async fn get(&self, key: &str) -> Result<(Bytes, Tag), StoreError> {
        let (outcome, fault) = self.call(Op::Get, key, None, self.inner.get(key)).await;
        outcome.map(|(body, tag)| (damage(body, fault.as_ref()), tag))
    }

    async fn ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let (outcome, fault) = self
            .call(Op::Ranges, key, None, self.inner.ranges(key, ranges))
            .await;
        let bodies = match fault {
            Some(Fault::WrongRange) => {
                let shifted: Vec<_> = ranges
                    .iter()
                    .map(|r| r.start.saturating_sub(1)..r.end.saturating_sub(1))
                    .collect();
                self.inner.ranges(key, &shifted).await?
            }
            _ => outcome?,
        };
        Ok(bodies
            .into_iter()
            .map(|body| damage(body, fault.as_ref()))
            .collect())
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.call(Op::Size, key, None, self.inner.size(key)).await.0
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Created, StoreError> {
        let taken = Some(Created::Exists);
        self.call(Op::Create, key, taken, self.inner.create(key, body))
            .await
            .0
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<&Tag>,
        body: Bytes,
    ) -> Result<Swapped, StoreError> {
        let taken = Some(Swapped::Lost);
        self.call(Op::Swap, key, taken, self.inner.swap(key, expected, body))
            .await
            .0
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.call(Op::Put, key, None, self.inner.put(key, body))
            .await
            .0
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError> {
        self.call(Op::Put, key, None, self.inner.put_file(key, path))
            .await
            .0
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.call(Op::Delete, key, None, self.inner.delete(key))
            .await
            .0
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.call(Op::List, prefix, None, self.inner.list(prefix))
            .await
            .0
    }
}
