//! Single facts and properties of the decoder, the table reader and the text spellings; the golden cases
//! are in `golden.rs`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

/// A message from key, value and the five headers.
pub(super) fn raw_of(spans: &[Option<Vec<u8>>]) -> RawRecord<'_> {
    let span = |at: usize| spans[at].as_deref();
    RawRecord {
        key: span(0),
        value: span(1),
        format_header: span(2),
        attrs_header: span(3),
        op_header: span(4),
        event_time_header: span(5),
        write_header: span(6),
    }
}

/// One entry whose key is the given span and all else null.
fn entry(offset: i64, key: (u32, u32, u32)) -> Vec<u8> {
    let mut bytes = [offset.to_le_bytes(), 0i64.to_le_bytes()].concat();
    for (buffer, start, length) in std::iter::once(key).chain([(u32::MAX, 0, 0); 6]) {
        for number in [buffer, start, length] {
            bytes.extend(number.to_le_bytes());
        }
    }
    bytes
}

#[test]
fn should_refuse_a_table_that_points_outside_of_its_buffers() {
    let buffers: [&[u8]; 1] = [b"abc"];
    let error = |table: &[u8]| entries(table, &buffers).expect_err("refused");
    assert_eq!(error(&[0; 99]), TableError::Length { bytes: 99 });
    let span = TableError::Span {
        entry: 0,
        field: "key",
        buffer: 0,
        end: 4,
        bytes: 3,
    };
    assert_eq!(error(&entry(0, (0, 1, 3))), span);
    let end = 2 * u64::from(u32::MAX);
    let span = TableError::Span {
        entry: 0,
        field: "key",
        buffer: 0,
        end,
        bytes: 3,
    };
    assert_eq!(
        error(&entry(0, (0, u32::MAX, u32::MAX))),
        span,
        "no overflow"
    );
    let buffer = TableError::Buffer {
        entry: 0,
        field: "key",
        buffer: 1,
        buffers: 1,
    };
    assert_eq!(error(&entry(0, (1, 0, 0))), buffer);
    let twice = [entry(5, (0, 0, 1)), entry(5, (0, 0, 1))].concat();
    assert_eq!(
        error(&twice),
        TableError::Order {
            entry: 1,
            previous: 5,
            offset: 5
        }
    );
    assert_eq!(
        entries(&entry(0, (0, 3, 0)), &buffers)
            .expect("ends at the end")
            .len(),
        1
    );
}

#[test]
fn should_name_the_field_and_both_values_in_short_messages() {
    let key = "k".repeat(1024);
    let value = format!("{{\"id\":\"{}\"}}", "v".repeat(1 << 20));
    let raw = RawRecord {
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        ..RawRecord::default()
    };
    let error = decode(&raw, Format::Json, 4, &mut Vec::new()).expect_err("ids differ");
    assert!(error.message.starts_with("payload id is \"vvv"), "{error}");
    assert!(error.message.contains("the key is \"kkk"), "{error}");
    assert!(error.message.len() <= 512);
    let raw = RawRecord {
        key: Some(b"a"),
        value: Some(&[0; 12]),
        ..RawRecord::default()
    };
    let error = decode(&raw, Format::F32, 4, &mut Vec::new()).expect_err("one float short");
    assert_eq!(
        error.message,
        "vector has 12 bytes, dimension 4 of float32 takes 16"
    );
    let long = BadRecord::new(Reason::Undecodable, "é".repeat(1000));
    assert!(long.message.len() <= 512 && long.message.ends_with('…'));
}

#[test]
fn should_not_store_more_floats_than_the_dimension() {
    let value = format!("{{\"vector\":[0{}]}}", ",1".repeat(100_000));
    let raw = RawRecord {
        key: Some(b"a"),
        value: Some(value.as_bytes()),
        ..RawRecord::default()
    };
    let mut floats = Vec::new();
    let error = decode(&raw, Format::Json, 4, &mut floats).expect_err("too long");
    assert_eq!(
        error.message,
        "vector has 100001 floats, the collection's dimension is 4"
    );
    assert!(floats.capacity() <= 8);
}

#[test]
fn should_read_base64_across_decoding_steps_and_refuse_padding_inside() {
    let read = |floats: &[f32], padding_at: Option<usize>| {
        let le: Vec<u8> = floats
            .iter()
            .flat_map(|float| float.to_le_bytes())
            .collect();
        let mut base64 = STANDARD.encode(le);
        if let Some(at) = padding_at {
            base64.replace_range(at..=at, "=");
        }
        let value = format!("{{\"vector\":\"{base64}\"}}");
        let raw = RawRecord {
            key: Some(b"a"),
            value: Some(value.as_bytes()),
            ..RawRecord::default()
        };
        let mut out = Vec::new();
        decode(&raw, Format::Json, 1000, &mut out)
            .map(|_| out)
            .map_err(|bad| bad.reason)
    };
    let floats: Vec<f32> = (0..1000).map(|i| i as f32 / 3.0).collect();
    assert_eq!(read(&floats, None), Ok(floats));
    // Zeros, so that the bits cut off by the padding are no second reason to refuse it.
    assert_eq!(read(&[0.0; 1000], Some(1023)), Err(Reason::Undecodable));
    assert_eq!(read(&[0.0; 1000], Some(500)), Err(Reason::Undecodable));
}

