//! The object-store seam: the only crate that mentions an object-store client.
//!
//! A [`Store`] is a flat name space of write-once objects plus a few small ones
//! that move by compare-and-swap (`HEAD`). Two backends stand behind it: a durable
//! local directory and S3. Above the backend, and the same for both, lie
//!
//! 1. key validation: a key can neither leave its store nor name a hidden file;
//! 2. retries with jitter and a deadline, for requests that are safe to repeat;
//! 3. accounting of every request that leaves the process ([`Usage`]);
//! 4. in tests, deterministic faults between the retries and the backend ([`Faults`]).
//!
//! **What callers must know.** A conditional write ([`Store::create`], [`Store::swap`])
//! is sent once and never repeated here. Three answers leave its outcome open:
//! an error with `doubt`, [`Created::Exists`] (S3 clients report their *own* lost
//! reply, and a 409 of two writers in flight, as "already exists", even where
//! nothing exists) and [`Swapped::Lost`]. All three are settled by reading the
//! object, never by assuming, and none of them means that anything is corrupt.
//!
//! Left out on purpose: caching (the readers own their caches), encryption, and
//! any decision that would rest on LIST, which is advisory.

mod config;
mod directory;
mod error;
mod faults;
mod key;
mod patience;
mod probe;
mod ranges;
mod s3;
mod store;
mod usage;

pub use config::StoreConfig;
pub use error::{StoreError, StoreErrorKind};
pub use faults::{Fault, Faults, Op, Rule};
pub use patience::Patience;
pub use store::{Created, Listed, Store, Swapped, Tag};
pub use usage::Usage;
