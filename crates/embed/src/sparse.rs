//! Sparse matrices in compressed rows, and their product with a dense block of vectors.

use rayon::prelude::*;

use crate::dense::Dense;

/// Compressed sparse rows: row `r` holds `columns[starts[r]..starts[r + 1]]` and the values beside them.
#[derive(Clone, Debug, Default)]
pub struct Sparse {
    starts: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
    width: usize,
}

impl Sparse {
    /// An empty matrix of `width` columns; rows are pushed.
    pub fn new(width: usize) -> Sparse {
        Sparse {
            starts: vec![0],
            columns: Vec::new(),
            values: Vec::new(),
            width,
        }
    }

    /// Appends one row.
    pub fn push(&mut self, row: impl IntoIterator<Item = (u32, f32)>) {
        for (column, value) in row {
            self.columns.push(column);
            self.values.push(value);
        }
        self.starts.push(self.columns.len());
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// (column, value) of one row.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (u32, f32)> {
        let range = self.starts[row]..self.starts[row + 1];
        self.columns[range.clone()]
            .iter()
            .copied()
            .zip(self.values[range].iter().copied())
    }

    /// Columns become rows, by counting sort: linear, and each new row is in ascending order.
    pub fn transposed(&self) -> Sparse {
        let mut starts = vec![0; self.width + 1];
        for &column in &self.columns {
            starts[column as usize + 1] += 1;
        }
        for column in 0..self.width {
            starts[column + 1] += starts[column];
        }
        let mut next = starts.clone();
        let mut columns = vec![0; self.columns.len()];
        let mut values = vec![0.0; self.values.len()];
        for row in 0..self.rows() {
            for (column, value) in self.row(row) {
                let at = &mut next[column as usize];
                columns[*at] = row as u32;
                values[*at] = value;
                *at += 1;
            }
        }
        Sparse {
            starts,
            columns,
            values,
            width: self.rows(),
        }
    }

    /// This matrix times a dense one. Each row of the result is summed in one order by one thread, so
    /// the result does not depend on how many there are.
    pub fn times(&self, right: &Dense) -> Dense {
        let mut product = Dense::zeros(self.rows(), right.width());
        product.par_rows_mut().enumerate().for_each(|(row, sum)| {
            for (column, value) in self.row(row) {
                for (sum, factor) in sum.iter_mut().zip(right.row(column as usize)) {
                    *sum += value * factor;
                }
            }
        });
        product
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_multiply_and_transpose_like_the_dense_matrix() {
        let mut matrix = Sparse::new(3);
        matrix.push([(0, 1.0), (2, 2.0)]);
        matrix.push([]);
        matrix.push([(1, -3.0)]);
        matrix.push([(0, 4.0), (1, 5.0), (2, 6.0)]);
        let right = Dense::from_rows(2, vec![1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
        let expected = [7.0, 70.0, 0.0, 0.0, -6.0, -60.0, 32.0, 320.0];
        assert_eq!(matrix.times(&right).into_values(), expected);
        let transposed = matrix.transposed();
        assert_eq!((transposed.rows(), transposed.width()), (3, 4));
        assert_eq!(transposed.row(0).collect::<Vec<_>>(), [(0, 1.0), (3, 4.0)]);
        assert_eq!(
            transposed.transposed().times(&right).into_values(),
            expected
        );
    }
}