#[test]
fn should_read_query_vectors_and_say_what_is_wrong_with_others() {
    assert_eq!(parse_vector_text("[0.1, -2e3]"), Ok(vec![0.1, -2000.0]));
    assert_eq!(parse_vector_text(" [ ] "), Ok(vec![]));
    for text in [
        "", "1", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1]]", "[1] x", "{}", "[[1]]",
    ] {
        assert!(parse_vector_text(text).is_err(), "{text}");
    }
    for number in [
        "nan", "inf", "-inf", "+1", ".5", "1.", "01", "0x1", "1e", "1e+", "-", "null", "\"1\"",
    ] {
        let error = parse_vector_text(&format!("[0,{number}]")).expect_err(number);
        assert!(
            matches!(error, VectorTextError::NotANumber { at: 1, .. }),
            "{number}: {error}"
        );
    }
    assert_eq!(
        parse_vector_text("[18446744073709551616]"),
        Ok(vec![2f32.powi(64)]),
        "2^64 wraps to 0"
    );
    let error = parse_vector_text("[0,-1e39]").expect_err("beyond float32");
    assert_eq!(
        error.to_string(),
        "vector[1] is \"-1e39\", not finite as a float32"
    );
    let long = format!("[0{}]", ",0".repeat(DIM_MAX as usize));
    assert_eq!(
        parse_vector_text(&long),
        Err(VectorTextError::TooLong { count: 65_537 })
    );
}

#[test]
fn should_read_values_from_spans_of_a_frame() {
    let frame = b"$3\r\n0.5\r\n$2\r\n-1\r\n";
    assert_eq!(
        parse_vector_values(frame, &[4, 3, 13, 2]),
        Ok(vec![0.5, -1.0])
    );
    let error = |spans: &[u32]| parse_vector_values(frame, spans).expect_err("refused");
    assert_eq!(
        error(&[4, 3, 13]),
        VectorTextError::Span { at: 1, bytes: 17 }
    );
    assert_eq!(error(&[16, 2]), VectorTextError::Span { at: 0, bytes: 17 });
    assert_eq!(
        error(&[u32::MAX, u32::MAX]),
        VectorTextError::Span { at: 0, bytes: 17 }
    );
    assert!(matches!(
        error(&[4, 5]),
        VectorTextError::NotANumber { at: 0, .. }
    ));
}

#[test]
fn should_write_vectors_with_six_decimals_or_shortest() {
    assert_eq!(format_vector_text(&[0.1, 0.2]), "[0.100000, 0.200000]");
    let floats = [0.1, -2.0, 0.0, 1e-7, 3e38, 16_777_216.0];
    assert_eq!(
        format_vector_shortest(&floats),
        "[0.1, -2, 0, 1e-7, 3e38, 16777216]"
    );
}

fn finite() -> impl Strategy<Value = f32> {
    any::<u32>()
        .prop_map(f32::from_bits)
        .prop_filter("finite", |float| float.is_finite())
}

/// The protobuf message, written independently of the reader.
fn protobuf_of(id: &str, vector: &[f32], attrs: &str, event_time: i64) -> Vec<u8> {
    fn varint(mut number: u64, out: &mut Vec<u8>) {
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }
    let floats: Vec<u8> = vector
        .iter()
        .flat_map(|float| float.to_le_bytes())
        .collect();
    let mut out = Vec::new();
    for (field, bytes) in [(1, id.as_bytes()), (2, &floats), (3, attrs.as_bytes())] {
        varint(field << 3 | 2, &mut out);
        varint(bytes.len() as u64, &mut out);
        out.extend(bytes);
    }
    varint(5 << 3, &mut out);
    varint(event_time.cast_unsigned(), &mut out);
    out
}

