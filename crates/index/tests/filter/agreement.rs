//! Random rows and expressions: columns, their bytes and the text say the same.

use proptest::prelude::*;

use super::*;

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
