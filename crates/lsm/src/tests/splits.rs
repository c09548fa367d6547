//! Centroids whose lists grew, through the whole engine: planned, split, searched beside the
//! version before, merged into the newer.

use vexlake_distance::Metric;

use super::lists::{LISTS, ask, assert_recall, flush_rows, listed, query, unlisted};
use crate::testing::*;
use crate::{Ended, Policy};

#[test]
fn should_split_lists_that_grew_and_leave_segments_as_they_are() {
    run(async {
        let (site, writer) = listed(Metric::Cosine).await;
        let policy = Policy {
            fan_in: 100,
            train_rows_min: 4000,
            rows_per_list: 4000 / u64::from(LISTS),
            split_growth: 2.0,
            ..Policy::default()
        };
        flush_rows(&writer, 4000..5999).await;
        assert_eq!(writer.plan(&policy).len(), 0);
        // Trained on three thousand: twice as many are six thousand.
        flush_rows(&writer, 5999..6000).await;
        let before = writer.snapshot();
        let [spec] = &writer.plan(&policy)[..] else {
            panic!("one job is due");
        };
        assert_eq!(spec.kind, "split");
        assert_eq!(
            run_spec(&writer, spec).await.expect("split").status,
            Ended::Done
        );
        let after = writer.snapshot();
        assert_eq!(after.segments.len(), before.segments.len());
        let (old, new) = (before.current_centroids(), after.current_centroids());
        let (old, new) = (old.expect("centroids"), new.expect("centroids"));
        assert!(
            new.count() > old.count(),
            "{} of {}",
            new.count(),
            old.count()
        );
        assert!((0..new.count() as u32).all(|list| new.parent(list) < Some(old.count() as u32)));
        assert!(
            writer.plan(&policy).is_empty(),
            "nothing is rewritten for it"
        );
        assert_recall(&writer, 40, 0.98).await;
        // Segments of both versions are searched together, then merged into the newer.
        flush_rows(&writer, 6000..7000).await;
        assert_eq!(ask(&writer, query(1, false)).await.costs[0].centroids, 2);
        assert_recall(&writer, 40, 0.98).await;
        run_spec(&writer, &spec_of(&writer, None))
            .await
            .expect("merged");
        assert_eq!(
            (unlisted(&writer), writer.snapshot().segments.len()),
            (0, 1)
        );
        assert_recall(&writer, 40, 0.98).await;
        let reader = site.open("query").await;
        assert_recall(&reader, 10, 0.98).await;
    });
}
