//! `index.vxi` under damage: every byte flipped, every length cut, and files
//! forged with right checksums.

use super::container::{Container, ContainerWriter, HEADER_BYTES, TRAILER_BYTES, u32_at, u64_at};
use super::kinds::*;
use super::pages::{ENTRIES_PER_PAGE, EntryPage, KeyPage, encode_keys};
use super::{Head, Index, Section};
use crate::entries::Entries;
use crate::error::{Result, SegmentErrorKind};
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

/// All pages of an index, each checked.
type Pages = Vec<Vec<u8>>;

const SECTIONS: [Section; 4] = [
    Section::RowChecksums,
    Section::Entries,
    Section::Keys,
    Section::Attributes,
];

/// What a reader holds and everything that it may read, or the first error.
fn read(file: &[u8]) -> Result<(Head, Pages)> {
    let head = Head::parse(file, file.len() as u64)?;
    let mut pages = vec![];
    for section in SECTIONS {
        for page in 0..head.pages(section) {
            let at = head.page_range(section, page);
            let bytes = &file[at.start as usize..at.end as usize];
            head.check_page(section, page, bytes)?;
            pages.push(bytes.to_vec());
        }
    }
    Ok((head, pages))
}

/// The ordinal of an id, looked up as readers do.
fn find(head: &Head, file: &[u8], id: &str) -> Option<u32> {
    let page = |section: Section, number: u32| {
        let at = head.page_range(section, number);
        let bytes = &file[at.start as usize..at.end as usize];
        let checked = head.check_page(section, number, bytes);
        checked.is_ok().then_some(bytes)
    };
    let hash = key_hash(id);
    if !head.may_hold(hash) {
        return None;
    }
    let keys = head.key_pages_of(hash);
    let keys = keys.filter_map(|number| page(Section::Keys, number));
    let mut candidates = keys.flat_map(|page| KeyPage::new(page).candidates(hash));
    candidates.find(|ordinal| {
        let number = ordinal / ENTRIES_PER_PAGE;
        page(Section::Entries, number).is_some_and(|page| {
            let page = EntryPage::new(page, head.entries_in(number));
            let place = (ordinal % ENTRIES_PER_PAGE) as usize;
            std::hint::black_box((page.position(place), page.event_time(place)));
            page.id(place) == id
        })
    })
}

/// Whatever a parsed index may be asked; must never panic.
fn ask_everything(head: &Head, file: &[u8]) {
    for n in 0..50 {
        std::hint::black_box(find(head, file, &format!("é{n}")));
    }
    for number in 0..head.pages(Section::Entries) {
        let at = head.page_range(Section::Entries, number);
        let bytes = &file[at.start as usize..at.end as usize];
        if head.check_page(Section::Entries, number, bytes).is_ok() {
            let page = EntryPage::new(bytes, head.entries_in(number));
            for place in 0..head.entries_in(number) {
                std::hint::black_box((page.id(place), page.position(place)));
            }
        }
    }
    std::hint::black_box(crate::reader::plan_blocks(head));
}

#[test]
fn should_find_every_key_and_no_other() {
    let (_, file) = small();
    let (head, _) = read(file).expect("reads");
    for n in 0..500u32 {
        let id = format!("é{n}");
        assert_eq!(find(&head, file, &id), (n < 23).then_some(n));
    }
}

#[test]
fn should_open_by_its_head_alone_and_not_by_less() {
    let (_, file) = small();
    let (head, _) = read(file).expect("reads");
    let length = file.len() as u64;
    let head_at = u64_at(file, file.len() - TRAILER_BYTES + 16) as usize;
    assert_eq!(Head::parse(&file[head_at..], length).expect("parses"), head);
    for start in head_at + 1..file.len() {
        let error = Head::parse(&file[start..], length).expect_err("too short");
        assert_eq!(error.kind(), SegmentErrorKind::Corrupt);
    }
}

