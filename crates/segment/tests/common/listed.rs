//! Segments with lists: how they are written, and what the golden one was written from.

use std::path::Path;

use ulid::Ulid;
use vexlake_distance::Metric;
use vexlake_index::{Centroids, TrainOptions, build_lists, train};
use vexlake_segment::{Built, SegmentSchema, SegmentWriter};

use super::{Entry, delete};

/// Floats of a vector of the golden segment.
pub const GOLDEN_DIM: u32 = 6;
/// By L2 nothing is rounded in a way of an instruction set's own, so that the golden index
/// is derived to the same bytes on each.
pub const GOLDEN_SCHEMA: SegmentSchema = SegmentSchema {
    dim: GOLDEN_DIM,
    metric: Metric::L2,
};
/// Four lists: one long enough for whole blocks, some for a rest.
const GOLDEN_ROWS: u32 = 150;
const GOLDEN_LISTS: usize = 4;

/// Centroids trained on these records.
pub fn train_on(
    schema: &SegmentSchema,
    records: &[Entry],
    version: Ulid,
    lists: usize,
) -> Centroids {
    let vectors = vectors_of(records);
    let options = TrainOptions {
        version: u128::from(version),
        lists,
        rounds: 4,
        seed: 9,
        threads: 1,
    };
    train(schema.metric, schema.dim as usize, &vectors, &options).expect("trains")
}

fn vectors_of(records: &[Entry]) -> Vec<f32> {
    let vectors = records.iter().map(|entry| entry.vector.as_deref());
    vectors
        .map(|vector| vector.expect("a record"))
        .collect::<Vec<_>>()
        .concat()
}

/// Writes records, brought into list order, and deletes behind them. Answers the files,
/// the entries in their order and the lists object.
pub fn write(
    folder: &Path,
    id: Ulid,
    schema: &SegmentSchema,
    centroids: &Centroids,
    (records, deletes): (&[Entry], &[Entry]),
) -> (Built, Vec<Entry>, Vec<u8>) {
    let encoded = centroids.encode(&vectors_of(records), 1).expect("encodes");
    let (count, code_dim) = (centroids.count() as u32, centroids.space().code_dim());
    let object = build_lists(centroids.version(), count, code_dim, &encoded, true);
    let object = object.expect("builds");
    let order = encoded.list_order().into_iter();
    let mut entries: Vec<Entry> = order.map(|row| records[row as usize].clone()).collect();
    let mut writer = SegmentWriter::create(folder, schema).expect("creates");
    writer.set_lists(object.clone()).expect("lists in order");
    for entry in &entries {
        writer.push(&entry.row()).expect("pushes");
    }
    for entry in deletes {
        writer.delete(&entry.delete()).expect("deletes");
    }
    entries.extend_from_slice(deletes);
    (writer.finish(id).expect("finishes"), entries, object)
}

/// What the golden segment was written from: clumps of records with attributes of every
/// kind, and deletes.
pub fn golden_entries() -> (Vec<Entry>, Vec<Entry>) {
    let record = |n: u32| {
        let float = |i: u32| {
            let clump =
                [0.0, 4.0, -3.0, 9.0, 4.0][(n % 5) as usize] * f32::from(i.is_multiple_of(2));
            clump + ((n * 2_654_435 + i * 40_503) % 2001) as f32 / 1024.0 - 1.0
        };
        let attrs = match n % 7 {
            0 => None,
            1 => Some("{}".to_owned()),
            2 => Some(format!(r#"{{"year":{},"kind":"a{}"}}"#, 1900 + n, n % 4)),
            3 => Some(format!(
                r#"{{"year":{}.5,"open":{}}}"#,
                n,
                n.is_multiple_of(2)
            )),
            4 => Some(format!(r#"{{"year":"{n}","tags":["x","ü{n}"]}}"#)),
            5 => Some(format!(r#"{{"kind":null,"deep":{{"n":{n}}}}}"#)),
            _ => Some(format!(r#"{{"kind":"b","year":-{n},"open":true}}"#)),
        };
        Entry {
            vector: Some((0..GOLDEN_DIM).map(float).collect()),
            attrs,
            ..delete(n)
        }
    };
    let records = (0..GOLDEN_ROWS).map(record).collect();
    (
        records,
        (GOLDEN_ROWS..GOLDEN_ROWS + 4).map(delete).collect(),
    )
}

/// The golden centroids as they were trained: only the file says what they are, since sums
/// in training round by instruction set.
pub fn train_golden() -> Centroids {
    let version = Ulid::from_parts(1_699_999_999_999, 5);
    train_on(&GOLDEN_SCHEMA, &golden_entries().0, version, GOLDEN_LISTS)
}

/// Writes the golden segment by its centroids.
pub fn write_golden(folder: &Path, centroids: &Centroids) -> (Built, Vec<Entry>, Vec<u8>) {
    let (records, deletes) = golden_entries();
    let id = Ulid::from_parts(1_700_000_000_000, 6);
    write(folder, id, &GOLDEN_SCHEMA, centroids, (&records, &deletes))
}
