//! `index.vxi` under damage: every byte flipped, every length cut, and files
//! forged with right checksums.

use super::Index;
use super::container::{Container, u32_at, u64_at};
use crate::entries::Entries;
use crate::error::SegmentErrorKind;
use crate::hash::key_hash;
use crate::meta::{DATA_FILE, INDEX_FILE, SegmentSchema};
use crate::record::{Delete, Position, Row};
use crate::writer::SegmentWriter;
use proptest::prelude::*;
use std::sync::OnceLock;
use ulid::Ulid;
use vexlake_distance::Metric;

const SCHEMA: SegmentSchema = SegmentSchema {
    dim: 4,
    metric: Metric::Manhattan,
};

fn position(n: u64) -> Position {
    Position {
        source: 1,
        log_time: 1_000 + n as i64,
        partition: 2,
        offset: n,
    }
}

/// The files of a small segment: data.parquet and index.vxi.
fn small() -> &'static (Vec<u8>, Vec<u8>) {
    static FILES: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = SegmentWriter::create(folder.path(), &SCHEMA).expect("creates");
        for n in 0..20u64 {
            let id = format!("é{n}");
            let row = Row {
                id: &id,
                vector: &[n as f32, 1.0, -1.0, 0.5],
                attrs: (n % 2 == 0).then_some("{\"a\":1}"),
                event_time: (n % 3 == 0).then_some(5),
                position: position(n),
            };
            writer.push(&row).expect("pushes");
        }
        for n in 20..23u64 {
            let delete = Delete {
                id: &format!("é{n}"),
                event_time: None,
                position: position(n),
            };
            writer.delete(&delete).expect("deletes");
        }
        let built = writer.finish(Ulid::from(77u128)).expect("finishes");
        let read = |name: &str| {
            let (_, path) = built
                .files
                .iter()
                .find(|(file, _)| file.name == name)
                .expect("the file");
            std::fs::read(path).expect("reads")
        };
        (read(DATA_FILE), read(INDEX_FILE))
    })
}

/// Whatever a parsed index may be asked without I/O; must never panic.
fn ask_everything(index: &Index) {
    for ordinal in 0..index.entries.len() {
        let id = index.entries.id(ordinal).to_string();
        std::hint::black_box((
            index.entries.position(ordinal),
            index.entries.event_time(ordinal),
        ));
        std::hint::black_box(index.find(key_hash(&id), &id));
    }
    for n in 0..50 {
        let id = format!("é{n}");
        std::hint::black_box(index.find(key_hash(&id), &id));
    }
    std::hint::black_box(crate::reader::plan_blocks(index));
}

#[test]
fn should_write_back_the_bytes_it_parsed() {
    let (_, file) = small();
    let index = Index::parse(file).expect("parses");
    assert_eq!(&index.write(Vec::new()).expect("writes"), file);
}

#[test]
fn should_find_every_key_and_no_other() {
    let index = Index::parse(&small().1).expect("parses");
    for n in 0..500u32 {
        let id = format!("é{n}");
        assert_eq!(index.find(key_hash(&id), &id), (n < 23).then_some(n));
    }
    // The right hash with another id is a collision, not a hit.
    assert_eq!(index.find(key_hash("é1"), "other"), None);
}

#[test]
fn should_name_damage_or_parse_the_same_for_every_byte_flipped() {
    let (_, file) = small();
    let good = Index::parse(file).expect("parses");
    let mut unnoticed = 0;
    for at in 0..file.len() {
        for flip in [1 << (at % 8), 0xFF] {
            let mut bad = file.clone();
            bad[at] ^= flip;
            match Index::parse(&bad) {
                // Only the zeros between sections are nobody's.
                Ok(index) => {
                    assert_eq!(index, good, "byte {at}");
                    assert_eq!(file[at], 0, "byte {at}");
                    unnoticed += 1;
                }
                Err(error) => assert_eq!(
                    error.kind(),
                    SegmentErrorKind::Corrupt,
                    "byte {at}: {error}"
                ),
            }
        }
    }
    assert!(unnoticed <= 2 * 64 * 14, "{unnoticed} flips unnoticed");
}

#[test]
fn should_name_damage_for_every_length_cut_and_for_appended_bytes() {
    let (_, file) = small();
    for length in 0..file.len() {
        let error = Index::parse(&file[..length]).expect_err("too short");
        assert_eq!(error.kind(), SegmentErrorKind::Corrupt);
    }
    let mut longer = file.clone();
    longer.extend_from_slice(&[0; 64]);
    assert!(Index::parse(&longer).is_err());
}

#[test]
fn should_name_section_and_offset_of_the_damage() {
    let (_, file) = small();
    let (norms, at) = Container::open(file)
        .expect("opens")
        .section(6, "norms")
        .expect("norms");
    assert_eq!(norms.len(), 20 * 4);
    let mut bad = file.clone();
    bad[at as usize] ^= 1;
    let message = Index::parse(&bad).expect_err("damaged").to_string();
    assert!(
        message.starts_with(&format!("index.vxi is damaged at byte {at} (norms)")),
        "{message}"
    );
}

