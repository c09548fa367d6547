//! The four metrics and the one function each that turns a scan's key into a
//! distance or a score.
//!
//! A *key* is what scans compare: smaller is nearer, and it costs as little as
//! the metric allows (L2 keeps the square). A *distance* is what users see:
//! smaller is nearer. A *score* is what Redis answers: larger is better. Both
//! are monotone in the key, so the order never changes on the way out.

/// How two vectors of a collection are compared. The name is part of the
/// collection's state and never changes in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Metric {
    /// `1 − dot(q, v) / (|q|·|v|)`; a zero vector has distance 1 to everything.
    Cosine,
    /// Euclidean distance.
    L2,
    /// Inner product, negated so that smaller is nearer.
    InnerProduct,
    /// Sum of absolute differences.
    Manhattan,
}

impl Metric {
    /// Every metric, in the order of the documentation.
    pub const ALL: [Metric; 4] = [
        Metric::Cosine,
        Metric::L2,
        Metric::InnerProduct,
        Metric::Manhattan,
    ];

    /// The stable lower-case name used in commits, configuration and replies.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Cosine => "cosine",
            Metric::L2 => "l2",
            Metric::InnerProduct => "ip",
            Metric::Manhattan => "l1",
        }
    }

    /// The metric of a stable name (case matters); None for any other text.
    pub fn parse(name: &str) -> Option<Metric> {
        Metric::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// The distance of a key, smaller is nearer: cosine `key` (0..=2), l2
    /// `sqrt(key)`, ip `key` (= −dot), l1 `key`.
    pub fn distance(self, key: f32) -> f32 {
        match self {
            Metric::Cosine | Metric::InnerProduct | Metric::Manhattan => key,
            Metric::L2 => key.max(0.0).sqrt(),
        }
    }

    /// The score of a key, larger is better: cosine `1 − distance / 2` (0..=1,
    /// as Redis vector sets answer), l2 and l1 `1 / (1 + distance)` (0..=1),
    /// ip the dot product itself (unbounded).
    pub fn score(self, key: f32) -> f32 {
        let distance = self.distance(key);
        match self {
            Metric::Cosine => 1.0 - distance / 2.0,
            Metric::L2 | Metric::Manhattan => 1.0 / (1.0 + distance),
            Metric::InnerProduct => -distance,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Metric;

    #[test]
    fn should_parse_back_every_name_and_refuse_others() {
        for metric in Metric::ALL {
            assert_eq!(Metric::parse(metric.name()), Some(metric));
        }
        assert_eq!(Metric::parse("Cosine"), None);
        assert_eq!(Metric::parse(""), None);
    }

    #[test]
    fn should_keep_the_order_of_keys_in_distances_and_reverse_it_in_scores() {
        for metric in Metric::ALL {
            let keys = [0.0f32, 0.25, 0.5, 1.0, 1.75, 2.0];
            for pair in keys.windows(2) {
                assert!(metric.distance(pair[0]) < metric.distance(pair[1]));
                assert!(metric.score(pair[0]) > metric.score(pair[1]));
            }
        }
    }

    #[test]
    fn should_answer_the_score_of_redis_for_cosine() {
        assert_eq!(Metric::Cosine.score(0.0), 1.0);
        assert_eq!(Metric::Cosine.score(1.0), 0.5);
        assert_eq!(Metric::Cosine.score(2.0), 0.0);
        assert_eq!(Metric::L2.distance(9.0), 3.0);
        assert_eq!(Metric::InnerProduct.score(-4.0), 4.0);
    }
}
