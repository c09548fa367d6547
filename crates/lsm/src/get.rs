//! Newest entries by key, out of the same views that searches use.
//!
//! All keys of a call are looked up together: first in the feed, under one look at the
//! view; then what it does not hold in the snapshot of that view.

use vexlake_segment::key_hash;

use crate::error::{Error, Result};
use crate::feed::View;
use crate::incarnation::{Incarnation, VIEWS_MAX, overtaken};
use crate::search::Scope;
use crate::snapshot::{Key, Location};

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
    /// The vector of a live record as of the scope, as a query by element needs it.
    ///
    /// # Errors
    /// `NOT_FOUND` when the key has no live record; read errors.
    pub async fn vector_of(&self, id: &str, scope: Scope) -> Result<Vec<f32>> {
        let found = self
            .get(
                &[id],
                scope,
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
        let none = || vec![None; ids.len()];
        let (snapshot, mut found) = match scope {
            Scope::At(version) => (self.at(version).await?, none()),
            Scope::Snapshot => (self.snapshot(), none()),
            Scope::Fresh => self.feed.read(|view| {
                let found = ids.iter().map(|id| {
                    let (table, index) = view.find(key_hash(id), id)?;
                    copy_out(view, table, index, want)
                });
                (view.snapshot.clone(), found.collect())
            }),
        };
        let (places, keys): (Vec<usize>, Vec<Key<'_>>) = (0..ids.len())
            .filter(|place| found[*place].is_none())
            .map(|place| (place, (key_hash(ids[place]), ids[place])))
            .unzip();
        let located = snapshot.locate_many(&keys).await?;
        let (places, located): (Vec<usize>, Vec<Location>) = places
            .into_iter()
            .zip(located)
            .filter_map(|(place, location)| Some((place, location?)))
            .unzip();
        let parts = snapshot.read(&located, want).await?;
        for ((place, location), parts) in places.into_iter().zip(located).zip(parts) {
            found[place] = Some(Got {
                deleted: location.deleted,
                vector: parts.vector,
                attrs: parts.attrs,
                partition: location.position.partition,
                offset: location.position.offset,
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
