//! Shadows: which entries of a segment newer records hide.
//!
//! A commit carries its new shadow bits inline while they are small; larger sets
//! go to one `shadow/<ulid>` object for all segments that the commit touches, so
//! that a commit stays a few KiB however many rows an update-heavy load rewrites.
//! The state keeps the union of inline bits per segment and the ids of the objects;
//! [`load`] turns both into one bitmap. A base roll folds everything into one pack.
//!
//! Object layout: JSON `{segment ulid: base64 of a portable roaring bitmap}`.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use roaring::RoaringBitmap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;
use vexlake_manifest::{State, frame, unframe};
use vexlake_store::{Store, StoreError};

use crate::state::IncarnationState;

/// Inline bits of one commit: more go to an object. 64 deltas of 4 KiB are the
/// 256 KiB at which the manifest rolls its base anyway.
pub const INLINE_BYTES_MAX: usize = 4 * 1024;

/// A roaring bitmap that serialises as base64 of its portable form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bits(pub RoaringBitmap);

impl Eq for Bits {}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(self.0.serialized_size());
        self.0
            .serialize_into(&mut bytes)
            .map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = STANDARD
            .decode(text.as_bytes())
            .map_err(serde::de::Error::custom)?;
        RoaringBitmap::deserialize_from(bytes.as_slice())
            .map(Bits)
            .map_err(serde::de::Error::custom)
    }
}

/// The shadow bits that one commit adds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadows {
    /// Bits carried by the commit itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inline: BTreeMap<Ulid, Bits>,
    /// Bits in an object: its id and the segments it touches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<(Ulid, Vec<Ulid>)>,
}

impl Shadows {
    /// The segments touched.
    pub fn touched(&self) -> BTreeSet<Ulid> {
        let in_object = self
            .object
            .iter()
            .flat_map(|(_, segments)| segments.iter().copied());
        self.inline.keys().copied().chain(in_object).collect()
    }

    /// Places bits inline when they are small, else in a new object named `id`.
    ///
    /// # Errors
    /// A [`StoreError`] when the object cannot be written.
    pub async fn place(
        bits: BTreeMap<Ulid, RoaringBitmap>,
        store: &Store,
        id: Ulid,
    ) -> Result<Self, StoreError> {
        let bits: BTreeMap<Ulid, Bits> = bits
            .into_iter()
            .filter(|(_, b)| !b.is_empty())
            .map(|(id, b)| (id, Bits(b)))
            .collect();
        let bytes: usize = bits.values().map(|b| b.0.serialized_size() + 32).sum();
        if bytes <= INLINE_BYTES_MAX {
            return Ok(Self {
                inline: bits,
                object: None,
            });
        }
        store.put(&object_key(&id), encode(&bits)).await?;
        Ok(Self {
            inline: BTreeMap::new(),
            object: Some((id, bits.into_keys().collect())),
        })
    }
}

/// What the state knows of a segment's shadow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowRefs {
    /// Union of the bits that commits carried inline.
    #[serde(default)]
    pub inline: Bits,
    /// Objects that hold further bits.
    #[serde(default)]
    pub objects: BTreeSet<Ulid>,
    /// The version that last touched it: readers keep a bitmap while this stands.
    #[serde(with = "vexlake_manifest::u64_str", default)]
    pub version: u64,
}

impl ShadowRefs {
    /// Takes over what `shadows` says of segment `id`.
    pub fn absorb(&mut self, version: u64, id: &Ulid, shadows: &Shadows) {
        if let Some(bits) = shadows.inline.get(id) {
            self.inline.0 |= &bits.0;
        }
        if let Some((object, _)) = shadows
            .object
            .as_ref()
            .filter(|(_, touched)| touched.contains(id))
        {
            self.objects.insert(*object);
        }
        self.version = version;
    }
}

fn object_key(id: &Ulid) -> String {
    format!("shadow/{id}")
}

fn encode(bits: &BTreeMap<Ulid, Bits>) -> Bytes {
    frame(&serde_json::to_vec(bits).expect("a map of strings serialises"))
}

async fn read(store: &Store, id: &Ulid) -> Result<BTreeMap<Ulid, Bits>, StoreError> {
    let key = object_key(id);
    let bytes = store.get(&key).await?;
    let corrupt = |message: String| StoreError::corrupt(&key, message);
    let json = unframe(&bytes).map_err(|error| corrupt(error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| corrupt(error.to_string()))
}

/// Reads the shadow objects named in `wanted`, each once.
///
/// # Errors
/// A [`StoreError`] when one is absent, damaged or out of reach.
pub async fn read_objects(
    store: &Store,
    wanted: &BTreeSet<Ulid>,
) -> Result<BTreeMap<Ulid, BTreeMap<Ulid, Bits>>, StoreError> {
    let reads = wanted
        .iter()
        .map(|id| async move { Ok((*id, read(store, id).await?)) });
    futures::future::try_join_all(reads)
        .await
        .map(|found| found.into_iter().collect())
}

/// One segment's whole shadow from its refs and the objects read.
pub fn union(
    id: &Ulid,
    refs: &ShadowRefs,
    objects: &BTreeMap<Ulid, BTreeMap<Ulid, Bits>>,
) -> RoaringBitmap {
    let mut bits = refs.inline.0.clone();
    for object in &refs.objects {
        if let Some(found) = objects.get(object).and_then(|pack| pack.get(id)) {
            bits |= &found.0;
        }
    }
    bits
}

/// The state with all shadow objects folded into one pack, for a new base.
///
/// # Errors
/// A [`StoreError`] from reading the old objects or writing the pack.
pub async fn fold(state: &IncarnationState, store: &Store) -> Result<IncarnationState, StoreError> {
    let objects = read_objects(store, &state.shadow_objects()).await?;
    let bits = state
        .segments
        .iter()
        .map(|(id, s)| (*id, union(id, &s.shadow, &objects)))
        .collect();
    let shadows = Shadows::place(bits, store, mint_after(State::cutoff_ms(state))).await?;
    let mut folded = state.clone();
    for (id, segment) in &mut folded.segments {
        let version = segment.shadow.version;
        segment.shadow = ShadowRefs {
            version,
            ..ShadowRefs::default()
        };
        if shadows.touched().contains(id) {
            segment.shadow.absorb(version, id, &shadows);
        }
    }
    Ok(folded)
}

/// A name younger than the last mark's cutoff. Folding happens inside the manifest's
/// commit, which lends no clock, so this one reads the machine's.
fn mint_after(cutoff_ms: u64) -> Ulid {
    let now = Ulid::new();
    Ulid::from_parts(now.timestamp_ms().max(cutoff_ms + 1), now.random())
}
/// The bits of `rows` rows in any of the bitmaps, 64 to a word: what scans of lists take.
pub fn words<'a>(rows: u32, bitmaps: impl IntoIterator<Item = &'a RoaringBitmap>) -> Vec<u64> {
    let mut words = vec![0u64; (rows as usize).div_ceil(64)];
    add_words(&mut words, rows, bitmaps);
    words
}

/// Adds the bits of `rows` rows in any of the bitmaps.
pub fn add_words<'a>(
    words: &mut [u64],
    rows: u32,
    bitmaps: impl IntoIterator<Item = &'a RoaringBitmap>,
) {
    for bits in bitmaps {
        for row in bits.range(0..rows) {
            words[row as usize / 64] |= 1 << (row % 64);
        }
    }
}
