//! Records made of a seed, and segments written and opened in a temporary store.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::Path;
use ulid::Ulid;
use vexlake_distance::Metric;
use vexlake_segment::{
    Built, Delete, Position, Row, SegmentMeta, SegmentReader, SegmentSchema, SegmentWriter,
    VectorCache, upload,
};
use vexlake_store::Store;

/// An owned record, or a delete where `vector` is None.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub id: String,
    pub vector: Option<Vec<f32>>,
    pub attrs: Option<String>,
    pub event_time: Option<i64>,
    pub position: Position,
}

impl Entry {
    pub fn row(&self) -> Row<'_> {
        Row {
            id: &self.id,
            vector: self.vector.as_deref().expect("a record"),
            attrs: self.attrs.as_deref(),
            event_time: self.event_time,
            position: self.position,
        }
    }

    pub fn delete(&self) -> Delete<'_> {
        Delete {
            id: &self.id,
            event_time: self.event_time,
            position: self.position,
        }
    }
}

pub fn schema(dim: u32) -> SegmentSchema {
    SegmentSchema {
        dim,
        metric: Metric::Cosine,
    }
}

/// Record `n` of a segment: everything in it follows from `n`.
pub fn record(n: u32, dim: u32) -> Entry {
    let float = |i: u32| {
        ((n.wrapping_mul(2_654_435_761) ^ i.wrapping_mul(40_503)) % 2001) as f32 / 1000.0 - 1.0
    };
    Entry {
        vector: Some((0..dim).map(float).collect()),
        // Some without, some empty, some longer than others, beyond ASCII.
        attrs: match n % 5 {
            0 => None,
            1 => Some("{}".to_string()),
            _ => Some(format!(
                "{{\"n\":{n},\"text\":\"{}\"}}",
                "ü€x".repeat((n % 40) as usize)
            )),
        },
        ..delete(n)
    }
}

pub fn delete(n: u32) -> Entry {
    Entry {
        id: format!("key-{n}-é"),
        vector: None,
        attrs: None,
        event_time: (!n.is_multiple_of(3)).then(|| 1_700_000_000_000 + i64::from(n)),
        position: Position {
            source: n % 2,
            log_time: 1_700_000_000_500 + i64::from(n) * 7,
            partition: n % 4,
            offset: u64::from(n) * 3,
        },
    }
}

/// `rows` records, then `deletes` deletes of other keys.
pub fn entries(rows: u32, deletes: u32, dim: u32) -> Vec<Entry> {
    let records = (0..rows).map(|n| record(n, dim));
    records.chain((rows..rows + deletes).map(delete)).collect()
}

pub fn build(dir: &Path, id: Ulid, schema: &SegmentSchema, entries: &[Entry]) -> Built {
    let mut writer = SegmentWriter::create(dir, schema).expect("creates");
    for (ordinal, entry) in entries.iter().enumerate() {
        let given = match entry.vector {
            Some(_) => writer.push(&entry.row()).expect("pushes"),
            None => writer.delete(&entry.delete()).expect("deletes"),
        };
        assert_eq!(given as usize, ordinal);
    }
    writer.finish(id).expect("finishes")
}

/// A store in a temporary folder with one uploaded segment.
pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub store: Store,
    pub meta: SegmentMeta,
    pub schema: SegmentSchema,
    pub entries: Vec<Entry>,
}

impl Fixture {
    pub async fn new(rows: u32, deletes: u32, dim: u32) -> Self {
        Self::of(entries(rows, deletes, dim), schema(dim)).await
    }

    pub async fn of(entries: Vec<Entry>, schema: SegmentSchema) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::directory(folder.path().join("lake"))
            .expect("a store")
            .scoped("seg/x/");
        let id = Ulid::from_parts(1_700_000_000_000, 42);
        let built = build(&folder.path().join("spool"), id, &schema, &entries);
        upload(&store, &built).await.expect("uploads");
        Self {
            folder,
            store,
            meta: built.meta.clone(),
            schema,
            entries,
        }
    }

    pub async fn open(&self) -> SegmentReader {
        self.open_with(VectorCache::new(64 << 20)).await
    }

    pub async fn open_with(&self, cache: VectorCache) -> SegmentReader {
        SegmentReader::open(self.store.clone(), &self.meta, &self.schema, cache)
            .await
            .expect("opens")
    }

    /// Where the store keeps a file.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.store.local_path(name).expect("a directory store")
    }
}

/// Everything a segment can be asked, against the entries that went in.
pub async fn assert_holds(segment: &SegmentReader, expected: &[Entry]) {
    assert_eq!(segment.entries() as usize, expected.len());
    let rows = segment.rows();
    for (ordinal, entry) in expected.iter().enumerate() {
        let ordinal = ordinal as u32;
        assert_eq!(segment.id(ordinal), entry.id);
        assert_eq!(segment.position(ordinal), entry.position);
        assert_eq!(segment.event_time(ordinal), entry.event_time);
        assert_eq!(segment.is_delete(ordinal), entry.vector.is_none());
        assert_eq!(segment.find(&entry.id), Some(ordinal));
    }
    assert_eq!(segment.find("absent"), None);

    let mut seen = 0;
    for number in 0..segment.blocks() {
        let block = segment.block(number).await.expect("a block");
        assert_eq!(segment.block_rows(number), seen..seen + block.rows());
        for ordinal in segment.block_rows(number) {
            let vector = expected[ordinal as usize]
                .vector
                .as_deref()
                .expect("a record");
            assert_eq!(block.vector(ordinal), vector);
            let exact = vector
                .iter()
                .map(|x| f64::from(*x).powi(2))
                .sum::<f64>()
                .sqrt();
            assert!((f64::from(segment.norms()[ordinal as usize]) - exact).abs() <= exact * 1e-5);
        }
        seen += block.rows();
    }
    assert_eq!(seen, rows);

    let backwards: Vec<u32> = (0..segment.entries()).rev().collect();
    let attrs = segment.attrs(&backwards).await.expect("attrs");
    let asked: Vec<_> = backwards
        .iter()
        .map(|ordinal| expected[*ordinal as usize].attrs.clone())
        .collect();
    assert_eq!(attrs, asked);

    let mut from = 0;
    while from < rows {
        let count = segment.batch_rows().min(rows - from).min(777);
        let batch = segment.read_rows(from, count).await.expect("rows");
        assert_eq!(batch.len(), count as usize);
        for (row, entry) in batch.iter().zip(&expected[from as usize..]) {
            assert_eq!(row, entry.row());
        }
        from += count;
    }
}