#[test]
fn should_name_damage_or_read_the_same_for_every_byte_flipped() {
    let (_, file) = small();
    let good = read(file).expect("reads");
    let mut unnoticed = 0;
    for at in 0..file.len() {
        for flip in [1 << (at % 8), 0xFF] {
            let mut bad = file.clone();
            bad[at] ^= flip;
            match read(&bad) {
                // Only the header, which is for people, and zeros are nobody's.
                Ok(found) => {
                    assert_eq!(found, good, "byte {at}");
                    assert!(at < HEADER_BYTES || file[at] == 0, "byte {at}");
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
        let error = read(&file[..length]).expect_err("too short");
        assert_eq!(error.kind(), SegmentErrorKind::Corrupt);
    }
    let mut longer = file.clone();
    longer.extend_from_slice(&[0; 64]);
    assert!(read(&longer).is_err());
}

#[test]
fn should_name_section_and_offset_of_the_damage() {
    let (_, file) = small();
    let container = Container::open(file, file.len() as u64).expect("opens");
    let checksums = container.lazy(ROW_CHECKSUMS).expect("row checksums");
    assert_eq!(checksums.end - checksums.start, 20 * 4);
    let (_, filter_at) = container.resident(KEY_FILTER).expect("a filter");
    for (at, name) in [
        (checksums.start, "row checksums"),
        (filter_at, "key filter"),
    ] {
        let mut bad = file.clone();
        bad[at as usize] ^= 1;
        let message = read(&bad).expect_err("damaged").to_string();
        let start = format!("index.vxi is damaged at byte {at} ({name})");
        assert!(message.starts_with(&start), "{message}");
    }
}

#[test]
fn should_skip_sections_of_unknown_kinds() {
    let (_, file) = small();
    let (good, pages) = read(file).expect("reads");
    let container = Container::open(file, file.len() as u64).expect("opens");
    let mut newer = ContainerWriter::new(Vec::new(), good.id).expect("writes");
    let list: [&[u8]; 2] = [b"a list", b" of the future"];
    newer.section((1000, "lists"), list).expect("writes");
    for kind in [ROW_CHECKSUMS, ENTRY_PAGES, KEY_PAGES, ATTRIBUTE_COLUMNS] {
        let at = container.lazy(kind).expect("a section");
        let bytes = &file[at.start as usize..at.end as usize];
        newer.section(kind, [bytes]).expect("writes");
    }
    newer.begin_head().expect("writes");
    newer.section((1001, "nothing"), [b""]).expect("writes");
    for kind in [
        ATTRIBUTE_DIRECTORY,
        KEY_FILTER,
        KEY_FENCES,
        ENTRY_DIRECTORY,
        ROW_CHECKSUM_PAGES,
        TAIL,
        PAGES,
        VECTOR_PAGES,
        STATS,
    ] {
        let (bytes, _) = container.resident(kind).expect("a section");
        newer.section(kind, [bytes]).expect("writes");
    }
    let (newer, head_bytes) = newer.finish().expect("writes");
    let head = &newer[newer.len() - head_bytes as usize..];
    let head = Head::parse(head, newer.len() as u64).expect("parses");
    assert_eq!((head.rows, &head.layout), (good.rows, &good.layout));
    assert_eq!(read(&newer).expect("reads").1, pages);
    assert_eq!(find(&head, &newer, "é7"), Some(7));
}

#[test]
fn should_miss_a_section_that_is_not_there() {
    let file = ContainerWriter::new(Vec::new(), Ulid::from(1u128)).expect("writes");
    let (file, _) = file.finish().expect("writes");
    let error = read(&file).expect_err("empty");
    assert!(error.to_string().contains("stats"), "{error}");
}

/// Puts right checksums over whatever the sections hold now.
fn forge_sections(file: &mut [u8]) {
    let trailer_at = file.len() - TRAILER_BYTES;
    let directory_at = u64_at(file, trailer_at) as usize;
    for entry in (directory_at..trailer_at).step_by(24) {
        let (at, length) = (
            u64_at(file, entry + 8) as usize,
            u64_at(file, entry + 16) as usize,
        );
        let crc = crc32c::crc32c(&file[at..at + length]);
        file[entry + 4..entry + 8].copy_from_slice(&crc.to_le_bytes());
    }
    forge_trailer(file);
}

/// What the trailer's checksum covers of the trailer.
const SUMMED_BYTES: usize = 44;

fn forge_trailer(file: &mut [u8]) {
    let trailer_at = file.len() - TRAILER_BYTES;
    let directory_at = u64_at(file, trailer_at) as usize;
    let sum_at = trailer_at + SUMMED_BYTES;
    let crc = crc32c::crc32c(&file[directory_at..sum_at]);
    file[sum_at..sum_at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// The same for sections and for pages, wherever the forged directories put those.
fn forge(file: &mut [u8]) {
    forge_sections(file);
    let Ok(head) = Head::parse(file, file.len() as u64) else {
        return;
    };
    for (section, directory) in [
        (Section::RowChecksums, ROW_CHECKSUM_PAGES),
        (Section::Entries, ENTRY_DIRECTORY),
        (Section::Keys, KEY_FENCES),
    ] {
        let container = Container::open(file, file.len() as u64).expect("parsed before");
        let (bytes, at) = container.resident(directory).expect("parsed before");
        let crcs_at = at as usize + bytes.len() - 4 * head.pages(section) as usize;
        for page in 0..head.pages(section) {
            let range = head.page_range(section, page);
            let crc = crc32c::crc32c(&file[range.start as usize..range.end as usize]);
            let crc_at = crcs_at + 4 * page as usize;
            file[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    forge_sections(file);
}

#[test]
fn should_survive_every_byte_forged_with_right_checksums() {
    let (_, file) = small();
    let directory_at = u64_at(file, file.len() - TRAILER_BYTES) as usize;
    let (mut accepted, mut refused) = (0, 0);
    for at in HEADER_BYTES..directory_at {
        for value in [0, 0x80, 0xFF] {
            let mut bad = file.clone();
            bad[at] = value;
            forge(&mut bad);
            if let Ok(head) = Head::parse(&bad, bad.len() as u64) {
                ask_everything(&head, &bad);
                let whole = read(&bad).is_ok();
                accepted += usize::from(whole);
                refused += usize::from(!whole);
            }
        }
    }
    assert!(accepted > 0, "forged positions are nobody's to notice");
    assert!(
        refused > 0,
        "forged hashes out of order and ids cut in two are"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn should_survive_words_forged_with_right_checksums(
        words in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u64>(), 0u64..4, Just(u64::MAX), Just(1 << 31)]), 1..4),
    ) {
        let (_, file) = small();
        let directory_at = u64_at(file, file.len() - TRAILER_BYTES) as usize;
        let mut bad = file.clone();
        for (at, word) in words {
            let at = 64 + at.index(directory_at - 72);
            bad[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        forge(&mut bad);
        if let Ok(head) = Head::parse(&bad, bad.len() as u64) {
            ask_everything(&head, &bad);
        }
    }

    #[test]
    fn should_survive_a_forged_directory(
        entry in 0usize..11,
        field in 0usize..3,
        word in prop_oneof![any::<u64>(), 0u64..20_000, Just(u64::MAX)],
    ) {
        let mut bad = small().1.clone();
        let trailer_at = bad.len() - TRAILER_BYTES;
        let at = u64_at(&bad, trailer_at) as usize + entry * 24 + field * 8;
        bad[at..at + 8].copy_from_slice(&word.to_le_bytes());
        forge_trailer(&mut bad);
        if let Ok(head) = Head::parse(&bad, bad.len() as u64) {
            ask_everything(&head, &bad);
        }
    }

    #[test]
    fn should_survive_a_forged_trailer(
        field in 0usize..5,
        word in prop_oneof![any::<u64>(), 0u64..20_000, Just(u64::MAX)],
    ) {
        let mut bad = small().1.clone();
        let at = bad.len() - TRAILER_BYTES + field * 8;
        bad[at..at + 8].copy_from_slice(&word.to_le_bytes());
        // A directory that begins behind what is summed has no sum to forge.
        let trailer_at = bad.len() - TRAILER_BYTES;
        if u64_at(&bad, trailer_at) <= (trailer_at + SUMMED_BYTES) as u64 {
            forge_trailer(&mut bad);
        }
        if let Ok(head) = Head::parse(&bad, bad.len() as u64) {
            ask_everything(&head, &bad);
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
    let error =
        Index::build(Ulid::from(77u128), SCHEMA, entries, &data, None).expect_err("refuses");
    assert!(error.to_string().contains("vector of row 13"), "{error}");
}

#[test]
fn should_place_the_magic_and_the_version_where_the_format_says() {
    let (_, file) = small();
    let end = file.len();
    assert_eq!((&file[..4], u32_at(file, 4)), (&b"VXI1"[..], 2));
    assert_eq!((&file[end - 4..], u32_at(file, end - 8)), (&b"VXI1"[..], 2));
    // Format 1 had zeros there.
    for version in [0u32, 3] {
        let mut other = file.clone();
        other[end - 8..end - 4].copy_from_slice(&version.to_le_bytes());
        let message = read(&other).expect_err("another version").to_string();
        let said = format!("version {version}, this program reads 2");
        assert!(message.contains(&said), "{message}");
    }
}

#[test]
fn should_refuse_an_entry_page_whose_ids_are_cut_wrongly() {
    let (head, pages) = read(&small().1).expect("reads");
    let count = head.entries_in(0);
    let page = &pages[head.pages(Section::RowChecksums) as usize];
    EntryPage::check(page, count).expect("as written");
    // The first id is "é0": inside the letter, behind the second id, behind all ids.
    for end in [1u32, 7, 1000] {
        let mut bad = page.clone();
        bad[count * 32..count * 32 + 4].copy_from_slice(&end.to_le_bytes());
        EntryPage::check(&bad, count).expect_err("cut wrongly");
    }
    EntryPage::check(&page[..count * 36 - 1], count).expect_err("too short");
    EntryPage::check(&[page.as_slice(), b"x"].concat(), count).expect_err("too long");
}

#[test]
fn should_meet_equal_hashes_on_both_sides_of_a_fence() {
    let keys: Vec<(u64, u32)> = vec![(1, 4), (5, 0), (5, 1), (5, 2), (9, 3)];
    let pages: Vec<Vec<u8>> = keys.chunks(2).map(encode_keys).collect();
    for page in &pages {
        KeyPage::check(page, u64_at(page, 0), 5).expect("keys");
    }
    let found = |hash| {
        let candidates = pages.iter().map(|page| KeyPage::new(page).candidates(hash));
        candidates.flatten().collect::<Vec<_>>()
    };
    assert_eq!(found(5), [0, 1, 2]);
    assert_eq!((found(1), found(9)), (vec![4], vec![3]));
    assert!(found(0).is_empty() && found(6).is_empty() && found(10).is_empty());
    for (first, entries) in [(2, 5), (1, 4)] {
        KeyPage::check(&pages[0], first, entries).expect_err("not this page");
    }
}
