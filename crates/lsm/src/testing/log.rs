//! A log in memory, and the model: what a reader must see of its prefixes.

use std::collections::BTreeMap;

use crate::record::RECORD_ENTRY_BYTES;

/// What a message does.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Upsert with or without attributes.
    Upsert([f32; 3], Option<String>),
    /// Delete by a null value.
    Delete,
    /// Replaces the vector.
    SetVector([f32; 3]),
    /// Replaces or (empty) takes away the attributes.
    SetAttrs(String),
    /// A vector of two floats.
    Bad,
    /// An offset without a message.
    Gap,
}

/// One offset of the log.
#[derive(Clone, Debug)]
pub struct Message {
    pub key: String,
    pub timestamp: i64,
    pub change: Change,
}

/// An append-only log of some partitions; an offset is an index.
#[derive(Clone, Debug, Default)]
pub struct Log(pub BTreeMap<u32, Vec<Message>>);

impl Log {
    /// Appends a message; returns its offset.
    pub fn put(&mut self, partition: u32, key: &str, timestamp: i64, change: Change) -> u64 {
        let messages = self.0.entry(partition).or_default();
        messages.push(Message {
            key: key.to_owned(),
            timestamp,
            change,
        });
        messages.len() as u64 - 1
    }

    /// An upsert whose vector tells the number.
    pub fn upsert(&mut self, partition: u32, key: &str, timestamp: i64, number: u64) -> u64 {
        let n = number as f32;
        let attrs = format!("{{\"n\":{number}}}");
        self.put(
            partition,
            key,
            timestamp,
            Change::Upsert([n, n + 1.0, 1.0], Some(attrs)),
        )
    }

    /// One past the last offset.
    pub fn end(&self, partition: u32) -> u64 {
        self.0
            .get(&partition)
            .map_or(0, |messages| messages.len() as u64)
    }

    /// The table and the buffer of `[from, to)`.
    pub fn fetch(&self, partition: u32, from: u64, to: u64) -> (Vec<u8>, Vec<u8>) {
        let mut batch = TableWriter::default();
        let empty = Vec::new();
        let messages = self.0.get(&partition).unwrap_or(&empty);
        for offset in from..to.min(messages.len() as u64) {
            batch.push(offset as i64, &messages[offset as usize]);
        }
        (batch.table, batch.buffer)
    }
}

/// Writes record entries as the services do.
#[derive(Default)]
pub struct TableWriter {
    pub table: Vec<u8>,
    pub buffer: Vec<u8>,
}

impl TableWriter {
    /// Appends one entry; a gap appends none.
    pub fn push(&mut self, offset: i64, message: &Message) {
        let floats = |vector: &[f32]| {
            vector
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let (value, op, attrs) = match &message.change {
            Change::Gap => return,
            Change::Delete => (None, None, None),
            Change::Upsert(vector, attrs) => (Some(floats(vector)), None, attrs.clone()),
            Change::SetVector(vector) => (Some(floats(vector)), Some("set-vector"), None),
            Change::SetAttrs(attrs) => (Some(Vec::new()), Some("set-attrs"), Some(attrs.clone())),
            Change::Bad => (Some(floats(&[1.0, 2.0])), None, None),
        };
        let write = Some(format!("w{offset}").into_bytes());
        let attrs = attrs.map(String::into_bytes);
        let op = op.map(|word| word.as_bytes().to_vec());
        let key = Some(message.key.clone().into_bytes());
        self.entry(
            offset,
            message.timestamp,
            [key, value, None, attrs, op, None, write],
        );
    }

    /// Appends one entry from its spans: key, value, format, attrs, op, event time, write.
    pub fn entry(&mut self, offset: i64, timestamp: i64, spans: [Option<Vec<u8>>; 7]) {
        let before = self.table.len();
        self.table.extend(offset.to_le_bytes());
        self.table.extend(timestamp.to_le_bytes());
        for span in spans {
            let numbers = match &span {
                None => [u32::MAX, 0, 0],
                Some(bytes) => [0, self.buffer.len() as u32, bytes.len() as u32],
            };
            numbers
                .iter()
                .for_each(|number| self.table.extend(number.to_le_bytes()));
            self.buffer.extend(span.unwrap_or_default());
        }
        assert_eq!(self.table.len() - before, RECORD_ENTRY_BYTES);
    }
}

/// A live record of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    pub vector: [f32; 3],
    pub attrs: Option<String>,
    pub partition: u32,
    pub offset: u64,
}

/// Log time, partition, offset.
pub type Order = (i64, u32, u64);

/// Newest position of each key and what it says; `None` = deleted.
pub type Model = BTreeMap<String, (Order, Option<Live>)>;

/// What a reader must see who consumed `[0, ends[p])` of each partition: the messages in the
/// order of their positions, each on top of what came before it.
pub fn model(log: &Log, ends: &BTreeMap<u32, u64>) -> Model {
    let mut ordered: Vec<(Order, &Message)> = Vec::new();
    for (partition, messages) in &log.0 {
        let end = ends.get(partition).copied().unwrap_or(0);
        let mut log_time = i64::MIN;
        for (offset, message) in messages.iter().enumerate().take(end as usize) {
            if message.change != Change::Gap {
                log_time = log_time.max(message.timestamp);
                ordered.push(((log_time, *partition, offset as u64), message));
            }
        }
    }
    ordered.sort_by_key(|(order, _)| *order);
    let mut newest = Model::new();
    for (order, message) in ordered {
        let (_, partition, offset) = order;
        let base = newest.get(&message.key).and_then(|(_, live)| live.clone());
        let base = base.filter(|live| live.partition == partition);
        let live = |vector, attrs| Live {
            vector,
            attrs,
            partition,
            offset,
        };
        let after = match (&message.change, base) {
            (Change::Upsert(vector, attrs), _) => Some(live(*vector, attrs.clone())),
            (Change::Delete, _) => None,
            (Change::SetVector(vector), Some(base)) => Some(live(*vector, base.attrs)),
            (Change::SetAttrs(attrs), Some(base)) => {
                let attrs = (!attrs.is_empty()).then(|| attrs.clone());
                Some(live(base.vector, attrs))
            }
            _ => continue,
        };
        newest.insert(message.key.clone(), (order, after));
    }
    newest
}
