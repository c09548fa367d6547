//! Background work: flush, follow, merge, train, collect, verify; and what they count.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use napi::bindgen_prelude::{BigInt, Uint8Array};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use serde_json::{Value, json};
use vexlake_lsm::{MergeOptions, Progress, RECALL_BOUNDS, Spec, Verification};
use vexlake_manifest::Invariant;

use crate::Lake;
use crate::append::offset;
use crate::error::{Result, invalid, json, parse, unavailable};

pub type ProgressCallback = ThreadsafeFunction<String, (), String, napi::Status, false, true>;

/// Recounts at once; each holds ~100 bytes a distinct key and a snapshot.
const SESSIONS_MAX: usize = 16;

/// One step of a recount: begin, then add batches, then finish, or abort. A step
/// that fails ends the recount.
#[napi(object)]
pub struct VerifyStep {
    /// `begin`, `add`, `finish` or `abort`.
    pub step: String,
    /// Name of the recount, chosen by the caller.
    pub session: String,
    pub incarnation: Option<String>,
    pub source: Option<u32>,
    pub partition: Option<u32>,
    pub from: Option<BigInt>,
    pub to: Option<BigInt>,
    pub buffers: Option<Vec<Uint8Array>>,
    pub table: Option<Uint8Array>,
}

impl Lake {
    pub(crate) async fn flush_incarnation(&self, id: &str) -> Result<String> {
        let incarnation = self.incarnation(id).await?;
        let flushed = incarnation.flush_sealed().await?;
        let memtable_bytes = incarnation.feed.read(vexlake_lsm::View::bytes);
        let segments: Vec<String> = flushed.segments.iter().map(ToString::to_string).collect();
        let ranges: Vec<Value> = flushed
            .ranges
            .iter()
            .map(|r| json!({"source": r.source, "partition": r.partition, "from": r.from.to_string(), "to": r.to.to_string()}))
            .collect();
        let lost: Vec<Value> = flushed
            .lost
            .iter()
            .map(|(source, partition, next)| {
                json!({"source": source, "partition": partition, "next": next.to_string()})
            })
            .collect();
        Ok(json!({
            "version": flushed.version, "commits": flushed.commits, "segments": segments, "rows": flushed.rows,
            "deletes": flushed.deletes, "bytes": flushed.bytes, "memtableBytes": memtable_bytes, "ranges": ranges, "lost": lost,
        })
        .to_string())
    }

    pub(crate) async fn refresh_view(&self, id: Option<&str>) -> Result<String> {
        let Some(id) = id else {
            let head = self
                .lake
                .catalog
                .refresh()
                .await
                .map_err(vexlake_lsm::Error::from)?;
            return Ok(json!({"version": head.version}).to_string());
        };
        let incarnation = self.incarnation(id).await?;
        incarnation.follow().await?;
        json(&incarnation.info())
    }

    pub(crate) async fn run_spec(
        &self,
        spec: &str,
        options: &str,
        job: &str,
        progress: ProgressCallback,
    ) -> Result<String> {
        let spec: Spec = parse("spec", spec)?;
        let options: MergeOptions = parse("options", options)?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let report = move |now: Progress| {
            if let Ok(text) = serde_json::to_string(&now) {
                progress.call(text, ThreadsafeFunctionCallMode::NonBlocking);
            }
        };
        let incarnation = self.incarnation(&spec.incarnation.to_string()).await?;
        self.jobs.lock().insert(job.to_owned(), cancelled.clone());
        let ended = incarnation.run(&spec, &options, &cancelled, &report).await;
        self.jobs.lock().remove(job);
        json(&ended?)
    }

    pub(crate) async fn collect(&self, id: Option<&str>, options: &str) -> Result<String> {
        match id {
            None => json(&self.lake.collect_garbage(&parse("gc", options)?).await?),
            Some(id) => {
                let options = parse("gc", options)?;
                json(
                    &self
                        .incarnation(id)
                        .await?
                        .collect_garbage(&options)
                        .await?,
                )
            }
        }
    }

    pub(crate) async fn verify_step(&self, step: VerifyStep) -> Result<String> {
        let missing = |field: &str| invalid(format!("verify {} needs {field}", step.step));
        match step.step.as_str() {
            "begin" => {
                let id = step
                    .incarnation
                    .as_deref()
                    .ok_or_else(|| missing("incarnation"))?;
                let verification = Verification::begin(&*self.incarnation(id).await?).await?;
                let stretches: Vec<Value> = verification
                    .stretches()
                    .iter()
                    .map(|(source, partition, c)| {
                        let (start, next) = (c.start.to_string(), c.next.to_string());
                        json!({"source": source, "partition": partition, "start": start, "next": next})
                    })
                    .collect();
                let mut verifications = self.verifications.lock();
                if verifications.len() >= SESSIONS_MAX {
                    return Err(unavailable(format!("{SESSIONS_MAX} recounts run already")));
                }
                verifications.insert(step.session, verification);
                Ok(json!({"stretches": stretches}).to_string())
            }
            "add" => {
                let table = step.table.as_ref().ok_or_else(|| missing("table"))?;
                let buffers = step.buffers.as_ref().ok_or_else(|| missing("buffers"))?;
                let buffers: Vec<&[u8]> = buffers.iter().map(AsRef::as_ref).collect();
                let from = offset("from", step.from.as_ref().ok_or_else(|| missing("from"))?)?;
                let to = offset("to", step.to.as_ref().ok_or_else(|| missing("to"))?)?;
                let source = step.source.ok_or_else(|| missing("source"))?;
                let partition = step.partition.ok_or_else(|| missing("partition"))?;
                // Out of the map while it judges: others must not wait for that.
                let mut verification = self.begun(&step.session)?;
                verification.add(source, partition, from, to, table.as_ref(), &buffers)?;
                self.verifications.lock().insert(step.session, verification);
                Ok("{}".to_owned())
            }
            "finish" => json(&self.begun(&step.session)?.finish().await?),
            "abort" => {
                self.verifications.lock().remove(&step.session);
                Ok("{}".to_owned())
            }
            other => Err(invalid(format!(
                "verify step is {other:?}, allowed are begin, add, finish and abort"
            ))),
        }
    }

    fn begun(&self, session: &str) -> Result<Verification> {
        let found = self.verifications.lock().remove(session);
        found.ok_or_else(|| invalid(format!("no recount {session:?} was begun")))
    }

    pub(crate) fn metrics_now(&self) -> Value {
        let cache = self.lake.cache().stats();
        let usage = self.lake.store.usage();
        let cache = json!({
            "lookups": cache.lookups, "loads": cache.loads, "blocks": cache.blocks,
            "bytes": cache.bytes, "bytesMax": cache.bytes_max,
        });
        let invariants: serde_json::Map<String, Value> = Invariant::ALL
            .iter()
            .map(|one| {
                let (checks, violations) = self.lake.invariants().count(*one);
                (
                    one.id().to_owned(),
                    json!({"checks": checks, "violations": violations}),
                )
            })
            .collect();
        let warmed = self.lake.warmed();
        let warmed = json!({
            "segments": warmed.segments, "bytes": warmed.bytes, "cut": warmed.cut,
        });
        let recall = self.lake.recall();
        let recall = json!({
            "compared": recall.compared, "dropped": recall.dropped, "failed": recall.failed,
            "sum": recall.sum, "bounds": RECALL_BOUNDS, "byBound": recall.by_bound,
        });
        json!({
            "cache": cache, "store": usage, "recall": recall, "warmed": warmed, "kernels": vexlake_distance::kernels().name,
            "invariants": invariants,
        })
    }
}
