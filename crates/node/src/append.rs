//! Append: fetched buffers and an offset table in, verdicts out.

use napi::bindgen_prelude::{BigInt, Uint8Array};
use napi_derive::napi;
use vexlake_lsm::append::{Batch, OnBad};
use vexlake_lsm::record::Format;

use crate::Lake;
use crate::error::{Result, invalid};

#[napi(object)]
pub struct AppendBatch {
    pub incarnation: String,
    pub source: u32,
    pub partition: u32,
    pub from: BigInt,
    pub to: BigInt,
    pub buffers: Vec<Uint8Array>,
    pub table: Uint8Array,
    pub format: Option<String>,
    pub bad_record: Option<String>,
}

#[napi(object)]
pub struct RefusedRecord {
    pub offset: BigInt,
    pub reason: String,
    pub message: String,
}

#[napi(object)]
pub struct WriteAck {
    pub write: String,
    pub offset: BigInt,
    pub existed: bool,
    pub accepted: bool,
    pub message: Option<String>,
}

#[napi(object)]
pub struct AppendResult {
    pub next: BigInt,
    pub accepted: f64,
    pub not_records: f64,
    pub memtable_bytes: f64,
    pub bad: Vec<RefusedRecord>,
    pub acks: Vec<WriteAck>,
    pub failed_at: Option<BigInt>,
}

/// A u64 out of a BigInt, refusing signs and overflow.
pub fn offset(field: &str, value: &BigInt) -> Result<u64> {
    match value.get_u64() {
        (false, offset, true) => Ok(offset),
        (sign, offset, _) => {
            let sign = if sign { "-" } else { "" };
            Err(invalid(format!(
                "{field} is {sign}{offset}…, not an offset"
            )))
        }
    }
}

impl Lake {
    pub(crate) async fn append_batch(&self, batch: AppendBatch) -> Result<AppendResult> {
        let incarnation = self.incarnation(&batch.incarnation).await?;
        let format = match batch.format.as_deref() {
            None => None,
            Some(name) => {
                let unknown = || {
                    invalid(format!(
                        "format is {name:?}, allowed are f32, protobuf and json"
                    ))
                };
                Some(Format::parse(name).ok_or_else(unknown)?)
            }
        };
        let buffers: Vec<&[u8]> = batch.buffers.iter().map(AsRef::as_ref).collect();
        let on_bad = match batch.bad_record.as_deref() {
            Some("fail") => OnBad::Fail,
            _ => OnBad::Pass,
        };
        let appended = incarnation
            .append(&Batch {
                source: batch.source,
                partition: batch.partition,
                from: offset("from", &batch.from)?,
                to: offset("to", &batch.to)?,
                buffers: &buffers,
                table: batch.table.as_ref(),
                format,
                on_bad,
            })
            .await?;
        let bad = appended.bad.into_iter().map(|bad| RefusedRecord {
            offset: bad.offset.into(),
            reason: bad.reason.word().to_owned(),
            message: bad.message,
        });
        let acks = appended.acks.into_iter().map(|ack| WriteAck {
            write: ack.write,
            offset: ack.offset.into(),
            existed: ack.existed,
            accepted: ack.refused.is_none(),
            message: ack.refused,
        });
        Ok(AppendResult {
            next: appended.next.into(),
            accepted: appended.accepted as f64,
            not_records: appended.not_records as f64,
            memtable_bytes: appended.bytes as f64,
            bad: bad.collect(),
            acks: acks.collect(),
            failed_at: appended.failed_at.map(BigInt::from),
        })
    }
}
