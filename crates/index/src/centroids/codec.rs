//! The bytes of a centroid version.
//!
//! ```text
//! header     magic "VXLC", format u32, version u128, metric u32, dim u32,
//!            count u32, points u32, seed u64; crc32c of the header
//! origin     f32 × dim; crc32c
//! parents    u32 × count; crc32c
//! curve      (f32, u32) × points; crc32c
//! centroids  f32 × count × code_dim; crc32c
//! ```
//! Little-endian, each section on a 64-byte boundary with zeros between, nothing
//! after the last. The centroids' codes are not stored: they follow from the
//! centroids, and making them takes less time than reading them.

use super::Centroids;
use crate::IndexError;
use crate::bytes::{Fields, put_checksum, put_f32s, put_padding, put_u32s};
use crate::lists::LISTS_MAX;
use crate::space::{DIM_MAX, Space};
use vexlake_distance::{CODE_DIM_STEP, Metric};

const MAGIC: [u8; 4] = *b"VXLC";

/// The format that this program writes, and the only one it reads.
pub const CENTROIDS_FORMAT: u32 = 1;

/// Points of a recall curve at most: each holds a tenth more lists than the last.
const POINTS_MAX: u32 = 1024;

impl Centroids {
    /// The object's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.rotated.len() * 4 + self.parents.len() * 4 + 4096);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&CENTROIDS_FORMAT.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        let counts = [
            metric_number(self.space.metric()),
            self.space.dim() as u32,
            self.count as u32,
            self.recall_curve.len() as u32,
        ];
        put_u32s(&mut out, &counts);
        out.extend_from_slice(&self.space.seed().to_le_bytes());
        end_section(&mut out, 0);
        let start = out.len();
        put_f32s(&mut out, self.space.origin());
        end_section(&mut out, start);
        let start = out.len();
        put_u32s(&mut out, &self.parents);
        end_section(&mut out, start);
        let start = out.len();
        for (share, probes) in &self.recall_curve {
            put_f32s(&mut out, &[*share]);
            put_u32s(&mut out, &[*probes]);
        }
        end_section(&mut out, start);
        let start = out.len();
        put_f32s(&mut out, &self.rotated);
        end_section(&mut out, start);
        out
    }

    /// Decodes and checks every byte.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut fields = Fields::new("centroids header", bytes);
        if fields.array::<4>()? != MAGIC {
            return Err(fields.corrupt("another magic"));
        }
        let format = fields.u32()?;
        let version = u128::from_le_bytes(fields.array()?);
        let [metric, dim, count, points] =
            [fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?];
        let seed = fields.u64()?;
        fields.checksum(0)?;
        if format != CENTROIDS_FORMAT {
            return Err(IndexError::Version {
                section: "centroids",
                found: format,
                known: CENTROIDS_FORMAT,
            });
        }
        fields.pad()?;
        let counts_fit = (1..=DIM_MAX as u32).contains(&dim)
            && (1..=LISTS_MAX).contains(&count)
            && points <= POINTS_MAX;
        let metric = Metric::ALL
            .into_iter()
            .find(|m| metric_number(*m) == metric);
        let Some(metric) = metric.filter(|_| counts_fit) else {
            return Err(fields.corrupt("an impossible header"));
        };

        let mut fields = fields.in_section("centroids origin");
        let origin = section(&mut fields, |fields| fields.f32s(dim as usize))?;
        let space =
            Space::new(metric, seed, origin).map_err(|_| fields.corrupt("an impossible origin"))?;

        let mut fields = fields.in_section("centroids parents");
        let parents = section(&mut fields, |fields| fields.u32s(count as usize))?;

        let mut fields = fields.in_section("centroids recall curve");
        let curve = section(&mut fields, |fields| {
            (0..points)
                .map(|_| Ok((fields.f32()?, fields.u32()?)))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let rises = curve
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let within = curve
            .iter()
            .all(|(share, probes)| (0.0..=1.0).contains(share) && (1..=count).contains(probes));
        if !rises || !within {
            return Err(fields.corrupt("an impossible curve"));
        }

        let mut fields = fields.in_section("centroids");
        let floats = count as usize * (dim as usize).next_multiple_of(CODE_DIM_STEP);
        let rotated = section(&mut fields, |fields| fields.f32s(floats))?;
        if rotated.iter().any(|x| !x.is_finite()) {
            return Err(fields.corrupt("a centroid that is not finite"));
        }
        if fields.at() != bytes.len() {
            return Err(fields.corrupt("bytes after the end"));
        }
        Ok(Centroids::new(version, space, rotated, parents, curve))
    }
}

/// The checksum of a section, and the way to the next.
fn end_section(out: &mut Vec<u8>, start: usize) {
    put_checksum(out, start);
    put_padding(out);
}

fn section<'a, T>(
    fields: &mut Fields<'a>,
    read: impl FnOnce(&mut Fields<'a>) -> Result<T, IndexError>,
) -> Result<T, IndexError> {
    let from = fields.at();
    let value = read(fields)?;
    fields.checksum(from)?;
    fields.pad()?;
    Ok(value)
}

/// The metric's number in files; never changes.
fn metric_number(metric: Metric) -> u32 {
    match metric {
        Metric::Cosine => 0,
        Metric::L2 => 1,
        Metric::InnerProduct => 2,
        Metric::Manhattan => 3,
    }
}
