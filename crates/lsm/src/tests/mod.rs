//! Tests that cross the whole engine: histories against a model, crashes, store faults.

mod bad_input;
mod crash;
mod damage;
mod explain;
mod faults;
mod filters;
mod invariants;
mod lists;
mod memtables;
mod model;
mod patches;
mod recall;
mod splits;
mod warm;
