//! The commit protocol: sequenced, create-only, self-contained commits over a store
//! that offers create-if-absent, read-after-write, and compare-and-swap of one object.
//! Generic over its [`State`]; it knows nothing of vectors. The catalog and every
//! incarnation use this same code.
//!
//! Keys below one manifest: `commits/<20 digits>` (slots), `bases/<ulid>`, `HEAD`.
//!
//! - A **commit** fills the next slot, once. It carries a random id, its parent's id,
//!   its author, its time, a pointer to a base, and all deltas since that base: one
//!   commit and its base are a whole state.
//! - **HEAD** is a hint with two promises: the slot it names exists, and no slot below
//!   its `retain_from` may be believed. It only moves forward. Commits beyond it count.
//! - **Doubt** after a failed or unanswered create is settled by reading the slot: own
//!   id = won, another's = lost, absent = send the same body again, never another.
//! - **Boundary check**: a committer asleep for long may fill a slot that was already
//!   swept. So after creating and before acknowledging HEAD is read again; a
//!   `retain_from` beyond the slot makes it a ghost, never acknowledged. Readers check
//!   the same after reading.
//!
//! Invariants are listed in `invariants.rs`, with those of the states that live here.
//!
//! Left out on purpose: retrying a lost commit (only the caller can rebase) and
//! deciding what to retain (the state's marks say).

mod commit;
mod context;
pub mod crash;
mod error;
mod frame;
mod history;
mod invariants;
mod keys;
mod load;
mod manifest;
mod state;
mod sweep;
pub mod u64_str;
mod wire;

pub use context::{Clock, Context, Rng, system_clock, system_rng};
pub use crash::CrashPoint;
pub use error::ManifestError;
pub use frame::{FrameError, frame, unframe};
pub use invariants::{Invariant, Invariants};
pub use manifest::Manifest;
pub use state::{Author, CommitSummary, Head, State, Violation};
pub use ulid::Ulid;