proptest! {
    #[test]
    fn should_round_trip_every_format(
        id in "\\PC{1,40}",
        vector in prop::collection::vec(finite(), 1..70),
        word in "\\PC{0,20}",
        event_time in i64::MIN + 1..=i64::MAX,
    ) {
        let attrs = serde_json::json!({ "word": word }).to_string();
        let le: Vec<u8> = vector.iter().flat_map(|float| float.to_le_bytes()).collect();
        let json = |vector: String| format!(
            "{{\"id\":{},\"vector\":{vector},\"attrs\":{attrs},\"event_time\":{event_time}}}",
            serde_json::json!(id),
        );
        let time_text = event_time.to_string();
        let payloads = [
            ("f32", le.clone(), true),
            ("protobuf", protobuf_of(&id, &vector, &attrs, event_time), false),
            ("json", json(format_vector_shortest(&vector)).into_bytes(), false),
            ("json", json(format!("\"{}\"", STANDARD.encode(&le))).into_bytes(), true),
        ];
        for (format, value, headers) in &payloads {
            let raw = RawRecord {
                key: Some(id.as_bytes()),
                value: Some(value),
                format_header: Some(format.as_bytes()),
                attrs_header: headers.then_some(attrs.as_bytes()),
                event_time_header: headers.then_some(time_text.as_bytes()),
                ..RawRecord::default()
            };
            let mut floats = Vec::new();
            let record = decode(&raw, Format::F32, vector.len() as u32, &mut floats);
            let expected = Record {
                op: Op::Upsert,
                id: &id,
                vector: Some(0..vector.len()),
                attrs: Some(&attrs),
                event_time: Some(event_time),
                write: None,
            };
            prop_assert_eq!(record, Ok(expected));
            prop_assert!(floats.iter().zip(&vector).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn should_survive_arbitrary_bytes_and_restore_the_buffer(
        spans in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..60)), 7),
        format in prop::sample::select(vec![Format::F32, Format::Protobuf, Format::Json]),
        dim in 0u32..20,
    ) {
        let mut raw = raw_of(&spans);
        raw.format_header = None;
        for key in [raw.key, Some(&b"a"[..])] {
            let mut floats = vec![1.0];
            let record = decode(&RawRecord { key, ..raw }, format, dim, &mut floats);
            let appended = if record.is_ok_and(|record| record.vector.is_some()) { dim as usize } else { 0 };
            prop_assert_eq!(floats.len(), 1 + appended);
        }
    }

    #[test]
    fn should_survive_one_changed_byte_in_any_payload(
        vector in prop::collection::vec(finite(), 1..9),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let json = format!("{{\"vector\":{},\"attrs\":{{\"a\":[1]}}}}", format_vector_shortest(&vector));
        let payloads = [
            (Format::Protobuf, protobuf_of("a", &vector, "{\"a\":[1]}", 5)),
            (Format::Json, json.into_bytes()),
        ];
        for (format, mut value) in payloads {
            let at = at.index(value.len());
            value[at] = byte;
            let raw = RawRecord { key: Some(b"a"), value: Some(&value), ..RawRecord::default() };
            let mut floats = Vec::new();
            if decode(&raw, format, vector.len() as u32, &mut floats).is_ok() {
                prop_assert!(floats.iter().all(|float| float.is_finite()));
            } else {
                prop_assert!(floats.is_empty());
            }
        }
    }

    #[test]
    fn should_survive_arbitrary_tables(table in prop::collection::vec(any::<u8>(), 0..350), bytes in any::<[u8; 9]>()) {
        if let Ok(entries) = entries(&table, &[&bytes]) {
            prop_assert_eq!(entries.count() * RECORD_ENTRY_BYTES, table.len());
        }
    }

    #[test]
    fn should_read_back_the_shortest_text_bit_for_bit(vector in prop::collection::vec(finite(), 0..20)) {
        let text = format_vector_shortest(&vector);
        let read = parse_vector_text(&text).expect("own text parses");
        prop_assert!(read.iter().zip(&vector).all(|(a, b)| a.to_bits() == b.to_bits()), "{}", text);
        prop_assert_eq!(read.len(), vector.len());
        prop_assert!(serde_json::from_str::<Vec<f64>>(&text).is_ok(), "JSON too: {}", text);
    }

    #[test]
    fn should_read_numbers_to_the_nearest_float32(
        float in finite(),
        digits in "-?(0|[1-9][0-9]{0,22})(\\.[0-9]{1,22})?(e-?[0-9]{1,2})?",
        nudge in -2i64..=2,
    ) {
        // The hard cases are float64 next to a midpoint between two float32.
        let middle = (f64::from(float) + f64::from(float.next_up())) / 2.0;
        let near = f64::from_bits(middle.to_bits().wrapping_add_signed(nudge));
        for token in [digits, format!("{near}"), format!("{near:e}"), format!("{middle}00001")] {
            let expected: f32 = token.parse().expect("a number");
            match parse_vector_text(&format!("[{token}]")) {
                Ok(read) => prop_assert_eq!(read[0].to_bits(), expected.to_bits(), "{}", token),
                Err(error) => prop_assert!(expected.is_infinite(), "{}", error),
            }
        }
    }

    #[test]
    fn should_take_a_list_only_where_json_does(text in "[\\[\\]0-9eE.,+\\- ]{0,12}") {
        let ours = parse_vector_text(&text).is_ok();
        let json = serde_json::from_str::<Vec<f64>>(&text)
            .is_ok_and(|floats| floats.iter().all(|float| (*float as f32).is_finite()));
        prop_assert_eq!(ours, json, "{}", text);
    }
}
