//! Get: records by key, each rendered as the caller's reply needs it.

use napi::bindgen_prelude::{BigInt, Uint8Array, Uint32Array};
use napi_derive::napi;
use vexlake_lsm::Want;
use vexlake_lsm::record::{format_vector_shortest, format_vector_text};

use crate::Lake;
use crate::error::{Result, invalid};

#[napi(object)]
pub struct GetRequest {
    pub incarnation: String,
    pub ids: Vec<Uint8Array>,
    /// `text`, `values`, `raw`, `attrs` or `exists`.
    pub want: String,
    /// `fresh`, `snapshot` or `at`.
    pub scope: String,
    pub version: Option<BigInt>,
}

#[napi(object)]
pub struct GetReply {
    /// What was asked for, one after another.
    pub bytes: Uint8Array,
    /// Where each ends.
    pub ends: Uint32Array,
    /// 1 where the key has a live record; with `attrs`, 2 where it has attributes.
    pub present: Uint8Array,
    /// 1 where the key has a newest entry, live or a delete: its partition and offset follow.
    pub placed: Uint8Array,
    /// Partition of each record.
    pub partitions: Uint32Array,
    /// Offset of each record.
    pub offsets: Vec<BigInt>,
}

impl Lake {
    pub(crate) async fn get_records(&self, request: GetRequest) -> Result<GetReply> {
        let incarnation = self.incarnation(&request.incarnation).await?;
        let scope = crate::query::scope(&request.scope, request.version.as_ref())?;
        let mut ids = Vec::with_capacity(request.ids.len());
        for id in &request.ids {
            ids.push(
                std::str::from_utf8(id).map_err(|e| invalid(format!("id is not UTF-8: {e}")))?,
            );
        }
        let render: fn(&[f32], &mut Vec<u8>) = match request.want.as_str() {
            "text" => |vector, out| out.extend_from_slice(format_vector_text(vector).as_bytes()),
            "values" => {
                |vector, out| out.extend_from_slice(format_vector_shortest(vector).as_bytes())
            }
            "raw" => |vector, out| {
                vector
                    .iter()
                    .for_each(|x| out.extend_from_slice(&x.to_le_bytes()))
            },
            "attrs" | "exists" => |_, _| {},
            other => {
                let allowed = "text, values, raw, attrs and exists";
                return Err(invalid(format!("want is {other:?}, allowed are {allowed}")));
            }
        };
        let attrs = request.want == "attrs";
        let vector = !attrs && request.want != "exists";
        let records = incarnation.get(&ids, scope, Want { vector, attrs }).await?;
        let (mut bytes, mut ends, mut present) = (Vec::new(), Vec::new(), Vec::new());
        let mut placed = Vec::new();
        let (mut partitions, mut offsets) = (Vec::new(), Vec::new());
        for record in &records {
            if let Some(vector) = record.as_ref().and_then(|r| r.vector.as_deref()) {
                render(vector, &mut bytes);
            }
            let text = record.as_ref().and_then(|r| r.attrs.as_deref());
            bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
            ends.push(bytes.len() as u32);
            let live = record.as_ref().is_some_and(|r| !r.deleted);
            present.push(u8::from(live) + u8::from(text.is_some()));
            placed.push(u8::from(record.is_some()));
            partitions.push(record.as_ref().map_or(0, |r| r.partition));
            offsets.push(BigInt::from(record.as_ref().map_or(0, |r| r.offset)));
        }
        Ok(GetReply {
            bytes: bytes.into(),
            ends: ends.into(),
            present: present.into(),
            placed: placed.into(),
            partitions: partitions.into(),
            offsets,
        })
    }
}
