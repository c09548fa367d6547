//! Filters and attribute columns: Redis' own examples, what is refused, bytes that
//! come back, and columns that say the same as the rows' JSON text.

use proptest::prelude::*;
use vexlake_index::{CHUNK_ROWS, Column, Columns, DEPTH_MAX, Filter, IndexError, TOKENS_MAX};

fn passes(filter: &str, attrs: &str) -> bool {
    let filter = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    let passes = filter.matches(Some(attrs));
    let columns = columns_of(&[Some(attrs)]);
    let (pass, unknown) = evaluated(&filter, &columns);
    // Columns do not tell whether a row has attributes at all.
    let expected = match filter.fields().is_empty() {
        true => (false, passes),
        false => (passes, false),
    };
    assert_eq!(
        (pass[0], unknown[0]),
        expected,
        "{filter:?} over columns of {attrs}"
    );
    passes
}

fn columns_of(rows: &[Option<&str>]) -> Columns {
    let mut columns = Columns::default();
    rows.iter().for_each(|attrs| columns.push(*attrs));
    columns
}

/// (passes, is unknown) of every row.
fn evaluated(filter: &Filter, columns: &Columns) -> (Vec<bool>, Vec<bool>) {
    let of_fields: Vec<_> = filter
        .fields()
        .iter()
        .map(|name| columns.column(name))
        .collect();
    evaluated_over(filter, &of_fields, columns.is_complete(), columns.rows())
}

