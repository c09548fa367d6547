//! Columns: their bytes, their limits, and damage that is refused.

use vexlake_index::{CHUNK_ROWS, IndexError};

use super::*;

fn column_bytes(rows: &[Option<&str>], field: &str) -> Vec<u8> {
    let encoded = columns_of(rows).encode();
    let column = encoded.into_iter().find(|(name, _)| name == field);
    column.expect("the rows have the field").1
}

#[test]
fn should_write_the_bytes_that_are_documented() {
    let bytes = column_bytes(
        &[Some(r#"{"f": [2, "b"]}"#), None, Some(r#"{"f": "é"}"#)],
        "f",
    );
    let mut expected = Vec::new();
    for count in [3u32, 2, 2, 3] {
        expected.extend(count.to_le_bytes());
    }
    expected.extend([4, 2, 1, 2, 0, 0, 0, 0]);
    for place in [[0u32, 2], [1, 2]] {
        expected.extend(place.map(u32::to_le_bytes).as_flattened());
    }
    expected.extend(2f64.to_le_bytes());
    expected.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    expected.extend("bé".as_bytes());
    expected.extend([0; 5]);
    expected.extend([1, 0, 2, 0, 0, 0, 0, 0]);
    assert_eq!(bytes, expected);
}

#[test]
fn should_write_columns_by_name_and_by_rows_alone() {
    let rows: Vec<String> = (0..1000)
        .map(|row| {
            format!(
                r#"{{"z": {}, "a": "t{}", "m": [{row}]}}"#,
                row % 7,
                row % 300
            )
        })
        .collect();
    let rows: Vec<_> = rows.iter().map(|row| Some(row.as_str())).collect();
    let encoded = columns_of(&rows).encode();
    assert_eq!(encoded, columns_of(&rows).encode());
    let names: Vec<&str> = encoded.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "m", "z"]);
    // 7 values take a byte a row, 300 take two.
    assert_eq!(encoded[2].1.len(), 16 + 8 + 7 * 8 + 1000);
    let texts = (0..300).map(|row| format!("t{row}").len()).sum::<usize>();
    assert_eq!(
        encoded[0].1.len(),
        16 + 304 + 300 * 8 + texts.next_multiple_of(8) + 2000
    );
}