#[test]
fn should_skip_sections_of_unknown_kinds() {
    let good = Index::parse(&small().1).expect("parses");
    let mut file = super::container::ContainerWriter::new(Vec::new(), good.id).expect("writes");
    file.section(1000, &[b"a list", b" of the future"])
        .expect("writes");
    let container = Container::open(&small().1).expect("opens");
    for kind in 1..=12 {
        file.section(
            kind,
            &[container.section(kind, "any").expect("a section").0],
        )
        .expect("writes");
    }
    file.section(1001, &[]).expect("writes");
    assert_eq!(
        Index::parse(&file.finish().expect("writes")).expect("parses"),
        good
    );
}

#[test]
fn should_miss_a_section_that_is_not_there() {
    let file =
        super::container::ContainerWriter::new(Vec::new(), Ulid::from(1u128)).expect("writes");
    let error = Index::parse(&file.finish().expect("writes")).expect_err("empty");
    assert!(error.to_string().contains("stats"), "{error}");
}

/// Puts right checksums over whatever the sections hold now.
fn forge(file: &mut [u8]) {
    let trailer_at = file.len() - 32;
    let directory_at = u64_at(file, trailer_at) as usize;
    for entry in (directory_at..trailer_at).step_by(24) {
        let (at, length) = (
            u64_at(file, entry + 8) as usize,
            u64_at(file, entry + 16) as usize,
        );
        let crc = crc32c::crc32c(&file[at..at + length]);
        file[entry + 4..entry + 8].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32c::crc32c(&file[directory_at..trailer_at + 20]);
    file[trailer_at + 20..trailer_at + 24].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn should_survive_every_byte_forged_with_right_checksums() {
    let (_, file) = small();
    let directory_at = u64_at(file, file.len() - 32) as usize;
    let mut accepted = 0;
    for at in 64..directory_at {
        for value in [0, 0x80, 0xFF] {
            let mut bad = file.clone();
            bad[at] = value;
            forge(&mut bad);
            if let Ok(index) = Index::parse(&bad) {
                ask_everything(&index);
                accepted += 1;
            }
        }
    }
    assert!(accepted > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn should_survive_words_forged_with_right_checksums(
        words in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u64>(), 0u64..4, Just(u64::MAX), Just(1 << 31)]), 1..4),
    ) {
        let (_, file) = small();
        let directory_at = u64_at(file, file.len() - 32) as usize;
        let mut bad = file.clone();
        for (at, word) in words {
            let at = 64 + at.index(directory_at - 72);
            bad[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        forge(&mut bad);
        if let Ok(index) = Index::parse(&bad) {
            ask_everything(&index);
        }
    }

    #[test]
    fn should_survive_a_forged_directory(
        entry in 0usize..12,
        field in 0usize..3,
        word in prop_oneof![any::<u64>(), 0u64..20_000, Just(u64::MAX)],
    ) {
        let mut bad = small().1.clone();
        let trailer_at = bad.len() - 32;
        let at = u64_at(&bad, trailer_at) as usize + entry * 24 + field * 8;
        bad[at..at + 8].copy_from_slice(&word.to_le_bytes());
        let directory_at = u64_at(&bad, trailer_at) as usize;
        let crc = crc32c::crc32c(&bad[directory_at..trailer_at + 20]);
        bad[trailer_at + 20..trailer_at + 24].copy_from_slice(&crc.to_le_bytes());
        if let Ok(index) = Index::parse(&bad) {
            ask_everything(&index);
        }
    }
}

#[test]
fn should_refuse_a_data_file_that_does_not_hold_the_entries_vectors() {
    let (data, _) = small();
    let mut entries = Entries::new();
    for n in 0..20u64 {
        let vector = [n as f32, 1.0, -1.0, if n == 13 { 0.25 } else { 0.5 }];
        let row = Row {
            id: &n.to_string(),
            vector: &vector,
            attrs: None,
            event_time: None,
            position: position(n),
        };
        entries.push(&row).expect("pushes");
    }
    let data = bytes::Bytes::from(data.clone());
    let error = Index::build(Ulid::from(77u128), SCHEMA, entries, &data).expect_err("refuses");
    assert!(error.to_string().contains("vector of row 13"), "{error}");
}

#[test]
fn should_place_the_magic_and_the_version_where_the_format_says() {
    let (_, file) = small();
    assert_eq!((&file[..4], u32_at(file, 4)), (&b"VXI1"[..], 1));
    assert_eq!(&file[file.len() - 4..], b"VXI1");
    let mut newer = file.clone();
    newer[4] = 2;
    let crc = crc32c::crc32c(&newer[..60]);
    newer[60..64].copy_from_slice(&crc.to_le_bytes());
    let message = Index::parse(&newer).expect_err("too new").to_string();
    assert!(
        message.contains("version 2, this program reads 1"),
        "{message}"
    );
}
