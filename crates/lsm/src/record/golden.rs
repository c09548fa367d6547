//! The golden cases of `schemas/fixtures/records-v1`, which every decoder agrees with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::tests::raw_of;
use super::*;

const RECORDS: &str = include_str!("../../../../schemas/fixtures/records-v1/records.json");
const FINGERPRINTS: &str =
    include_str!("../../../../schemas/fixtures/records-v1/fingerprints.json");
const TABLES: &str = include_str!("../../../../schemas/fixtures/records-v1/table.json");
const PROSE: &str = include_str!("../../../../schemas/records.md");

#[derive(Deserialize)]
struct File<T> {
    cases: Vec<T>,
}

/// Bytes as the golden files write them.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Bytes {
    Text(String),
    Base64(String),
    Repeat(String, usize),
}

impl Bytes {
    fn read(&self) -> Vec<u8> {
        match self {
            Bytes::Text(text) => text.clone().into_bytes(),
            Bytes::Base64(text) => STANDARD.decode(text).expect("golden base64"),
            Bytes::Repeat(text, times) => text.repeat(*times).into_bytes(),
        }
    }
}

fn bytes(golden: &Option<Bytes>) -> Option<Vec<u8>> {
    golden.as_ref().map(Bytes::read)
}

#[derive(Deserialize)]
struct RecordCase {
    name: String,
    format: String,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: std::collections::HashMap<String, Bytes>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expect {
    Bad {
        bad: String,
    },
    Good {
        op: String,
        id: String,
        vector: Option<Vec<f32>>,
        attrs: Option<String>,
        event_time: Option<String>,
    },
}

#[test]
fn should_agree_with_every_golden_record() {
    let file: File<RecordCase> = serde_json::from_str(RECORDS).expect("golden file parses");
    assert!(file.cases.len() > 100);
    for case in file.cases {
        let (key, value) = (bytes(&case.key), bytes(&case.value));
        let headers: std::collections::HashMap<_, _> = case
            .headers
            .iter()
            .map(|(name, golden)| (name.as_str(), golden.read()))
            .collect();
        let header = |name: &str| headers.get(name).map(Vec::as_slice);
        let raw = RawRecord {
            key: key.as_deref(),
            value: value.as_deref(),
            format_header: header("vexlake-format"),
            attrs_header: header("vexlake-attrs"),
            op_header: header("vexlake-op"),
            event_time_header: header("vexlake-event-time"),
            write_header: header("vexlake-write"),
        };
        let format = Format::parse(&case.format).expect("golden format");
        let mut floats = vec![7.0];
        let record = decode(&raw, format, 4, &mut floats);
        match (record, case.expect) {
            (Err(error), Expect::Bad { bad }) => {
                assert_eq!(error.reason.word(), bad, "{}: {error}", case.name);
                assert_eq!(floats, [7.0], "{}: buffer restored", case.name);
            }
            (
                Ok(record),
                Expect::Good {
                    op,
                    id,
                    vector,
                    attrs,
                    event_time,
                },
            ) => {
                assert_eq!(record.op.name(), op, "{}", case.name);
                assert_eq!(record.id, id, "{}", case.name);
                let bits = |floats: &[f32]| floats.iter().map(|f| f.to_bits()).collect::<Vec<_>>();
                let read = record.vector.clone().map(|range| bits(&floats[range]));
                assert_eq!(read, vector.as_deref().map(bits), "{}", case.name);
                assert_eq!(record.attrs, attrs.as_deref(), "{}", case.name);
                let expected_time = event_time.map(|ms| ms.parse().expect("golden time"));
                assert_eq!(record.event_time, expected_time, "{}", case.name);
                assert_eq!(record.write, header("vexlake-write"), "{}", case.name);
            }
            (record, _) => panic!("{}: decoded to {record:?}", case.name),
        }
    }
}

#[test]
fn should_list_every_reason_in_the_prose_in_order() {
    let listed: Vec<&str> = PROSE
        .split_once("## Limits and reasons")
        .and_then(|(_, rest)| rest.split_once("\n## "))
        .map(|(section, _)| section)
        .into_iter()
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.word()).collect();
    assert_eq!(listed, words);
}

#[derive(Deserialize)]
struct FingerprintCase {
    key: Option<Bytes>,
    value: Option<Bytes>,
    crc32c: String,
}

#[test]
fn should_agree_with_every_golden_fingerprint() {
    let file: File<FingerprintCase> = serde_json::from_str(FINGERPRINTS).expect("golden file");
    for case in file.cases {
        let read = fingerprint(bytes(&case.key).as_deref(), bytes(&case.value).as_deref());
        assert_eq!(format!("{read:08x}"), case.crc32c);
    }
}

#[derive(Deserialize)]
struct TableCase {
    buffers: Vec<Bytes>,
    table: Bytes,
    entries: Vec<TableEntry>,
}

#[derive(Deserialize)]
struct TableEntry {
    offset: String,
    timestamp: String,
    spans: Vec<Option<Bytes>>,
}

#[test]
fn should_agree_with_the_golden_table() {
    let file: File<TableCase> = serde_json::from_str(TABLES).expect("golden file");
    for case in file.cases {
        let buffers: Vec<Vec<u8>> = case.buffers.iter().map(Bytes::read).collect();
        let borrowed: Vec<&[u8]> = buffers.iter().map(Vec::as_slice).collect();
        let table = case.table.read();
        let read = entries(&table, &borrowed).expect("golden table is valid");
        assert_eq!(read.len(), case.entries.len());
        for ((offset, timestamp, raw), golden) in read.zip(case.entries) {
            let spans: Vec<_> = golden.spans.iter().map(bytes).collect();
            assert_eq!(offset.to_string(), golden.offset);
            assert_eq!(timestamp.to_string(), golden.timestamp);
            assert_eq!(raw, raw_of(&spans));
        }
    }
}
