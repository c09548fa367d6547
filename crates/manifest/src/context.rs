//! What a manifest needs of the world beside its store: time, randomness, and places
//! to crash in tests. Arguments, so that a simulation owns them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::crash::{self, CrashPoint};
use crate::invariants::Invariants;
use crate::{Invariant, ManifestError};

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
/// 128 bits that no other process draws, for ids.
pub type Rng = Arc<dyn Fn() -> u128 + Send + Sync>;

/// The machine's clock. A clock before 1970 reads 0: commit times are
/// max(now, parent's), so nothing goes back.
#[allow(clippy::disallowed_methods)] // the one place that reads the machine's clock
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        since.as_millis() as u64
    })
}

/// The machine's randomness.
///
/// # Panics
/// The generator panics where the machine has no randomness: two processes drawing
/// one commit id would each believe to have won the other's slot.
pub fn system_rng() -> Rng {
    Arc::new(|| {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).expect("the machine has a source of randomness");
        u128::from_ne_bytes(bits)
    })
}

/// The components of a manifest.
#[derive(Clone)]
pub struct Context {
    /// Tells commit times and mints ids.
    pub clock: Clock,
    /// Makes ids unique.
    pub rng: Rng,
    /// Called at the named points of [`crash`].
    pub crash: CrashPoint,
    /// Counts what is checked.
    pub invariants: Arc<Invariants>,
}

impl Context {
    /// A real context with this clock.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            rng: system_rng(),
            crash: crash::none(),
            invariants: Arc::default(),
        }
    }

    /// Counts the invariant that a failed operation found broken. Not where it is found:
    /// what contradicts itself there may be a ghost, or swept meanwhile, and a second look
    /// finds it in order.
    pub(crate) fn note<T>(
        &self,
        mut outcome: Result<T, ManifestError>,
    ) -> Result<T, ManifestError> {
        if let Err(ManifestError::Corrupt { broken, .. }) = &mut outcome
            && let Some(invariant) = broken.take()
        {
            self.invariants.violated(invariant);
        }
        outcome
    }

    /// Judges a rule of what was read; see [`Context::note`].
    pub(crate) fn expect(
        &self,
        invariant: Invariant,
        holds: bool,
        key: &str,
        message: impl FnOnce() -> String,
    ) -> Result<(), ManifestError> {
        self.invariants.checked(invariant);
        match holds {
            true => Ok(()),
            false => Err(ManifestError::Corrupt {
                key: key.to_owned(),
                message: message(),
                broken: Some(invariant),
            }),
        }
    }
}
