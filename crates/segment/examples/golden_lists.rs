//! Writes the golden segment with lists into a new folder, once in the life of its format:
//! `cargo run -p vexlake-segment --example golden_lists -- schemas/fixtures/<new folder>`.
//!
//! A folder that is there is never written to: golden files are added and not changed.
//! `tests/golden_lists.rs` reads what is in the repository.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::PathBuf;

use common::listed::{train_golden, write_golden};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("which folder?")?;
    let folder = PathBuf::from(folder);
    std::fs::create_dir(&folder)?;
    let centroids = train_golden();
    let spool = tempfile::tempdir()?;
    let (built, ..) = write_golden(spool.path(), &centroids);
    for (file, path) in &built.files {
        std::fs::copy(path, folder.join(&file.name))?;
    }
    std::fs::write(folder.join("centroids"), centroids.to_bytes())?;
    let meta = serde_json::to_string_pretty(&built.meta)?;
    std::fs::write(folder.join("meta.json"), meta + "\n")?;
    Ok(())
}
