//! Tests that cross the whole engine: histories against a model, crashes, store faults.

mod crash;
mod explain;
mod faults;
mod invariants;
mod lists;
mod model;
mod patches;
mod recall;
mod warm;
