//! The probe against backends that lie in one way each.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::directory::Directory;
use crate::store::{Backend, Listed};
use crate::{Fault, Faults, Op, Rule, StoreErrorKind};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Lie {
    CreateOverwrites,
    CreateClaimsSuccess,
    SwapIgnoresTag,
    NoTags,
    WinnerIsForgotten,
}

struct Liar {
    inner: Directory,
    lie: Lie,
}

#[async_trait]
impl Backend for Liar {
    fn describe(&self) -> String {
        "liar".into()
    }

    fn ranges_per_call(&self) -> usize {
        1
    }

    fn local_path(&self, _key: &str) -> Option<PathBuf> {
        None
    }

    async fn get(&self, key: &str) -> Result<(Bytes, Tag), StoreError> {
        let (body, tag) = self.inner.get(key).await?;
        Ok((
            body,
            if self.lie == Lie::NoTags {
                Tag(String::new())
            } else {
                tag
            },
        ))
    }

    async fn ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        self.inner.ranges(key, ranges).await
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.inner.size(key).await
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Created, StoreError> {
        match self.lie {
            Lie::CreateOverwrites => {
                self.inner.put(key, body).await?;
                Ok(Created::Created)
            }
            Lie::CreateClaimsSuccess => {
                self.inner.create(key, body).await.map(|_| Created::Created)
            }
            Lie::WinnerIsForgotten => {
                let created = self.inner.create(key, body).await?;
                self.inner.put(key, "somebody else's".into()).await?;
                Ok(created)
            }
            _ => self.inner.create(key, body).await,
        }
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<&Tag>,
        body: Bytes,
    ) -> Result<Swapped, StoreError> {
        if self.lie == Lie::SwapIgnoresTag && expected.is_some() {
            self.inner.put(key, body).await?;
            return Ok(Swapped::Swapped(Tag("any".into())));
        }
        self.inner.swap(key, expected, body).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.inner.put(key, body).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError> {
        self.inner.put_file(key, path).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn should_refuse_each_lie_by_its_name() {
    let lies = [
        (Lie::CreateOverwrites, "create-only writes won"),
        (Lie::CreateClaimsSuccess, "create-only writes won"),
        (Lie::SwapIgnoresTag, "If-Match is ignored"),
        (Lie::NoTags, "no ETag"),
        (Lie::WinnerIsForgotten, "another body than the winner's"),
    ];
    for (lie, reason) in lies {
        let directory = tempfile::tempdir().unwrap();
        let inner = Directory::open(directory.path()).unwrap();
        let store = Store::over(Arc::new(Liar { inner, lie }), Arc::default());
        let error = store.probe().await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Refused, "{lie:?}");
        assert!(error.message.contains(reason), "{lie:?}: {error}");
        assert_eq!(store.list("").await.unwrap(), []);
    }
}

#[tokio::test]
async fn should_pass_an_honest_store_that_loses_replies() {
    let faults = [
        Fault::FailBefore,
        Fault::FailAfter,
        Fault::TakenBefore,
        Fault::TakenAfter,
    ];
    for fault in faults {
        let directory = tempfile::tempdir().unwrap();
        // All contenders of the first race.
        let rules = [Rule {
            times: 4,
            ..Rule::nth(Op::Create, "race-0", 1, fault.clone())
        }];
        let store = Store::directory(directory.path())
            .unwrap()
            .with_faults(Faults::scripted(rules));
        store
            .probe()
            .await
            .unwrap_or_else(|e| panic!("{fault:?}: {e}"));
    }
}
