//! Newest entries by key, out of the same views that searches use.

use vexlake_segment::key_hash;

use crate::error::{Error, Result};
use crate::feed::View;
use crate::incarnation::{Incarnation, VIEWS_MAX, overtaken};
use crate::search::Scope;
use crate::snapshot::Snapshot;

/// Which parts of a record to read.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// The vector.
    pub vector: bool,
    /// The attributes.
    pub attrs: bool,
}

/// The newest committed or consumed entry of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Got {
    /// Whether it is a delete: then there is nothing to read, but a later write
    /// belongs to the same partition.
    pub deleted: bool,
    /// dim floats, when wanted.
    pub vector: Option<Vec<f32>>,
    /// JSON text, when wanted and present.
    pub attrs: Option<String>,
    /// Partition it came from.
    pub partition: u32,
    /// Offset it came from.
    pub offset: u64,
}

impl Incarnation {
    /// The vector of a live record, as a query by element needs it.
    ///
    /// # Errors
    /// `NOT_FOUND` when the key has no live record; read errors.
    pub async fn vector_of(&self, id: &str) -> Result<Vec<f32>> {
        let found = self
            .get(
                &[id],
                Scope::Fresh,
                Want {
                    vector: true,
                    attrs: false,
                },
            )
            .await?;
        let vector = found
            .into_iter()
            .next()
            .flatten()
            .and_then(|record| record.vector);
        vector.ok_or_else(|| Error::NotFound {
            what: "element",
            name: format!("{id:?}"),
        })
    }

    /// Newest entries by key, deletes included.
    ///
    /// # Errors
    /// `NOT_FOUND` for a version that is gone; read errors.
    pub async fn get(&self, ids: &[&str], scope: Scope, want: Want) -> Result<Vec<Option<Got>>> {
        for _ in 0..VIEWS_MAX {
            let version = self.oldest_of(scope);
            match self.get_view(ids, scope, want).await {
                Err(error) => self.leave_swept(error, version).await?,
                got => return got,
            }
        }
        Err(overtaken())
    }

    async fn get_view(&self, ids: &[&str], scope: Scope, want: Want) -> Result<Vec<Option<Got>>> {
        let mut found = Vec::with_capacity(ids.len());
        let at = match scope {
            Scope::At(version) => Some(self.at(version).await?),
            Scope::Snapshot => Some(self.snapshot()),
            Scope::Fresh => None,
        };
        for id in ids {
            let hash = key_hash(id);
            let place = match &at {
                Some(snapshot) => Err(snapshot.clone()),
                None => self.feed.read(|view| match view.find(hash, id) {
                    Some((table, index)) => Ok(copy_out(view, table, index, want)),
                    None => Err(view.snapshot.clone()),
                }),
            };
            found.push(match place {
                Ok(got) => got,
                Err(snapshot) => read_out(&snapshot, hash, id, want).await?,
            });
        }
        Ok(found)
    }
}

fn copy_out(view: &View, table: usize, index: u32, want: Want) -> Option<Got> {
    let memtable = view.memtables().nth(table)?;
    let entry = memtable.entry(index);
    let vector = memtable.vector(entry);
    Some(Got {
        deleted: vector.is_none(),
        vector: vector.filter(|_| want.vector).map(<[f32]>::to_vec),
        attrs: want
            .attrs
            .then(|| memtable.attrs(entry).map(str::to_owned))
            .flatten(),
        partition: entry.position.partition,
        offset: entry.position.offset,
    })
}

async fn read_out(snapshot: &Snapshot, hash: u64, id: &str, want: Want) -> Result<Option<Got>> {
    let Some(location) = snapshot.locate(hash, id) else {
        return Ok(None);
    };
    let reader = &snapshot.segments[&location.segment].reader;
    let vector = match want.vector && !location.deleted {
        true => Some(reader.vector(location.entry).await?),
        false => None,
    };
    let attrs = match want.attrs && !location.deleted {
        true => reader.attrs(&[location.entry]).await?.pop().flatten(),
        false => None,
    };
    let position = location.position;
    Ok(Some(Got {
        deleted: location.deleted,
        vector,
        attrs,
        partition: position.partition,
        offset: position.offset,
    }))
}
