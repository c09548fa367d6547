//! The start-up probe: does this store really do what commits rest on?
//!
//! Under a fresh prefix, 4 contenders race to create one key, then to swap it; each
//! race must have exactly one winner, whose body is what a read returns. Then the
//! conditions one by one: a second create, a stale swap, a swap of nothing, a read
//! right after a delete. A store that ignores conditions (s3rver 3.7.1 does) lets
//! everyone win and is refused before it can lose a commit.
//!
//! Unlike elsewhere, no fault is excused: a race that ends in doubt is settled by
//! reading, and run again under another key where nobody won.

use bytes::Bytes;
use futures::future::join_all;

use crate::StoreError;
use crate::store::{Created, Store, Swapped, Tag};

/// Enough to overlap in any server; SeaweedFS answers 4 contended writers within 2 s
/// at p99, 8 within 5 s.
const CONTENDERS: usize = 4;
/// A race without a winner (every reply lost, or a 409 to all) is run again.
const RACES_MAX: usize = 5;

impl Store {
    /// Checks create-if-absent, compare-and-swap and read-after-write by racing them;
    /// refuses with the reason. Takes ~15 requests and removes what it wrote.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let id = getrandom::u64()
            .map_err(|e| StoreError::refused("probe", format!("no randomness: {e}")))?;
        let probe = self.scoped(&format!("probe/{id:016x}"));
        let verdict = run(&probe).await;
        let keys = (0..RACES_MAX).map(|race| format!("race-{race}"));
        let cleaned = join_all(keys.map(|key| {
            let probe = probe.clone();
            async move { probe.delete(&key).await }
        }));
        let cleaned: Result<Vec<()>, StoreError> = cleaned.await.into_iter().collect();
        verdict?;
        cleaned.map(drop)
    }
}

async fn run(probe: &Store) -> Result<(), StoreError> {
    for race in 0..RACES_MAX {
        let key = format!("race-{race}");
        let Some(body) = race_create(probe, &key).await? else {
            continue;
        };
        check_conditions(probe, &key).await?;
        if race_swap(probe, &key, body).await? {
            return check_delete(probe, &key).await;
        }
    }
    Err(StoreError::unavailable(
        probe.describe(),
        format!("no winner in {RACES_MAX} races"),
    ))
}

/// Answers the winner's body; `None` where nobody won.
async fn race_create(probe: &Store, key: &str) -> Result<Option<Bytes>, StoreError> {
    let creates = join_all((0..CONTENDERS).map(|i| probe.create(key, body("create", i))));
    let outcomes = settle(creates.await)?;
    let won = winners(&outcomes, |created| *created == Created::Created);
    if won.len() > 1 {
        let reason = format!(
            "{} of {CONTENDERS} concurrent create-only writes won: conditions are ignored",
            won.len()
        );
        return Err(StoreError::refused(probe.describe(), reason));
    }
    let Some((found, _)) = probe.get_tagged(key).await? else {
        return match won.first() {
            Some(_) => Err(StoreError::refused(
                probe.describe(),
                "an object just created cannot be read",
            )),
            None => Ok(None),
        };
    };
    check_winner(probe, "create", &won, &outcomes, &found)?;
    Ok(Some(found))
}

/// Answers whether somebody won.
async fn race_swap(probe: &Store, key: &str, before: Bytes) -> Result<bool, StoreError> {
    let tag = tag_of(probe, key).await?;
    let swaps = join_all((0..CONTENDERS).map(|i| probe.swap(key, Some(&tag), body("swap", i))));
    let outcomes = settle(swaps.await)?;
    let won = winners(&outcomes, |swapped| matches!(swapped, Swapped::Swapped(_)));
    if won.len() > 1 {
        let reason = format!(
            "{} of {CONTENDERS} concurrent swaps won: If-Match is ignored",
            won.len()
        );
        return Err(StoreError::refused(probe.describe(), reason));
    }
    let found = probe.get(key).await?;
    if won.is_empty() && found == before {
        return Ok(false);
    }
    check_winner(probe, "swap", &won, &outcomes, &found)?;
    let stale = probe.swap(key, Some(&tag), body("stale", 0)).await?;
    refuse_unless(
        probe,
        stale == Swapped::Lost,
        "a swap with a stale tag won: If-Match is ignored",
    )?;
    Ok(true)
}

async fn check_conditions(probe: &Store, key: &str) -> Result<(), StoreError> {
    let again = probe.create(key, body("again", 0)).await?;
    refuse_unless(
        probe,
        again == Created::Exists,
        "a create-only write replaced an object",
    )?;
    let absent = probe.swap(key, None, body("absent", 0)).await?;
    refuse_unless(
        probe,
        absent == Swapped::Lost,
        "a swap that expected nothing replaced an object",
    )
}

async fn check_delete(probe: &Store, key: &str) -> Result<(), StoreError> {
    let tag = tag_of(probe, key).await?;
    probe.delete(key).await?;
    let gone = probe.get_tagged(key).await?.is_none();
    refuse_unless(probe, gone, "an object just deleted can be read")?;
    let ghost = probe.swap(key, Some(&tag), body("ghost", 0)).await?;
    refuse_unless(
        probe,
        ghost == Swapped::Lost,
        "a swap of a deleted object won",
    )
}

async fn tag_of(probe: &Store, key: &str) -> Result<Tag, StoreError> {
    let Some((_, tag)) = probe.get_tagged(key).await? else {
        return Err(StoreError::refused(
            probe.describe(),
            "an object written before cannot be read",
        ));
    };
    refuse_unless(
        probe,
        !tag.0.is_empty(),
        "the store sends no ETag, so nothing can be compared",
    )?;
    Ok(tag)
}

/// Keeps doubt as `None`; any other failure ends the probe.
fn settle<T>(outcomes: Vec<Result<T, StoreError>>) -> Result<Vec<Option<T>>, StoreError> {
    let settled = outcomes.into_iter().map(|outcome| match outcome {
        Ok(outcome) => Ok(Some(outcome)),
        Err(error) if error.doubt || error.retriable => Ok(None),
        Err(error) => Err(error),
    });
    settled.collect()
}

fn winners<T>(outcomes: &[Option<T>], won: impl Fn(&T) -> bool) -> Vec<usize> {
    let won = outcomes
        .iter()
        .enumerate()
        .filter(|(_, outcome)| outcome.as_ref().is_some_and(&won));
    won.map(|(i, _)| i).collect()
}

/// What is read is the winner's body, or, where the winner's reply was lost, the body
/// of some contender.
fn check_winner<T>(
    probe: &Store,
    what: &str,
    won: &[usize],
    outcomes: &[Option<T>],
    found: &Bytes,
) -> Result<(), StoreError> {
    let owner = (0..outcomes.len()).find(|&i| body(what, i) == *found);
    let right = match (won.first(), owner) {
        (Some(winner), Some(owner)) => *winner == owner,
        (None, Some(_)) => true,
        (_, None) => false,
    };
    refuse_unless(
        probe,
        right,
        &format!("a read after a {what} race returned another body than the winner's"),
    )
}

fn refuse_unless(probe: &Store, right: bool, reason: &str) -> Result<(), StoreError> {
    if right {
        Ok(())
    } else {
        Err(StoreError::refused(probe.describe(), reason))
    }
}

fn body(what: &str, contender: usize) -> Bytes {
    format!("vexlake probe: {what} {contender}").into()
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
