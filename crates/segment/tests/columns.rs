//! Attribute columns through the files: what filters read of them, how much, and what
//! becomes of it when bytes are damaged.

mod common;

use common::{Entry, Fixture, delete, record, schema};
use vexlake_index::{CHUNK_ROWS, Filter};
use vexlake_segment::{INDEX_FILE, Passed, ReadCounts, Reads, SegmentReader};

/// Two chunks of columns, the second a short one.
const ROWS: u32 = CHUNK_ROWS + 1000;

fn entry(n: u32) -> Entry {
    let attrs = match n {
        // Longer than what columns copy.
        _ if n % 997 == 3 => Some(format!(r#"{{"n":{n},"text":"{}"}}"#, "long".repeat(600))),
        _ if n.is_multiple_of(5) => None,
        _ => Some(format!(
            r#"{{"n":{n},"text":"t{}","tags":["even",{}]}}"#,
            n % 50,
            n % 2
        )),
    };
    Entry {
        attrs,
        ..record(n, 4)
    }
}

async fn fixture() -> Fixture {
    let records = (0..ROWS).map(entry);
    let deletes = (ROWS..ROWS + 3).map(delete);
    Fixture::of(records.chain(deletes).collect(), schema(4)).await
}

async fn passed(segment: &SegmentReader, filter: &Filter) -> (Passed, Reads) {
    let counts = ReadCounts::default();
    let columns = segment.filter_columns(filter, &counts).await;
    let passed = columns.expect("reads").evaluate(filter);
    (passed.expect("evaluates"), counts.read())
}

fn is_set(words: &[u64], row: u32) -> bool {
    words[row as usize / 64] >> (row % 64) & 1 == 1
}

fn assert_agrees(passed: &Passed, filter: &Filter) {
    assert_eq!(passed.pass.len(), ROWS.div_ceil(64) as usize);
    for row in 0..ROWS {
        let expected = filter.matches(entry(row).attrs.as_deref());
        let found = (is_set(&passed.pass, row), is_set(&passed.unknown, row));
        match found.1 {
            true => assert!(
                row % 997 == 3 && !found.0,
                "row {row} is known by its columns"
            ),
            false => assert_eq!(found.0, expected, "row {row}"),
        }
    }
}

#[tokio::test]
async fn should_say_of_every_row_what_its_text_says() {
    let fixture = fixture().await;
    let segment = fixture.open().await;
    for text in [
        ".n > 33000 and .text == 't7'",
        ".n % 2 == 1",
        "1 in .tags or .text in ['t2', 't3']",
        ".nothing == 1",
        "not (.n < 5)",
    ] {
        let filter = Filter::parse(text).expect("an expression");
        assert_agrees(&passed(&segment, &filter).await.0, &filter);
    }
}

#[tokio::test]
async fn should_read_the_columns_of_its_fields_and_keep_them() {
    let fixture = fixture().await;
    let segment = fixture.open().await;
    let one = Filter::parse(".n == 7").expect("an expression");
    let (_, reads) = passed(&segment, &one).await;
    assert_eq!(
        (reads.loaded, reads.requests),
        (2, 1),
        "a column of each chunk"
    );
    let both = Filter::parse(".n == 8 and .text == 't8'").expect("an expression");
    let (_, reads) = passed(&segment, &both).await;
    assert_eq!((reads.loaded, reads.requests), (2, 1), "{reads:?}");
    let (_, reads) = passed(&segment, &both).await;
    assert_eq!((reads.loaded, reads.requests), (0, 0), "{reads:?}");
    let absent = Filter::parse(".nothing == 1").expect("an expression");
    assert_eq!(passed(&segment, &absent).await.1, Reads::default());
}

#[tokio::test]
async fn should_answer_the_same_after_any_damage_to_the_columns() {
    let fixture = fixture().await;
    let filter = Filter::parse(".n > 100 and .text != 't7'").expect("an expression");
    let whole = passed(&fixture.open().await, &filter).await.0;
    let path = fixture.folder.path().join("lake/seg/x").join(INDEX_FILE);
    let good = std::fs::read(&path).expect("the index");
    let lazy = good.len() - fixture.meta.index_head_bytes as usize;
    // The columns are the last of the lazy sections; dictionary and codes of each are hit.
    for at in [lazy - 100, lazy - 70_000, lazy - 140_000] {
        let mut damaged = good.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, damaged).expect("damages");
        let segment = fixture.open().await;
        assert_eq!(passed(&segment, &filter).await.0, whole, "byte {at}");
    }
}
