//! The frame of commits, bases and HEAD: a file that a person can read with `cat`
//! and a reader can distrust.
//!
//! ```text
//! line 1   compact JSON
//! line 2   {"crc32c":<u32 of line 1>,"bytes":<length of line 1>}
//! ```
//! Both lines end in a newline; the checksum covers line 1 without it. Line 2 must be
//! byte for byte what the writer would write, so any changed byte anywhere is seen.

use bytes::Bytes;

/// Why bytes are not a whole frame.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The first newline is missing: cut short, or something else altogether.
    #[error("no second line in {bytes} bytes")]
    OneLine {
        /// Bytes found.
        bytes: usize,
    },
    /// Line 2 is not the checksum of line 1.
    #[error("line 2 is {found:?}, line 1 makes it {wanted:?}")]
    Checksum {
        /// What line 2 says, shortened.
        found: String,
        /// What line 1 asks for.
        wanted: String,
    },
}

/// Frames compact JSON (no newline in it). O(n).
pub fn frame(json: &[u8]) -> Bytes {
    let footer = footer(json);
    let mut framed = Vec::with_capacity(json.len() + 1 + footer.len());
    framed.extend_from_slice(json);
    framed.push(b'\n');
    framed.extend_from_slice(footer.as_bytes());
    framed.into()
}

/// The JSON of a frame, checked. O(n), no copy.
pub fn unframe(framed: &Bytes) -> Result<Bytes, FrameError> {
    let newline = framed.iter().position(|&b| b == b'\n');
    let end = newline.ok_or(FrameError::OneLine {
        bytes: framed.len(),
    })?;
    let (json, found) = (&framed[..end], &framed[end + 1..]);
    let wanted = footer(json);
    if found != wanted.as_bytes() {
        let shown = &found[..found.len().min(wanted.len())];
        let found = String::from_utf8_lossy(shown).into_owned();
        return Err(FrameError::Checksum { found, wanted });
    }
    Ok(framed.slice(..end))
}

fn footer(json: &[u8]) -> String {
    format!(
        "{{\"crc32c\":{},\"bytes\":{}}}\n",
        crc32c::crc32c(json),
        json.len()
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn should_write_the_frame_that_other_languages_read() {
        let framed = frame(br#"{"a":"1"}"#);
        assert_eq!(
            &framed[..],
            b"{\"a\":\"1\"}\n{\"crc32c\":1365013234,\"bytes\":9}\n"
        );
    }

    #[test]
    fn should_refuse_what_was_cut_or_extended() {
        let framed = frame(br#"{"a":"1"}"#);
        for length in 0..framed.len() {
            assert!(unframe(&framed.slice(..length)).is_err(), "{length}");
        }
        let longer: Bytes = [&framed[..], b" "].concat().into();
        assert!(unframe(&longer).is_err());
    }

    proptest! {
        #[test]
        fn should_return_what_was_framed(text in "[^\n]*") {
            let framed = frame(text.as_bytes());
            prop_assert_eq!(unframe(&framed), Ok(Bytes::from(text)));
        }

        #[test]
        fn should_see_any_changed_byte(text in "[^\n]{0,200}", at in any::<prop::sample::Index>(), mask in 1u8..) {
            let mut framed = frame(text.as_bytes()).to_vec();
            let at = at.index(framed.len());
            framed[at] ^= mask;
            prop_assert!(unframe(&framed.into()).is_err());
        }
    }
}
