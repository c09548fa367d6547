//! Looking up a feed's keys in a snapshot that nobody sees yet.
//!
//! Keys are copied out of the memtables a few at a time, so that appends hardly wait, and
//! looked up together. It is done twice: first without the turn, however long it takes,
//! then with it, for what has arrived since.

use super::{Feed, counts};
use crate::error::Result;
use crate::snapshot::{Key, Location, Snapshot};

/// Keys copied out in one turn of the view's lock: some 100 µs that an append waits.
const KEYS_PER_LOCK: usize = 1024;

/// What a snapshot that nobody sees yet holds of the feed's keys, by table and entry, as
/// far as they were looked up.
#[derive(Default)]
pub(super) struct Ahead {
    epoch: u64,
    pub(super) located: Vec<Vec<Option<Location>>>,
}

impl Ahead {
    /// Looks up what is not looked up yet. With the turn, that is everything afterwards.
    pub(super) async fn catch_up(&mut self, feed: &Feed, snapshot: &Snapshot) -> Result<()> {
        let (epoch, lengths) = feed.read(|view| {
            let lengths = view.memtables().map(|memtable| memtable.entries().len());
            (view.epoch, lengths.collect::<Vec<usize>>())
        });
        if self.epoch != epoch {
            // The tables have other numbers now.
            (self.epoch, self.located) = (epoch, Vec::new());
        }
        self.located.resize_with(lengths.len(), Vec::new);
        for (number, length) in lengths.into_iter().enumerate() {
            let located = &mut self.located[number];
            let (mut places, mut keys) = (Vec::new(), Vec::new());
            let mut at = located.len();
            while at < length {
                let end = length.min(at + KEYS_PER_LOCK);
                let copied = feed.read(|view| {
                    let memtable = (view.epoch == epoch).then(|| &view.tables[number].memtable)?;
                    let entries = (at..end).zip(&memtable.entries()[at..end]);
                    for (place, entry) in entries.filter(|(_, entry)| counts(entry, snapshot)) {
                        places.push(place);
                        keys.push((entry.hash, memtable.id(entry).to_owned()));
                    }
                    Some(())
                });
                if copied.is_none() {
                    // Only without the turn; whoever has it then starts over.
                    return Ok(());
                }
                at = end;
            }
            let keys: Vec<Key<'_>> = keys.iter().map(|(hash, id)| (*hash, &**id)).collect();
            let found = snapshot.locate_many(&keys).await?;
            located.resize(length, None);
            for (place, found) in places.into_iter().zip(found) {
                located[place] = found;
            }
        }
        Ok(())
    }
}
