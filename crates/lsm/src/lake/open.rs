//! What opening and creating check: the lake's identity, its catalog, the spool, names
//! and schemas.

use std::path::Path;

use ulid::Ulid;
use vexlake_manifest::{Manifest, ManifestError, frame, unframe};
use vexlake_store::{Created, Store};

use super::{FORMAT, LakeInfo};
use crate::catalog::CatalogState;
use crate::error::{Error, Result};
use crate::incarnation::Context;
use crate::record::{DIM_MAX, Format};
use crate::state::Schema;

/// Longest collection name: fits a Kafka topic (249) after escaping typical names.
const NAME_BYTES_MAX: usize = 128;

pub(super) async fn open_info(store: &Store, id: Ulid) -> Result<LakeInfo> {
    let fresh = LakeInfo {
        lake: id,
        format: FORMAT,
    };
    let json = serde_json::to_vec(&fresh).map_err(|e| Error::Internal(e.to_string()))?;
    // "Exists" may be our own lost reply: either way the object says what this lake is.
    let (Created::Created | Created::Exists) = store.create("lake.json", frame(&json)).await?;
    let bytes = store.get("lake.json").await?;
    let unreadable = |e: String| Error::Invalid(format!("lake.json is not readable: {e}"));
    let json = unframe(&bytes).map_err(|e| unreadable(e.to_string()))?;
    let info: LakeInfo = serde_json::from_slice(&json).map_err(|e| unreadable(e.to_string()))?;
    if info.format != FORMAT {
        return Err(Error::Invalid(format!(
            "lake.json has format {}, this version reads {FORMAT}",
            info.format
        )));
    }
    Ok(info)
}

pub(super) async fn open_catalog(
    store: &Store,
    context: &Context,
) -> Result<Manifest<CatalogState>> {
    let scoped = store.scoped("catalog");
    let Context {
        author, components, ..
    } = context;
    match Manifest::open_with(scoped.clone(), components.clone()).await {
        Err(ManifestError::NotFound { .. }) => {}
        opened => return Ok(opened?),
    }
    match Manifest::create_with(
        scoped.clone(),
        CatalogState::default(),
        author,
        components.clone(),
    )
    .await
    {
        Err(ManifestError::Conflict { .. }) => {
            Ok(Manifest::open_with(scoped, components.clone()).await?)
        }
        created => Ok(created?),
    }
}

/// Creates the spool and removes what a killed process left in it.
pub(super) fn prepare_spool(spool: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::Unavailable(format!("spool {}: {e}", spool.display()));
    if spool.exists() {
        std::fs::remove_dir_all(spool).map_err(failed)?;
    }
    std::fs::create_dir_all(spool).map_err(failed)
}

pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        let bytes = name.len();
        return Err(Error::Invalid(format!(
            "collection name has {bytes} bytes, allowed are 1 to {NAME_BYTES_MAX}"
        )));
    }
    Ok(())
}

pub(super) fn check_schema(schema: &Schema) -> Result<()> {
    let Schema {
        dim,
        metric,
        format,
    } = schema;
    if *dim == 0 || *dim > DIM_MAX {
        return Err(Error::Invalid(format!(
            "dim is {dim}, allowed are 1 to {DIM_MAX}"
        )));
    }
    if vexlake_distance::Metric::parse(metric).is_none() {
        return Err(Error::Invalid(format!(
            "metric is {metric:?}, allowed are cosine, l2, ip and l1"
        )));
    }
    if Format::parse(format).is_none() {
        return Err(Error::Invalid(format!(
            "format is {format:?}, allowed are f32, protobuf and json"
        )));
    }
    Ok(())
}
