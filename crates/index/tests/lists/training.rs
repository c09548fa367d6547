//! Training: the same bytes however it runs, lists near one size, and the recall it measures.

use vexlake_distance::{KERNEL_NAMES, kernels_named};
use vexlake_index::{Space, SplitOptions, split, train_in};

use super::*;

#[test]
fn should_train_and_encode_to_the_same_bytes_with_any_number_of_threads() {
    let rows = clumps(65, 9000, 30, 4);
    let bytes = |threads| {
        let options = TrainOptions {
            threads,
            ..options(40)
        };
        let centroids = train(Metric::Cosine, 65, &rows, &options).unwrap();
        let encoded = centroids.encode(&rows, threads).unwrap();
        (
            centroids.to_bytes(),
            segment_of(&centroids, &encoded, false).bytes,
        )
    };
    let one = bytes(1);
    assert!(one == bytes(2) && one == bytes(5));
}

#[test]
fn should_train_the_same_centroids_on_every_instruction_set_that_assigns_alike() {
    // Sums of floats differ in their last bits between instruction sets, so only
    // what follows from the rotation and from comparisons must agree: the lists.
    let rows = clumps(64, 600, 6, 4);
    let centroids = train(Metric::L2, 64, &rows, &options(6)).unwrap();
    let lists = |name: &str| {
        let table = kernels_named(name)?;
        let own = centroids.space();
        let space = Space::with_kernels(own.metric(), own.seed(), own.origin().to_vec(), table);
        let trained = train_in(space.unwrap(), &rows, &options(6)).unwrap();
        Some(trained.encode(&rows, 1).unwrap().lists().to_vec())
    };
    let all: Vec<Vec<u32>> = KERNEL_NAMES.into_iter().filter_map(lists).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn should_keep_lists_near_one_size() {
    // Many clumps of one size and few centroids to start with: some start with two
    // and some share one, and no mean ever crosses from clump to clump.
    let rows = clumps(32, 8000, 40, 2)
        .iter()
        .map(|x| x * x * x)
        .collect::<Vec<f32>>();
    let options = TrainOptions {
        rounds: 12,
        ..options(40)
    };
    let centroids = train(Metric::L2, 32, &rows, &options).unwrap();
    let encoded = centroids.encode(&rows, 1).unwrap();
    let mut sizes = vec![0; centroids.count()];
    encoded
        .lists()
        .iter()
        .for_each(|list| sizes[*list as usize] += 1);
    let largest = sizes.iter().max().unwrap();
    assert!(
        *largest <= 300,
        "a list of {largest} rows where 200 is the mean"
    );
}

#[test]
fn should_measure_how_many_lists_a_promise_needs() {
    let rows = clumps(48, 6000, 50, 3);
    let centroids = train(Metric::L2, 48, &rows, &options(50)).unwrap();
    let curve = centroids.recall_curve();
    assert!(
        curve
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1)
    );
    assert!(centroids.probes_for(0.5) <= centroids.probes_for(0.98));
    assert!(
        centroids.probes_for(0.98) <= 3,
        "clumps need their own list and hardly another"
    );
    assert_eq!(centroids.probes_for(1.1), 50);
}

/// Twenty clumps of 100 rows each, and again 400 of each of the first five.
fn grown() -> (Vec<f32>, Vec<f32>) {
    let before = clumps(40, 2000, 20, 8);
    let mut after = before.clone();
    for round in 1..5 {
        let more = clumps(40, 2000, 20, 8);
        let rows = more.chunks_exact(40).enumerate();
        // The same clumps, each row moved a little.
        let moved = rows.filter(|(row, _)| row % 20 < 5);
        after.extend(moved.flat_map(|(_, row)| row.iter().map(move |x| x + 0.01 * round as f32)));
    }
    (before, after)
}

fn sizes(centroids: &Centroids, rows: &[f32]) -> Vec<u32> {
    let mut sizes = vec![0; centroids.count()];
    let encoded = centroids.encode(rows, 1).expect("rows of this dimension");
    encoded
        .lists()
        .iter()
        .for_each(|list| sizes[*list as usize] += 1);
    sizes
}

#[test]
fn should_split_the_lists_that_grew_and_keep_all_others() {
    let (rows, more) = grown();
    for metric in METRICS {
        let first = train(metric, 40, &rows, &options(20)).unwrap();
        let options = SplitOptions {
            version: 10,
            rows: (more.len() / 40) as u64,
            rows_per_list: 100,
            rounds: 6,
            seed: 5,
            threads: 2,
        };
        let second = split(&first, &more, &options).unwrap();
        assert!(
            second.count() > first.count() + 10,
            "{metric:?}: {}",
            second.count()
        );
        let (before, after) = (sizes(&first, &more), sizes(&second, &more));
        for (list, size) in before.iter().enumerate() {
            let number = list as u32;
            let children = (0..second.count() as u32)
                .filter(|child| second.parent(*child) == Some(number))
                .count();
            let is_same = first.rotated(number) == second.rotated(number);
            // The sample is everything but what was held out.
            match *size {
                ..130 => assert!(is_same && children == 1, "{metric:?}: {size} rows"),
                170.. => assert!(!is_same && children > 1, "{metric:?}: {size} rows"),
                _ => {}
            }
        }
        let largest = |sizes: &[u32]| sizes.iter().max().copied();
        assert!(
            largest(&before) >= Some(400) && largest(&after) <= Some(260),
            "{after:?}"
        );
        assert!((0..first.count() as u32).all(|list| first.parent(list).is_none()));
        let read = Centroids::from_bytes(&second.to_bytes()).unwrap();
        assert_eq!(
            read.parent(second.count() as u32 - 1),
            second.parent(second.count() as u32 - 1)
        );
        assert!(read.to_bytes() == second.to_bytes());
        let one = SplitOptions {
            threads: 1,
            ..options
        };
        assert!(split(&first, &more, &one).unwrap().to_bytes() == second.to_bytes());
    }
}

#[test]
fn should_split_nothing_where_nothing_grew() {
    let rows = clumps(40, 2000, 20, 8);
    let first = train(Metric::L2, 40, &rows, &options(20)).unwrap();
    let options = SplitOptions {
        version: 10,
        rows: 2000,
        rows_per_list: 100_000,
        rounds: 6,
        seed: 5,
        threads: 1,
    };
    let second = split(&first, &rows, &options).unwrap();
    assert_eq!((second.count(), second.version()), (20, 10));
    assert!((0..20).all(|list| first.rotated(list) == second.rotated(list)));
    assert_eq!(second.parent(7), Some(7));
}
