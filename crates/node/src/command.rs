//! Commands that change what names mean, and questions about the lake.

use napi::bindgen_prelude::{Either, Uint8Array};
use serde::Deserialize;
use serde_json::json;
use ulid::Ulid;
use vexlake_lsm::{Mapping, MergeOptions, NewSource, Policy, Schema};

use crate::Lake;
use crate::error::{Result, json, parse};

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    Create {
        db: u32,
        name: String,
        dim: u32,
        metric: String,
        format: String,
        source: NewSource,
    },
    Drop {
        db: u32,
        name: String,
    },
    Clear {
        db: u32,
        name: String,
        source: NewSource,
    },
    ReplayStart {
        db: u32,
        name: String,
        source: NewSource,
        /// Epochs of the live incarnation whose records it may lack.
        #[serde(default, rename = "withoutEpochs")]
        without: Vec<u32>,
    },
    ReplayRetire {
        db: u32,
        name: String,
        incarnation: Ulid,
    },
    Promote {
        db: u32,
        name: String,
        incarnation: Option<Ulid>,
        /// Epochs of the live incarnation whose records it may lack.
        #[serde(default, rename = "withoutEpochs")]
        without: Vec<u32>,
    },
    Rollback {
        db: u32,
        name: String,
        /// Epochs of the live incarnation whose records it may lack.
        #[serde(default, rename = "withoutEpochs")]
        without: Vec<u32>,
    },
    Pin {
        incarnation: String,
        name: String,
        version: u64,
    },
    Unpin {
        incarnation: String,
        name: String,
        version: u64,
    },
    /// Accepts that the log lost a stretch before we read it.
    SourceAccept {
        incarnation: String,
        source: u32,
        partition: u32,
        #[serde(with = "vexlake_manifest::u64_str")]
        from: u64,
        #[serde(with = "vexlake_manifest::u64_str")]
        to: u64,
    },
    /// Adds a partition that the topic got.
    PartitionAdd {
        incarnation: String,
        source: u32,
        partition: u32,
        #[serde(with = "vexlake_manifest::u64_str")]
        start: u64,
    },
    /// Goes on with another log or topic, as the next epoch.
    SourceOpen {
        incarnation: String,
        source: NewSource,
    },
    /// Closes the active memtable, so that the next flush takes it.
    Seal {
        incarnation: String,
        /// Only once it holds that much: how a tail frees memory table by table.
        #[serde(default, rename = "bytesMin")]
        bytes_min: usize,
    },
    /// Stops a merge between two batches.
    Cancel {
        job: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Describe {
    /// Lake id and format.
    Lake {},
    /// All collections.
    Collections {},
    /// One incarnation.
    Incarnation { incarnation: String },
    /// Live segments, as Arrow IPC.
    Segments { incarnation: String },
    /// Newest commits, as Arrow IPC.
    Commits { incarnation: String, limit: usize },
    /// The version that was newest at a time, ms.
    VersionAt { incarnation: String, ms: u64 },
    /// Live files and the DuckDB query over them.
    Files { incarnation: String },
}

fn named(mapping: &Mapping) -> serde_json::Value {
    let fed: Vec<String> = mapping.fed.iter().map(Ulid::to_string).collect();
    json!({"live": mapping.live.to_string(), "fed": fed})
}

impl Lake {
    pub(crate) async fn run_command(&self, command: Command) -> Result<String> {
        let lake = &self.lake;
        let answer = match command {
            Command::Create {
                db,
                name,
                dim,
                metric,
                format,
                source,
            } => {
                let schema = Schema {
                    dim,
                    metric,
                    format,
                };
                json!({"incarnation": lake.create(db, &name, schema, source).await?.to_string()})
            }
            Command::Drop { db, name } => {
                lake.drop_collection(db, &name).await?;
                json!({})
            }
            Command::Clear { db, name, source } => {
                json!({"incarnation": lake.clear(db, &name, source).await?.to_string()})
            }
            Command::ReplayStart {
                db,
                name,
                source,
                without,
            } => {
                let id = lake.replay_start(db, &name, source, &without).await?;
                json!({"incarnation": id.to_string()})
            }
            Command::ReplayRetire {
                db,
                name,
                incarnation,
            } => {
                lake.retire_fed(db, &name, incarnation).await?;
                json!({})
            }
            Command::Promote {
                db,
                name,
                incarnation,
                without,
            } => named(&lake.promote(db, &name, incarnation, &without).await?),
            // What was live before a promotion is first in line, so rolling back is promoting it.
            Command::Rollback { db, name, without } => {
                named(&lake.promote(db, &name, None, &without).await?)
            }
            Command::Pin {
                incarnation,
                name,
                version,
            } => {
                json!({"version": self.incarnation(&incarnation).await?.pin(&name, version).await?})
            }
            Command::Unpin {
                incarnation,
                name,
                version,
            } => {
                json!({"version": self.incarnation(&incarnation).await?.unpin(&name, version).await?})
            }
            Command::SourceAccept {
                incarnation,
                source,
                partition,
                from,
                to,
            } => {
                let incarnation = self.incarnation(&incarnation).await?;
                json!({"version": incarnation.accept_loss(source, partition, from, to).await?})
            }
            Command::PartitionAdd {
                incarnation,
                source,
                partition,
                start,
            } => {
                let incarnation = self.incarnation(&incarnation).await?;
                json!({"version": incarnation.add_partition(source, partition, start).await?})
            }
            Command::SourceOpen {
                incarnation,
                source,
            } => {
                json!({"version": self.incarnation(&incarnation).await?.open_source(source).await?})
            }
            Command::Seal {
                incarnation,
                bytes_min,
            } => {
                self.incarnation(&incarnation).await?.feed.seal(bytes_min);
                json!({})
            }
            Command::Cancel { job } => {
                let found = self.jobs.lock().get(&job).cloned();
                if let Some(flag) = &found {
                    flag.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                json!({"found": found.is_some()})
            }
        };
        Ok(answer.to_string())
    }

    pub(crate) async fn describe_what(&self, what: Describe) -> Result<Either<String, Uint8Array>> {
        Ok(match what {
            Describe::Lake {} => Either::A(json(&self.lake.info)?),
            Describe::Collections {} => Either::A(json(&self.lake.collections().await?)?),
            Describe::Incarnation { incarnation } => {
                Either::A(json(&self.incarnation(&incarnation).await?.info())?)
            }
            Describe::Segments { incarnation } => Either::B(
                self.incarnation(&incarnation)
                    .await?
                    .segments_arrow()?
                    .into(),
            ),
            Describe::Commits { incarnation, limit } => Either::B(
                self.incarnation(&incarnation)
                    .await?
                    .commits_arrow(limit)
                    .await?
                    .into(),
            ),
            Describe::VersionAt { incarnation, ms } => {
                let version = self.incarnation(&incarnation).await?.version_at(ms).await?;
                Either::A(json!({"version": version}).to_string())
            }
            Describe::Files { incarnation } => {
                let url = |key: &str| self.lake.url_of(key);
                Either::A(
                    self.incarnation(&incarnation)
                        .await?
                        .files(&url)
                        .to_string(),
                )
            }
        })
    }

    /// `options` are those of the merges to come: a plan must fit their memory.
    pub(crate) async fn plan_merges(
        &self,
        incarnation: &str,
        options: Option<&str>,
    ) -> Result<String> {
        let options: MergeOptions = match options {
            Some(text) => parse("options", text)?,
            None => MergeOptions::default(),
        };
        let policy = Policy::within(options.memory_bytes_max);
        let incarnation = self.incarnation(incarnation).await?;
        incarnation.follow().await?;
        json(&incarnation.plan(&policy))
    }
}
