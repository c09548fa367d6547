//! The language: Redis' own examples, values of all kinds, and what is refused and where.

use vexlake_index::{DEPTH_MAX, TOKENS_MAX};

use super::*;

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
