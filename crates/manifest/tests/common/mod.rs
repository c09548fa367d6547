//! A toy state, deterministic clocks and randomness, and the stores the suites run on:
//! always a directory, and S3 where `VEXLAKE_TEST_S3_ENDPOINT` names a server (with
//! `_BUCKET`, `_ACCESS_KEY`, `_SECRET_KEY`); its absence is said aloud.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict
#![allow(dead_code)] // each test binary uses its part

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use vexlake_manifest::{
    Author, Clock, Context, Head, Manifest, ManifestError, State, Violation, crash,
};
use vexlake_store::{Fault, Faults, Op, Rule, Store, StoreConfig, StoreError};

/// Named counters, each addition with a token that may be used once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub counts: BTreeMap<String, u64>,
    pub tokens: BTreeSet<u64>,
    pub retain_from: u64,
    pub cutoff_ms: u64,
    pub pinned: BTreeSet<u64>,
    pub retired: bool,
    /// Additions since the last fold; a fold is due at `fold_at` of them.
    pub unfolded: u64,
    pub fold_at: u64,
    pub folds: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Add { key: String, by: u64, token: u64 },
    Mark { retain_from: u64, cutoff_ms: u64 },
    Pin(u64),
    Unpin(u64),
    Retire,
    Padding(String),
}

#[async_trait]
impl State for Counters {
    type Delta = Change;

    fn apply(&mut self, version: u64, _when_ms: u64, delta: &Change) -> Result<(), Violation> {
        match delta {
            Change::Add { key, by, token } => {
                if !self.tokens.insert(*token) {
                    return Err(Violation {
                        rule: "token-once",
                        message: format!("token {token} at version {version}"),
                    });
                }
                *self.counts.entry(key.clone()).or_default() += by;
                self.unfolded += 1;
            }
            Change::Mark {
                retain_from,
                cutoff_ms,
            } => {
                (self.retain_from, self.cutoff_ms) = (*retain_from, *cutoff_ms);
            }
            Change::Pin(pinned) => {
                if *pinned < self.retain_from {
                    return Err(Violation {
                        rule: "pin-retained",
                        message: format!("pin {pinned}"),
                    });
                }
                self.pinned.insert(*pinned);
            }
            Change::Unpin(pinned) => {
                self.pinned.remove(pinned);
            }
            Change::Retire => self.retired = true,
            Change::Padding(_) => {}
        }
        Ok(())
    }

    fn retain_from(&self) -> u64 {
        self.retain_from
    }

    fn cutoff_ms(&self) -> u64 {
        self.cutoff_ms
    }

    fn pinned(&self) -> Vec<u64> {
        self.pinned.iter().copied().collect()
    }

    fn retired(&self) -> bool {
        self.retired
    }

    fn fold_due(&self) -> bool {
        self.fold_at > 0 && self.unfolded >= self.fold_at
    }

    async fn fold(&self, _store: &Store) -> Result<Self, StoreError> {
        if self.counts.contains_key(UNFOLDABLE) {
            return Err(StoreError::not_found(UNFOLDABLE));
        }
        Ok(Self {
            unfolded: 0,
            folds: self.folds + 1,
            ..self.clone()
        })
    }
}

/// A state that counts this name cannot be folded, as one whose objects are damaged.
pub const UNFOLDABLE: &str = "unfoldable";

pub type Toy = Manifest<Counters>;

pub fn add(token: u64) -> Change {
    Change::Add {
        key: format!("k{}", token % 3),
        by: token,
        token,
    }
}

pub fn author(instance: &str) -> Author {
    Author {
        role: "test".into(),
        instance: instance.into(),
    }
}

/// A clock that moves by one each time it is read.
pub fn ticking(from: u64) -> (Clock, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(from));
    let read = Arc::clone(&now);
    (Arc::new(move || read.fetch_add(1, Ordering::SeqCst)), now)
}

pub fn clock() -> Clock {
    ticking(1_000).0
}

/// Clock and randomness that repeat.
pub fn repeatable(from: u64) -> Context {
    let next = AtomicU64::new(0);
    let rng = Arc::new(move || u128::from(next.fetch_add(1, Ordering::SeqCst)));
    Context {
        clock: ticking(from).0,
        rng,
        crash: crash::none(),
        invariants: Arc::default(),
    }
}

/// A directory in memory where the machine has one: these suites sync by the thousand.
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// A store with microsecond waits.
pub fn quick(directory: &TempDir) -> Store {
    Store::directory(directory.path())
        .unwrap()
        .with_faults(Faults::scripted([]))
}

