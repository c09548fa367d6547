//! What callers see when the store fails, lies or loses replies.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict
#![allow(clippy::single_range_in_vec_init)] // one range is a list of ranges here

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::directory;
use vexlake_store::{Created, Fault, Faults, Op, Rule, StoreErrorKind, Swapped};

fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn should_repeat_reads_and_plain_writes_until_they_succeed() {
    let rules = [Op::Put, Op::Get, Op::Ranges, Op::Size, Op::List, Op::Delete].map(|op| Rule {
        times: 3,
        ..Rule::nth(op, "k", 1, Fault::FailBefore)
    });
    let subject = directory();
    let store = subject.store.clone().with_faults(Faults::scripted(rules));
    store.put("k/a", body("abc")).await.unwrap();
    assert_eq!(store.get("k/a").await.unwrap(), "abc");
    assert_eq!(store.get_ranges("k/a", &[1..2]).await.unwrap(), ["b"]);
    assert_eq!(store.size("k/a").await.unwrap(), Some(3));
    assert_eq!(store.list("k").await.unwrap().len(), 1);
    store.delete("k/a").await.unwrap();
    let usage = store.usage();
    assert_eq!((usage.retries, usage.errors), (18, 18));
}

#[tokio::test]
async fn should_give_up_after_its_attempts_and_say_why() {
    let subject = directory();
    let store = subject
        .store
        .clone()
        .with_faults(Faults::scripted([Rule::every(
            Op::Get,
            "",
            Fault::FailBefore,
        )]));
    let error = store.get("a").await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    assert_eq!(store.usage().gets, u64::from(store.patience().attempts_max));
}

#[tokio::test]
async fn should_not_repeat_what_was_refused() {
    let subject = directory();
    let store = subject
        .store
        .clone()
        .with_faults(Faults::scripted([Rule::every(Op::Get, "", Fault::Refuse)]));
    assert_eq!(
        store.get("a").await.unwrap_err().kind,
        StoreErrorKind::Refused
    );
    assert_eq!(store.usage().gets, 1);
}

#[tokio::test]
async fn should_send_conditional_writes_once_and_leave_them_in_doubt() {
    let subject = directory();
    for (fault, applied) in [(Fault::FailBefore, false), (Fault::FailAfter, true)] {
        let rules = [Op::Create, Op::Swap].map(|op| Rule::every(op, "", fault.clone()));
        let store = subject.store.clone().with_faults(Faults::scripted(rules));
        let before = store.usage();
        let key = format!("slot/{applied}");
        let error = store.create(&key, body("x")).await.unwrap_err();
        assert!(error.doubt, "{error}");
        let head = format!("HEAD.{applied}");
        assert!(store.swap(&head, None, body("x")).await.unwrap_err().doubt);
        let usage = store.usage();
        assert_eq!(
            (usage.creates - before.creates, usage.swaps - before.swaps),
            (1, 1)
        );
        assert_eq!(store.size(&key).await.unwrap().is_some(), applied);
        assert_eq!(store.size(&head).await.unwrap().is_some(), applied);
    }
}

#[tokio::test]
async fn should_report_taken_without_proof_as_real_clients_do() {
    let rules = [
        Rule::nth(Op::Create, "s", 1, Fault::TakenBefore),
        Rule::nth(Op::Create, "s", 2, Fault::TakenAfter),
        Rule::nth(Op::Swap, "s", 1, Fault::TakenAfter),
    ];
    let subject = directory();
    let store = subject.store.clone().with_faults(Faults::scripted(rules));
    assert_eq!(store.create("s", body("1")).await.unwrap(), Created::Exists);
    assert_eq!(store.size("s").await.unwrap(), None);
    assert_eq!(store.create("s", body("2")).await.unwrap(), Created::Exists);
    let (found, tag) = store.get_tagged("s").await.unwrap().unwrap();
    assert_eq!(found, "2");
    assert_eq!(
        store.swap("s", Some(&tag), body("3")).await.unwrap(),
        Swapped::Lost
    );
    assert_eq!(store.get("s").await.unwrap(), "3");
}

#[tokio::test]
async fn should_repeat_short_ranges_and_call_them_corrupt_if_they_stay_short() {
    let faults = Faults::scripted([Rule::nth(Op::Ranges, "", 1, Fault::Truncate(1))]);
    let subject = directory();
    let store = subject.store.clone().with_faults(Arc::clone(&faults));
    store.put("a", body("0123456789")).await.unwrap();
    assert_eq!(store.get_ranges("a", &[2..5]).await.unwrap(), ["234"]);
    faults.add(Rule::every(Op::Ranges, "", Fault::Truncate(1)));
    assert_eq!(
        store.get_ranges("a", &[2..5]).await.unwrap_err().kind,
        StoreErrorKind::Corrupt
    );
    faults.clear();
    // Right length, wrong bytes: only the caller's checksums can see that.
    faults.add(Rule::every(Op::Ranges, "", Fault::WrongRange));
    assert_eq!(store.get_ranges("a", &[2..5]).await.unwrap(), ["123"]);
}

#[tokio::test]
async fn should_strike_the_same_calls_for_the_same_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let subject = directory();
        let store = subject.store.clone().with_faults(Faults::random(7, 300));
        let mut outcomes = Vec::new();
        for i in 0..50 {
            outcomes.push(format!(
                "{:?}",
                store
                    .create(&format!("k{i}"), body("x"))
                    .await
                    .map_err(|e| e.message)
            ));
        }
        runs.push(outcomes);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].iter().any(|o| o.contains("injected")));
    assert!(runs[0].iter().any(|o| o.contains("Ok(Created)")));
}
