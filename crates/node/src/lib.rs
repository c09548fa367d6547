//! The addon: convert → call → convert. No rule of the lake lives here.
//!
//! One class, [`Lake`]; each method is a whole unit of work. Control crosses as JSON
//! text, vectors and records as bytes. Every asynchronous method runs on the addon's
//! tokio runtime; JavaScript's thread only converts. Errors cross as JSON in the
//! message; index.js turns them into errors with `code` and `fields`.

#![allow(missing_docs)] // index.d.ts documents the surface for its only users

mod append;
mod command;
mod error;
mod get;
mod open;
mod query;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use napi::bindgen_prelude::{Either, Uint8Array};
use napi_derive::napi;
use parking_lot::Mutex;
use ulid::Ulid;
use vexlake_lsm::{Incarnation, Verification};

use crate::error::{Result, invalid, json, parse};

/// An open lake.
#[napi]
pub struct Lake {
    lake: Arc<vexlake_lsm::Lake>,
    /// Recounts under way, by session.
    verifications: Mutex<HashMap<String, Verification>>,
    /// Merges under way, by job.
    jobs: Mutex<HashMap<String, Arc<AtomicBool>>>,
}

impl Lake {
    async fn incarnation(&self, id: &str) -> Result<Arc<Incarnation>> {
        let id = Ulid::from_string(id).map_err(|e| invalid(format!("incarnation {id:?}: {e}")))?;
        Ok(self.lake.incarnation(id).await?)
    }
}

#[napi]
impl Lake {
    #[napi(factory)]
    pub async fn open(options: String) -> napi::Result<Lake> {
        let lake = open::open(&options).await?;
        Ok(Lake {
            lake,
            verifications: Mutex::default(),
            jobs: Mutex::default(),
        })
    }

    #[napi]
    pub async fn alter(&self, command: String) -> napi::Result<String> {
        Ok(self.run_command(parse("command", &command)?).await?)
    }

    #[napi]
    pub async fn append(&self, batch: append::AppendBatch) -> napi::Result<append::AppendResult> {
        Ok(self.append_batch(batch).await?)
    }

    #[napi]
    pub async fn flush(&self, incarnation: String) -> napi::Result<String> {
        Ok(self.flush_incarnation(&incarnation).await?)
    }

    #[napi]
    pub async fn refresh(&self, incarnation: Option<String>) -> napi::Result<String> {
        Ok(self.refresh_view(incarnation.as_deref()).await?)
    }

    #[napi]
    pub async fn search(
        &self,
        requests: Vec<query::SearchRequest>,
    ) -> napi::Result<Vec<query::SearchReply>> {
        Ok(self.search_all(requests).await)
    }

    #[napi]
    pub async fn get(&self, request: get::GetRequest) -> napi::Result<get::GetReply> {
        Ok(self.get_records(request).await?)
    }

    #[napi]
    pub async fn describe(&self, what: String) -> napi::Result<Either<String, Uint8Array>> {
        Ok(self.describe_what(parse("describe", &what)?).await?)
    }

    #[napi]
    pub async fn plan(&self, incarnation: String, options: Option<String>) -> napi::Result<String> {
        Ok(self.plan_merges(&incarnation, options.as_deref()).await?)
    }

    #[napi]
    pub async fn run(
        &self,
        spec: String,
        options: String,
        job: String,
        progress: work::ProgressCallback,
    ) -> napi::Result<String> {
        Ok(self.run_spec(&spec, &options, &job, progress).await?)
    }

    #[napi]
    pub async fn gc(&self, incarnation: Option<String>, options: String) -> napi::Result<String> {
        Ok(self.collect(incarnation.as_deref(), &options).await?)
    }

    #[napi]
    pub async fn verify(&self, step: work::VerifyStep) -> napi::Result<String> {
        Ok(self.verify_step(step).await?)
    }

    #[napi(catch_unwind)]
    pub fn metrics(&self) -> napi::Result<String> {
        Ok(json(&self.metrics_now())?)
    }

    /// What this machine's kernels and this build are; needs no lake.
    #[napi(catch_unwind)]
    pub fn doctor(panic: Option<bool>) -> napi::Result<String> {
        assert!(
            panic != Some(true),
            "a panic on purpose, to show that it becomes an error"
        );
        Ok(json(&open::doctor())?)
    }
}
