//! Seeded rows with structure, which the examples make as they need them.

/// Rows of a cluster.
const CLUSTER_ROWS: usize = 500;
/// Directions in which a cluster spreads.
const SPREAD_DIMS: usize = 24;

/// Clusters that spread in a few directions each, as embeddings do.
pub struct Clusters {
    dim: usize,
    centres: Vec<f32>,
    directions: Vec<f32>,
}

impl Clusters {
    /// Clusters for so many rows.
    pub fn of_rows(rows: usize, dim: usize) -> Self {
        let count = rows.div_ceil(CLUSTER_ROWS);
        let mut state = 0x1234_5678_9abc_def1;
        let floats = |count: usize, state: &mut u64| (0..count).map(|_| normal(state)).collect();
        Self {
            dim,
            centres: floats(count * dim, &mut state),
            directions: floats(SPREAD_DIMS * dim * 8, &mut state),
        }
    }

    /// A row by its number; any number has one.
    pub fn row(&self, n: usize) -> Vec<f32> {
        let mut state = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        normal(&mut state);
        let clusters = self.centres.len() / self.dim;
        let cluster = (state >> 20) as usize % clusters;
        let centre = &self.centres[cluster * self.dim..][..self.dim];
        let directions = &self.directions[cluster % 8 * SPREAD_DIMS * self.dim..];
        let mut row: Vec<f32> = centre
            .iter()
            .map(|x| x + 0.25 * normal(&mut state))
            .collect();
        for direction in directions.chunks_exact(self.dim).take(SPREAD_DIMS) {
            let step = 0.2 * normal(&mut state);
            row.iter_mut()
                .zip(direction)
                .for_each(|(x, d)| *x += step * d);
        }
        row
    }
}

/// A number of about the normal distribution: the sum of twelve uniform ones, less six.
fn normal(state: &mut u64) -> f32 {
    let mut sum = -6.0;
    for _ in 0..12 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        sum += (*state >> 40) as f32 / (1u32 << 24) as f32;
    }
    sum
}
