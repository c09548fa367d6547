//! Model against real: random commits, refreshes, marks, pins, sweeps and travels by
//! several handles on one store, against a plain list of states.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{Change, Counters, Toy, add, author, clock, directory, open, quick};
use proptest::prelude::*;
use vexlake_manifest::ManifestError;

const HANDLES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Add {
        handle: usize,
    },
    AddOften {
        handle: usize,
        times: u8,
    },
    Refresh {
        handle: usize,
    },
    Reopen {
        handle: usize,
    },
    Mark {
        handle: usize,
        back: u64,
    },
    Pin {
        handle: usize,
        back: u64,
    },
    Unpin {
        handle: usize,
    },
    Sweep {
        handle: usize,
    },
    At {
        handle: usize,
        version: prop::sample::Index,
    },
    History {
        handle: usize,
        limit: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let handle = 0..HANDLES;
    prop_oneof![
        6 => handle.clone().prop_map(|handle| Step::Add { handle }),
        1 => (handle.clone(), 1u8..70).prop_map(|(handle, times)| Step::AddOften { handle, times }),
        2 => handle.clone().prop_map(|handle| Step::Refresh { handle }),
        1 => handle.clone().prop_map(|handle| Step::Reopen { handle }),
        2 => (handle.clone(), 0u64..20).prop_map(|(handle, back)| Step::Mark { handle, back }),
        1 => (handle.clone(), 0u64..20).prop_map(|(handle, back)| Step::Pin { handle, back }),
        1 => handle.clone().prop_map(|handle| Step::Unpin { handle }),
        2 => handle.clone().prop_map(|handle| Step::Sweep { handle }),
        3 => (handle.clone(), any::<prop::sample::Index>()).prop_map(|(handle, version)| Step::At { handle, version }),
        1 => (handle, 0usize..100).prop_map(|(handle, limit)| Step::History { handle, limit }),
    ]
}

/// Every version's state, in memory.
struct Model {
    states: Vec<Arc<Counters>>,
    next_token: u64,
}

impl Model {
    fn head(&self) -> (u64, &Counters) {
        (self.states.len() as u64 - 1, self.states.last().unwrap())
    }

    fn readable(&self) -> BTreeSet<u64> {
        let (version, state) = self.head();
        (state.retain_from..=version)
            .chain(state.pinned.iter().copied())
            .collect()
    }

    /// One commit by `toy`, whose head may be stale: conflict exactly then.
    async fn commit(&mut self, toy: &Toy, change: impl Fn(&Counters, u64) -> Change) {
        let parent = toy.head();
        let stale = parent.version < self.head().0;
        let delta = change(&parent.state, parent.version);
        match toy.commit(&parent, delta, &author("model")).await {
            Ok(head) => {
                assert!(!stale && head.version == parent.version + 1);
                self.states.push(Arc::clone(&head.state));
            }
            Err(ManifestError::Conflict { version }) => {
                assert!(stale);
                assert_eq!(version, self.head().0);
                assert_eq!(*toy.head().state, *self.head().1);
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn add(&mut self, toy: &Toy) {
        self.next_token += 1;
        let token = self.next_token;
        self.commit(toy, |_, _| add(token)).await;
    }
}

async fn run(steps: Vec<Step>) {
    let here = directory();
    let store = quick(&here).scoped("m");
    let first = Toy::create(
        store.clone(),
        Counters::default(),
        &author("model"),
        clock(),
    )
    .await
    .unwrap();
    let mut model = Model {
        states: vec![first.head().state.clone()],
        next_token: 0,
    };
    let mut toys = vec![first];
    while toys.len() < HANDLES {
        toys.push(open(&store).await);
    }
    for step in steps {
        match step {
            Step::Add { handle } => model.add(&toys[handle]).await,
            Step::AddOften { handle, times } => {
                for _ in 0..times {
                    model.add(&toys[handle]).await;
                }
            }
            Step::Refresh { handle } => {
                let head = toys[handle].refresh().await.unwrap();
                assert_eq!((head.version, &*head.state), model.head());
            }
            Step::Reopen { handle } => {
                toys[handle] = open(&store).await;
                let head = toys[handle].head();
                assert_eq!((head.version, &*head.state), model.head());
            }
            Step::Mark { handle, back } => {
                let mark = |state: &Counters, version: u64| Change::Mark {
                    retain_from: version.saturating_sub(back).max(state.retain_from),
                    cutoff_ms: state.cutoff_ms.max(1_000 + version),
                };
                model.commit(&toys[handle], mark).await;
            }
            Step::Pin { handle, back } => {
                let pin = |state: &Counters, version: u64| {
                    Change::Pin(version.saturating_sub(back).max(state.retain_from))
                };
                model.commit(&toys[handle], pin).await;
            }
            Step::Unpin { handle } => {
                let unpin =
                    |state: &Counters, _| Change::Unpin(state.pinned.first().copied().unwrap_or(0));
                model.commit(&toys[handle], unpin).await;
            }
            Step::Sweep { handle } => {
                toys[handle].sweep_slots().await.unwrap();
            }
            Step::At { handle, version } => {
                // Versions are judged by what the handle itself learns when it must ask.
                toys[handle].refresh().await.unwrap();
                let version = version.index(model.states.len() + 1) as u64;
                match toys[handle].at(version).await {
                    Ok(head) => {
                        assert_eq!(*head.state, *model.states[version as usize]);
                        assert!(model.readable().contains(&version));
                    }
                    Err(ManifestError::NotYet { .. }) => {
                        assert_eq!(version, model.states.len() as u64)
                    }
                    Err(ManifestError::Expired { .. }) => {
                        assert!(!model.readable().contains(&version))
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Step::History { handle, limit } => {
                let history = toys[handle].history(limit).await.unwrap();
                let (version, state) = model.head();
                let retained = (version + 1 - state.retain_from) as usize;
                assert_eq!(history.len(), limit.min(retained));
                assert!(
                    history
                        .iter()
                        .zip((0..=version).rev())
                        .all(|(found, version)| found.version == version)
                );
            }
        }
    }
    for toy in &toys {
        let head = toy.refresh().await.unwrap();
        assert_eq!((head.version, &*head.state), model.head());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn should_do_what_a_list_of_states_does(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