#[test]
fn should_ask_for_the_text_of_what_is_too_large() {
    let long = "x".repeat(1025);
    let fits = "x".repeat(1024);
    let many = vec!["1"; 65].join(",");
    let rows = [
        format!(r#"{{"t": "{long}", "a": 1}}"#),
        format!(r#"{{"t": "{fits}", "a": 1}}"#),
        format!(r#"{{"t": [{many}], "a": 1}}"#),
        format!(r#"{{"t": ["{long}"], "a": 2}}"#),
        r#"{"t": "y"}"#.to_string(),
        r#"{"a": 1}"#.to_string(),
    ];
    let rows: Vec<_> = rows.iter().map(|row| Some(row.as_str())).collect();
    let columns = columns_of(&rows);
    assert!(columns.is_complete());
    let evaluated = |filter| evaluated(&Filter::parse(filter).unwrap(), &columns);
    let bits = |rows: &[usize]| (0..6).map(|row| rows.contains(&row)).collect::<Vec<_>>();
    assert_eq!(evaluated(".t"), (bits(&[1, 4]), bits(&[0, 2, 3])));
    assert_eq!(evaluated("not .t"), (bits(&[]), bits(&[0, 2, 3])));
    // The text is asked for only where nothing else settles the answer.
    assert_eq!(evaluated(".t == 'y' and .a == 2"), (bits(&[]), bits(&[3])));
    assert_eq!(
        evaluated(".a == 1 or .t == 'y'"),
        (bits(&[0, 1, 2]), bits(&[3]))
    );
    assert_eq!(evaluated(".t != .a"), (bits(&[1]), bits(&[0, 2, 3])));
    assert_eq!(evaluated(".t + .a > 0"), (bits(&[1]), bits(&[0, 2, 3])));
}

#[test]
fn should_keep_the_first_columns_and_say_that_others_exist() {
    let fields: Vec<String> = (0..257).map(|field| format!(r#""f{field}": 1"#)).collect();
    let row = format!("{{{}}}", fields.join(","));
    let columns = columns_of(&[Some(&row), Some(r#"{"f0": 1, "f1": {}}"#), Some("{}")]);
    assert!(!columns.is_complete());
    assert!(columns.column("f255").is_some() && columns.column("f256").is_none());
    assert_eq!(columns.encode().len(), 256);
    let evaluated = |filter| evaluated(&Filter::parse(filter).unwrap(), &columns);
    assert_eq!(evaluated(".f0"), (vec![true, true, false], vec![false; 3]));
    assert_eq!(evaluated(".f256"), (vec![false; 3], vec![true; 3]));
    // No row is asked for that lacks another field or fails without this one.
    assert_eq!(
        evaluated(".f0 and .f256"),
        (vec![false; 3], vec![true, true, false])
    );
    assert_eq!(
        evaluated(".f256 and .f0 == 2"),
        (vec![false; 3], vec![false; 3])
    );
    assert_eq!(
        evaluated(".f0 or .f256"),
        (vec![false; 3], vec![true, true, false])
    );

    let name = "n".repeat(257);
    let long = format!(r#"{{"{name}": 1}}"#);
    assert!(!columns_of(&[Some(&long)]).is_complete());
    let nested = format!(r#"{{"{name}": {{}}, "o": [[]]}}"#);
    let columns = columns_of(&[Some(&nested)]);
    assert!(columns.is_complete() && columns.encode().is_empty());
}

#[test]
fn should_stop_copying_values_at_the_limit_of_a_column() {
    let mut columns = Columns::default();
    for row in 0..1100 {
        let attrs = format!(r#"{{"t": "{row:01000}", "n": {row}}}"#);
        columns.push(Some(&attrs));
    }
    let (pass, unknown) = evaluated(&Filter::parse(".t != '' and .n >= 0").unwrap(), &columns);
    // 1 MiB of 1,000 bytes and 9 each.
    let copied = (1 << 20) / 1009;
    assert!((0..1100).all(|row| pass[row] == (row < copied) && unknown[row] == (row >= copied)));
    assert!(columns.memory_bytes() > 1 << 20 && columns.memory_bytes() < 4 << 20);
}

#[test]
fn should_take_a_full_chunk_of_different_numbers() {
    let mut columns = Columns::default();
    for row in 0..CHUNK_ROWS + 1 {
        columns.push(Some(&format!(r#"{{"n": {row}}}"#)));
    }
    assert_eq!(columns.rows(), CHUNK_ROWS);
    let (name, bytes) = columns.encode().remove(0);
    assert_eq!(name, "n");
    let column = Column::decode(&bytes, CHUNK_ROWS).unwrap();
    let filter = Filter::parse(".n >= 32000").unwrap();
    let (pass, unknown) = evaluated_over(&filter, &[Some(column)], true, CHUNK_ROWS);
    assert!((0..CHUNK_ROWS as usize).all(|row| pass[row] == (row >= 32000) && !unknown[row]));
}

#[test]
fn should_say_the_same_of_many_rows_with_many_values() {
    // Codes of two bytes, values that come late, rows without the field at both ends.
    let rows: Vec<String> = (0..1500)
        .map(|row| match row % 5 {
            0 => "{}".to_string(),
            1 => format!(r#"{{"a": {row}}}"#),
            2 => format!(r#"{{"a": {}, "b": "{}", "c": {row}}}"#, row % 700, row % 3),
            _ => format!(r#"{{"b": {}, "a": {}}}"#, row * 7 % 1100, row * 11 % 1300),
        })
        .collect();
    let rows: Vec<_> = rows.iter().map(|row| Some(row.as_str())).collect();
    let columns = columns_of(&rows);
    for text in [
        ".a > 600",
        ".a < .b",
        ".a + .b > 900 and .b >= 2",
        ".a % 3 == .b",
        "(.a > 1000) + (.b > 500) == 1",
        "not (.a > .b * 100 or .c < 700)",
        "((.a < .b) == (.b < .c)) * 2 > 1",
    ] {
        let filter = Filter::parse(text).unwrap();
        let (pass, unknown) = evaluated(&filter, &columns);
        let expected: Vec<bool> = rows.iter().map(|row| filter.matches(*row)).collect();
        assert!(
            expected.contains(&true) && expected.contains(&false),
            "{text}"
        );
        assert!(pass == expected && !unknown.contains(&true), "{text}");
    }
}

#[test]
fn should_evaluate_a_prefix_of_a_growing_chunk() {
    let mut columns = columns_of(&[Some(r#"{"a": 1}"#), Some(r#"{"a": 2}"#), None, None]);
    columns.push(Some(r#"{"a": 1}"#));
    let filter = Filter::parse("not (.a == 2)").unwrap();
    let of_fields = [columns.column("a")];
    let (pass, _) = evaluated_over(&filter, &of_fields, true, 4);
    assert_eq!(pass, [true, false, false, false]);
    let (pass, _) = evaluated_over(&filter, &of_fields, true, 5);
    assert_eq!(pass, [true, false, false, false, true]);
}

#[test]
fn should_refuse_bytes_of_another_number_of_rows_or_of_another_length() {
    let bytes = column_bytes(&[Some(r#"{"f": 1}"#), Some(r#"{"f": "two"}"#)], "f");
    let refused = |bytes: &[u8], rows| match Column::decode(bytes, rows) {
        Err(IndexError::Corrupt { section, .. }) => assert_eq!(section, "attribute column"),
        other => panic!("{other:?}"),
    };
    Column::decode(&bytes, 2).unwrap();
    refused(&bytes, 3);
    refused(&[bytes.as_slice(), &[0]].concat(), 2);
    for len in 0..bytes.len() {
        refused(&bytes[..len], 2);
    }
    // Texts in another order than their values: valid places, but not as written.
    let texts = [r#"{"f": "ab"}"#, r#"{"f": "cd"}"#, r#"{"f": "ef"}"#].map(Some);
    let mut swapped = column_bytes(&texts, "f");
    Column::decode(&swapped, 3).unwrap();
    swapped[24..40].rotate_left(8);
    refused(&swapped, 3);
    // Every bit outside of a number or a code is checked; those two may become another.
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // counts 16, kinds 8, payloads 16, texts 8, codes 8
        let is_free = (24..32).contains(&(bit / 8))
            || (40..43).contains(&(bit / 8))
            || (48..50).contains(&(bit / 8));
        if !is_free {
            refused(&flipped, 2);
        }
    }
}