fn evaluated_over(
    filter: &Filter,
    columns: &[Option<Column<'_>>],
    is_complete: bool,
    rows: u32,
) -> (Vec<bool>, Vec<bool>) {
    let words = rows.div_ceil(64) as usize;
    let (mut pass, mut unknown) = (vec![0; words], vec![0; words]);
    filter.evaluate(columns, is_complete, rows, &mut pass, &mut unknown);
    let tail = |words: &[u64]| words.last().copied().unwrap_or(0).checked_shr(rows % 64);
    if !rows.is_multiple_of(64) {
        assert_eq!(
            (tail(&pass), tail(&unknown)),
            (Some(0), Some(0)),
            "bits past the rows"
        );
    }
    let bits = |words: &[u64]| {
        let rows = 0..rows as usize;
        rows.map(|row| words[row / 64] >> (row % 64) & 1 == 1)
            .collect::<Vec<_>>()
    };
    (bits(&pass), bits(&unknown))
}

#[test]
fn should_answer_as_redis_does_in_its_own_tests() {
    let rows = [
        r#"{"age": 25, "name": "Alice", "active": true, "scores": [85, 90, 95], "city": "New York"}"#,
        r#"{"age": 30, "name": "Bob", "active": false, "scores": [70, 75, 80], "city": "Boston"}"#,
        r#"{"age": 35, "name": "Charlie", "scores": [60, 65, 70], "city": "Seattle"}"#,
        "invalid json",
    ];
    let expected: &[(&str, &[usize])] = &[
        (".age == 25", &[0]),
        (".age > 25", &[1, 2]),
        (".age <= 30", &[0, 1]),
        (r#".name == "Alice""#, &[0]),
        (r#".name != "Alice""#, &[1, 2]),
        (".active", &[0]),
        (".age > 20 and .age < 30", &[0]),
        (".age < 30 or .age > 35", &[0]),
        ("!(.age == 25)", &[1, 2]),
        (".age in [25, 35]", &[0, 2]),
        (r#".name in ["Alice", "David"]"#, &[0]),
        (r#""lic" in .name"#, &[0]),
        (r#""ork" in .city"#, &[0]),
        (r#""xyz" in .name"#, &[]),
        (r#""Ali" in .name"#, &[0]),
        (r#""ice" in .name"#, &[0]),
        (r#""Alice" in .name"#, &[0]),
        (r#""A" in .name"#, &[0]),
        (r#""" in .name"#, &[0, 1, 2]),
        (r#".name in """#, &[]),
        (r#""" in .name && "" in """#, &[0, 1, 2]),
        (".age + 10 > 40", &[2]),
        (".age * 2 > 60", &[2]),
        (".age / 5 == 5", &[0]),
        (".age % 2 == 0", &[1]),
        (".age ** 2 > 900", &[2]),
        (r#".missing_field == "value""#, &[]),
        (".any_field", &[]),
        (
            r#"(.age > 20 and .age < 40) and (.city == "Boston" or .city == "New York")"#,
            &[0, 1],
        ),
        (".age > (20 + 10)", &[2]),
        (".scores", &[0, 1, 2]),
        ("70 in .scores", &[1, 2]),
        // A missing field makes everything false.
        ("not .active", &[1]),
        (".active or .age == 35", &[0]),
    ];
    for (filter, expected) in expected {
        let found: Vec<usize> = (0..rows.len())
            .filter(|row| passes(filter, rows[*row]))
            .collect();
        assert_eq!(found, *expected, "{filter}");
    }
}

#[test]
fn should_decode_escapes_in_strings() {
    let attrs = r#"{"dq": "a\"b", "sq": "O'Brien", "bs": "x\\y", "nl": "l1\nl2", "u": "é𝄞"}"#;
    for filter in [
        r#".dq == "a\"b""#,
        r".sq == 'O\'Brien'",
        r#".bs == "x\\y""#,
        r#".nl == "l1\nl2""#,
        r#""\"b" in .dq"#,
        r#".dq in ["zzz", "a\"b"]"#,
        r#"'a"b' == .dq"#,
        r#".sq == "O'Brien""#,
        r#".u == "\u00e9\ud834\uDD1E""#,
        r#".u == "\é𝄞""#,
    ] {
        assert!(passes(filter, attrs), "{filter}");
    }
    assert!(passes(r#".a == "é""#, r#"{"\u0061": "\u00e9"}"#));
    assert!(!passes(".a", r#"{"a": "\ud800"}"#));
}

#[test]
fn should_bind_operators_as_redis_does() {
    for filter in [
        "2 ** 3 ** 2 == 512",
        "2 + 3 * 4 == 14",
        "(2 + 3) * 4 == 20",
        "10 - 4 - 3 == 3",
        "64 / 4 / 2 == 8",
        "-7 % 4 == -3",
        "2 * 3 ** 2 == 18",
        "1 or 0 and 0",
        "not 0 == 1",
        "!2 ** 2 == 0",
        "!!.n == 1",
        "not not .n and !!!0",
        ".n -1 == 4",
        ".n - -1 == 6",
        "-5 + .n == 0",
        "-2 ** 2 == 4",
        "1 + 1 in [2]",
        "1 < 2 == 1",
        "1.5e1 == 15 and 1E-1 == 0.1 and 5. == 5",
        "1and.n",
        ".n>-1",
        "not(null)&&!null",
        ".a-b == 2 and ._ == 3 and .7 == 4",
    ] {
        assert!(
            passes(filter, r#"{"n": 5, "a-b": 2, "_": 3, "7": 4}"#),
            "{filter}"
        );
    }
}

#[test]
fn should_compare_mixed_types_as_numbers() {
    let attrs = r#"{"n": 5, "t": "5", "s": " 5", "x": "abc", "e": "", "z": null, "yes": true,
        "a": [1, "b", null, true], "none": [], "inf": "inf"}"#;
    for filter in [
        ".t == 5",
        ".t + 1 == 6",
        ".s == 5",
        ".x == 0",
        ".x * 2 == 0",
        ".x < 1",
        ".t != '5.0'",
        ".z == null",
        ".z != 0",
        "not .z",
        ".n != null",
        "0 != null and .x != null and null != 0",
        ".yes == 1",
        ".yes == true",
        "not .e",
        ".e == 0",
        ".none",
        "1 in .a and 'b' in .a and null in .a and true in .a",
        "not (2 in .a)",
        ".a == [1, 'b', null, 1,]",
        ".a != [1, 'b', null]",
        ".none == [] and .none == 0",
        ".n in [0.5e1]",
        ".inf > 9e99",
        "not (.n / 0 < 1) and .n / 0 > 1",
        "0 / 0 != 0 / 0 and not (0 / 0 == 0 / 0) and 0 / 0",
        "not (5 in 5) and not ('5' in 5) and not (5 in '5')",
    ] {
        assert!(passes(filter, attrs), "{filter}");
    }
}

#[test]
fn should_read_json_values_as_redis_does() {
    // Of equal names the first counts, whatever it is.
    assert!(passes(".a == 1", r#"{"a": 1, "a": 2}"#));
    assert!(!passes(".a == 1", r#"{"a": {"b": 1}, "a": 1}"#));
    // Nested objects and arrays of more than scalars are as if missing.
    for attrs in [
        r#"{"a": {}}"#,
        r#"{"a": [{}]}"#,
        r#"{"a": [[1]]}"#,
        r#"{"b": {"a": 1}}"#,
    ] {
        assert!(!passes(".a or not .a", attrs), "{attrs}");
    }
    assert!(passes(".a", r#" { "a" : [ 1 , "x" ] } "#));
    assert!(passes(
        ".price == 0.1 and .big > 9e18",
        r#"{"price": 0.1, "big": 9223372036854775807}"#
    ));
    // A number that serde_json's fast way reads one unit off.
    assert!(passes(
        ".x == 96.36279947347471",
        r#"{"x": 96.36279947347471}"#
    ));
    for attrs in [
        "",
        "[1]",
        "1",
        "{",
        r#"{"a": 1"#,
        r#"{"a": 1} x"#,
        r#"{"a": 1,}"#,
        "null",
    ] {
        assert!(!passes(".a", attrs), "{attrs}");
    }
    assert!(!Filter::parse(".a or 1").unwrap().matches(None));
}

#[test]
fn should_ask_for_the_text_where_a_filter_names_no_field() {
    // As in Redis a row without attributes never passes, which no column tells.
    let filter = Filter::parse("1 == 1").unwrap();
    assert!(filter.matches(Some("{}")) && !filter.matches(None));
    let (pass, unknown) = evaluated(&filter, &columns_of(&[Some("{}"), None]));
    assert_eq!((pass, unknown), (vec![false; 2], vec![true; 2]));
    let never = Filter::parse("1 == 2").unwrap();
    let (_, unknown) = evaluated(&never, &columns_of(&[Some("{}"), None]));
    assert_eq!(unknown, [false; 2]);
}

#[test]
fn should_say_where_a_filter_is_wrong() {
    let long = ".a == 1 and ".repeat(40) + ".a";
    let tuple = format!(".a in [{}]", "1,".repeat(TOKENS_MAX));
    let deep = "(".repeat(DEPTH_MAX + 1) + ".a" + &")".repeat(DEPTH_MAX + 1);
    let nots = "!".repeat(DEPTH_MAX + 1) + ".a";
    for (filter, at, part) in [
        ("", 0, "found the end"),
        ("   ", 3, "found the end"),
        (".a ==", 5, "found the end"),
        (".a == == 1", 6, "expected a value"),
        (".a .b", 3, "expected an operator or the end, found \".b\""),
        (".a.b == 1", 2, "expected an operator"),
        ("1 2 +", 2, "expected an operator"),
        (".a = 1", 3, "found '='"),
        (".a === 1", 5, "found '='"),
        (".a & .b", 3, "found '&'"),
        ("(.a", 3, "a ) for the ( of byte 0"),
        (".a)", 2, "a ) without its ("),
        ("()", 1, "expected a value"),
        (".a == \"x", 6, "a string that ends with \""),
        (".a == 'x\"", 6, "a string that ends with '"),
        (".a == '\\", 8, "an escaped character"),
        (".a == '\\u12", 11, "a hexadecimal digit"),
        (".a == '\\ud800'", 9, "half of a surrogate pair"),
        (".a == '\\ud800\\u0041'", 9, "half of a surrogate pair"),
        (".a in [1 2]", 9, "a comma or ]"),
        (".a in [1", 8, "a comma or ]"),
        (".a in [,]", 7, "an element of the tuple"),
        (".a in [[1]]", 7, "an element of the tuple"),
        (".a in [.b]", 7, "an element of the tuple"),
        (".a in [and]", 7, "an element of the tuple"),
        (". == 1", 1, "the name of a field"),
        (".é == 1", 1, "the name of a field"),
        (".a == foo", 6, "found \"foo\""),
        (".a AND .b", 3, "found \"AND\""),
        (".a not in [1]", 3, "expected an operator"),
        (".a andnot .b", 3, "found \"andnot\""),
        (".a == 1e", 8, "a digit of the number"),
        (".a == -", 6, "expected a value"),
        ("-.a", 0, "expected a value"),
        ("é", 0, "found 'é'"),
        (".a == 1; drop", 7, "found ';'"),
        ("\0", 0, "found '\\0'"),
        (&long, 384, "at most 128 tokens"),
        (&tuple, 257, "at most 128 tokens"),
        (&deep, DEPTH_MAX, "at most 16 nested"),
        (&nots, DEPTH_MAX, "at most 16 nested"),
    ] {
        let error = Filter::parse(filter).expect_err(filter);
        let message = error.to_string();
        assert!(message.contains(part), "{filter}: {message}");
        assert_eq!(error.at, at, "{filter}: {message}");
    }
    let deep = "(".repeat(DEPTH_MAX) + ".a" + &")".repeat(DEPTH_MAX);
    assert!(passes(&deep, r#"{"a": 1}"#));
    assert!(passes(&("!".repeat(DEPTH_MAX) + ".a"), r#"{"a": 1}"#));
    // Depth counts what is open, not what was.
    assert!(passes(
        "!(!.a) and ".repeat(15).trim_end_matches(" and "),
        r#"{"a": 1}"#
    ));
    let most = ".a ** ".repeat(TOKENS_MAX / 2 - 1) + ".a";
    assert!(passes(&most, r#"{"a": 1}"#));
}

#[test]
fn should_name_fields_once_and_spell_programs_alike() {
    let filter = Filter::parse(".b>1&&(.a=='x'||!.b)").unwrap();
    assert_eq!(filter.fields(), ["b", "a"]);
    assert_eq!(filter.text(), ".b > 1.0 and ( .a == \"x\" or not .b )");
    let same = Filter::parse(".b > 1e0 and (.a == \"\\u0078\" or not .b)").unwrap();
    assert_eq!(filter, same);
    let quoted = Filter::parse(r#".a == '"\\\''"#).unwrap();
    assert_eq!(quoted.text(), r#".a == "\"\\'""#);
    assert_eq!(quoted, Filter::parse(quoted.text()).unwrap());
}

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

const NAMES: [&str; 5] = ["a", "b", "c-d", "e", "long"];

fn json_scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (-3i32..6).prop_map(|n| n.to_string()),
        1 => prop::sample::select(vec!["0.5", "-0", "1e3", "1e999", "18446744073709551615"]).prop_map(String::from),
        3 => prop::sample::select(vec!["", "1", "ab", "b", " 2", "é", "nan", "x\\u0062", "\\\"", "\\ud800"])
            .prop_map(|text| format!("\"{text}\"")),
        1 => prop::sample::select(vec!["true", "false", "null"]).prop_map(String::from),
    ]
}

fn json_value() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => json_scalar(),
        3 => prop::collection::vec(json_scalar(), 0..4).prop_map(|all| format!("[{}]", all.join(","))),
        1 => prop::sample::select(vec!["{}", "[[1]]", "[{}]", r#"{"a":1}"#]).prop_map(String::from),
        1 => prop::sample::select(vec![66usize, 64]).prop_map(|len| format!("[{}]", vec!["1"; len].join(", "))),
        1 => prop::sample::select(vec![1024usize, 1025]).prop_map(|len| format!("\"{}\"", "b".repeat(len))),
    ]
}

fn json_object() -> impl Strategy<Value = Option<String>> {
    let field = (prop::sample::select(NAMES.to_vec()), json_value());
    let object = prop::collection::vec(field, 0..7).prop_map(|fields| {
        let fields = fields
            .iter()
            .map(|(name, value)| format!("\"{name}\": {value}"));
        Some(format!("{{{}}}", fields.collect::<Vec<_>>().join(",")))
    });
    let other = prop::sample::select(vec![
        None,
        Some("{}"),
        Some("[]"),
        Some(r#"{"a":1}]"#),
        Some(""),
    ]);
    prop_oneof![9 => object, 1 => other.prop_map(|text| text.map(String::from))]
}

fn filter_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        6 => prop::sample::select(NAMES.to_vec()).prop_map(|name| format!(".{name}")),
        2 => (-2i32..5).prop_map(|n| n.to_string()),
        1 => prop::sample::select(vec!["\"\"", "'b'", "\"ab\"", "null", "true", "0.5", "[]", "[1, 'b']", "[null, 0, \"ab\",]"])
            .prop_map(String::from),
    ];
    let operators = [
        "**", "*", "/", "%", "+", "-", ">", ">=", "<", "<=", "==", "!=", "in", "and", "&&", "or",
        "||",
    ];
    leaf.prop_recursive(4, 24, 2, move |inner| {
        let operator = prop::sample::select(operators.to_vec());
        prop_oneof![
            5 => (inner.clone(), operator.clone(), inner.clone()).prop_map(|(a, o, b)| format!("{a} {o} {b}")),
            2 => (inner.clone(), operator, inner.clone()).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
            1 => inner.clone().prop_map(|a| format!("!{a}")),
            1 => inner.prop_map(|a| format!("not ({a})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn should_say_the_same_over_columns_as_over_the_text(
        distinct in prop::collection::vec(json_object(), 1..12),
        rows in prop::collection::vec(0usize..12, 1..200),
        text in filter_text(),
    ) {
        let filter = Filter::parse(&text).unwrap();
        let rows: Vec<_> = rows.iter().map(|row| distinct[row % distinct.len()].as_deref()).collect();
        let columns = columns_of(&rows);
        let (pass, unknown) = evaluated(&filter, &columns);
        for (row, attrs) in rows.iter().enumerate() {
            let expected = filter.matches(*attrs);
            prop_assert!(!(pass[row] && unknown[row]));
            prop_assert!(unknown[row] || pass[row] == expected, "{} on {:?}: {}", text, attrs, expected);
            // Unknown is for what is too large, and for filters without fields.
            let is_large = attrs.is_some_and(|attrs| attrs.len() > 1000 || attrs.contains("1, 1, 1"));
            prop_assert!(!unknown[row] || is_large || filter.fields().is_empty());
        }
        let encoded = columns.encode();
        let decoded: Vec<_> = filter.fields().iter().map(|name| {
            let column = encoded.iter().find(|(other, _)| other == name);
            column.map(|(_, bytes)| Column::decode(bytes, columns.rows()).unwrap())
        }).collect();
        let again = evaluated_over(&filter, &decoded, columns.is_complete(), columns.rows());
        prop_assert_eq!((pass, unknown), again);
    }

    #[test]
    fn should_read_back_its_own_spelling(text in filter_text()) {
        let filter = Filter::parse(&text).unwrap();
        let again = Filter::parse(filter.text()).unwrap();
        prop_assert_eq!(&filter, &again);
    }

    #[test]
    fn should_never_panic_on_any_text(text in "[ .a1'\"\\\\u\\[\\]()!*,<=n-]{0,40}|.{0,20}") {
        if let Ok(filter) = Filter::parse(&text) {
            filter.matches(Some(r#"{"a": "1", "n": [1]}"#));
            let again = Filter::parse(filter.text()).unwrap();
            prop_assert_eq!(&filter, &again);
        }
    }

    #[test]
    fn should_refuse_broken_bytes_or_stay_usable(
        rows in prop::collection::vec(json_object(), 1..100),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        len in any::<prop::sample::Index>(),
        is_cut in prop::bool::weighted(0.2),
        text in filter_text(),
    ) {
        let rows: Vec<_> = rows.iter().map(Option::as_deref).collect();
        let filter = Filter::parse(&text).unwrap();
        let mut encoded = columns_of(&rows).encode();
        for (_, bytes) in &mut encoded {
            for (at, byte) in &flips {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if is_cut {
                bytes.truncate(len.index(bytes.len() + 1));
            }
        }
        let decoded: Vec<_> = filter.fields().iter().map(|name| {
            let column = encoded.iter().find(|(other, _)| other == name);
            column.and_then(|(_, bytes)| Column::decode(bytes, rows.len() as u32).ok())
        }).collect();
        evaluated_over(&filter, &decoded, false, rows.len() as u32);
    }
}
