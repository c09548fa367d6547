//! Search over rows that somebody else owns: the exact flat scan, and inverted
//! lists of 1-bit codes with exact re-ranking.
//!
//! - [`scan`] takes borrowed rows, their norms, and a predicate that hides rows; it
//!   pushes (key, id) pairs into the caller's [`TopK`](vexlake_distance::TopK).
//! - [`Centroids`] are trained once per version and shared by a collection's
//!   segments; [`Centroids::encode`] gives each row a list and a code,
//!   [`build_lists`] makes a segment's lists, [`merge_lists`] joins those of several
//!   by copying.
//! - [`Search`] walks lists by one table per query and hands out candidates whose
//!   exact keys the caller computes from wherever the vectors lie.
//! - [`CodedRows`] and [`CodedQuery`] are codes without lists, for rows in memory.
//! - [`Columns`] gather the attributes of a chunk of rows, [`Column`] is one of them,
//!   and a [`Filter`] tells which rows pass, from columns or from a row's JSON text.
//!
//! Keys are those of [`Metric`](vexlake_distance::Metric): smaller is nearer.
//! Nothing here does I/O, allocates per row, or knows where bytes came from; every
//! decoder answers corruption with an error that names section and offset.

mod attributes;
mod bytes;
mod centroids;
mod coded;
mod error;
mod filter;
mod lists;
mod query;
mod rabitq;
mod scan;
mod search;
mod space;

pub use attributes::{CHUNK_ROWS, Column, Columns};
pub use centroids::{
    CENTROIDS_FORMAT, Centroids, ChooseScratch, Chosen, SplitOptions, TrainOptions, split, train,
    train_in,
};
pub use coded::{CodedQuery, CodedRows};
pub use error::IndexError;
pub use filter::{DEPTH_MAX, Filter, FilterError, TOKENS_MAX};
pub use lists::{
    EncodedRows, LISTS_FORMAT, LISTS_FORMAT_MIN, List, ListEntry, ListsHead, MergeInput, Merged,
    Rest, build_lists, build_lists_as, merge_lists,
};
pub use query::Query;
pub use rabitq::{Factors, encode};
pub use scan::scan;
pub use search::{Candidate, Effort, Search, SearchCounts, SegmentLists};
pub use space::{DIM_MAX, NORM_MAX, Space};
