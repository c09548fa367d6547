//! The checksum of a record that a checkpoint keeps, to notice on the next claim that the log under it
//! is another one. The byte layout is public (`schemas/records.md`): the claim check is TypeScript's.

/// Stands for the length of a null key or value; no message is that long.
const NULL_LENGTH: u32 = u32::MAX;

/// CRC-32C over key length, key, value length, value: lengths as u32 little endian, null as
/// `0xFFFFFFFF`. Headers are left out. The record's timestamp is compared beside it.
pub fn fingerprint(key: Option<&[u8]>, value: Option<&[u8]>) -> u32 {
    [key, value].into_iter().fold(0, |crc, part| {
        // Kafka's own lengths are i32, so `as` cannot cut one off.
        let length = part.map_or(NULL_LENGTH, |bytes| bytes.len() as u32);
        let crc = crc32c::crc32c_append(crc, &length.to_le_bytes());
        crc32c::crc32c_append(crc, part.unwrap_or_default())
    })
}