pub struct Subject {
    pub name: &'static str,
    pub store: Store,
    _directory: Option<TempDir>,
}

pub async fn subjects() -> Vec<Subject> {
    let here = directory();
    let mut subjects = vec![Subject {
        name: "directory",
        store: quick(&here),
        _directory: Some(here),
    }];
    let read = |name: &str| std::env::var(format!("VEXLAKE_TEST_S3_{name}")).ok();
    let Some(endpoint) = read("ENDPOINT") else {
        eprintln!("SKIPPED on s3: VEXLAKE_TEST_S3_ENDPOINT is not set");
        return subjects;
    };
    let bucket = read("BUCKET").unwrap_or_else(|| "vexlake-test".into());
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let config = StoreConfig {
        endpoint: Some(endpoint),
        access_key: read("ACCESS_KEY"),
        secret_key: read("SECRET_KEY"),
        ..StoreConfig::at(format!(
            "s3://{bucket}/manifest/{nanos:x}-{:x}",
            std::process::id()
        ))
    };
    let store = Store::open(&config).await.unwrap();
    subjects.push(Subject {
        name: "s3",
        store,
        _directory: None,
    });
    subjects
}

pub async fn each(check: impl AsyncFn(Store)) {
    for Subject {
        name,
        store,
        _directory,
    } in subjects().await
    {
        eprintln!("on {name}");
        check(store.scoped("m")).await;
    }
}

pub async fn create(store: &Store) -> Toy {
    Manifest::create(store.clone(), Counters::default(), &author("a"), clock())
        .await
        .unwrap()
}

pub async fn open(store: &Store) -> Toy {
    Manifest::open(store.clone(), clock()).await.unwrap()
}

/// Commits on the known head; panics where that fails.
pub async fn commit(toy: &Toy, change: Change) -> Arc<Head<Counters>> {
    toy.commit(&toy.head(), change, &author("a")).await.unwrap()
}

/// How an addition ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// Acknowledged as this version.
    At(u64),
    /// Found applied after a doubt.
    Found,
}

/// Adds once, whatever it takes: rebases on conflicts, looks after doubts.
pub async fn add_surely(toy: &Toy, token: u64) -> Added {
    for _ in 0..1_000 {
        let parent = toy.head();
        if parent.state.tokens.contains(&token) {
            return Added::Found;
        }
        match toy.commit(&parent, add(token), &author("a")).await {
            Ok(head) => return Added::At(head.version),
            Err(ManifestError::Conflict { .. }) => {}
            Err(ManifestError::Store(_)) => while toy.refresh().await.is_err() {},
            Err(error) => panic!("{error}"),
        }
    }
    panic!("token {token} could not be added")
}

/// Checks the whole history of an unharmed `store` against what was acknowledged.
pub async fn assert_exactly_once(store: &Store, acknowledged: &BTreeMap<u64, Added>) {
    let toy = open(store).await;
    let history = toy.history(usize::MAX).await.unwrap();
    let versions: Vec<u64> = history.iter().rev().map(|c| c.version).collect();
    assert_eq!(versions, (0..=toy.head().version).collect::<Vec<_>>());
    for (token, how) in acknowledged {
        let at: Vec<u64> = history
            .iter()
            .filter(|c| c.delta == Some(add(*token)))
            .map(|c| c.version)
            .collect();
        assert_eq!(at.len(), 1, "token {token} is at {at:?}");
        if let Added::At(version) = how {
            assert_eq!(at[0], *version);
        }
    }
    assert_eq!(toy.head().state.tokens.len() as u64, toy.head().version);
}

/// Dies at a point: the task ends there, as the process would.
pub fn dying_at(point: &'static str) -> Context {
    let crash: crash::CrashPoint = Arc::new(move |passed| {
        if passed == point {
            std::panic::resume_unwind(Box::new("died"));
        }
    });
    Context {
        crash,
        ..Context::new(clock())
    }
}

/// Lets the `nth` call of a kind on `commits/` begin and wait until the gate gets a permit.
pub struct Held {
    pub faults: Arc<Faults>,
    gate: Arc<Semaphore>,
}

impl Held {
    pub fn at(op: Op, nth: u64) -> Self {
        let gate = Arc::new(Semaphore::new(0));
        let hold = Fault::Hold(Arc::clone(&gate));
        let faults = Faults::scripted([Rule::nth(op, "commits/", nth, hold)]);
        Self { faults, gate }
    }

    /// Returns once the call waits.
    pub async fn reached(&self) {
        while self.faults.fired() == 0 {
            tokio::task::yield_now().await;
        }
    }

    pub fn release(&self) {
        self.gate.add_permits(1);
    }
}
