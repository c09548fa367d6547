//! The sample's text embedder: hashed tf-idf features → latent semantic analysis → unit vectors.
//!
//! No model to download and none to trust: it is trained in seconds on the corpus it is to search
//! (Deerwester et al., "Indexing by latent semantic analysis", 1990), and is the same on every run.
//! It is there to fill a lake with vectors of real text and real structure; it is no rival of a
//! transformer, and nothing else in VexLake depends on it.
//!
//! 1. `features`: text → hashed word features with counts.
//! 2. `svd` over `sparse` and `dense`: the leading singular vectors of the tf-idf matrix.
//! 3. `model`: a direction per feature; `file` stores them.
//! 4. [`evaluate`]: known-item search, the quality bar.

mod dense;
pub mod evaluate;
mod features;
mod file;
mod model;
mod random;
mod sparse;
mod svd;
#[cfg(test)]
mod tests;

pub use file::BadModel;
pub use model::{DIM_MAX, Model};
